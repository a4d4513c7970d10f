//! Connections end with the credential that they were made with, and go on by a new one.

use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::access::{now, start_required, token};
use crate::support::{PATIENCE, Service, Socket, TestDatabase};

const SUBSCRIPTION: &str = "subscription { newIncidents { title } }";

async fn start(database: &TestDatabase) -> Service {
    start_required(&database.database_url(), &["--jwt-leeway", "0s"]).await
}

async fn stream(service: &Service) -> Response {
    let request = service.http().post(service.url("/graphql/stream")).header("accept", "text/event-stream");
    let response = request.json(&json!({ "query": SUBSCRIPTION })).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

async fn open(database: &TestDatabase, title: &str) {
    let sql = format!("insert into incident_manager.incident (title, severity, source) values ('{title}', 'P3', 's')");
    database.execute(&sql).await;
}

/// The subscription is told why, and then the connection ends.
async fn ends(mut socket: Socket, why: &str) {
    let told = socket.receive().await.expect("the operation is told first");
    assert_eq!((&told["type"], &told["id"]), (&json!("error"), &json!("1")), "{told}");
    let error = &told["payload"][0];
    assert_eq!((&error["message"], &error["extensions"]["code"]), (&json!(why), &json!("UNAUTHORIZED")), "{told}");
    assert!(error["extensions"]["timestamp"].is_string(), "{told}");
    assert_eq!(socket.receive_or_end().await, Err(Some((4403, format!("Forbidden: {why}")))));
}

/// The same of an event stream.
async fn stream_ends(mut stream: Response, why: &str) {
    let mut text = String::new();
    while let Some(chunk) = timeout(PATIENCE, stream.chunk()).await.expect("in time").unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.contains("UNAUTHORIZED") && text.contains(why), "{text}");
    assert!(text.ends_with("event: complete\ndata:\n\n"), "{text}");
}

#[tokio::test]
async fn a_key_that_is_revoked_on_one_replica_ends_its_connections_on_all() {
    let database = TestDatabase::new().await;
    let (here, there) = (start(&database).await, start(&database).await);
    let create = r#"mutation { createApiKey(input: { name: "k", permissions: ["incidents.subscribe", "incidents.read"] }) { id secret } }"#;
    let made = here.data(create, json!({})).await["createApiKey"].take();
    let key = made["secret"].as_str().unwrap();
    let (admin, there) = (&here, there.bearing(key));
    let other = Socket::connect_as(there.address, Some(&token(json!({ "roles": ["viewer"] })))).await;
    let mut other = subscribed(other).await;
    let (mut socket, events) = (there.subscribe(SUBSCRIPTION).await, stream(&there).await);
    let mut beside = subscribed(Socket::connect_as(admin.address, Some(key)).await).await;
    open(&database, "before").await;
    // each replica hears of it in its own time
    for socket in [&mut socket, &mut beside, &mut other] {
        assert_eq!(socket.next("newIncidents").await["title"], "before");
    }

    let revoke = "mutation($id: UUID!) { revokeApiKey(id: $id) }";
    assert_eq!(admin.data(revoke, json!({ "id": made["id"] })).await["revokeApiKey"], true);
    let why = "the API key has been revoked";
    ends(socket, why).await;
    stream_ends(events, why).await;
    ends(beside, why).await;
    // nobody else notices
    open(&database, "after").await;
    assert_eq!(other.next("newIncidents").await["title"], "after");
    there.stop().await;
    here.stop().await;
}

async fn subscribed(mut socket: Socket) -> Socket {
    socket.subscribe("1", SUBSCRIPTION, json!({})).await;
    socket
}

#[tokio::test]
async fn a_token_that_expires_ends_its_connections_on_every_replica() {
    let database = TestDatabase::new().await;
    let (here, there) = (start(&database).await, start(&database).await);
    let short = token(json!({ "roles": ["viewer"], "exp": now() + 8 }));
    let (here, there) = (here.bearing(&short), there.bearing(&short));
    let mut sockets = [here.subscribe(SUBSCRIPTION).await, there.subscribe(SUBSCRIPTION).await];
    let streams = [stream(&here).await, stream(&there).await];
    open(&database, "before").await;
    for socket in &mut sockets {
        assert_eq!(socket.next("newIncidents").await["title"], "before");
    }
    for (socket, events) in sockets.into_iter().zip(streams) {
        ends(socket, "the token has expired").await;
        stream_ends(events, "the token has expired").await;
    }
    assert_eq!(Socket::open(here.address, None).await.err(), None, "others may come");
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_ping_with_a_new_token_carries_a_connection_on() {
    let database = TestDatabase::new().await;
    let service = start(&database).await;
    let claims = |exp: i64| json!({ "sub": "mei", "roles": ["viewer"], "sources": ["s"], "exp": exp });
    let short = now() + 4;
    let mut socket = subscribed(Socket::connect_as(service.address, Some(&token(claims(short)))).await).await;
    let mut left = subscribed(Socket::connect_as(service.address, Some(&token(claims(short)))).await).await;
    socket.send(json!({ "type": "ping", "payload": { "Authorization": format!("Bearer {}", token(claims(now() + 3600))) } })).await;
    assert_eq!(socket.receive().await.unwrap()["type"], "pong");
    // the other one shows that the old token is over
    assert_eq!(left.receive().await.expect("an error")["type"], "error");
    open(&database, "after").await;
    assert_eq!(socket.next("newIncidents").await["title"], "after");
    // and back to a shorter one: the limits are the new token's
    socket.send(json!({ "type": "ping", "payload": { "token": token(claims(now() + 3)) } })).await;
    assert_eq!(socket.receive().await.unwrap()["type"], "pong");
    ends(socket, "the token has expired").await;
    service.stop().await;
}

#[tokio::test]
async fn a_ping_with_another_identity_or_a_wrong_token_ends_the_connection() {
    let database = TestDatabase::new().await;
    let service = start(&database).await;
    let claims = json!({ "sub": "mei", "roles": ["viewer"], "sources": ["s"] });
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        json!(token(changed))
    };
    let other = "Forbidden: another subject or access";
    for (wrong, reason) in [
        (with("sub", json!("eve")), other),
        (with("roles", json!(["admin"])), other),
        (with("roles", json!([])), other),
        (with("sources", Value::Null), other),
        (with("sources", json!(["s", "t"])), other),
        (with("exp", json!(now() - 60)), "Forbidden: the token has expired"),
        (json!("nonsense"), "Forbidden: this is neither a token nor an API key"),
        (json!(7), "Forbidden: this is neither a token nor an API key"),
    ] {
        let mut socket = subscribed(Socket::connect_as(service.address, Some(&token(claims.clone()))).await).await;
        socket.send(json!({ "type": "ping", "payload": { "token": wrong } })).await;
        loop {
            match socket.receive_or_end().await {
                Ok(told) => assert_eq!(told["payload"][0]["extensions"]["code"], "UNAUTHORIZED", "{told}"),
                Err(end) => break assert_eq!(end, Some((4403, reason.to_owned()))),
            }
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_service_that_asks_everybody_ends_when_it_is_told_to() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--drain-timeout", "10m"]).await;
    assert_eq!(service.data("{ viewer { subject } }", json!({})).await["viewer"]["subject"], "mei");
    service.stop().await;
}
