//! Who comes in by a token, and what is said to who does not: over HTTP, event streams and WebSocket alike.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::access::{SECRET, Signer, now, start_required, token, token_of};
use crate::support::{Service, Socket, TestDatabase};

const SUBSCRIPTION: &str = "subscription { newIncidents { title } }";

async fn start(flags: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), flags).await;
    (database, service)
}

/// A request to each path that wants to know who asks, by nobody yet.
fn requests(service: &Service) -> Vec<(&'static str, RequestBuilder)> {
    let client = reqwest::Client::new();
    let query = json!({ "query": "{ viewer { subject } }" });
    let stream = client.post(service.url("/graphql/stream")).header("accept", "text/event-stream");
    vec![
        ("/graphql", client.post(service.url("/graphql")).json(&query)),
        ("/graphql by GET", client.get(service.url("/graphql?query=%7Bviewer%7Bsubject%7D%7D"))),
        ("/graphql/stream", stream.json(&query)),
        ("/v1/incidents", client.get(service.url("/v1/incidents"))),
        ("/v1/alerts", client.post(service.url("/v1/alerts")).json(&json!([]))),
        ("/openapi.json", client.get(service.url("/openapi.json"))),
    ]
}

/// The code in an answer's body: in the shape of GraphQL's errors, or of a problem.
async fn code(path: &str, response: Response) -> String {
    let is_problem = response.headers()[CONTENT_TYPE] == "application/problem+json";
    let mut body: Value = response.json().await.unwrap();
    assert_eq!(is_problem, !path.starts_with("/graphql") || path == "/graphql/stream", "{path}: {body}");
    let error = if is_problem { body } else { body["errors"][0]["extensions"].take() };
    assert!(error["timestamp"].is_string(), "{path}: {error}");
    error["code"].as_str().unwrap_or_default().to_owned()
}

fn challenge(response: &Response) -> String {
    response.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned()
}

/// How `connection_init` with this payload ends.
async fn refused_init(service: &Service, payload: Value) -> (u16, String) {
    let mut socket = Socket::open(service.address, None).await.unwrap();
    socket.send(json!({ "type": "connection_init", "payload": payload })).await;
    socket.receive_or_end().await.expect_err("the connection ends").expect("a close frame")
}

fn forbidden() -> (u16, String) {
    (4403, "Forbidden".to_owned())
}

#[tokio::test]
async fn without_a_credential_nothing_is_answered_but_health_and_metrics() {
    let (_database, service) = start(&[]).await;
    for (path, request) in requests(&service) {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        assert_eq!(challenge(&response), r#"Bearer realm="incident-manager""#, "{path}");
        assert_eq!(code(path, response).await, "UNAUTHORIZED", "{path}");
    }
    assert_eq!(refused_init(&service, Value::Null).await, forbidden());
    assert_eq!(refused_init(&service, json!({})).await, forbidden());
    let nobody = reqwest::Client::new();
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(nobody.get(service.url(path)).send().await.unwrap().status(), 200, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_token_is_taken_from_header_and_payload_and_names_who_acts() {
    let (database, service) = start(&[]).await;
    let mut updates = service.subscribe("subscription { incidentUpdates { actor } }").await;
    let responder = token(json!({ "sub": "jonas", "roles": ["responder"], "sources": ["cron"] }));
    for (path, request) in requests(&service) {
        let response = request.header(AUTHORIZATION, format!("bearer {responder}")).send().await.unwrap();
        // it may not submit alerts
        let expected = if path == "/v1/alerts" { 403 } else { 200 };
        assert_eq!(response.status(), expected, "{path}");
        assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), expected == 403, "{path}");
    }
    let service = service.bearing(&responder);
    let viewer = service.data("{ viewer { subject permissions sources } }", json!({})).await;
    assert_eq!(
        viewer["viewer"],
        json!({
            "subject": "jonas",
            "permissions": ["incidents.read", "incidents.write", "incidents.subscribe", "alerts.read",
                            "alerts.subscribe", "playbooks.read"],
            "sources": ["cron"],
        })
    );
    let create = r#"mutation { createIncident(input: { title: "t", severity: P2, source: "cron" }) { id } }"#;
    service.data(create, json!({})).await;
    assert_eq!(updates.next("incidentUpdates").await["actor"], "jonas");
    assert_eq!(database.scalar::<String>("select actor from incident_manager.timeline").await, "jonas");

    for payload in [
        json!({ "Authorization": format!("Bearer {responder}") }),
        json!({ "authorization": responder }),
        json!({ "headers": { "Authorization": format!("Bearer {responder}") } }),
        json!({ "token": responder }),
    ] {
        let mut socket = Socket::open(service.address, None).await.unwrap();
        socket.send(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.receive().await.expect("admitted")["type"], "connection_ack");
    }
    let mut socket = Socket::open(service.address, Some(&responder)).await.expect("admitted by its header");
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.receive().await.expect("admitted")["type"], "connection_ack");
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": "{ viewer { subject } }" } })).await;
    assert_eq!(socket.next("viewer").await["subject"], "jonas");
    service.stop().await;
}

/// A token whose header says something else than what signed it.
fn forged(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

#[tokio::test]
async fn a_wrong_token_lets_nobody_in_by_any_way() {
    let (_database, service) =
        start(&["--jwt-audiences", "incidents,other", "--jwt-issuers", "https://id.example"]).await;
    let signed = |claims: Value| {
        let mut whole = json!({ "roles": ["admin"], "aud": "incidents", "iss": "https://id.example" });
        for (name, value) in claims.as_object().unwrap() {
            whole[name] = value.clone();
        }
        token(whole)
    };
    let claims =
        json!({ "sub": "eve", "exp": now() + 60, "roles": ["admin"], "aud": "incidents", "iss": "https://id.example" });
    let good = signed(json!({}));
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    for (what, wrong, said) in [
        ("expired", signed(json!({ "exp": now() - 60 })), "has expired"),
        ("not yet valid", signed(json!({ "nbf": now() + 60 })), "is not valid yet"),
        ("for another", signed(json!({ "aud": "somebody" })), "is not for this service"),
        ("for nobody", signed(json!({ "aud": null })), "is not for this service"),
        ("by another", signed(json!({ "iss": "https://evil.example" })), "issuer is not trusted"),
        ("by nobody", signed(json!({ "iss": null })), "issuer is not trusted"),
        ("made up", forged(&json!({ "alg": "HS256" }), &claims, "AAAA"), "signature is wrong"),
        (
            "of another secret",
            Signer::secret("another secret, just as long as that").token(claims.clone()),
            "signature is wrong",
        ),
        ("none", forged(&json!({ "alg": "none" }), &claims, ""), "algorithm that is not taken"),
        ("None", forged(&json!({ "alg": "None" }), &claims, "AAAA"), "algorithm that is not taken"),
        ("HS512", forged(&json!({ "alg": "HS512" }), &claims, "AAAA"), "algorithm that is not taken"),
        ("RS256", forged(&json!({ "alg": "RS256" }), &claims, "AAAA"), "algorithm that is not taken"),
        (
            "critical",
            forged(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims, "AAAA"),
            "not understood",
        ),
        ("cut", unsigned.to_owned(), "neither a token nor an API key"),
        ("unsigned", format!("{unsigned}."), "signature is wrong"),
        ("altered", format!("{good}A"), "signature is wrong"),
        ("nonsense", "nonsense".to_owned(), "neither a token nor an API key"),
        ("huge", format!("{good}{}", "A".repeat(20_000)), "neither a token nor an API key"),
        ("without a subject", signed(json!({ "sub": "" })), "no subject"),
        ("of a key's name", signed(json!({ "sub": "api-key:prometheus" })), "no subject"),
        ("of odd sources", signed(json!({ "sources": 7 })), "sources are no list"),
    ] {
        for (path, request) in requests(&service) {
            let response = request.header(AUTHORIZATION, format!("Bearer {wrong}")).send().await.unwrap();
            assert_eq!(response.status(), 401, "{what}: {path}");
            let challenge = challenge(&response);
            assert!(challenge.contains(r#"error="invalid_token""#) && challenge.contains(said), "{what}: {challenge}");
            assert_eq!(code(path, response).await, "UNAUTHORIZED", "{what}: {path}");
        }
        assert_eq!(refused_init(&service, json!({ "token": wrong })).await, forbidden(), "{what}");
        assert_eq!(Socket::open(service.address, Some(&wrong)).await.err(), Some(401), "{what}");
    }
    let several = signed(json!({ "aud": ["a", "other"] }));
    let service = service.bearing(&several);
    service.data("{ viewer { subject } }", json!({})).await;
    service.stop().await;
}

#[tokio::test]
async fn a_token_that_names_its_audience_is_refused_where_the_service_has_no_name() {
    let (_database, service) = start(&[]).await;
    let service = service.bearing(&token(json!({ "aud": "somebody" })));
    let error = service.error("{ viewer { subject } }", json!({})).await;
    assert_eq!(error["extensions"]["code"], "UNAUTHORIZED", "{error}");
    service.stop().await;
}

#[tokio::test]
async fn a_header_that_cannot_be_read_is_a_bad_request() {
    let (_database, service) = start(&[]).await;
    let good = token_of(&["admin"]);
    for (values, status, error) in [
        (vec![format!("Bearer {good}"), format!("Bearer {good}")], 400, Some("invalid_request")),
        (vec!["Bearer".to_owned()], 400, Some("invalid_request")),
        (vec!["Bearer a b".to_owned()], 400, Some("invalid_request")),
        (vec!["Basic dTpw".to_owned()], 401, None),
        (vec![good], 401, None),
    ] {
        for (path, mut request) in requests(&service) {
            for value in &values {
                request = request.header(AUTHORIZATION, value);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{path}: {values:?}");
            assert_eq!(challenge(&response).contains("error="), error.is_some());
            assert!(challenge(&response).contains(error.unwrap_or("realm")));
            let expected = if status == 400 { "BAD_USER_INPUT" } else { "UNAUTHORIZED" };
            assert_eq!(code(path, response).await, expected, "{path}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_key_of_a_file_has_one_algorithm_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let signers = [Signer::rs256(), Signer::es256(), Signer::eddsa()];
    let paths: Vec<String> = signers
        .iter()
        .enumerate()
        .map(|(at, signer)| {
            let path = dir.path().join(format!("{at}.pem"));
            std::fs::write(&path, &signer.pem).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect();
    let (_database, service) = start(&["--jwt-key-files", &paths.join(",")]).await;
    for signer in &signers {
        let response = ask(&service, &signer.token(json!({ "sub": "ada" }))).await;
        assert_eq!(response.status(), 200, "{}", signer.pem);
        // the published half of a key is no secret: who signs by it as if it were one is nobody
        for secret in [signer.pem.as_str(), signer.pem.trim()] {
            assert_eq!(ask(&service, &Signer::secret(secret).token(json!({ "sub": "eve" }))).await.status(), 401);
        }
    }
    for stranger in [Signer::rs256(), Signer::es256(), Signer::eddsa()] {
        let response = ask(&service, &stranger.token(json!({}))).await;
        assert!(challenge(&response).contains("signature is wrong"));
    }
    service.stop().await;
}

async fn ask(service: &Service, token: &str) -> Response {
    let (_, request) = requests(service).swap_remove(0);
    request.header(AUTHORIZATION, format!("Bearer {token}")).send().await.unwrap()
}

#[tokio::test]
async fn without_a_way_to_check_tokens_none_is_taken() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--auth", "required"]).await;
    service.ready().await;
    let response = ask(&service, &token_of(&["admin"])).await;
    assert_eq!(response.status(), 401);
    assert!(challenge(&response).contains("API keys alone"), "{}", challenge(&response));
    service.stop().await;
}

#[tokio::test]
async fn while_nobody_is_asked_everybody_is_anonymous_whatever_they_present() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--auth", "off", "--jwt-hs256-secret", SECRET]).await;
    service.ready().await;
    let (anonymous, all) = (json!("anonymous"), 9);
    let service = service.bearing("whatever");
    let viewer = service.data("{ viewer { subject permissions sources expiresAt } }", json!({})).await;
    assert_eq!(
        (&viewer["viewer"]["subject"], viewer["viewer"]["permissions"].as_array().unwrap().len()),
        (&anonymous, all)
    );
    assert_eq!((&viewer["viewer"]["sources"], &viewer["viewer"]["expiresAt"]), (&Value::Null, &Value::Null));
    let mut socket = service.subscribe(SUBSCRIPTION).await;
    socket.send(json!({ "type": "ping", "payload": { "token": "whatever" } })).await;
    assert_eq!(socket.receive().await.unwrap()["type"], "pong");
    service.stop().await;
}
