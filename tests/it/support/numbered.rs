//! Incidents that have numbers for titles, and what is heard of them.

use serde_json::json;

use super::{Service, Socket, TestDatabase};

/// All new incidents, after a cursor.
pub const NEW: &str = "subscription($after: String) { newIncidents(after: $after) { title } }";

/// A database, and the service on it.
pub async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// Incidents of these titles, in one transaction.
pub async fn insert(database: &TestDatabase, titles: std::ops::RangeInclusive<u32>) {
    database
        .execute(&format!(
            "insert into incident_manager.incident (title, severity, source)
             select n::text, 'P2', 'test' from generate_series({}, {}) n",
            titles.start(),
            titles.end()
        ))
        .await;
}

/// Subscribes after a cursor, as operation `1`; whether that is taken is told later.
pub async fn subscribe(service: &Service, query: &str, after: Option<&str>) -> Socket {
    let mut socket = service.socket().await;
    let payload = json!({ "query": query, "variables": { "after": after } });
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
    socket
}

/// The next result that is no HEARTBEAT: its title and its cursor.
pub async fn next(socket: &mut Socket) -> (u32, String) {
    loop {
        let message = socket.receive().await.expect("the connection is open");
        if message["type"] == "ping" {
            continue;
        }
        assert_eq!(message["type"], "next", "{message}");
        let payload = &message["payload"];
        assert!(payload.get("errors").is_none(), "{message}");
        let data = payload["data"].as_object().unwrap().values().next().unwrap();
        let incident = data.get("incident").unwrap_or(data);
        let cursor = payload["extensions"]["cursor"].as_str().unwrap().to_owned();
        return (incident["title"].as_str().expect("a title").parse().unwrap(), cursor);
    }
}

/// Hears of these, in order, and of nothing in between; the cursor of the last.
pub async fn assert_titles(socket: &mut Socket, titles: std::ops::RangeInclusive<u32>) -> String {
    let mut last = String::new();
    for title in titles {
        let (got, cursor) = next(socket).await;
        assert_eq!(got, title);
        last = cursor;
    }
    last
}

/// The cursor after the first of some events, as a client has seen it.
pub async fn first_of(database: &TestDatabase, service: &Service, count: u32) -> String {
    let mut socket = service.subscribe("subscription { newIncidents { title } }").await;
    insert(database, 1..=count).await;
    let (title, cursor) = next(&mut socket).await;
    assert_eq!(title, 1);
    assert_titles(&mut socket, 2..=count).await;
    cursor
}
