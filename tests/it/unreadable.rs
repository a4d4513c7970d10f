//! What the tables' limits refuse because no reader takes it, in a database where it is all the same: it costs itself, and
//! neither the events that come after it nor the rows beside it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Service, TestDatabase};

const INSERT: &str = "insert into incident_manager.incident (title, severity, source, metadata) values";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    database.execute("alter table incident_manager.incident drop constraint incident_limits").await;
    let service = Service::start(&database.database_url()).await;
    service.ready().await;
    (database, service)
}

async fn metric(service: &Service, name: &str) -> String {
    let shown = service.http().get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let line = shown.lines().find_map(|line| line.strip_prefix(&format!("incident_manager_{name} ")));
    line.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_value_that_no_reader_takes_is_shown_as_empty() {
    let (database, service) = start().await;
    let mut updates = service.subscribe("subscription { newIncidents { title metadata } }").await;
    let deep = format!("{}{}", r#"{"a":"#.repeat(200), "1") + &"}".repeat(200);
    for (title, metadata) in [("huge", r#"{"a": 1e400, "b": 1}"#), ("deep", &*deep), ("fine", r#"{"a": 1}"#)] {
        database.execute(&format!("{INSERT} ('{title}', 'P3', 's', '{metadata}')")).await;
        let seen = if title == "fine" { json!({ "a": 1 }) } else { json!({}) };
        assert_eq!(updates.next("newIncidents").await, json!({ "title": title, "metadata": seen }));
    }
    let list = service.data("{ incidents(orderBy: CREATED_AT_ASC) { nodes { title metadata } } }", Value::Null).await;
    let seen = [("huge", json!({})), ("deep", json!({})), ("fine", json!({ "a": 1 }))];
    assert_eq!(
        list["incidents"]["nodes"],
        json!(seen.map(|(title, metadata)| json!({ "title": title, "metadata": metadata })))
    );
    let (status, _) = service.rest(Method::GET, "/v1/incidents", Value::Null).await;
    assert_eq!(status, 200);
    assert_ne!(metric(&service, "unreadable_values_total").await, "");
    service.stop().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_read_stops_no_other() {
    let (database, service) = start().await;
    let mut updates = service.subscribe("subscription { incidentUpdates { incident { title } } }").await;
    // in one transaction, so that one read of the log meets all of them
    database
        .execute(&format!(
            "begin;
             {INSERT} ('first', 'P3', 's', '{{}}');
             {INSERT} ('unheard', 'P9', 's', '{{}}');
             insert into incident_manager.incident (title, severity, source) select n, 'P3', 's' from generate_series(1, 700) n;
             {INSERT} ('unheard', 'P9', 's', '{{}}'), ('unheard', 'P9', 's', '{{}}'), ('last', 'P3', 's', '{{}}');
             commit"
        ))
        .await;
    let expected = ["first".to_owned()].into_iter().chain((1..=700).map(|n| n.to_string())).chain(["last".to_owned()]);
    for title in expected {
        assert_eq!(updates.next("incidentUpdates").await["incident"]["title"], *title);
    }
    assert_ne!(metric(&service, "unreadable_events_total").await, "");
    service.stop().await;
}
