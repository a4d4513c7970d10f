//! Who submits alerts too fast is refused whole, and told so in the way in which it comes back.

use reqwest::Response;
use reqwest::header::{AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use serde_json::{Value, json};

use crate::support::access::{start_required, token};
use crate::support::{Service, TestDatabase};

const SUBMIT: &str = r#"mutation { submitAlert(input: { source: "s", title: "t", severity: P3 }) { status } }"#;

fn of(subject: &str) -> String {
    token(json!({ "sub": subject, "roles": ["admin"] }))
}

fn alerts(count: usize) -> Value {
    vec![json!({ "source": "s", "title": "t", "severity": "P3" }); count].into()
}

async fn submit(service: &Service, bearer: &str, agent: &str, alerts: &Value) -> Response {
    let request = service.http().post(service.url("/v1/alerts")).header(USER_AGENT, agent);
    request.header(AUTHORIZATION, format!("Bearer {bearer}")).json(alerts).send().await.unwrap()
}

/// The refusal: its status, when to come back by the header, and its body.
async fn refused(response: Response) -> (u16, u64, Value) {
    let status = response.status().as_u16();
    let seconds = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!("RATE_LIMIT_EXCEEDED"), &json!(status)), "{problem}");
    assert!(problem["retryAfterMs"].as_u64().unwrap().div_ceil(1000) == seconds, "{problem}");
    (status, seconds, problem)
}

#[tokio::test]
async fn a_credential_submits_so_many_alerts_a_second_an_array_whole_or_not_at_all() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--max-alerts-per-second", "1"]).await;
    let (busy, calm) = (of("busy"), of("calm"));
    let whole = submit(&service, &busy, "a test", &alerts(1000)).await;
    assert_eq!(whole.status(), 201, "as many as a request may bring");
    let (status, seconds, problem) = refused(submit(&service, &busy, "a test", &alerts(500)).await).await;
    assert_eq!((status, &problem["detail"]), (429, &json!("a credential may send 1 alerts a second")));
    assert!(seconds > 60, "{seconds}");
    assert_eq!(database.count("alert").await, 1000, "nothing of it was taken");

    // in one bucket, over GraphQL too, and by whom the bucket is not, it is not noticed
    let service = service.bearing(&busy);
    let error = loop {
        let mut response = service.graphql(SUBMIT, json!({})).await;
        if response["errors"].is_array() {
            break response["errors"][0].take();
        }
    };
    let extensions = &error["extensions"];
    assert_eq!((&extensions["code"], &error["path"]), (&json!("RATE_LIMIT_EXCEEDED"), &json!(["submitAlert"])));
    assert!(extensions["retryAfterMs"].as_u64().is_some_and(|wait| (1..=1000).contains(&wait)), "{error}");
    assert_eq!(submit(&service, &calm, "a test", &alerts(1000)).await.status(), 201);
    service.data("{ incidents { nodes { id } } }", json!({})).await;
    service.stop().await;
}

#[tokio::test]
async fn an_address_submits_so_many_alerts_a_second_whoever_asks_for_whom() {
    let database = TestDatabase::new().await;
    let flags = ["--max-alerts-per-second-per-address", "1"];
    let service = Service::start_with(&database.database_url(), &flags).await;
    service.ready().await;
    assert_eq!(submit(&service, "", "a test", &alerts(1000)).await.status(), 201);
    let (status, _, problem) = refused(submit(&service, "", "a test", &alerts(500)).await).await;
    assert_eq!((status, &problem["detail"]), (429, &json!("an address may send 1 alerts a second")));
    service.stop().await;
}

#[tokio::test]
async fn a_sender_that_drops_what_gets_a_4xx_gets_503() {
    let database = TestDatabase::new().await;
    let flags = ["--max-alerts-per-second", "1", "--max-requests-per-second", "10"];
    let service = start_required(&database.database_url(), &flags).await;
    let sender = "Alertmanager/0.28.1";
    let integration = of("integration");
    assert_eq!(submit(&service, &integration, sender, &alerts(1000)).await.status(), 201);
    let (status, ..) = refused(submit(&service, &integration, sender, &alerts(500)).await).await;
    assert_eq!(status, 503, "too many alerts");
    let (status, problem) = loop {
        let (status, _, problem) = refused(submit(&service, &integration, sender, &alerts(500)).await).await;
        if problem["detail"] != "a credential may send 1 alerts a second" {
            break (status, problem);
        }
    };
    assert_eq!((status, &problem["detail"]), (503, &json!("a credential may send 10 requests a second")));
    let unknown = submit(&service, "nobody", sender, &alerts(1)).await;
    assert_eq!(unknown.status(), 401, "what does not pass by itself stays what it is");
    service.stop().await;
}
