//! The client's side of graphql-transport-ws, without a socket: what is sent, what an answer means, what an end means.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::config::{Secret, WatchConfig};

/// The subprotocol's name in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "graphql-transport-ws";

/// The id of the one operation of a connection.
const OPERATION_ID: &str = "watch";

const INCIDENT_UPDATES: &str = "subscription Watch($incidentIds: [UUID!], $severities: [Severity!], \
    $updateTypes: [IncidentUpdateType!], $activeOnly: Boolean, $after: String) { \
    incidentUpdates(incidentIds: $incidentIds, severities: $severities, updateTypes: $updateTypes, activeOnly: $activeOnly, \
    after: $after) { \
    updateType incidentId timestamp cursor actor changedFields \
    incident { id title severity state incidentType source assignedTo labels createdAt updatedAt version } } }";

const ALERTS: &str = "subscription Watch($sources: [String!], $after: String) { alerts(sources: $sources, after: $after) { \
    id externalId source title severity alertType labels firing receivedAt deduplicated incident { id } } }";

/// Why the service said no, where coming back does not help.
const FINAL_CLOSE_CODES: [u16; 6] = [4400, 4401, 4403, 4406, 4409, 4429];

/// Errors that pass: the same operation may do better on the next connection.
const PASSING_ERROR_CODES: [&str; 3] = ["DATABASE_UNAVAILABLE", "INTERNAL_SERVER_ERROR", "RATE_LIMIT_EXCEEDED"];

/// What comes after the cursor is gone: the operation has to begin anew.
const EXPIRED_ERROR_CODE: &str = "CURSOR_EXPIRED";

pub fn connection_init(token: Option<&Secret>) -> String {
    match token {
        Some(token) => {
            let payload = json!({ "Authorization": format!("Bearer {}", token.expose()) });
            json!({ "type": "connection_init", "payload": payload }).to_string()
        }
        None => json!({ "type": "connection_init" }).to_string(),
    }
}

pub fn ping() -> String {
    json!({ "type": "ping" }).to_string()
}

pub fn pong() -> String {
    json!({ "type": "pong" }).to_string()
}

/// The subscription that the settings ask for, behind the last cursor that was seen.
pub fn subscribe(config: &WatchConfig, after: Option<&str>) -> String {
    // A list that was not given is no filter; an empty one would match nothing.
    fn list<T: ToString>(values: &[T]) -> Value {
        if values.is_empty() { Value::Null } else { values.iter().map(ToString::to_string).collect() }
    }
    let (query, variables) = if config.alerts {
        (ALERTS, json!({ "sources": list(&config.source), "after": after }))
    } else {
        let variables = json!({
            "incidentIds": list(&config.incident),
            "severities": list(&config.severity),
            "updateTypes": list(&config.update_type),
            "activeOnly": config.active_only,
            "after": after,
        });
        (INCIDENT_UPDATES, variables)
    };
    let payload = json!({ "query": query, "variables": variables });
    json!({ "type": "subscribe", "id": OPERATION_ID, "payload": payload }).to_string()
}

/// What a message of the service means.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// With the stream's position now.
    Acknowledged(Option<String>),
    /// With the position up to which nothing more has matched.
    Ping(Option<String>),
    Pong,
    /// A result's `data`, as it came but for line breaks between its tokens, and the stream's position after it.
    Data(String, Option<String>),
    /// Errors in place of data; the operation goes on, or is completed next.
    Errors(Vec<Failure>),
    /// The operation has ended with these.
    Refused(Vec<Failure>),
    Completed,
}

/// An error of GraphQL's.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Failure {
    pub message: String,
    #[serde(default)]
    extensions: Extensions,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct Extensions {
    code: Option<String>,
}

impl Failure {
    fn passes(&self) -> bool {
        self.extensions.code.as_deref().is_some_and(|code| PASSING_ERROR_CODES.contains(&code)) || self.is_expiry()
    }

    fn is_expiry(&self) -> bool {
        self.extensions.code.as_deref() == Some(EXPIRED_ERROR_CODE)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("the service sent what is no message")]
    Parse(#[from] serde_json::Error),
    #[error("the service sent a message of unknown type {0:?}")]
    UnknownType(String),
}

#[derive(Deserialize)]
struct Message<'a> {
    r#type: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ExecutionResult<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    errors: Vec<Failure>,
    #[serde(default)]
    extensions: Position,
}

/// Where a stream is.
#[derive(Default, Deserialize)]
struct Position {
    cursor: Option<String>,
}

/// Where the operations of a connection are.
#[derive(Default, Deserialize)]
struct Positions {
    #[serde(default)]
    cursors: HashMap<String, String>,
}

/// Reads a message of the service.
pub fn receive(text: &str) -> Result<Received, ReceiveError> {
    let message: Message = serde_json::from_str(text)?;
    let payload = message.payload.map_or("null", RawValue::get);
    Ok(match message.r#type.as_str() {
        "connection_ack" => Received::Acknowledged(
            serde_json::from_str::<Option<Position>>(payload)?.and_then(|position| position.cursor),
        ),
        "ping" => {
            let positions: Option<Positions> = serde_json::from_str(payload)?;
            Received::Ping(positions.and_then(|mut positions| positions.cursors.remove(OPERATION_ID)))
        }
        "pong" => Received::Pong,
        "next" => {
            let result: ExecutionResult = serde_json::from_str(payload)?;
            match result.data.map(RawValue::get) {
                Some(data) if data != "null" => {
                    Received::Data(data.replace(['\n', '\r'], " "), result.extensions.cursor)
                }
                _ => Received::Errors(result.errors),
            }
        }
        "error" => Received::Refused(serde_json::from_str(payload)?),
        "complete" => Received::Completed,
        unknown => return Err(ReceiveError::UnknownType(unknown.to_owned())),
    })
}

/// Whether a connection that ended is worth making again, and why it ended.
#[derive(Debug, PartialEq)]
pub enum End {
    Again(String),
    /// The same, but not behind the last cursor: it is gone.
    Expired(String),
    Final(String),
}

/// An operation that ended with errors.
pub fn after_errors(errors: &[Failure]) -> End {
    let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    let reason = messages.join("; ");
    if errors.is_empty() || !errors.iter().all(Failure::passes) {
        End::Final(reason)
    } else if errors.iter().any(Failure::is_expiry) {
        End::Expired(reason)
    } else {
        End::Again(reason)
    }
}

/// A connection that the service closed.
pub fn after_close(code: u16, reason: &str) -> End {
    let colon = if reason.is_empty() { "" } else { ": " };
    // all that is said to who is not let in
    let wanted = if (code, reason) == (4403, "Forbidden") { "; it wants a token or an API key: --token" } else { "" };
    let reason = format!("the service closed the connection ({code}{colon}{reason}){wanted}");
    if FINAL_CLOSE_CODES.contains(&code) { End::Final(reason) } else { End::Again(reason) }
}

/// An upgrade that was answered with another HTTP status.
pub fn after_status(status: u16) -> End {
    let reason = format!("the service answered with HTTP status {status}");
    match status {
        408 | 425 | 429 | 500.. => End::Again(reason),
        _ => End::Final(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str, code: Option<&str>) -> Failure {
        Failure { message: message.to_owned(), extensions: Extensions { code: code.map(ToOwned::to_owned) } }
    }

    #[test]
    fn every_message_of_the_protocol_is_understood() {
        for (text, received) in [
            (r#"{"type":"connection_ack"}"#, Received::Acknowledged(None)),
            (r#"{"type":"connection_ack","payload":{"cursor":"7"}}"#, Received::Acknowledged(Some("7".to_owned()))),
            (r#"{"type":"ping","payload":{"cursors":{"watch":"7"}}}"#, Received::Ping(Some("7".to_owned()))),
            (r#"{"type":"ping","payload":{"cursors":{"other":"7"}}}"#, Received::Ping(None)),
            (r#"{"type":"ping"}"#, Received::Ping(None)),
            (r#"{"type":"pong"}"#, Received::Pong),
            (r#"{"type":"complete","id":"watch"}"#, Received::Completed),
            (
                r#"{"id":"watch","type":"next","payload":{"data":{"b":1,"a":"x"},"extensions":{"cursor":"7"}}}"#,
                Received::Data(r#"{"b":1,"a":"x"}"#.to_owned(), Some("7".to_owned())),
            ),
            (
                "{\"id\":\"watch\",\"type\":\"next\",\"payload\":{\"data\":{\n\"a\":1}}}",
                Received::Data("{ \"a\":1}".to_owned(), None),
            ),
            (
                r#"{"id":"watch","type":"next","payload":{"data":null,"errors":[{"message":"away"}]}}"#,
                Received::Errors(vec![failure("away", None)]),
            ),
            (
                r#"{"id":"watch","type":"error","payload":[{"message":"no","extensions":{"code":"FORBIDDEN"}}]}"#,
                Received::Refused(vec![failure("no", Some("FORBIDDEN"))]),
            ),
        ] {
            assert_eq!(receive(text).unwrap(), received, "{text}");
        }
        assert!(matches!(receive(r#"{"type":"ka"}"#), Err(ReceiveError::UnknownType(_))));
        for text in ["", "[]", "{}", r#"{"type":"error","payload":"no"}"#, r#"{"type":"next"}"#] {
            assert!(receive(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_ends_for_good_is_told_from_what_passes() {
        for (code, again) in [(1000, true), (1001, true), (1006, true), (1012, true), (4408, true), (4500, true)] {
            assert_eq!(matches!(after_close(code, ""), End::Again(_)), again, "{code}");
        }
        for code in [4400, 4401, 4403, 4406, 4409, 4429] {
            assert!(matches!(after_close(code, "No"), End::Final(reason) if reason.contains("No")), "{code}");
        }
        for (status, again) in [(401, false), (404, false), (301, false), (200, false), (429, true), (503, true)] {
            assert_eq!(matches!(after_status(status), End::Again(_)), again, "{status}");
        }
        let passing = failure("away", Some("DATABASE_UNAVAILABLE"));
        assert_eq!(after_errors(&[passing]), End::Again("away".to_owned()));
        let behind = failure("behind", Some("CURSOR_EXPIRED"));
        assert_eq!(after_errors(&[behind]), End::Expired("behind".to_owned()));
        let mixed = [failure("behind", Some("CURSOR_EXPIRED")), failure("no", None)];
        assert_eq!(after_errors(&mixed), End::Final("behind; no".to_owned()));
        assert!(matches!(after_errors(&[]), End::Final(_)));
    }

    fn variables(args: &str) -> Value {
        let args = args.split_whitespace().map(Into::into);
        let Ok(crate::config::Command::Watch(config)) = crate::config::parse(args, |_| None) else {
            panic!("settings of watch")
        };
        let message: Value = serde_json::from_str(&subscribe(&config, Some("c"))).unwrap();
        assert_eq!((&message["type"], &message["id"]), (&json!("subscribe"), &json!(OPERATION_ID)));
        let (query, variables) = (&message["payload"]["query"], message["payload"]["variables"].clone());
        for name in variables.as_object().unwrap().keys() {
            assert!(query.as_str().unwrap().contains(&format!("{name}: ${name}")), "{query}");
        }
        variables
    }

    #[test]
    fn settings_become_the_filters_of_the_subscription() {
        let none = json!({
            "incidentIds": null, "severities": null, "updateTypes": null, "activeOnly": false, "after": "c"
        });
        assert_eq!(variables("watch"), none);
        let id = "550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(
            variables(&format!("watch --severity p0,p1 --type resolved --active-only --incident {id}")),
            json!({
                "incidentIds": [id], "severities": ["P0", "P1"], "updateTypes": ["RESOLVED"], "activeOnly": true, "after": "c"
            })
        );
        assert_eq!(variables("watch --alerts"), json!({ "sources": null, "after": "c" }));
        assert_eq!(variables("watch --alerts --source a,b"), json!({ "sources": ["a", "b"], "after": "c" }));
    }
}
