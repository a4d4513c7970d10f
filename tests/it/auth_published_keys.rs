//! Tokens whose keys are published as a JSON Web Key Set, by a server that is played here.

use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::access::Signer;
use crate::support::publisher::{Authority, Publisher};
use crate::support::{Process, Service, TestDatabase, eventually};

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
        publisher.publish_text(nonsense);
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

/// A service that trusts an authority, as its system does.
async fn start_trusting(database: &TestDatabase, authority: &Authority, url: &str) -> (TempDir, Process) {
    let directory = TempDir::new().unwrap();
    let trusted = directory.path().join("trusted.pem");
    std::fs::write(&trusted, authority.pem()).unwrap();
    let variables = [("DATABASE_URL", database.url()), ("SSL_CERT_FILE", trusted.to_str().unwrap())];
    let flags = ["--auth", "required", "--jwt-jwks-url", url, "--jwt-jwks-interval", "100ms"];
    (directory, Process::start_in(&variables, &flags).await)
}

/// With which status the bearer of a token is answered there.
async fn answered(process: &Process, token: &str) -> u16 {
    let request = reqwest::Client::new().get(format!("http://{}/v1/incidents", process.address));
    request.bearer_auth(token).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn keys_are_fetched_over_tls_and_rotated() {
    let (database, authority, publisher) = (TestDatabase::new().await, Authority::new(), Publisher::default());
    let (first, second) = (Signer::es256().named("1"), Signer::es256().named("2"));
    publisher.publish(&[first.jwk()]);
    let url = publisher.start_secure(&authority).await;
    let (_trusted, process) = start_trusting(&database, &authority, &url).await;
    let (old, new) = (first.token(json!({ "roles": ["viewer"] })), second.token(json!({ "roles": ["viewer"] })));
    assert_eq!((answered(&process, &old).await, answered(&process, &new).await), (200, 401));
    publisher.publish(&[first.jwk(), second.jwk()]);
    eventually("the new key is known", || async { answered(&process, &new).await == 200 }).await;
    assert_eq!(answered(&process, &old).await, 200);
    publisher.publish(&[second.jwk()]);
    eventually("the old key is forgotten", || async { answered(&process, &old).await == 401 }).await;
    assert_eq!(answered(&process, &new).await, 200);
    assert!((process.metric("jwks_reachable").await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn keys_are_taken_from_nobody_who_is_not_trusted_and_not_in_the_clear() {
    let (database, authority, publisher) = (TestDatabase::new().await, Authority::new(), Publisher::default());
    let signer = Signer::es256().named("1");
    publisher.publish(&[signer.jwk()]);
    let by_another = publisher.start_secure(&Authority::new()).await;
    let leads_astray = publisher.start_secure(&authority).await.replace("/keys", "/moved");
    for url in [by_another, leads_astray] {
        let (_trusted, process) = start_trusting(&database, &authority, &url).await;
        // it has asked by then: who comes with a key that is not known waits for that
        assert_eq!(answered(&process, &signer.token(json!({ "roles": ["viewer"] }))).await, 503, "{url}");
        assert!(process.metric("jwks_reachable").await.abs() < f64::EPSILON, "{url}");
    }
    assert_eq!(publisher.asked(), 0);
    assert!(publisher.moved() > 0, "it was sent elsewhere");
}
