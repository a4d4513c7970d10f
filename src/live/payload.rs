//! Responses as bytes.

use async_graphql::{Response, ServerError};
use bytes::Bytes;
use serde::Serialize;

use crate::domain::Cursor;

/// A result of a subscription, with its cursor: written once, whoever gets it.
pub fn result_json(response: &Response, cursor: Cursor) -> Bytes {
    let mut json = Vec::with_capacity(256);
    json.push(b'{');
    if !response.errors.is_empty() {
        json.extend_from_slice(b"\"errors\":");
        write(&mut json, &response.errors);
        json.push(b',');
    }
    json.extend_from_slice(b"\"data\":");
    write(&mut json, &response.data);
    json.extend_from_slice(b",\"extensions\":{\"cursor\":\"");
    json.extend_from_slice(cursor.encode().as_bytes());
    json.extend_from_slice(b"\"}}");
    json.into()
}

/// The response of a query or a mutation.
pub fn response_json(response: &Response) -> Bytes {
    let mut json = Vec::with_capacity(256);
    write(&mut json, response);
    json.into()
}

/// The payload of an `error` message.
pub fn errors_json(errors: &[ServerError]) -> Bytes {
    let mut json = Vec::with_capacity(256);
    write(&mut json, &errors);
    json.into()
}

/// Writes into memory what has string keys only, neither of which can fail.
fn write<T: Serialize>(json: &mut Vec<u8>, value: &T) {
    if let Err(error) = serde_json::to_writer(json, value) {
        unreachable!("a response is JSON: {error}");
    }
}
