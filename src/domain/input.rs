//! What callers may send: limits, and the checks that name the field at fault. The tables hold the same limits for
//! writers that come by SQL.

use std::collections::BTreeMap;

use super::Timestamp;

/// A JSON object.
pub type JsonObject = serde_json::Map<String, serde_json::Value>;

/// The limits of the tables, which the service checks before it asks them.
pub mod limits {
    /// Characters of a title.
    pub const TITLE_CHARS: usize = 500;
    /// Characters of a source, an assignee, an author, a fingerprint.
    pub const NAME_CHARS: usize = 200;
    /// Characters of an API key's name, which with its prefix is an actor's.
    pub const KEY_NAME_CHARS: usize = 180;
    /// Characters of a source's own id of an alert.
    pub const EXTERNAL_ID_CHARS: usize = 500;
    /// Characters of a runbook's address.
    pub const URL_CHARS: usize = 2000;
    /// Bytes of a description, a resolution, a root cause, a comment.
    pub const TEXT_BYTES: usize = 64 << 10;
    /// Alerts of one request.
    pub const ALERTS: usize = 1000;
    /// Steps of a playbook.
    pub const STEPS: usize = 100;
    /// Bytes of a map or a list, as JSON.
    pub const JSON_BYTES: usize = 16 << 10;
    /// Objects and lists within each other, the outermost included.
    pub const JSON_DEPTH: usize = 32;
}

/// Something that a caller sent and that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidInput {
    /// The field at fault, by its GraphQL name.
    pub field: String,
    /// What is wrong with it; reads on from the field's name.
    pub problem: String,
}

impl InvalidInput {
    /// `problem` reads on from the field's name: "must not be empty".
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// A text of 1 to `max` characters that PostgreSQL can hold.
pub fn text(field: &str, value: &str, max: usize) -> Result<(), InvalidInput> {
    if value.is_empty() {
        return Err(InvalidInput::new(field, "must not be empty"));
    }
    // bytes are at least characters: counts only what may be too long
    if value.len() > max && value.chars().count() > max {
        return Err(InvalidInput::new(field, format!("is longer than {max} characters")));
    }
    no_nul(field, value)
}

/// A text, where there is one, of 1 to `max` characters.
pub fn optional_text(field: &str, value: Option<&str>, max: usize) -> Result<(), InvalidInput> {
    value.map_or(Ok(()), |value| text(field, value, max))
}

/// A text, perhaps empty, of at most `max` bytes.
pub fn text_bytes(field: &str, value: &str, max: usize) -> Result<(), InvalidInput> {
    if value.len() > max {
        return Err(InvalidInput::new(field, format!("is longer than {max} bytes")));
    }
    no_nul(field, value)
}

/// A list of texts of at most [`limits::JSON_BYTES`] in all.
pub fn text_list(field: &str, values: &[String]) -> Result<(), InvalidInput> {
    for value in values {
        no_nul(field, value)?;
    }
    json_size(field, values, 0)
}

/// Labels of at most [`limits::JSON_BYTES`] in all, as PostgreSQL prints them: with a space after each colon and comma.
pub(super) fn label_size(field: &str, labels: &BTreeMap<String, String>) -> Result<(), InvalidInput> {
    for (key, value) in labels {
        no_nul(field, key)?;
        no_nul(field, value)?;
    }
    json_size(field, labels, (labels.len() * 2).saturating_sub(1))
}

/// Reads labels or annotations: an object whose values are strings.
pub fn string_map(field: &str, object: JsonObject) -> Result<BTreeMap<String, String>, InvalidInput> {
    object
        .into_iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(value) => Ok((key, value)),
            _ => Err(InvalidInput::new(field, format!("has a value that is no string, at {key:?}"))),
        })
        .collect()
}

/// An object that PostgreSQL's `jsonb` can hold, of at most [`limits::JSON_BYTES`] and [`limits::JSON_DEPTH`].
pub fn object(field: &str, object: &JsonObject) -> Result<(), InvalidInput> {
    json_size(field, object, 0)?;
    json_members(field, object, limits::JSON_DEPTH)
}

fn json_members(field: &str, members: &JsonObject, depth: usize) -> Result<(), InvalidInput> {
    let depth = deeper(field, depth)?;
    members.iter().try_for_each(|(key, value)| {
        no_nul(field, key)?;
        json_value(field, value, depth)
    })
}

/// `depth`: objects and lists that there may still be within each other.
fn json_value(field: &str, value: &serde_json::Value, depth: usize) -> Result<(), InvalidInput> {
    match value {
        serde_json::Value::String(text) => no_nul(field, text),
        serde_json::Value::Array(items) => {
            let depth = deeper(field, depth)?;
            items.iter().try_for_each(|item| json_value(field, item, depth))
        }
        serde_json::Value::Object(members) => json_members(field, members, depth),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Ok(()),
    }
}

fn deeper(field: &str, depth: usize) -> Result<usize, InvalidInput> {
    depth
        .checked_sub(1)
        .ok_or_else(|| InvalidInput::new(field, format!("is nested deeper than {} levels", limits::JSON_DEPTH)))
}

/// An instant that PostgreSQL can hold: years 1 to 9999, so that RFC 3339 can write it too.
pub fn instant(field: &str, value: Timestamp) -> Result<Timestamp, InvalidInput> {
    use chrono::Datelike as _;
    if (1..=9999).contains(&value.year()) {
        Ok(value)
    } else {
        Err(InvalidInput::new(field, "is outside the years 1 to 9999"))
    }
}

/// `spaces`: how many more bytes there are where the size counts than in the shortest form.
fn json_size<T: serde::Serialize + ?Sized>(field: &str, value: &T, spaces: usize) -> Result<(), InvalidInput> {
    let size = serde_json::to_vec(value).map_or(usize::MAX, |json| json.len().saturating_add(spaces));
    if size > limits::JSON_BYTES {
        return Err(InvalidInput::new(field, format!("is larger than {} bytes", limits::JSON_BYTES)));
    }
    Ok(())
}

fn no_nul(field: &str, value: &str) -> Result<(), InvalidInput> {
    if value.contains('\0') { Err(InvalidInput::new(field, "must not contain U+0000")) } else { Ok(()) }
}
