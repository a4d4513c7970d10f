//! JSON columns.

use metrics::counter;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::types::Json;
use sqlx::{Decode, Postgres, Type};
use tracing::error;
use uuid::Uuid;

use crate::domain::JsonObject;
use crate::telemetry::metric;

/// A JSON object as a row has it. `jsonb` holds what no reader of ours takes, such as a number beyond all doubles; the
/// tables' limits refuse that. If some is there all the same, reading it is no reason to lose the row, and with it all rows
/// that come after it in the log.
#[derive(Debug)]
pub(super) struct Document(Result<JsonObject, BoxDynError>);

impl Document {
    /// Empty where it cannot be read, which is logged. `id`: of the row that it is of.
    pub(super) fn object(self, column: &'static str, id: Uuid) -> JsonObject {
        self.0.unwrap_or_else(|error| {
            counter!(metric::UNREADABLE_VALUES).increment(1);
            error!(column, %id, error = &*error as &dyn std::error::Error, "a value cannot be read, and is shown as {{}}");
            JsonObject::new()
        })
    }
}

/// The same of a column that may be null: nothing is in it then.
pub(super) fn object(document: Option<Document>, column: &'static str, id: Uuid) -> JsonObject {
    document.map(|document| document.object(column, id)).unwrap_or_default()
}

impl Type<Postgres> for Document {
    fn type_info() -> PgTypeInfo {
        Json::<JsonObject>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Document {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(Json::<JsonObject>::decode(value).map(|json| json.0)))
    }
}
