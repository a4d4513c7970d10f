//! Tokens whose keys are published as a JSON Web Key Set, by a server that is played here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::access::Signer;
use crate::support::{Service, TestDatabase, eventually};

/// Publishes keys, unless it is told to fail.
#[derive(Clone, Default)]
struct Publisher {
    /// `None`: it answers that it cannot.
    set: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    /// Where it publishes.
    async fn start(&self) -> String {
        async fn answer(State(publisher): State<Publisher>) -> Result<String, StatusCode> {
            publisher.asked.fetch_add(1, Ordering::Relaxed);
            publisher.set.lock().clone().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let router = Router::new().route("/keys", get(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    fn publish(&self, keys: &[Value]) {
        *self.set.lock() = Some(json!({ "keys": keys }).to_string());
    }

    fn fail(&self) {
        *self.set.lock() = None;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn start(publisher: &Publisher, flags: &[&str]) -> (TestDatabase, Service) {
    let (database, url) = (TestDatabase::new().await, publisher.start().await);
    let flags = [&["--auth", "required", "--jwt-jwks-url", &url], flags].concat();
    let service = Service::start_with(&database.database_url(), &flags).await;
    service.ready().await;
    (database, service)
}

/// With which status the bearer of a token is answered.
async fn status(service: &Service, token: &str) -> u16 {
    let request = service.http().get(service.url("/graphql?query=%7Bviewer%7Bsubject%7D%7D"));
    request.header(AUTHORIZATION, format!("Bearer {token}")).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn each_kind_of_key_is_read_from_a_set_and_what_cannot_sign_is_left() {
    let publisher = Publisher::default();
    let signers = [Signer::rs256().named("r"), Signer::es256().named("e"), Signer::eddsa().named("d"), Signer::es256()];
    let secret = "a secret that was published, and so is none any more";
    let others = [
        json!({ "kty": "oct", "kid": "s", "k": "YSBzZWNyZXQgdGhhdCB3YXMgcHVibGlzaGVkLCBhbmQgc28gaXMgbm9uZSBhbnkgbW9yZQ" }),
        json!({ "kty": "EC", "crv": "P-384", "kid": "x", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "crv": "secp256k1", "kid": "y", "x": "AA", "y": "AA" }),
        json!({ "kty": "RSA", "kid": "z", "n": "!", "e": "AQAB" }),
        json!({ "kty": "AKP", "kid": "new" }),
        json!("no key"),
    ];
    let encrypts = {
        let mut jwk = signers[0].jwk();
        jwk["kid"] = json!("enc");
        jwk["use"] = json!("enc");
        jwk
    };
    let keys: Vec<Value> = others.into_iter().chain(signers.iter().map(Signer::jwk)).chain([encrypts]).collect();
    publisher.publish(&keys);
    let (_database, service) = start(&publisher, &[]).await;
    for signer in &signers {
        assert_eq!(status(&service, &signer.token(json!({}))).await, 200, "{:?}", signer.name);
    }
    let encrypting = Signer::rs256().named("enc");
    for refused in [Signer::secret(secret), Signer::secret(secret).named("s"), encrypting, Signer::eddsa().named("d")] {
        assert_eq!(status(&service, &refused.token(json!({}))).await, 401, "{:?}", refused.name);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_key_that_is_published_later_is_found_at_once_and_one_that_is_withdrawn_ends() {
    let publisher = Publisher::default();
    let (first, second) = (Signer::es256().named("1"), Signer::es256().named("2"));
    publisher.publish(&[first.jwk()]);
    let (_database, service) = start(&publisher, &["--jwt-jwks-interval", "100ms"]).await;
    let (old, new) = (first.token(json!({ "roles": ["viewer"] })), second.token(json!({})));
    assert_eq!(status(&service, &old).await, 200);
    let service = &service.bearing(&old);
    let mut watching = service.subscribe("subscription { newIncidents { id } }").await;
    publisher.publish(&[first.jwk(), second.jwk()]);
    eventually("the new key is known", || async { status(service, &new).await == 200 }).await;
    assert_eq!(status(service, &old).await, 200, "both are good");
    publisher.publish(&[second.jwk()]);
    eventually("the old key is forgotten", || async { status(service, &old).await == 401 }).await;
    assert_eq!(status(service, &new).await, 200);
    let told = watching.receive().await.expect("its operation is told");
    assert_eq!((&told["type"], &told["payload"][0]["extensions"]["code"]), (&json!("error"), &json!("UNAUTHORIZED")));
    let (code, reason) = watching.receive_or_end().await.expect_err("the end").expect("a close frame");
    assert_eq!(code, 4403);
    assert!(reason.starts_with("Forbidden: the key"), "{reason}");
}

#[tokio::test]
async fn a_token_with_an_unknown_key_has_the_set_fetched_and_a_thousand_have_it_fetched_once() {
    let publisher = Publisher::default();
    let (first, second) = (Signer::es256().named("1"), Signer::es256().named("2"));
    publisher.publish(&[first.jwk()]);
    let (_database, service) = start(&publisher, &["--jwt-jwks-interval", "1h"]).await;
    eventually("the set was fetched", || async { status(&service, &first.token(json!({}))).await == 200 }).await;
    let before = publisher.asked();
    for number in 0..200 {
        let stranger = Signer::eddsa().named(&format!("made up {number}"));
        assert_eq!(status(&service, &stranger.token(json!({}))).await, 401);
    }
    // a pause between two fetches of 5 s: how many fit depends on how long the loop took
    assert!(publisher.asked() - before < 20, "fetched {} times", publisher.asked() - before);
    publisher.publish(&[first.jwk(), second.jwk()]);
    eventually("the new key is known", || async { status(&service, &second.token(json!({}))).await == 200 }).await;
    service.stop().await;
}

#[tokio::test]
async fn while_keys_cannot_be_fetched_those_that_are_known_go_on() {
    let publisher = Publisher::default();
    let (known, stranger) = (Signer::es256().named("1"), Signer::es256().named("2"));
    let (_database, service) = start(&publisher, &["--jwt-jwks-interval", "100ms"]).await;
    let token = known.token(json!({}));
    let request = service.http().get(service.url("/v1/incidents"));
    let response = request.header(AUTHORIZATION, format!("Bearer {token}")).send().await.unwrap();
    assert_eq!(response.status(), 503, "nobody can tell whether the token is good");
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE));

    publisher.publish(&[known.jwk()]);
    eventually("the keys are there", || async { status(&service, &token).await == 200 }).await;
    publisher.fail();
    let before = publisher.asked();
    eventually("it has failed", || async { publisher.asked() > before + 1 }).await;
    assert_eq!(status(&service, &known.token(json!({ "sub": "another" }))).await, 200);
    assert_eq!(status(&service, &stranger.token(json!({}))).await, 401);
    for nonsense in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":"none"}"#] {
        *publisher.set.lock() = Some(nonsense.to_owned());
        let before = publisher.asked();
        eventually("it is fetched", || async { publisher.asked() > before + 1 }).await;
        assert_eq!(
            status(&service, &known.token(json!({ "sub": nonsense.len().to_string() }))).await,
            200,
            "{nonsense}"
        );
    }
    service.stop().await;
}
