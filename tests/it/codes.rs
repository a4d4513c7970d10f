//! Every code by every path that can give it, in the same shape: over HTTP, event streams, WebSocket and REST.

use chrono::DateTime;
use incident_manager::embedded::Shutdown;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::support::access::{start_required, token};
use crate::support::{Server, Service, Socket, TestDatabase};

/// What every error has: its code, for programs; when that was; and something for people.
fn code(path: &str, message: &Value, extensions: &Value) -> String {
    let shown = format!("{path}: {message} {extensions}");
    assert!(message.as_str().is_some_and(|message| !message.is_empty()), "{shown}");
    let at = extensions["timestamp"].as_str().unwrap_or_else(|| panic!("no time in {shown}"));
    DateTime::parse_from_rfc3339(at).unwrap_or_else(|error| panic!("{error}: {shown}"));
    extensions["code"].as_str().unwrap_or_else(|| panic!("no code in {shown}")).to_owned()
}

/// The code of the first of some errors of GraphQL.
fn first(path: &str, errors: &Value) -> String {
    code(path, &errors[0]["message"], &errors[0]["extensions"])
}

/// The first payload of an event stream.
fn streamed(text: &str) -> Value {
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("no result: {text}"));
    serde_json::from_str(data).unwrap()
}

async fn over_websocket(mut socket: Socket, payload: Value) -> String {
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
    let message = socket.receive().await.expect("the connection goes on");
    let errors = if message["type"] == "error" { &message["payload"] } else { &message["payload"]["errors"] };
    first("WebSocket", errors)
}

/// An operation that is to fail fails with this code, by every path that takes it.
async fn assert_code(service: &Service, expected: &str, operation: &str) {
    let payload = json!({ "query": operation });
    let (is_query, is_subscription) = (operation.starts_with('{'), operation.starts_with("subscription"));
    let json = |request: reqwest::RequestBuilder| async {
        request.header(ACCEPT, "application/json").send().await.unwrap().json::<Value>().await.unwrap()
    };
    let mut told = vec![("WebSocket", over_websocket(service.socket().await, payload.clone()).await)];
    if !is_subscription {
        let body = json(service.http().post(service.url("/graphql")).json(&payload)).await;
        told.push(("POST", first("POST", &body["errors"])));
    }
    if is_query {
        let body = json(service.http().get(service.url("/graphql")).query(&[("query", operation)])).await;
        told.push(("GET", first("GET", &body["errors"])));
    }
    let mut streams = vec![service.http().post(service.url("/graphql/stream")).json(&payload)];
    if is_query || is_subscription {
        streams.push(service.http().get(service.url("/graphql/stream")).query(&[("query", operation)]));
    }
    for stream in streams {
        let text = stream.header(ACCEPT, "text/event-stream").send().await.unwrap().text().await.unwrap();
        told.push(("event stream", first("event stream", &streamed(&text)["errors"])));
    }
    for (path, code) in told {
        assert_eq!(code, expected, "{path}: {operation}");
    }
}

/// The same over REST, where the code has a status of its own.
async fn assert_problem(service: &Service, expected: (u16, &str), (method, path, body): (Method, &str, Value)) {
    let what = format!("{method} {path}");
    let mut request = service.http().request(method, service.url(path));
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{what}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!((status, &*code(&what, &problem["detail"], &problem)), expected, "{what}");
}

fn incident() -> Value {
    json!({ "title": "t", "severity": "P3", "source": "s" })
}

#[tokio::test]
async fn what_is_wrong_with_a_request() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    let (status, created) = service.rest(Method::POST, "/v1/incidents", incident()).await;
    assert_eq!(status, 201);
    let id = created["id"].as_str().unwrap();
    let nobody = uuid::Uuid::nil();
    for (code, operation) in [
        ("GRAPHQL_PARSE_FAILED", "{ incidents {"),
        ("GRAPHQL_VALIDATION_FAILED", "{ nothing }"),
        ("BAD_USER_INPUT", "{ incidents(first: 0) { totalCount } }"),
        ("BAD_USER_INPUT", "subscription { newIncidents(after: \"nonsense\") { id } }"),
        ("NOT_FOUND", &format!("mutation {{ acknowledgeIncident(id: \"{nobody}\") {{ id }} }}")),
        (
            "CONFLICT",
            &format!(
                "mutation {{ updateIncident(id: \"{id}\", input: {{ title: \"x\" }}, expectedVersion: 7) {{ id }} }}"
            ),
        ),
        ("INVALID_STATE_TRANSITION", &format!("mutation {{ transitionIncident(id: \"{id}\", to: CLOSED) {{ id }} }}")),
    ] {
        assert_code(&service, code, operation).await;
    }
    let of = |action: &str| format!("/v1/incidents/{id}{action}");
    for (expected, method, path, body) in [
        ((400, "BAD_USER_INPUT"), Method::GET, "/v1/incidents?first=0", Value::Null),
        ((404, "NOT_FOUND"), Method::GET, &format!("/v1/incidents/{nobody}"), Value::Null),
        ((409, "CONFLICT"), Method::PATCH, &of("?expectedVersion=7"), json!({ "title": "x" })),
        ((409, "INVALID_STATE_TRANSITION"), Method::POST, &of("/transition"), json!({ "to": "CLOSED" })),
    ] {
        assert_problem(&service, expected, (method, path, body)).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn what_a_credential_may_not() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    let service = service.bearing(&token(json!({ "permissions": ["alerts.read"] })));
    for operation in [
        "{ incidents { totalCount } }",
        "subscription { newIncidents { id } }",
        "mutation { resolveIncident(id: \"00000000-0000-0000-0000-000000000000\") { id } }",
    ] {
        assert_code(&service, "FORBIDDEN", operation).await;
    }
    for (method, path, body) in [
        (Method::GET, "/v1/incidents", Value::Null),
        (Method::POST, "/v1/incidents", incident()),
        (Method::POST, "/v1/alerts", incident()),
    ] {
        assert_problem(&service, (403, "FORBIDDEN"), (method, path, body)).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_too_much() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--max-alerts-per-second", "1"]).await;
    let service = service.bearing(&token(json!({ "roles": ["integration"] })));
    // as many as there may be at once; from then on one a second
    let all = json!(vec![incident(); 1000]);
    assert_eq!(service.rest(Method::POST, "/v1/alerts", all.clone()).await.0, 201);
    let one = "submitAlert(input: { title: \"t\", severity: P3, source: \"s\" }) { status }";
    let many = (0..20).map(|n| format!("a{n}: {one}")).collect::<Vec<_>>().join(" ");
    assert_code(&service, "RATE_LIMIT_EXCEEDED", &format!("mutation {{ {many} }}")).await;
    assert_problem(&service, (429, "RATE_LIMIT_EXCEEDED"), (Method::POST, "/v1/alerts", all)).await;
    service.stop().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed() {
    let (here, elsewhere) = (TestDatabase::new().await, TestDatabase::new().await);
    let position = "{ streamPosition { cursor } }";
    let other = Service::start(&elsewhere.database_url()).await;
    let cursor = other.data(position, json!({})).await["streamPosition"]["cursor"].take();
    other.stop().await;
    let service = Service::start(&here.database_url()).await;
    let operation = format!("subscription {{ alerts(after: {cursor}) {{ id }} }}");
    assert_code(&service, "CURSOR_EXPIRED", &operation).await;
    service.stop().await;
}

#[tokio::test]
async fn a_database_that_is_away() {
    let server = Server::start().await;
    let running = Service::start(&server.embedded.url()).await;
    let create = r#"mutation { createApiKey(input: { name: "k", permissions: ["incidents.read"] }) { secret } }"#;
    let key = running.data(create, json!({})).await["createApiKey"]["secret"].as_str().unwrap().to_owned();
    running.stop().await;
    server.embedded.take_down(Shutdown::Fast).await.unwrap();

    let away = "DATABASE_UNAVAILABLE";
    let service = Service::start_with(&server.embedded.url(), &[]).await;
    for operation in [
        "{ incidents { totalCount } }",
        "mutation { createIncident(input: { title: \"t\", severity: P3, source: \"s\" }) { id } }",
        "subscription { newIncidents { id } }",
    ] {
        assert_code(&service, away, operation).await;
    }
    for (method, path, body) in [
        (Method::GET, "/v1/incidents", Value::Null),
        (Method::POST, "/v1/incidents", incident()),
        (Method::POST, "/v1/alerts", incident()),
    ] {
        assert_problem(&service, (503, away), (method, path, body)).await;
    }
    service.stop().await;

    // and so nobody can tell who asks
    let service = Service::start_with(&server.embedded.url(), &["--auth", "required"]).await.bearing(&key);
    let response = service.graphql("{ viewer { subject } }", json!({})).await;
    assert_eq!(first("POST", &response["errors"]), away, "{response}");
    for path in ["/v1/incidents", "/graphql/stream?query=%7Bviewer%7Bsubject%7D%7D"] {
        assert_problem(&service, (503, away), (Method::GET, path, Value::Null)).await;
    }
    assert_eq!(Socket::open(service.address, Some(&key)).await.err(), Some(503));
    let mut socket = Socket::open(service.address, None).await.unwrap();
    socket.send(json!({ "type": "connection_init", "payload": { "token": key } })).await;
    assert_eq!(socket.receive_or_end().await, Err(Some((1013, "Try again later".to_owned()))));
    service.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_defect_of_the_services_own() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    // a database that is not as this release made it
    database.execute("alter table incident_manager.incident rename column root_cause to gone").await;
    for operation in [
        "{ incidents { nodes { id } } }",
        "mutation { createIncident(input: { title: \"t\", severity: P3, source: \"s\" }) { id } }",
    ] {
        assert_code(&service, "INTERNAL_SERVER_ERROR", operation).await;
    }
    for (method, body) in [(Method::GET, Value::Null), (Method::POST, incident())] {
        assert_problem(&service, (500, "INTERNAL_SERVER_ERROR"), (method, "/v1/incidents", body)).await;
    }
    service.stop().await;
}
