//! The rules, message by message.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn acknowledged() -> Protocol {
    let mut protocol = Protocol::default();
    assert!(matches!(protocol.text(r#"{"type":"connection_init"}"#), Action::Initialise(_)));
    protocol.acknowledge(&mut Vec::new(), None);
    protocol
}

/// What a message that is sent says.
fn sent(message: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut text = Vec::new();
    message(&mut text);
    serde_json::from_slice(&text).unwrap()
}

fn close_code(action: &Action) -> Option<u16> {
    match action {
        Action::Close(close) => Some(close.code),
        _ => None,
    }
}

fn subscribe(id: &str) -> String {
    json!({ "id": id, "type": "subscribe", "payload": { "query": "{ a }" } }).to_string()
}

#[test]
fn what_is_no_message_closes_4400() {
    let wrong = [
        "",
        "nonsense",
        "[]",
        "null",
        "\"ping\"",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"connection_terminate"}"#,
        r#"{"type":"next","id":"1","payload":{}}"#,
        r#"{"type":"connection_ack"}"#,
        r#"{"type":"start","id":"1","payload":{"query":"{ a }"}}"#,
        r#"{"type":"subscribe","payload":{"query":"{ a }"}}"#,
        r#"{"type":"subscribe","id":"","payload":{"query":"{ a }"}}"#,
        r#"{"type":"subscribe","id":1,"payload":{"query":"{ a }"}}"#,
        r#"{"type":"subscribe","id":null,"payload":{"query":"{ a }"}}"#,
        r#"{"type":"subscribe","id":"1"}"#,
        r#"{"type":"subscribe","id":"1","payload":"{ a }"}"#,
        r#"{"type":"subscribe","id":"1","payload":{}}"#,
        r#"{"type":"subscribe","id":"1","payload":{"query":1}}"#,
        r#"{"type":"subscribe","id":"1","payload":{"query":"{ a }","operationName":1}}"#,
        r#"{"type":"subscribe","id":"1","payload":{"query":"{ a }","variables":[]}}"#,
        r#"{"type":"subscribe","id":"1","payload":{"query":"{ a }","extensions":"x"}}"#,
        r#"{"type":"complete"}"#,
        r#"{"type":"complete","id":""}"#,
        r#"{"type":"ping","payload":1}"#,
        r#"{"type":"pong","payload":[]}"#,
    ];
    for text in wrong {
        assert_eq!(close_code(&acknowledged().text(text)), Some(4400), "{text}");
    }
    assert_eq!(close_code(&Protocol::default().text(r#"{"type":"connection_init","payload":"token"}"#)), Some(4400));
    assert_eq!(Protocol::binary().code, 4400);
}

#[test]
fn null_members_count_as_absent() {
    let mut protocol = Protocol::default();
    assert!(matches!(protocol.text(r#"{"type":"connection_init","payload":null}"#), Action::Initialise(_)));
    protocol.acknowledge(&mut Vec::new(), None);
    let text = r#"{"type":"subscribe","id":"1","payload":{"query":"{ a }","operationName":null,"variables":null,"extensions":null}}"#;
    assert!(matches!(protocol.text(text), Action::Start(..)));
}

#[test]
fn the_connection_is_initialised_once_and_first() {
    assert_eq!(close_code(&Protocol::default().text(&subscribe("1"))), Some(4401));
    let mut initialising = Protocol::default();
    initialising.text(r#"{"type":"connection_init"}"#);
    assert_eq!(close_code(&initialising.text(&subscribe("1"))), Some(4401), "not acknowledged yet");
    assert_eq!(close_code(&initialising.text(r#"{"type":"connection_init"}"#)), Some(4429));
    assert_eq!(close_code(&acknowledged().text(r#"{"type":"connection_init"}"#)), Some(4429));
    assert_eq!(Protocol::default().init_timed_out().map(|close| close.code), Some(4408));
    assert!(acknowledged().init_timed_out().is_none());
}

#[test]
fn pings_are_answered_at_any_time() {
    assert!(matches!(Protocol::default().text(r#"{"type":"ping"}"#), Action::Pong));
    assert!(matches!(acknowledged().text(r#"{"type":"ping","payload":{"a":1}}"#), Action::Pong));
    assert!(matches!(acknowledged().text(r#"{"type":"pong"}"#), Action::Nothing));
}

/// What a message of this type presents in this payload.
fn presented_by(kind: &str, payload: &Value) -> Option<String> {
    let text = json!({ "type": kind, "payload": payload }).to_string();
    match kind {
        "connection_init" => match Protocol::default().text(&text) {
            Action::Initialise(bearer) => bearer.map(|bearer| bearer.expose().to_owned()),
            action => panic!("{action:?}"),
        },
        _ => match acknowledged().text(&text) {
            Action::Refresh(bearer) => Some(bearer.expose().to_owned()),
            Action::Pong => None,
            action => panic!("{action:?}"),
        },
    }
}

#[test]
fn a_payload_presents_a_token_under_the_names_that_clients_use() {
    for kind in ["connection_init", "ping"] {
        for (payload, presented) in [
            (json!({ "Authorization": "Bearer a.b.c" }), Some("a.b.c")),
            (json!({ "authorization": "bearer a.b.c" }), Some("a.b.c")),
            (json!({ "Authorization": "a.b.c" }), Some("a.b.c")),
            (json!({ "headers": { "authorization": "Bearer a.b.c" } }), Some("a.b.c")),
            (json!({ "token": "a.b.c" }), Some("a.b.c")),
            (json!({ "authToken": "a.b.c", "other": 1 }), Some("a.b.c")),
            (json!({ "token": "a.b.c", "Authorization": "Bearer d.e.f" }), Some("d.e.f")),
            (json!({ "token": 7 }), Some("")),
            (json!({ "token": null }), None),
            (json!({ "headers": "Authorization", "other": "a.b.c" }), None),
            (json!({}), None),
            (json!(null), None),
        ] {
            assert_eq!(presented_by(kind, &payload).as_deref(), presented, "{kind} {payload}");
        }
    }
    let early = r#"{"type":"ping","payload":{"token":"a.b.c"}}"#;
    assert!(matches!(Protocol::default().text(early), Action::Pong), "there is nothing to refresh");
}

#[test]
fn an_id_is_free_again_when_its_operation_has_ended() {
    let mut protocol = acknowledged();
    assert!(matches!(protocol.text(&subscribe("1")), Action::Start(..)));
    assert!(matches!(protocol.text(&subscribe("2")), Action::Start(..)));
    assert_eq!(close_code(&protocol.text(&subscribe("1"))), Some(4409));
    protocol.ended(&"1".into());
    assert!(matches!(protocol.text(&subscribe("1")), Action::Start(..)));
    assert!(matches!(protocol.text(r#"{"type":"complete","id":"2"}"#), Action::Stop(_)));
    assert!(matches!(protocol.text(&subscribe("2")), Action::Start(..)));
    assert!(matches!(protocol.text(r#"{"type":"complete","id":"unknown"}"#), Action::Nothing));
}

#[test]
fn a_reason_fits_into_a_close_frame() {
    let mut protocol = acknowledged();
    let id = "ü".repeat(200);
    protocol.text(&subscribe(&id));
    let Action::Close(close) = protocol.text(&subscribe(&id)) else { panic!("a duplicate") };
    assert!(close.reason.len() <= MAX_REASON_BYTES && close.reason.starts_with("Subscriber for ü"));
}

#[test]
fn what_is_sent_is_json() {
    let id = "a \"quoted\" \u{1} id";
    assert_eq!(sent(|text| next(text, id, b"{}")), json!({ "id": id, "type": "next", "payload": {} }));
    assert_eq!(sent(|text| error(text, id, b"[]")), json!({ "id": id, "type": "error", "payload": [] }));
    assert_eq!(sent(|text| complete(text, id)), json!({ "id": id, "type": "complete" }));
    assert_eq!(sent(pong), json!({ "type": "pong" }));
    assert_eq!(sent(|text| ping(text, std::iter::empty())), json!({ "type": "ping" }));
    let two = sent(|text| ping(text, [(id, "c1".to_owned()), ("2", "c2".to_owned())].into_iter()));
    assert_eq!(two, json!({ "type": "ping", "payload": { "cursors": { id: "c1", "2": "c2" } } }));
    let acknowledged = |cursor| sent(|text| Protocol::default().acknowledge(text, cursor));
    assert_eq!(acknowledged(Some("c")), json!({ "type": "connection_ack", "payload": { "cursor": "c" } }));
    assert_eq!(acknowledged(None), json!({ "type": "connection_ack" }));
}

/// What may happen to a connection.
#[derive(Debug, Clone)]
enum Step {
    /// The client sends a message of this type under this id; of a `subscribe`, whether it has a query.
    Message { kind: &'static str, id: Option<&'static str>, query: bool },
    /// The client sends this.
    Text(String),
    /// An operation ends of itself.
    Ends(&'static str),
    /// The time for `connection_init` is over.
    TimesOut,
}

fn step() -> impl Strategy<Value = Step> {
    let id = prop_oneof![4 => Just(Some("1")), 4 => Just(Some("2")), 1 => Just(Some("")), 1 => Just(None)];
    let kind = prop_oneof![
        6 => Just("subscribe"),
        4 => Just("complete"),
        2 => Just("ping"),
        2 => Just("pong"),
        1 => Just("connection_init"),
        1 => Just("next"),
    ];
    let message = (kind, id, prop::bool::weighted(0.9)).prop_map(|(kind, id, query)| Step::Message { kind, id, query });
    prop_oneof![
        20 => message,
        4 => prop_oneof![Just("1"), Just("2")].prop_map(Step::Ends),
        1 => ".{0,40}".prop_map(Step::Text),
        1 => Just(Step::TimesOut),
    ]
}

/// What the protocol says of a client's message: the close code, or the name of the action.
fn expected(
    kind: &str,
    id: Option<&str>,
    query: bool,
    acknowledged: bool,
    active: &[&str],
) -> Result<&'static str, u16> {
    let named = id.is_some_and(|id| !id.is_empty());
    let is_active = id.is_some_and(|id| active.contains(&id));
    match kind {
        "connection_init" if acknowledged => Err(4429),
        "connection_init" => Ok("initialise"),
        "ping" => Ok("pong"),
        "pong" => Ok("nothing"),
        "complete" if named => Ok(if is_active { "stop" } else { "nothing" }),
        "subscribe" if named && query => match (acknowledged, is_active) {
            (false, _) => Err(4401),
            (true, true) => Err(4409),
            (true, false) => Ok("start"),
        },
        _ => Err(4400),
    }
}

proptest! {
    /// Whatever happens in whatever order, the connection does what the protocol says and nothing else, and knows an
    /// operation for exactly as long as it is active.
    #[test]
    fn a_connection_goes_by_the_rules(begun in any::<bool>(), steps in prop::collection::vec(step(), 1..60)) {
        let mut protocol = if begun { self::acknowledged() } else { Protocol::default() };
        let mut acknowledged = begun;
        let mut active: Vec<&str> = Vec::new();
        for step in steps {
            match step {
                Step::Message { kind, id, query } => {
                    let mut message = json!({ "type": kind, "id": id });
                    if kind == "subscribe" && query {
                        message["payload"] = json!({ "query": "{ a }" });
                    }
                    let expected = expected(kind, id, query, acknowledged, &active);
                    let done = match protocol.text(&message.to_string()) {
                        Action::Nothing => Ok("nothing"),
                        Action::Pong => Ok("pong"),
                        Action::Refresh(_) => Ok("refresh"),
                        Action::Initialise(_) => {
                            protocol.acknowledge(&mut Vec::new(), None);
                            acknowledged = true;
                            Ok("initialise")
                        }
                        Action::Start(started, _) => {
                            prop_assert_eq!(Some(&*started), id);
                            active.extend(id);
                            Ok("start")
                        }
                        Action::Stop(stopped) => {
                            prop_assert_eq!(Some(&*stopped), id);
                            active.retain(|active| Some(*active) != id);
                            Ok("stop")
                        }
                        Action::Close(close) => {
                            prop_assert!(close.reason.len() <= MAX_REASON_BYTES);
                            Err(close.code)
                        }
                    };
                    prop_assert_eq!(done, expected, "{}", message);
                    if done.is_err() {
                        break;
                    }
                }
                Step::Text(text) => {
                    // so short a text that means anything is a ping or a pong
                    let action = protocol.text(&text);
                    prop_assert!(matches!(action, Action::Pong | Action::Nothing) || close_code(&action) == Some(4400), "{action:?}");
                    if matches!(action, Action::Close(_)) {
                        break;
                    }
                }
                Step::Ends(id) => {
                    protocol.ended(&id.into());
                    active.retain(|active| *active != id);
                }
                Step::TimesOut => {
                    let closed = protocol.init_timed_out().map(|close| close.code);
                    prop_assert_eq!(closed, (!acknowledged).then_some(4408));
                }
            }
            prop_assert_eq!(protocol.active(), active.len());
        }
    }

    /// Of messages that are nearly right, none is more than refused.
    #[test]
    fn nothing_that_a_client_sends_is_a_panic(text in r#"\{("(type|id|payload)":("subscribe"|"complete"|"1"|null|[0-9]|\{"query":("\{a\}"|1|null)\}),?){0,4}\}?"#) {
        let mut protocol = acknowledged();
        match protocol.text(&text) {
            Action::Close(close) => prop_assert_eq!(close.code, 4400),
            Action::Start(id, _) => prop_assert!(serde_json::from_str::<Value>(&text).unwrap()["id"] == *id),
            action => prop_assert!(matches!(action, Action::Nothing), "{action:?}"),
        }
    }
}
