//! Scalars of the contract that the library has not, or prints in another way.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::SecondsFormat;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::domain::{JsonObject, Timestamp};

/// A universally unique identifier (RFC 9562): f81d4fae-7dec-11d0-a765-00a0c91e6bf6
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub Uuid);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?.parse();
        id.map(Self).map_err(|_| serde::de::Error::custom("must be a UUID"))
    }
}

/// A universally unique identifier (RFC 9562): f81d4fae-7dec-11d0-a765-00a0c91e6bf6
#[Scalar(name = "UUID", specified_by_url = "https://www.rfc-editor.org/rfc/rfc9562")]
impl ScalarType for Id {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Ok(Self(text.parse()?))
    }

    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if text.parse::<Uuid>().is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

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

impl<'de> Deserialize<'de> for DateTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match chrono::DateTime::parse_from_rfc3339(&text) {
            Ok(at) => Ok(Self(at.to_utc())),
            Err(_) => Err(serde::de::Error::custom("must be an instant as RFC 3339 writes it")),
        }
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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
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
