//! What a client may hold open at a time: connections and subscriptions, of its credential and of its address.

use reqwest::Response;
use reqwest::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER};
use serde_json::{Value, json};

use crate::support::access::{start_required, token};
use crate::support::{Service, Socket, TestDatabase, eventually};

const SUBSCRIPTION: &str = "subscription { newIncidents { title } }";

fn of(subject: &str) -> String {
    token(json!({ "sub": subject, "roles": ["viewer"] }))
}

async fn stream(service: &Service, bearer: &str) -> Response {
    let request = service.http().post(service.url("/graphql/stream")).header(ACCEPT, "text/event-stream");
    let request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
    request.json(&json!({ "query": SUBSCRIPTION })).send().await.unwrap()
}

/// The event stream is one too many.
async fn stream_refused(service: &Service, bearer: &str, detail: &str, limit: u64) {
    let response = stream(service, bearer).await;
    assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (429, &"1".parse().unwrap()));
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "RATE_LIMIT_EXCEEDED", "{problem}");
    assert_eq!((&problem["detail"], &problem["limit"]), (&json!(detail), &json!(limit)), "{problem}");
}

/// How a connection ends whose credential comes in `connection_init`.
async fn initialised(service: &Service, bearer: &str) -> Option<(u16, String)> {
    let mut socket = Socket::open(service.address, None).await.expect("nobody knows yet who it is");
    socket.send(json!({ "type": "connection_init", "payload": { "token": bearer } })).await;
    match socket.receive_or_end().await {
        Ok(message) => panic!("{message}"),
        Err(end) => end,
    }
}

/// The subscription is one too many.
async fn refused(socket: &mut Socket, id: &str, message: &str, limit: u64) {
    socket.send(json!({ "id": id, "type": "subscribe", "payload": { "query": SUBSCRIPTION } })).await;
    let told = socket.receive().await.expect("the connection goes on");
    assert_eq!((&told["type"], &told["id"]), (&json!("error"), &json!(id)), "{told}");
    let error = &told["payload"][0];
    assert_eq!((&error["message"], &error["extensions"]["limit"]), (&json!(message), &json!(limit)), "{told}");
    assert_eq!(error["extensions"]["code"], "RATE_LIMIT_EXCEEDED", "{told}");
}

#[tokio::test]
async fn a_credential_has_so_many_connections_however_it_is_presented() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--max-connections-per-credential", "2"]).await;
    let (busy, calm) = (of("busy"), of("calm"));
    let first = Socket::open(service.address, Some(&busy)).await.unwrap();
    let second = Socket::connect_as(service.address, Some(&busy)).await;
    let limit = "a credential may have no more connections open than 2";
    assert_eq!(Socket::open(service.address, Some(&busy)).await.err(), Some(429), "by the header");
    assert_eq!(initialised(&service, &busy).await, Some((1013, format!("Try again later: {limit}"))));
    stream_refused(&service, &busy, limit, 2).await;

    // by the payload, which goes before the header
    let mut other = Socket::open(service.address, Some(&calm)).await.unwrap();
    other.send(json!({ "type": "connection_init", "payload": { "token": busy } })).await;
    assert_eq!(other.receive_or_close().await, Err(Some(1013)));
    let _calm = Socket::connect_as(service.address, Some(&calm)).await;

    drop(first);
    eventually("a place is free", || async { stream(&service, &busy).await.status() == 200 }).await;
    drop(second);
    service.stop().await;
}

#[tokio::test]
async fn a_credential_has_so_many_subscriptions_on_all_its_connections() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--max-subscriptions-per-credential", "2"]).await;
    let (busy, calm) = (of("busy"), of("calm"));
    let mut socket = Socket::connect_as(service.address, Some(&busy)).await;
    socket.subscribe("1", SUBSCRIPTION, json!({})).await;
    let open = stream(&service, &busy).await;
    assert_eq!(open.status(), 200);
    let limit = "a credential may have no more subscriptions open than 2";
    refused(&mut socket, "2", limit, 2).await;
    stream_refused(&service, &busy, limit, 2).await;
    socket.send(json!({ "id": "2", "type": "subscribe", "payload": { "query": "{ viewer { subject } }" } })).await;
    assert_eq!(socket.receive().await.unwrap()["type"], "next", "what is over at once is no subscription");
    assert_eq!(socket.receive().await.unwrap()["type"], "complete");
    let mut others = Socket::connect_as(service.address, Some(&calm)).await;
    others.subscribe("1", SUBSCRIPTION, json!({})).await;

    // one that has ended, of itself or by its client, is none
    socket.send(json!({ "id": "1", "type": "complete" })).await;
    let broken = "subscription { newIncidents { nothing } }";
    socket.send(json!({ "id": "3", "type": "subscribe", "payload": { "query": broken } })).await;
    let told = socket.receive().await.unwrap();
    assert_eq!(told["payload"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{told}");
    socket.subscribe("4", SUBSCRIPTION, json!({})).await;
    refused(&mut socket, "5", limit, 2).await;
    drop(open);
    let again = || async { stream(&service, &busy).await.status() == 200 };
    eventually("the stream's place is free", again).await;
    service.stop().await;
}

#[tokio::test]
async fn what_a_connection_holds_goes_with_it_to_a_new_credential() {
    let database = TestDatabase::new().await;
    let flags = ["--max-connections-per-credential", "2", "--max-subscriptions-per-credential", "2"];
    let service = start_required(&database.database_url(), &flags).await;
    let (old, new) = (of("mei"), token(json!({ "sub": "mei", "roles": ["viewer"], "jti": "new" })));
    let mut socket = Socket::connect_as(service.address, Some(&old)).await;
    for id in ["1", "2"] {
        socket.subscribe(id, SUBSCRIPTION, json!({})).await;
    }
    socket.send(json!({ "type": "ping", "payload": { "token": new } })).await;
    assert_eq!(socket.receive().await.unwrap()["type"], "pong");
    let limit = "a credential may have no more subscriptions open than 2";
    refused(&mut socket, "3", limit, 2).await;
    stream_refused(&service, &new, limit, 2).await;

    let mut before = Socket::connect_as(service.address, Some(&old)).await;
    before.subscribe("1", SUBSCRIPTION, json!({})).await;
    // with its one there would be three
    before.send(json!({ "type": "ping", "payload": { "token": new } })).await;
    let told = before.receive().await.unwrap();
    let code = &told["payload"][0]["extensions"]["code"];
    assert_eq!((&told["id"], code), (&json!("1"), &json!("RATE_LIMIT_EXCEEDED")), "{told}");
    assert_eq!(before.receive_or_end().await, Err(Some((1013, format!("Try again later: {limit}")))));
    let _beside = Socket::connect_as(service.address, Some(&new)).await;
    service.stop().await;
}

#[tokio::test]
async fn an_address_has_so_many_subscriptions_whoever_they_are() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--max-subscriptions-per-address", "1"]).await;
    let mut socket = Socket::connect_as(service.address, Some(&of("one"))).await;
    socket.subscribe("1", SUBSCRIPTION, json!({})).await;
    let limit = "an address may have no more subscriptions open than 1";
    stream_refused(&service, &of("other"), limit, 1).await;
    refused(&mut socket, "2", limit, 1).await;
    socket.send(json!({ "id": "1", "type": "complete" })).await;
    socket.subscribe("3", SUBSCRIPTION, json!({})).await;
    service.stop().await;
}
