//! The rules, message by message.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn acknowledged() -> Protocol {
    let mut protocol = Protocol::default();
    assert!(matches!(protocol.text(r#"{"type":"connection_init"}"#), Action::Initialise(_)));
    protocol.acknowledge(None);
    protocol
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
    protocol.acknowledge(None);
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
    let text = next(id, b"{}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "id": id, "type": "next", "payload": {} }));
    assert_eq!(serde_json::from_str::<Value>(&complete(id)).unwrap(), json!({ "id": id, "type": "complete" }));
    assert_eq!(ping(std::iter::empty()), r#"{"type":"ping"}"#);
    let two = ping([(id, "c1".to_owned()), ("2", "c2".to_owned())].into_iter());
    let expected = json!({ "type": "ping", "payload": { "cursors": { id: "c1", "2": "c2" } } });
    assert_eq!(serde_json::from_str::<Value>(&two).unwrap(), expected);
    assert_eq!(Protocol::default().acknowledge(Some("c")), r#"{"type":"connection_ack","payload":{"cursor":"c"}}"#);
}

fn message() -> impl Strategy<Value = String> {
    let id = prop_oneof![Just("1"), Just("2"), Just("")];
    let kind = prop_oneof![
        4 => Just("subscribe"),
        3 => Just("complete"),
        1 => Just("connection_init"),
        1 => Just("ping"),
        1 => Just("pong"),
        1 => Just("next"),
    ];
    let whole = (kind, id, any::<bool>()).prop_map(|(kind, id, query)| {
        let payload = if query { json!({ "query": "{ a }" }) } else { Value::Null };
        json!({ "type": kind, "id": id, "payload": payload }).to_string()
    });
    prop_oneof![8 => whole, 1 => ".{0,40}"]
}

proptest! {
    /// Whatever comes in whatever order: an operation starts only on an acknowledged connection and under a free id, stops
    /// only once, and is known for exactly as long as it is active.
    #[test]
    fn operations_start_and_stop_by_the_rules(messages in prop::collection::vec(message(), 1..60)) {
        let mut protocol = Protocol::default();
        let mut acknowledged = false;
        let mut active: Vec<OperationId> = Vec::new();
        for text in messages {
            match protocol.text(&text) {
                Action::Initialise(_) => {
                    prop_assert!(!acknowledged);
                    protocol.acknowledge(None);
                    acknowledged = true;
                }
                Action::Start(id, _) => {
                    prop_assert!(acknowledged && !id.is_empty() && !active.contains(&id));
                    active.push(id);
                }
                Action::Stop(id) => {
                    let at = active.iter().position(|known| *known == id);
                    prop_assert!(at.is_some());
                    active.swap_remove(at.unwrap());
                }
                Action::Close(close) => {
                    prop_assert!((4400..4500).contains(&close.code) && close.reason.len() <= MAX_REASON_BYTES);
                    break;
                }
                Action::Nothing | Action::Pong | Action::Refresh(_) => {}
            }
            prop_assert_eq!(protocol.active.len(), active.len());
        }
    }
}
