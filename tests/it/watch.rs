//! `watch` against a service that is played here, message by message: what it shows, and how it takes every end.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept_hdr};

/// Longest wait for a message of `watch`'s.
const PATIENCE: Duration = Duration::from_secs(20);

/// The id that `watch` gives its operation.
const OPERATION: &str = "watch";

const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

struct Service(TcpListener);

struct Connection(WebSocket<TcpStream>);

impl Service {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Starts `watch` on this service.
    fn watch(&self, args: &[&str]) -> Watch {
        let url = format!("http://{}", self.0.local_addr().unwrap());
        let mut child = Command::new(env!("CARGO_BIN_EXE_incident-manager"))
            .args(["watch", "--url", &url])
            .args(args)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Watch { child, output: Some(output) }
    }

    /// Upgrades the next connection.
    fn accept(&self) -> Connection {
        let listener = self.0.try_clone().unwrap();
        let (sender, accepted) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(listener.accept()));
        let (stream, _) = accepted.recv_timeout(PATIENCE).expect("watch connects").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let subprotocol = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/graphql/ws");
            let offered = request.headers()["Sec-WebSocket-Protocol"].clone();
            assert_eq!(offered, "graphql-transport-ws");
            response.headers_mut().insert("Sec-WebSocket-Protocol", offered);
            Ok(response)
        };
        Connection(accept_hdr(stream, subprotocol).unwrap())
    }

    /// Upgrades, acknowledges, and takes the subscription; returns its variables.
    fn subscribed(&self) -> (Connection, Value) {
        self.subscribed_at("at the start")
    }

    /// The same, when the stream is at this cursor.
    fn subscribed_at(&self, cursor: &str) -> (Connection, Value) {
        let mut connection = self.accept();
        assert_eq!(connection.receive()["type"], "connection_init");
        connection.send(&json!({ "type": "connection_ack", "payload": { "cursor": cursor } }));
        let subscribe = connection.receive();
        assert_eq!(subscribe["type"], "subscribe");
        assert_eq!(subscribe["id"], OPERATION);
        let variables = subscribe["payload"]["variables"].clone();
        (connection, variables)
    }
}

impl Connection {
    fn receive(&mut self) -> Value {
        let message = self.0.read().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    fn next(&mut self, data: &Value) {
        self.send(&json!({ "type": "next", "id": OPERATION, "payload": { "data": data } }));
    }

    fn close(mut self, code: u16, reason: &'static str) {
        self.0.close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() })).unwrap();
        // Until the other side has answered.
        while self.0.read().is_ok() {}
    }
}

struct Watch {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Watch {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for the end; returns how it ended and what it said on stderr.
    fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn update(update_type: &str, title: &str) -> Value {
    let incident = json!({
        "id": ID, "title": title, "severity": "P1", "state": "DETECTED", "incidentType": "COST", "source": "s",
        "assignedTo": null, "labels": {}, "createdAt": "2025-11-12T20:30:45.123456Z",
        "updatedAt": "2025-11-12T20:30:45.123456Z", "version": 1
    });
    let heartbeat = update_type == "HEARTBEAT";
    json!({ "incidentUpdates": {
        "updateType": update_type, "incidentId": if heartbeat { Value::Null } else { json!(ID) },
        "timestamp": "2025-11-12T20:30:45.123456Z", "cursor": "c", "actor": "ana", "changedFields": [],
        "incident": if heartbeat { Value::Null } else { incident },
    } })
}

#[test]
fn an_update_is_shown_as_one_line_and_a_heartbeat_is_not() {
    let service = Service::start();
    let mut watch = service.watch(&["--severity", "p0,p1", "--active-only"]);
    let (mut connection, variables) = service.subscribed();
    assert_eq!(
        variables,
        json!({ "incidentIds": null, "severities": ["P0", "P1"], "updateTypes": null, "activeOnly": true, "after": null })
    );
    connection.next(&update("HEARTBEAT", ""));
    connection.next(&update("CREATED", "one\n\u{1b}[2Jline"));
    let line = watch.line();
    assert!(line.contains("P1  CREATED        DETECTED       one\\n\\u{1b}[2Jline  [s]  by ana"), "{line}");
    assert!(line.ends_with(ID), "{line}");
}

#[test]
fn json_is_the_data_as_it_came() {
    let service = Service::start();
    let mut watch = service.watch(&["--json", "--heartbeats"]);
    let (mut connection, _) = service.subscribed();
    for data in [update("HEARTBEAT", ""), update("CREATED", "one")] {
        connection.next(&data);
        assert_eq!(watch.line(), data.to_string());
    }
}

#[test]
fn pings_of_the_service_are_answered() {
    let service = Service::start();
    let _watch = service.watch(&[]);
    let (mut connection, _) = service.subscribed();
    connection.send(&json!({ "type": "ping", "payload": { "cursors": {} } }));
    assert_eq!(connection.receive(), json!({ "type": "pong" }));
}

#[test]
fn a_connection_that_ends_is_made_again() {
    let service = Service::start();
    let mut watch = service.watch(&["--json"]);
    let (connection, _) = service.subscribed();
    connection.close(1012, "restart");
    // Without a word.
    drop(service.subscribed());
    let (mut connection, _) = service.subscribed();
    let away = json!([{ "message": "away", "extensions": { "code": "DATABASE_UNAVAILABLE" } }]);
    connection.send(&json!({ "type": "error", "id": OPERATION, "payload": away }));
    let (mut connection, _) = service.subscribed();
    connection.send(&json!({ "type": "complete", "id": OPERATION }));
    let (mut connection, _) = service.subscribed();
    let data = update("CREATED", "one");
    connection.next(&data);
    assert_eq!(watch.line(), data.to_string());
}

#[test]
fn it_goes_on_behind_the_last_cursor_that_it_was_told() {
    let service = Service::start();
    let mut watch = service.watch(&["--json"]);
    let (connection, variables) = service.subscribed_at("first");
    assert_eq!(variables["after"], Value::Null);
    drop(connection);
    // where the stream is by then says nothing of what it has missed
    let (mut connection, variables) = service.subscribed_at("later");
    assert_eq!(variables["after"], "first");
    let data = update("CREATED", "one");
    let payload = json!({ "data": data, "extensions": { "cursor": "second" } });
    connection.send(&json!({ "type": "next", "id": OPERATION, "payload": payload }));
    assert_eq!(watch.line(), data.to_string());
    connection.close(1012, "restart");
    let (mut connection, variables) = service.subscribed();
    assert_eq!(variables["after"], "second");
    connection.send(&json!({ "type": "ping", "payload": { "cursors": { OPERATION: "third" } } }));
    assert_eq!(connection.receive(), json!({ "type": "pong" }));
    drop(connection);
    let (mut connection, variables) = service.subscribed();
    assert_eq!(variables["after"], "third");
    let gone = json!([{ "message": "it is gone", "extensions": { "code": "CURSOR_EXPIRED", "oldestCursor": "x" } }]);
    connection.send(&json!({ "type": "error", "id": OPERATION, "payload": gone }));
    let (connection, variables) = service.subscribed();
    assert_eq!(variables["after"], Value::Null);
    connection.close(4400, "Enough");
    let (_, said) = watch.end();
    assert!(said.contains("updates are missing from here on: it is gone; trying again"), "{said}");
}

#[test]
fn a_refusal_ends_it_with_what_the_service_said() {
    let service = Service::start();
    let watch = service.watch(&["--severity", "P9"]);
    let (mut connection, _) = service.subscribed();
    let errors = json!([{ "message": "no P9" }, { "message": "nor\nthat" }]);
    connection.send(&json!({ "type": "error", "id": OPERATION, "payload": errors }));
    let (status, said) = watch.end();
    assert_eq!(status.code(), Some(1));
    assert!(said.ends_with("incident-manager: no P9; nor\\nthat\n"), "{said}");

    for (code, reason) in [(4400, "Bad"), (4403, "Forbidden"), (4406, "Subprotocol not acceptable")] {
        let watch = service.watch(&[]);
        service.accept().close(code, reason);
        let (status, said) = watch.end();
        assert_eq!(status.code(), Some(1));
        assert!(said.contains(&code.to_string()) && said.contains(reason), "{said}");
        assert_eq!(said.contains("--token"), code == 4403, "{said}");
    }
}

#[test]
fn it_ends_when_nobody_reads_any_more() {
    let service = Service::start();
    let mut watch = service.watch(&[]);
    let (mut connection, _) = service.subscribed();
    connection.next(&update("CREATED", "one"));
    watch.line();
    watch.output = None;
    let (status, _) = watch.end();
    assert_eq!(status.code(), Some(0));
}
