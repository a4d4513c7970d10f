//! What the README shows is seen as it shows it.

use incident_manager::config::DatabaseUrl;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::documents::{curl, start, write};
use crate::support::document::README;
use crate::support::roles::Tenancy;
use crate::support::{PATIENCE, Service};

/// The README's call of curl that contains a word.
fn call_of_curl(word: &str) -> String {
    let mut commands = README.commands().into_iter();
    commands.find(|command| command.starts_with("curl ") && command.contains(word)).expect(word)
}

/// What a stream brings next.
async fn heard(stream: &mut Response) -> String {
    let chunk = timeout(PATIENCE, stream.chunk()).await.expect("in time").unwrap().expect("the stream goes on");
    String::from_utf8(chunk.into()).unwrap()
}

#[tokio::test]
async fn what_the_readme_writes_by_sql_is_heard() {
    let (tenancy, service) = start().await;
    let mut updates = service
        .subscribe("subscription { incidentUpdates { updateType actor incident { title state assignedTo } } }")
        .await;
    write(&tenancy, &README).await;
    let writer = tenancy.role("writer");
    for (kind, title, actor) in [
        ("CREATED", "Backup is late", "nightly-check"),
        ("STATE_CHANGED", "Backup is late", "nightly-check"),
        ("COMMENT_ADDED", "Backup is late", "nightly-check"),
        ("CREATED", "Disk fills up", &*writer),
        ("RESOLVED", "Disk fills up", &*writer),
    ] {
        let update = updates.next("incidentUpdates").await;
        let heard = [&update["updateType"], &update["incident"]["title"], &update["actor"]];
        assert_eq!(heard, [&json!(kind), &json!(title), &json!(actor)]);
    }
    service.stop().await;
}

#[tokio::test]
async fn the_readmes_curl_is_heard_by_its_client() {
    let (_tenancy, service) = start().await;
    let program = README.blocks("js")[0];
    let query = program.split('`').nth(1).expect("the client's query");
    let mut client = service.subscribe(query).await;
    let response: Value = curl(&service, &call_of_curl("mutation")).await.json().await.unwrap();
    assert_eq!(response["data"]["createIncident"]["state"], "DETECTED", "{response}");
    let update = client.next("incidentUpdates").await;
    assert_eq!(update["updateType"], "CREATED");
    assert_eq!(update["incident"]["id"], response["data"]["createIncident"]["id"]);
    service.stop().await;
}

#[tokio::test]
async fn the_readmes_alerts_are_stored() {
    let (_tenancy, service) = start().await;
    let response = curl(&service, &call_of_curl("/v1/alerts")).await;
    assert_eq!(response.status(), 201);
    let results: Value = response.json().await.unwrap();
    assert_eq!(results[0]["status"], "CREATED", "{results}");
    let (_, list) = README.text.split_once("`GET /v1").expect("how to list what is open");
    let (path, _) = list.split_once('`').expect("the path ends");
    let open = service.rest(Method::GET, &format!("/v1{path}"), Value::Null).await;
    assert_eq!((open.0, &open.1["incidents"][0]["id"]), (200, &results[0]["incidentId"]), "{}", open.1);
    service.stop().await;
}

#[tokio::test]
async fn the_readmes_stream_hears_what_its_curl_does() {
    let tenancy = Tenancy::installed().await;
    let database = DatabaseUrl::from(tenancy.url("service"));
    let service = Service::start_with(&database, &["--ping-interval", "100ms"]).await;
    service.ready().await;
    let mut stream = curl(&service, &call_of_curl("subscription")).await;
    // a bookmark, past what the filter leaves out, shows that the stream is open
    while !heard(&mut stream).await.contains("id:") {
        tenancy
            .database()
            .execute("insert into incident_manager.alert (title, severity, source) values ('Idle', 'P4', 'test')")
            .await;
    }
    let created: Value = curl(&service, &call_of_curl("mutation")).await.json().await.unwrap();
    let id = created["data"]["createIncident"]["id"].as_str().expect("an id");
    let mut text = String::new();
    while !text.contains(id) {
        text.push_str(&heard(&mut stream).await);
    }
    assert!(text.contains("event: next\n") && !text.contains("Idle"), "{text}");
    service.stop().await;
}
