//! The rules of graphql-transport-ws, as its PROTOCOL.md has them: a message in, what is to be done out. No socket, no clock.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_graphql::{Request, Variables};
use serde_json::{Map, Value};

use crate::auth::Bearer;

/// The subprotocol's name.
pub const SUBPROTOCOL: &str = "graphql-transport-ws";

/// RFC 6455, section 5.5.1: a close frame's reason is what 125 bytes leave beside the code.
const MAX_REASON_BYTES: usize = 123;

/// Names an operation on its connection; chosen by the client.
pub type OperationId = Arc<str>;

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

impl Close {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > MAX_REASON_BYTES {
            let cut = (0..=MAX_REASON_BYTES).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
            reason.truncate(cut);
        }
        Self { code, reason }
    }

    /// The service restarts, and the client should come back (IANA's registry of close codes).
    pub fn restart() -> Self {
        Self::new(1012, "Service restart")
    }

    /// The client is not let in.
    pub fn forbidden() -> Self {
        Self::new(4403, "Forbidden")
    }

    /// The client is not let in any more.
    pub fn forbidden_because(why: &impl fmt::Display) -> Self {
        Self::new(4403, format!("Forbidden: {why}"))
    }

    /// What would tell who the client is does not answer (IANA's registry of close codes).
    pub fn try_again_later() -> Self {
        Self::new(1013, "Try again later")
    }

    /// The client has as much as it may have at a time.
    pub fn try_again_later_because(why: &impl fmt::Display) -> Self {
        Self::new(1013, format!("Try again later: {why}"))
    }

    /// The client offers no subprotocol of ours.
    pub fn subprotocol() -> Self {
        Self::new(4406, "Subprotocol not acceptable")
    }

    /// Nothing was heard of the client for too long.
    pub fn silent() -> Self {
        Self::new(4499, "Nothing was heard of the client")
    }
}

/// What a message asks for.
#[derive(Debug)]
pub enum Action {
    Nothing,
    /// Admit the connection or refuse it, by what it presents if it does, then [`Protocol::acknowledge`].
    Initialise(Option<Bearer>),
    /// Go on by what is presented now, then send a pong.
    Refresh(Bearer),
    /// Send a pong.
    Pong,
    /// Execute an operation; when it has ended of itself, [`Protocol::ended`].
    Start(OperationId, Box<Request>),
    /// Forget an operation: nothing more is sent under its id.
    Stop(OperationId),
    Close(Close),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connected,
    Initialising,
    Acknowledged,
}

/// One connection's state.
#[derive(Debug)]
pub struct Protocol {
    phase: Phase,
    active: Vec<OperationId>,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { phase: Phase::Connected, active: Vec::new() }
    }
}

impl Protocol {
    /// Takes a text message in.
    pub fn text(&mut self, text: &str) -> Action {
        match parse(text) {
            Err(reason) => Action::Close(Close::new(4400, reason)),
            Ok(message) => self.message(message),
        }
    }

    /// The protocol has no binary messages.
    pub fn binary() -> Close {
        Close::new(4400, "Messages must be text")
    }

    /// The time for `connection_init` is over.
    pub fn init_timed_out(&self) -> Option<Close> {
        (self.phase != Phase::Acknowledged).then(|| Close::new(4408, "Connection initialisation timeout"))
    }

    /// The connection is admitted: appends `connection_ack`.
    pub fn acknowledge(&mut self, text: &mut Vec<u8>, cursor: Option<&str>) {
        self.phase = Phase::Acknowledged;
        text.extend_from_slice(br#"{"type":"connection_ack""#);
        if let Some(cursor) = cursor {
            text.extend_from_slice(br#","payload":{"cursor":""#);
            text.extend_from_slice(cursor.as_bytes());
            text.extend_from_slice(br#""}"#);
        }
        text.push(b'}');
    }

    /// How many operations are active.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// An operation has ended of itself; its id may be used again.
    pub fn ended(&mut self, id: &OperationId) {
        self.active.retain(|active| active != id);
    }

    fn message(&mut self, message: Message) -> Action {
        match message {
            Message::ConnectionInit(bearer) => {
                if self.phase != Phase::Connected {
                    return Action::Close(Close::new(4429, "Too many initialisation requests"));
                }
                self.phase = Phase::Initialising;
                Action::Initialise(bearer)
            }
            Message::Ping(Some(bearer)) if self.phase == Phase::Acknowledged => Action::Refresh(bearer),
            Message::Ping(_) => Action::Pong,
            Message::Pong => Action::Nothing,
            Message::Subscribe(id, request) => {
                if self.phase != Phase::Acknowledged {
                    return Action::Close(Close::new(4401, "Unauthorized"));
                }
                if self.active.iter().any(|active| **active == *id) {
                    return Action::Close(Close::new(4409, format!("Subscriber for {id} already exists")));
                }
                let id: OperationId = id.into();
                self.active.push(Arc::clone(&id));
                Action::Start(id, request)
            }
            // of an operation that has ended: the two messages have crossed
            Message::Complete(id) => match self.active.iter().position(|active| **active == *id) {
                Some(at) => Action::Stop(self.active.swap_remove(at)),
                None => Action::Nothing,
            },
        }
    }
}

enum Message {
    ConnectionInit(Option<Bearer>),
    Ping(Option<Bearer>),
    Pong,
    Subscribe(String, Box<Request>),
    Complete(String),
}

/// Reads a client's message; else why it is none.
fn parse(text: &str) -> Result<Message, String> {
    let Ok(Value::Object(mut message)) = serde_json::from_str(text) else {
        return Err("A message must be a JSON object".to_owned());
    };
    let Some(Value::String(kind)) = message.remove("type") else {
        return Err("A message must have a type".to_owned());
    };
    match kind.as_str() {
        "connection_init" => Ok(Message::ConnectionInit(payload(&mut message)?.as_ref().and_then(presented))),
        "ping" => Ok(Message::Ping(payload(&mut message)?.as_ref().and_then(presented))),
        "pong" => payload(&mut message).map(|_| Message::Pong),
        "subscribe" => {
            let id = id(&mut message)?;
            let Some(Value::Object(operation)) = message.remove("payload") else {
                return Err("A subscribe message must have a payload".to_owned());
            };
            Ok(Message::Subscribe(id, Box::new(request(operation)?)))
        }
        "complete" => id(&mut message).map(Message::Complete),
        _ => Err(format!("There is no message of type {kind:?} for a server")),
    }
}

/// The optional payload of `connection_init`, `ping` and `pong`: an object, if it is there.
fn payload(message: &mut Map<String, Value>) -> Result<Option<Map<String, Value>>, String> {
    match message.remove("payload") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(payload)) => Ok(Some(payload)),
        Some(_) => Err("A payload must be an object".to_owned()),
    }
}

/// The token or API key in a payload, under one of the names by which clients send it; nothing is asked of other members.
fn presented(payload: &Map<String, Value>) -> Option<Bearer> {
    let named = |object: &Map<String, Value>, names: &[&str]| names.iter().find_map(|name| object.get(*name).cloned());
    let headers = payload.get("headers").and_then(Value::as_object);
    let found = named(payload, &["Authorization", "authorization"])
        .or_else(|| named(headers?, &["Authorization", "authorization"]))
        .or_else(|| named(payload, &["token", "authToken"]))?;
    match found {
        Value::Null => None,
        Value::String(text) => Some(Bearer::of_text(&text)),
        // is refused as what it is
        _ => Some(Bearer::new("")),
    }
}

fn id(message: &mut Map<String, Value>) -> Result<String, String> {
    match message.remove("id") {
        Some(Value::String(id)) if !id.is_empty() => Ok(id),
        _ => Err("A message of this type must have an id that is no empty string".to_owned()),
    }
}

fn request(mut operation: Map<String, Value>) -> Result<Request, String> {
    let Some(Value::String(query)) = operation.remove("query") else {
        return Err("A subscribe message's payload must have a query".to_owned());
    };
    let mut request = Request::new(query);
    match operation.remove("operationName") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) => request = request.operation_name(name),
        Some(_) => return Err("An operationName must be a string".to_owned()),
    }
    match operation.remove("variables") {
        None | Some(Value::Null) => {}
        Some(variables @ Value::Object(_)) => request = request.variables(Variables::from_json(variables)),
        Some(_) => return Err("Variables must be an object".to_owned()),
    }
    match operation.remove("extensions") {
        None | Some(Value::Null | Value::Object(_)) => Ok(request),
        Some(_) => Err("Extensions must be an object".to_owned()),
    }
}

/// Appends a server's `next`, with a result.
pub fn next(text: &mut Vec<u8>, id: &str, payload: &[u8]) {
    carrying(text, "next", id, payload);
}

/// About as many bytes as a `next` and its frame take.
pub fn next_bytes(id: &str, payload: &[u8]) -> usize {
    40 + id.len() + payload.len()
}

/// Appends a server's `error`, with a list of errors.
pub fn error(text: &mut Vec<u8>, id: &str, errors: &[u8]) {
    carrying(text, "error", id, errors);
}

/// A message that carries something under an operation's id.
fn carrying(text: &mut Vec<u8>, kind: &str, id: &str, payload: &[u8]) {
    text.extend_from_slice(br#"{"id":"#);
    push_json_string(text, id);
    text.extend_from_slice(br#","type":""#);
    text.extend_from_slice(kind.as_bytes());
    text.extend_from_slice(br#"","payload":"#);
    text.extend_from_slice(payload);
    text.push(b'}');
}

/// Appends a server's `complete`.
pub fn complete(text: &mut Vec<u8>, id: &str) {
    text.extend_from_slice(br#"{"id":"#);
    push_json_string(text, id);
    text.extend_from_slice(br#","type":"complete"}"#);
}

/// Appends a `pong`; what a client's ping has brought does not go back.
pub fn pong(text: &mut Vec<u8>) {
    text.extend_from_slice(br#"{"type":"pong"}"#);
}

/// Appends a server's `ping`, with the cursors of operations that have moved on without a result.
pub fn ping<'c>(text: &mut Vec<u8>, cursors: impl Iterator<Item = (&'c str, String)>) {
    text.extend_from_slice(br#"{"type":"ping""#);
    let mut any = false;
    for (id, cursor) in cursors {
        text.extend_from_slice(if any { b"," } else { br#","payload":{"cursors":{"# });
        any = true;
        push_json_string(text, id);
        text.extend_from_slice(b":\"");
        text.extend_from_slice(cursor.as_bytes());
        text.push(b'"');
    }
    text.extend_from_slice(if any { b"}}}" } else { b"}" });
}

/// An id as JSON; ids that need no escape, nearly all, are copied.
fn push_json_string(text: &mut Vec<u8>, value: &str) {
    if value.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        text.push(b'"');
        text.extend_from_slice(value.as_bytes());
        text.push(b'"');
    } else {
        text.extend_from_slice(Value::String(value.to_owned()).to_string().as_bytes());
    }
}
