//! Subscriptions over Server-Sent Events.

use serde_json::Value;

use crate::support::events::{Events, field};
use crate::support::{Service, TestDatabase};

#[tokio::test]
async fn a_subscription_is_a_stream_of_events_with_cursors() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--ping-interval", "100ms"]).await;
    service.ready().await;
    let mut events = Events::open(&service, "subscription { newIncidents { title } }").await;
    // a first bookmark shows that the stream is open
    database
        .execute("insert into incident_manager.alert (title, severity, source) values ('before', 'P4', 'test')")
        .await;
    loop {
        let fields = events.next().await.unwrap();
        if field(&fields, "event") == "next" {
            assert!(field(&fields, "data").contains("before"));
            break;
        }
        assert!(!field(&fields, "id").is_empty(), "{fields:?}");
    }
    database
        .execute("insert into incident_manager.incident (title, severity, source) values ('heard', 'P1', 'test')")
        .await;
    let fields = loop {
        let fields = events.next().await.unwrap();
        if field(&fields, "event") == "next" {
            break fields;
        }
    };
    let data: Value = serde_json::from_str(field(&fields, "data")).unwrap();
    assert_eq!(data["data"]["newIncidents"]["title"], "heard");
    assert_eq!(data["extensions"]["cursor"], field(&fields, "id"));
    service.stop().await;
    assert!(events.next().await.is_none(), "the stream ends without an event");
}

#[tokio::test]
async fn the_last_events_id_is_where_a_stream_goes_on() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    let mut seen = Vec::new();
    let mut events = Events::open(&service, "subscription { newIncidents { title } }").await;
    for title in ["one", "two", "three"] {
        let insert = "insert into incident_manager.incident (title, severity, source) values ($1, 'P1', 'test')";
        sqlx::query(insert).bind(title).execute(database.pool()).await.unwrap();
        let fields = events.next().await.unwrap();
        assert!(field(&fields, "data").contains(title));
        seen.push(field(&fields, "id").to_owned());
    }
    let document = format!("subscription {{ newIncidents(after: \"{}\") {{ title }} }}", seen[0]);
    let mut by_document = Events::open(&service, &document).await;
    assert!(field(&by_document.next().await.unwrap(), "data").contains("two"));
    let mut by_id = Events::resume(&service, &document, &seen[1]).await;
    let fields = by_id.next().await.unwrap();
    assert!(field(&fields, "data").contains("three"), "it wins over the document's: {fields:?}");
    let mut refused = Events::resume(&service, "subscription { newIncidents { title } }", "nonsense").await;
    assert!(field(&refused.next().await.unwrap(), "data").contains("BAD_USER_INPUT"));
    assert_eq!(field(&refused.next().await.unwrap(), "event"), "complete");
    service.stop().await;
}

#[tokio::test]
async fn a_query_and_a_wrong_document_are_told_in_the_stream() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    for (query, expected) in
        [("{ incidents { totalCount } }", "totalCount"), ("subscription { nonsense }", "GRAPHQL_VALIDATION_FAILED")]
    {
        let mut events = Events::open(&service, query).await;
        let next = events.next().await.unwrap();
        assert_eq!(field(&next, "event"), "next");
        assert!(field(&next, "data").contains(expected), "{next:?}");
        assert_eq!(field(&events.next().await.unwrap(), "event"), "complete");
        assert!(events.next().await.is_none());
    }
    let url = service.url("/graphql/stream?query={incidents{totalCount}}");
    assert_eq!(service.http().get(&url).header("accept", "application/json").send().await.unwrap().status(), 406);
    service.stop().await;
}
