//! Subscriptions over Server-Sent Events.

use serde_json::Value;

use crate::support::{Service, TestDatabase};

/// Reads blocks of an event stream.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(service: &Service, query: &str) -> Self {
        Self::resume(service, query, "").await
    }

    /// As a browser's `EventSource` comes back.
    async fn resume(service: &Service, query: &str, last_event_id: &str) -> Self {
        let url = url::Url::parse_with_params(&service.url("/graphql/stream"), [("query", query)]).unwrap();
        let request = service.http().get(url).header("accept", "text/event-stream");
        let response = request.header("last-event-id", last_event_id).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        Self { response, text: String::new() }
    }

    /// The next block that is no comment: its fields.
    async fn next(&mut self) -> Option<Vec<(String, String)>> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let fields: Vec<_> = block
                    .lines()
                    .filter(|line| !line.is_empty() && !line.starts_with(':'))
                    .map(|line| line.split_once(':').unwrap_or((line, "")))
                    .map(|(name, value)| (name.to_owned(), value.trim_start().to_owned()))
                    .collect();
                if !fields.is_empty() {
                    return Some(fields);
                }
                continue;
            }
            let chunk = tokio::time::timeout(crate::support::PATIENCE, self.response.chunk()).await.expect("in time");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }
}

fn field<'f>(fields: &'f [(String, String)], name: &str) -> &'f str {
    fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

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
