//! WebSocket frames, right and wrong ones, on raw sockets (RFC 6455).

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::raw::first::{BINARY, CLOSE, CONTINUATION, FINAL, PING, PONG, TEXT};
use crate::support::raw::{HANDSHAKE, RawSocket, frame, head, text};
use crate::support::{Process, Service, TestDatabase, eventually};

const HEAR: &str = "subscription { newIncidents { title } }";
const INSERT: &str = "insert into incident_manager.incident (title, severity, source) values ('heard', 'P3', 's')";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// A close frame with this code and reason.
fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FINAL | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

#[tokio::test]
async fn frames_that_break_the_rules_end_their_connection_alone() {
    let (database, service) = start().await;
    let mut other = service.subscribe(HEAR).await;
    let unmasked = [head(FINAL | TEXT, 15, false), br#"{"type":"ping"}"#.to_vec()].concat();
    let part = frame(TEXT, br#"{"type":"#);
    let big = vec![b' '; 150 << 10];
    let (half, rest) = (frame(TEXT, &big), frame(FINAL | CONTINUATION, &big));
    for (name, bytes, code) in [
        ("no mask", unmasked, 1002),
        ("a reserved bit", frame(FINAL | 0x40 | TEXT, b"{}"), 1002),
        ("an unknown kind of message", frame(FINAL | 0x3, b"{}"), 1002),
        ("an unknown kind of control frame", frame(FINAL | 0xb, b""), 1002),
        ("a part of a ping", frame(PING, b""), 1002),
        ("a ping of 126 bytes", frame(FINAL | PING, &[b'x'; 126]), 1002),
        ("a continuation of nothing", frame(FINAL | CONTINUATION, b"{}"), 1002),
        ("a message within another", [part, text("{}")].concat(), 1002),
        ("a close of one byte", frame(FINAL | CLOSE, &[3]), 1002),
        ("a close code that may not be sent", close(1005, b""), 1002),
        ("a close code of nobody's", close(999, b""), 1002),
        ("a close reason of 124 bytes", close(1000, &[b'x'; 124]), 1002),
        ("a close reason that is no UTF-8", close(1000, b"\xff"), 1007),
        ("text that is no UTF-8", frame(FINAL | TEXT, b"{\"type\":\"\xff\"}"), 1007),
        ("text that is cut in a character", frame(FINAL | TEXT, b"\"\xc3"), 1007),
        ("binary", frame(FINAL | BINARY, br#"{"type":"ping"}"#), 4400),
        ("binary in parts", [frame(BINARY, b"{"), frame(FINAL | CONTINUATION, b"}")].concat(), 4400),
        ("more than a message may have", text(&" ".repeat((256 << 10) + 1)), 1009),
        ("1 MiB", text(&" ".repeat(1 << 20)), 1009),
        ("too much in parts", [half, rest].concat(), 1009),
        ("a length that nothing has", [head(FINAL | TEXT, u64::MAX >> 1, true), vec![0; 4]].concat(), 1009),
    ] {
        let mut socket = RawSocket::acknowledged(service.address).await;
        socket.send(&bytes).await;
        assert_eq!(socket.close_code().await, Some(code), "{name}");
        assert!(socket.frame().await.is_none(), "nothing comes behind a close: {name}");
    }
    database.execute(INSERT).await;
    assert_eq!(other.next("newIncidents").await["title"], "heard");
    service.stop().await;
}

#[tokio::test]
async fn a_message_may_come_in_parts_and_bytes() {
    let (database, service) = start().await;
    let mut socket = RawSocket::connect(service.address).await;
    socket.send(&frame(TEXT, br#"{"type":"conn"#)).await;
    socket.send(&frame(FINAL | PING, b"between")).await;
    assert_eq!(socket.frame().await, Some((FINAL | PONG, b"between".to_vec())));
    socket.send(&frame(CONTINUATION, b"ection_init")).await;
    socket.send(&frame(FINAL | CONTINUATION, br#""}"#)).await;
    assert_eq!(socket.message().await["type"], "connection_ack");

    let id = "é".repeat(3);
    let subscribe = json!({ "id": id, "type": "subscribe", "payload": { "query": HEAR } }).to_string();
    // cut in a character
    let (one, two) = subscribe.as_bytes().split_at(subscribe.find('é').unwrap() + 1);
    socket.send(&[frame(TEXT, one), frame(FINAL | CONTINUATION, two)].concat()).await;
    for _ in 0..2 {
        for byte in text(r#"{"type":"ping"}"#) {
            socket.send(&[byte]).await;
        }
        assert_eq!(socket.message().await, json!({ "type": "pong" }));
    }
    database.execute(INSERT).await;
    let heard = socket.message().await;
    assert_eq!((&heard["id"], &heard["type"]), (&json!(id), &json!("next")), "{heard}");
    service.stop().await;
}

#[tokio::test]
async fn a_close_is_answered_and_ends_the_connection() {
    let (_database, service) = start().await;
    for (sent, code) in
        [(close(1000, b"done"), Some(1000)), (close(4000, b""), Some(4000)), (frame(FINAL | CLOSE, b""), None)]
    {
        let mut socket = RawSocket::acknowledged(service.address).await;
        socket.subscribe(HEAR).await;
        socket.send(&sent).await;
        let (first, payload) = socket.frame().await.expect("an answer");
        assert_eq!(first, FINAL | CLOSE);
        assert_eq!(payload.first_chunk().map(|code| u16::from_be_bytes(*code)), code);
        assert!(socket.frame().await.is_none());
    }
    service.stop().await;
}

#[tokio::test]
async fn a_client_that_ends_without_a_close_is_forgotten() {
    let database = TestDatabase::new().await;
    // its metrics are its own
    let process = Process::start(&database, &[]).await;
    let mut socket = RawSocket::acknowledged(process.address).await;
    socket.subscribe(HEAR).await;
    assert!((process.metric("subscriptions").await - 1.0).abs() < f64::EPSILON);
    socket.stream.shutdown().await.unwrap();
    assert_eq!(socket.close_code().await, None);
    eventually("its subscription has ended", || async { process.metric("subscriptions").await < 1.0 }).await;
}

#[tokio::test]
async fn a_client_from_which_nothing_comes_is_closed() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--ping-interval", "200ms"]).await;
    service.ready().await;
    let mut silent = RawSocket::acknowledged(service.address).await;
    let mut alive = RawSocket::acknowledged(service.address).await;
    let answers = async {
        // a WebSocket ping is a sign of life too, and a pong of either protocol
        for answer in [frame(FINAL | PING, b""), text(r#"{"type":"pong"}"#), frame(FINAL | PONG, b"")] {
            let ping = loop {
                match alive.frame().await.expect("the connection is open") {
                    (first, payload) if first == FINAL | TEXT => break payload,
                    _ => {}
                }
            };
            assert_eq!(serde_json::from_slice::<Value>(&ping).unwrap()["type"], "ping");
            alive.send(&answer).await;
        }
        alive.message().await
    };
    let (closed, ping) = tokio::join!(silent.close_code(), answers);
    assert_eq!(closed, Some(4499));
    assert_eq!(ping["type"], "ping", "who answers is asked again");
    service.stop().await;
}

#[tokio::test]
async fn a_handshake_is_answered_in_the_client_s_case_or_refused() {
    let (_database, service) = start().await;
    let answer = async |request: String| {
        let stream = tokio::net::TcpStream::connect(service.address).await.unwrap();
        let mut socket = RawSocket::from(stream);
        socket.send(request.as_bytes()).await;
        socket.head().await
    };
    let head = answer(format!("{HANDSHAKE}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for line in ["Sec-WebSocket-Protocol: graphql-transport-ws", "Upgrade: websocket", "Connection: Upgrade"] {
        assert!(head.lines().any(|said| said == line), "{line} is not in\n{head}");
    }
    // RFC 6455, section 1.3
    assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    for (name, from, to, status) in [
        ("another version", "Version: 13", "Version: 8", 426),
        ("no upgrade", "Upgrade: websocket\r\n", "", 426),
        ("no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("a short key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 400),
    ] {
        let head = answer(format!("{}\r\n", HANDSHAKE.replace(from, to))).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {head}");
        assert_eq!(head.contains("sec-websocket-version: 13"), status == 426, "{name}: {head}");
    }
    service.stop().await;
}
