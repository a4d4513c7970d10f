//! Who sends too fast is told when to come back, and nobody else is.

use reqwest::header::{AUTHORIZATION, RETRY_AFTER};
use serde_json::{Value, json};

use crate::support::access::{start_required, token};
use crate::support::{Service, Socket, TestDatabase, eventually};

const VIEWER: &str = "/graphql?query=%7Bviewer%7Bsubject%7D%7D";

/// The first answer of this path that is one too many.
async fn too_many(service: &Service, path: &str, bearer: &str) -> (Value, u64) {
    loop {
        let request = service.http().get(service.url(path)).header(AUTHORIZATION, format!("Bearer {bearer}"));
        let response = request.send().await.unwrap();
        if response.status() == 429 {
            let seconds = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
            return (response.json().await.unwrap(), seconds);
        }
    }
}

#[tokio::test]
async fn a_credential_has_so_many_requests_a_second_whichever_way_they_come() {
    let database = TestDatabase::new().await;
    // what asks whether the service is ready comes without a credential
    let service = start_required(&database.database_url(), &["--max-requests-per-second", "2"]).await;
    let (busy, calm) = (token(json!({ "roles": ["viewer"] })), token(json!({ "sub": "calm", "roles": ["viewer"] })));
    let service = service.bearing(&busy);
    let (body, seconds) = too_many(&service, VIEWER, &busy).await;
    let extensions = &body["errors"][0]["extensions"];
    assert_eq!((&extensions["code"], seconds), (&json!("RATE_LIMIT_EXCEEDED"), 1), "{body}");
    assert!(extensions["retryAfterMs"].as_u64().is_some_and(|wait| (1..=1000).contains(&wait)), "{body}");
    let (body, seconds) = too_many(&service, "/v1/incidents", &busy).await;
    assert_eq!((&body["code"], seconds), (&json!("RATE_LIMIT_EXCEEDED"), 1), "{body}");
    assert!(body["retryAfterMs"].as_u64().is_some_and(|wait| (1..=1000).contains(&wait)), "{body}");

    let mut socket = Socket::connect_as(service.address, Some(&busy)).await;
    let refused = loop {
        socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": "{ viewer { subject } }" } })).await;
        match socket.receive().await.expect("the connection goes on") {
            told if told["type"] == "error" => break told,
            _ => assert_eq!(socket.receive().await.unwrap()["type"], "complete"),
        }
    };
    let extensions = &refused["payload"][0]["extensions"];
    assert_eq!(extensions["code"], "RATE_LIMIT_EXCEEDED", "{refused}");
    assert!(extensions["retryAfterMs"].is_u64(), "{refused}");

    let others = service.http().get(service.url(VIEWER)).header(AUTHORIZATION, format!("Bearer {calm}"));
    assert_eq!(others.send().await.unwrap().status(), 200, "nobody else is kept waiting");
    let again = || async {
        let request = service.http().get(service.url(VIEWER)).header(AUTHORIZATION, format!("Bearer {busy}"));
        request.send().await.unwrap().status() == 200
    };
    eventually("it may go on", again).await;
    service.stop().await;
}

#[tokio::test]
async fn an_address_has_so_many_requests_a_second_whoever_they_say_they_are() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--max-requests-per-second-per-address", "2"]).await;
    let (body, _) = too_many(&service, VIEWER, "nonsense").await;
    assert_eq!(body["errors"][0]["extensions"]["code"], "RATE_LIMIT_EXCEEDED", "{body}");
    let (body, _) = too_many(&service, "/v1/incidents", &token(json!({ "roles": ["viewer"] }))).await;
    assert_eq!(body["code"], "RATE_LIMIT_EXCEEDED", "{body}");
    service.stop().await;
}
