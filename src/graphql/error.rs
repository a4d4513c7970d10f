//! The one place that turns errors into codes.
//!
//! Resolvers return the errors of the modules that they call; here each gets its code, the field at fault, and a time. What
//! comes without one of them is the library's own: an error of the request.

use std::sync::Arc;

use async_graphql::{Context, Error, ErrorExtensionValues, ServerError};
use tracing::error;
use uuid::Uuid;

use super::scalar;
use crate::clock::Clock;
use crate::domain::{InvalidInput, PageError};
use crate::events::SecondRootField;
use crate::store::StoreError;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    GraphqlParseFailed,
    GraphqlValidationFailed,
    BadUserInput,
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

/// Gives an error its code and its time. One that has a code already is left as it is.
pub(super) fn finish(failed: &mut ServerError, clock: &Clock, library: Code) {
    if failed.extensions.as_ref().is_some_and(|extensions| extensions.get("code").is_some()) {
        return;
    }
    let mut field = None;
    let mut id = None;
    let code = if let Some(store) = failed.source::<StoreError>() {
        match store {
            StoreError::Invalid(invalid) => {
                field = Some(invalid.field.clone());
                Code::BadUserInput
            }
            StoreError::InvalidTransition(_) => Code::InvalidStateTransition,
            StoreError::Conflict(_) => Code::Conflict,
            StoreError::Unavailable(_) => Code::DatabaseUnavailable,
            StoreError::Decode { .. } | StoreError::Unexpected(_) => {
                let error_id = Uuid::new_v4();
                error!(%error_id, error = store as &dyn std::error::Error, "a request failed");
                id = Some(error_id);
                Code::InternalServerError
            }
        }
    } else if let Some(invalid) = failed.source::<InvalidInput>() {
        field = Some(invalid.field.clone());
        Code::BadUserInput
    } else if let Some(page) = failed.source::<PageError>() {
        field = Some(page.field().to_owned());
        Code::BadUserInput
    } else if failed.source::<NotFound>().is_some() {
        Code::NotFound
    } else if failed.source::<SecondRootField>().is_some() {
        Code::GraphqlValidationFailed
    } else if failed.source::<Internal>().is_some() {
        let error_id = Uuid::new_v4();
        error!(%error_id, message = failed.message, "a request failed");
        id = Some(error_id);
        Code::InternalServerError
    } else {
        library
    };
    if code == Code::InternalServerError {
        failed.message = Internal.to_string();
    }
    let extensions = failed.extensions.get_or_insert_with(ErrorExtensionValues::default);
    extensions.set("code", code.as_str());
    extensions.set("timestamp", scalar::print(clock.now()));
    if let Some(field) = field {
        extensions.set("field", field);
    }
    if let Some(id) = id {
        extensions.set("id", id.to_string());
    }
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
