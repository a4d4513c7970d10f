//! Problem details (RFC 9457), with the members that our errors have everywhere.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder, ResponsesBuilder};
use utoipa::{IntoResponses, ToSchema};
use uuid::Uuid;

use super::AppState;
use super::json::Malformed;
use crate::auth::TooFast;
use crate::domain::{Forbidden, InvalidInput, PageError};
use crate::graphql::{Code, NotFound, Refusal, milliseconds, print_instant};
use crate::store::{IntakeError, StoreError};

/// RFC 9457, section 3.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds; what was too much at a time is not for long.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error that is no GraphQL response. Its time is set on the way out.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    refusal: Refusal,
}

/// Why a request was not carried out (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    /// The status of the response.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// For people.
    detail: &'a str,
    /// For programs, such as `BAD_USER_INPUT`, `NOT_FOUND` or `CONFLICT`.
    code: &'a str,
    /// The member or parameter at fault, where one is: `title`, `[3].labels`, `first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    field: Option<&'a str>,
    /// Of what was too much at a time: after so many milliseconds there may be more.
    #[serde(rename = "retryAfterMs", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false)]
    retry_after_ms: Option<u64>,
    /// Of what is too many: how many there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u32, required = false)]
    limit: Option<u32>,
    /// Names an internal error, in the service's log too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    id: Option<Uuid>,
    /// RFC 3339, UTC, microseconds.
    #[schema(format = DateTime)]
    timestamp: &'a str,
}

impl Problem {
    pub fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self::of(status, Refusal::new(code, detail))
    }

    /// With another status than that of the code.
    pub fn of(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }

    /// Has another status from now on.
    pub fn answer_with(&mut self, status: StatusCode) {
        self.status = status;
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { status: status_of(refusal.code), refusal }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self { field: malformed.field, ..Self::new(Code::BadUserInput, malformed.detail) }
    }
}

macro_rules! problems {
    ($($error:ty),*) => {$(
        impl From<$error> for Problem {
            fn from(failed: $error) -> Self {
                Refusal::from(&failed).into()
            }
        }
    )*};
}

problems!(StoreError, IntakeError, TooFast, Forbidden, InvalidInput, PageError, NotFound);

/// What every operation that can fail says in its description.
impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let described = |description: &str| {
            let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(Body::name()))).build();
            ResponseBuilder::new().description(description).content(MEDIA_TYPE, body)
        };
        ResponsesBuilder::new()
            .response("4XX", described("Refused: the request is at fault, or stands against what is there"))
            .response("5XX", described("Not done: the service is at fault, or its database away"))
            .build()
            .into()
    }
}

/// The status of a code that no transport has another for.
const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::GraphqlParseFailed | Code::GraphqlValidationFailed | Code::BadUserInput => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Conflict | Code::InvalidStateTransition => StatusCode::CONFLICT,
        Code::CursorExpired => StatusCode::GONE,
        Code::RateLimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        Code::DatabaseUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// In whole seconds.
pub fn retry_after(refusal: &Refusal) -> HeaderValue {
    refusal.retry_after.map_or(RETRY_AFTER, |wait| milliseconds(wait).div_ceil(1000).max(1).into())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if self.refusal.code == Code::RateLimitExceeded {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(&self.refusal));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of a [`Problem`].
pub async fn stamp(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let body = Body {
        r#type: "about:blank",
        title: problem.status.canonical_reason().unwrap_or("Error"),
        status: problem.status.as_u16(),
        detail: &problem.refusal.message,
        code: problem.refusal.code.as_str(),
        field: problem.refusal.field.as_deref(),
        retry_after_ms: problem.refusal.retry_after.map(milliseconds),
        limit: problem.refusal.limit,
        id: problem.refusal.id,
        timestamp: &print_instant(state.clock.now()),
    };
    let mut stamped = (problem.status, Json(body)).into_response();
    stamped.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            stamped.headers_mut().append(name.clone(), value.clone());
        }
    }
    stamped
}
