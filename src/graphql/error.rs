//! The one place that turns errors into codes.
//!
//! Resolvers return the errors of the modules that they call; here each gets its code, the field at fault, and a time. What
//! comes without one of them is the library's own: an error of the request.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Context, Error, ErrorExtensionValues, ServerError};
use tracing::error;
use uuid::Uuid;

use super::api_key::BeyondOwn;
use super::scalar;
use crate::auth::{Denied, TooFast};
use crate::clock::Clock;
use crate::domain::{Forbidden, InvalidInput, PageError};
use crate::events::SecondRootField;
use crate::store::{IntakeError, StoreError};

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    GraphqlParseFailed,
    GraphqlValidationFailed,
    BadUserInput,
    Unauthorized,
    Forbidden,
    RateLimitExceeded,
    NotFound,
    Conflict,
    InvalidStateTransition,
    CursorExpired,
    DatabaseUnavailable,
    InternalServerError,
}

impl Code {
    /// As it is in `extensions.code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GraphqlParseFailed => "GRAPHQL_PARSE_FAILED",
            Self::GraphqlValidationFailed => "GRAPHQL_VALIDATION_FAILED",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::RateLimitExceeded => "RATE_LIMIT_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::InvalidStateTransition => "INVALID_STATE_TRANSITION",
            Self::CursorExpired => "CURSOR_EXPIRED",
            Self::DatabaseUnavailable => "DATABASE_UNAVAILABLE",
            Self::InternalServerError => "INTERNAL_SERVER_ERROR",
        }
    }
}

/// There is nothing of that kind with this id.
#[derive(Debug, thiserror::Error)]
#[error("there is no {kind} {id}")]
pub struct NotFound {
    pub kind: &'static str,
    pub id: Uuid,
}

/// The server did not do what it should; says nothing more.
#[derive(Debug, thiserror::Error)]
#[error("internal server error")]
pub struct Internal;

/// What is told of an error, over whichever protocol.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: Code,
    /// For people; of an internal error nothing more than that it is one.
    pub message: String,
    /// The input at fault.
    pub field: Option<String>,
    /// Names the error in the log too.
    pub id: Option<Uuid>,
    /// Of what was too much at a time: after how long there may be more.
    pub retry_after: Option<Duration>,
    /// Of what is too many: how many there may be.
    pub limit: Option<u32>,
    /// Of a stream that cannot be resumed: from where on it can.
    pub oldest_cursor: Option<Box<str>>,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            id: None,
            retry_after: None,
            limit: None,
            oldest_cursor: None,
        }
    }

    /// There are as many open as there may be at a time.
    pub fn beyond(limit: usize, message: impl Into<String>) -> Self {
        let limit = Some(u32::try_from(limit).unwrap_or(u32::MAX));
        Self { limit, ..Self::new(Code::RateLimitExceeded, message) }
    }

    /// The same of a part of the input: its field is that part's.
    #[must_use]
    pub fn within(self, part: &str) -> Self {
        Self { field: self.field.map(|field| format!("{part}.{field}")), ..self }
    }

    /// An error that is the server's own: it is logged here, and nobody is told more than its id.
    pub fn internal(failed: &(dyn std::error::Error + 'static)) -> Self {
        let id = Uuid::new_v4();
        error!(error_id = %id, error = failed, "a request failed");
        Self { id: Some(id), ..Self::new(Code::InternalServerError, Internal.to_string()) }
    }

    /// A value that cannot be.
    pub fn of_input(field: impl Into<String>, failed: &impl ToString) -> Self {
        Self { field: Some(field.into()), ..Self::new(Code::BadUserInput, failed.to_string()) }
    }
}

impl From<&StoreError> for Refusal {
    fn from(failed: &StoreError) -> Self {
        let code = match failed {
            StoreError::Invalid(invalid) => return Self::from(invalid),
            StoreError::InvalidTransition(_) => Code::InvalidStateTransition,
            StoreError::Conflict(_) => Code::Conflict,
            StoreError::Unavailable(_) => Code::DatabaseUnavailable,
            StoreError::Decode { .. } | StoreError::Unexpected(_) => return Self::internal(failed),
        };
        Self::new(code, failed.to_string())
    }
}

impl From<&IntakeError> for Refusal {
    fn from(failed: &IntakeError) -> Self {
        match failed {
            IntakeError::Full => Self::new(Code::RateLimitExceeded, failed.to_string()),
            IntakeError::Lost => Self::internal(failed),
            IntakeError::Store(store) => Self::from(&**store),
        }
    }
}

impl From<&TooFast> for Refusal {
    fn from(failed: &TooFast) -> Self {
        Self { retry_after: Some(failed.wait), ..Self::new(Code::RateLimitExceeded, failed.to_string()) }
    }
}

impl From<&InvalidInput> for Refusal {
    fn from(failed: &InvalidInput) -> Self {
        Self::of_input(&failed.field, failed)
    }
}

impl From<&PageError> for Refusal {
    fn from(failed: &PageError) -> Self {
        Self::of_input(failed.field(), failed)
    }
}

impl From<&Forbidden> for Refusal {
    fn from(failed: &Forbidden) -> Self {
        let field = match failed {
            Forbidden::Permission(_) => None,
            Forbidden::Source(_) => Some("source".to_owned()),
        };
        Self { field, ..Self::new(Code::Forbidden, failed.to_string()) }
    }
}

impl From<&NotFound> for Refusal {
    fn from(failed: &NotFound) -> Self {
        Self::new(Code::NotFound, failed.to_string())
    }
}

impl From<&BeyondOwn> for Refusal {
    fn from(failed: &BeyondOwn) -> Self {
        Self::new(Code::Forbidden, failed.to_string())
    }
}

impl From<&Denied> for Refusal {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Missing | Denied::Invalid(_) => Self::new(Code::Unauthorized, denied.to_string()),
            Denied::Database(failed) => Self::from(&**failed),
            Denied::NoKeys => Self::internal(denied),
        }
    }
}

impl From<&SecondRootField> for Refusal {
    fn from(failed: &SecondRootField) -> Self {
        Self::new(Code::GraphqlValidationFailed, failed.to_string())
    }
}

impl From<&Internal> for Refusal {
    fn from(failed: &Internal) -> Self {
        Self::internal(failed)
    }
}

/// Gives an error its code and its time. One that has a code already is left as it is.
pub(super) fn finish(failed: &mut ServerError, clock: &Clock, library: Code) {
    if failed.extensions.as_ref().is_some_and(|extensions| extensions.get("code").is_some()) {
        return;
    }
    let told = None
        .or_else(|| failed.source::<StoreError>().map(Refusal::from))
        .or_else(|| failed.source::<IntakeError>().map(Refusal::from))
        .or_else(|| failed.source::<TooFast>().map(Refusal::from))
        .or_else(|| failed.source::<InvalidInput>().map(Refusal::from))
        .or_else(|| failed.source::<PageError>().map(Refusal::from))
        .or_else(|| failed.source::<Forbidden>().map(Refusal::from))
        .or_else(|| failed.source::<NotFound>().map(Refusal::from))
        .or_else(|| failed.source::<BeyondOwn>().map(Refusal::from))
        .or_else(|| failed.source::<SecondRootField>().map(Refusal::from))
        .or_else(|| failed.source::<Internal>().map(Refusal::from))
        .unwrap_or_else(|| Refusal::new(library, &failed.message));
    tell(failed, told, clock);
}

/// Writes into an error what is told of it.
pub(super) fn tell(failed: &mut ServerError, told: Refusal, clock: &Clock) {
    failed.message = told.message;
    let extensions = failed.extensions.get_or_insert_with(ErrorExtensionValues::default);
    extensions.set("code", told.code.as_str());
    extensions.set("timestamp", scalar::print(clock.now()));
    if let Some(field) = told.field {
        extensions.set("field", field);
    }
    if let Some(id) = told.id {
        extensions.set("id", id.to_string());
    }
    if let Some(after) = told.retry_after {
        extensions.set("retryAfterMs", milliseconds(after));
    }
    if let Some(limit) = told.limit {
        extensions.set("limit", limit);
    }
    if let Some(cursor) = told.oldest_cursor {
        extensions.set("oldestCursor", &*cursor);
    }
}

/// Of a wait, in whole ones: who comes after so long does not come too early.
pub fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// An error that several fields have in common.
pub(super) fn shared(failed: Arc<StoreError>) -> Error {
    Error { message: failed.to_string(), source: Some(failed), extensions: None }
}

/// The value of a nullable field: an error is reported at its path, and nulls this field alone.
///
/// In this version of the library an `Err` of a nullable field nulls the nearest nullable field *above* it.
pub(super) fn nullable<T>(context: &Context<'_>, result: Result<Option<T>, Error>) -> Option<T> {
    result.unwrap_or_else(|failed| {
        context.add_error(context.set_error_path(failed.into_server_error(context.item.pos)));
        None
    })
}
