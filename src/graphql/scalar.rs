//! Scalars of the contract that the library has not, or prints in another way.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::SecondsFormat;

use crate::domain::{JsonObject, Timestamp};

/// RFC 3339, UTC, microseconds: 2025-11-12T20:30:45.123456Z
#[derive(Debug, Clone, Copy)]
pub struct DateTime(pub Timestamp);

#[Scalar]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Ok(Self(chrono::DateTime::parse_from_rfc3339(text)?.to_utc()))
    }

    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(print(self.0))
    }
}

impl From<Timestamp> for DateTime {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

/// The one form in which an instant is printed.
pub fn print(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A JSON object
#[derive(Debug, Clone, Default)]
pub struct Map(pub JsonObject);

#[Scalar]
impl ScalarType for Map {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value.into_json() {
            Ok(serde_json::Value::Object(object)) => Ok(Self(object)),
            Ok(other) => Err(InputValueError::custom(format!("{other} is no object"))),
            Err(error) => Err(error.into()),
        }
    }

    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::Object(_))
    }

    fn to_value(&self) -> Value {
        // an object of JSON is one of GraphQL: nothing of it can fail to convert
        Value::from_json(serde_json::Value::Object(self.0.clone())).unwrap_or_default()
    }
}
