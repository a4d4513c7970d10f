//! What clients may hold open, and what becomes of it when the service drains.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, Service, Socket, TestDatabase, eventually};

const STREAM: &str = "/graphql/stream?query=subscription%7BnewIncidents%7Bid%7D%7D";

async fn start_with(flags: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), flags).await;
    service.ready().await;
    (database, service)
}

async fn stream(service: &Service) -> reqwest::Response {
    service.http().get(service.url(STREAM)).header("accept", "text/event-stream").send().await.unwrap()
}

/// The status with which an upgrade is refused, in whose body is a problem.
async fn refused(service: &Service) -> (u16, Value) {
    let request = service.http().get(service.url("/graphql/ws"));
    let upgrade = request
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "graphql-transport-ws");
    let response = upgrade.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn connections_in_all_have_a_limit() {
    let (_database, service) = start_with(&["--max-connections", "2"]).await;
    let socket = service.socket().await;
    let events = stream(&service).await;
    assert_eq!(events.status(), 200, "an event stream takes the second place");
    let (status, problem) = refused(&service).await;
    assert_eq!((status, &problem["code"]), (503, &json!("RATE_LIMIT_EXCEEDED")), "{problem}");
    assert_eq!(stream(&service).await.status(), 503);
    assert_eq!(service.status("/health/ready").await, 200, "requests are answered all the same");
    drop(socket);
    eventually("a place is free again", || async { stream(&service).await.status() == 200 }).await;
    service.stop().await;
}

#[tokio::test]
async fn connections_of_one_address_have_a_limit_of_their_own() {
    let (_database, service) = start_with(&["--max-connections-per-address", "1"]).await;
    let _socket = service.socket().await;
    let (status, problem) = refused(&service).await;
    assert_eq!((status, &problem["code"]), (429, &json!("RATE_LIMIT_EXCEEDED")), "{problem}");
    service.stop().await;
}

/// Whether a client hears nothing but the end.
async fn ends(mut socket: Socket) -> bool {
    socket.receive().await.is_none()
}

#[tokio::test]
async fn a_drain_ends_connections_without_a_message() {
    let (_database, service) = start_with(&[]).await;
    let subscription = "subscription { newIncidents { id } }";
    let sockets = [service.subscribe(subscription).await, service.subscribe(subscription).await];
    let mut events = stream(&service).await;
    let stopping = service.stop();
    let ended = async {
        for socket in sockets {
            assert!(ends(socket).await);
        }
        while let Some(chunk) = timeout(PATIENCE, events.chunk()).await.expect("in time").unwrap() {
            assert!(!chunk.starts_with(b"event:"), "{chunk:?}");
        }
    };
    tokio::join!(stopping, ended);
}

#[tokio::test]
async fn a_client_that_sends_no_request_is_given_up() {
    let database = TestDatabase::empty().await;
    let service = Service::start_with(&database.database_url(), &["--read-timeout", "200ms"]).await;
    for sent in ["", "GET /health/live HTTP/1.1\r\nHost: local"] {
        let mut slow = TcpStream::connect(service.address).await.unwrap();
        slow.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, slow.read_to_end(&mut answer)).await.expect("given up").unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent}");
    }
    let mut slow = TcpStream::connect(service.address).await.unwrap();
    let head =
        "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut answer)).await.expect("given up").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    service.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_too_fast_is_read_slowly_and_kept() {
    const RATE: usize = 20;
    let (_database, service) = start_with(&["--max-messages-per-second", &RATE.to_string()]).await;
    let mut socket = service.socket().await;
    let begun = std::time::Instant::now();
    for _ in 0..3 * RATE {
        socket.send(json!({ "type": "ping" })).await;
    }
    for _ in 0..3 * RATE {
        assert_eq!(socket.receive().await.expect("the connection is open")["type"], "pong");
    }
    // a second's worth at once, the others evenly
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn operations_of_a_connection_have_a_limit_that_is_told() {
    let (_database, service) = start_with(&["--max-operations", "2"]).await;
    let mut socket = service.socket().await;
    let payload = json!({ "query": "subscription { newIncidents { id } }" });
    for id in ["1", "2", "3"] {
        socket.send(json!({ "id": id, "type": "subscribe", "payload": payload })).await;
    }
    let refused = socket.receive().await.expect("the connection is open");
    assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &json!("3")), "{refused}");
    let extensions = &refused["payload"][0]["extensions"];
    assert_eq!((&extensions["code"], &extensions["limit"]), (&json!("RATE_LIMIT_EXCEEDED"), &json!(2)), "{refused}");
    socket.send(json!({ "id": "1", "type": "complete" })).await;
    socket.subscribe("4", "subscription { newIncidents { id } }", json!({})).await;
    service.stop().await;
}
