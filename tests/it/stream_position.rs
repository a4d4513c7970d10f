//! `streamPosition` is read before anything else of its operation.

use incident_manager::domain::Cursor;
use serde_json::{Value, json};

use crate::support::statements::Statements;
use crate::support::{Service, TestDatabase, eventually};

const INSERT: &str = "insert into incident_manager.incident (title, severity, source) values ('One', 'P2', 'test')";

fn cursor(position: &Value, name: &str) -> Cursor {
    Cursor::decode(position[name].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn it_is_where_the_log_ends_and_where_it_begins() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    let query = "{ streamPosition { cursor oldestCursor } }";
    let position = service.data(query, json!({})).await["streamPosition"].take();
    assert_eq!((cursor(&position, "cursor").position.0, cursor(&position, "oldestCursor").position.0), (0, 0));

    let mut updates = service.subscribe("subscription { incidentUpdates { cursor } }").await;
    for _ in 0..3 {
        database.execute(INSERT).await;
    }
    updates.next("incidentUpdates").await;
    updates.next("incidentUpdates").await;
    let last = updates.next("incidentUpdates").await;
    let position = service.data(query, json!({})).await["streamPosition"].take();
    assert_eq!(position["cursor"], last["cursor"], "the same place has the same cursor");
    assert_eq!(cursor(&position, "oldestCursor").position.0, 0);

    database.execute("delete from incident_manager.event_log where pos < 3").await;
    let position = service.data(query, json!({})).await["streamPosition"].take();
    assert_eq!((cursor(&position, "cursor").position.0, cursor(&position, "oldestCursor").position.0), (3, 2));
    service.stop().await;
}

#[tokio::test]
async fn it_is_read_first_wherever_it_stands() {
    let database = TestDatabase::new().await;
    let statements = Statements::of(&database).await;
    let service = Service::start(statements.url()).await;
    database.execute(INSERT).await;
    eventually("the event is logged", || async {
        database.scalar::<i64>("select count(*) from incident_manager.event_log").await == 1
    })
    .await;
    for query in [
        "{ incidents { nodes { id } } streamPosition { cursor } }",
        "{ incidents { nodes { id } } at: streamPosition { cursor } again: streamPosition { cursor } }",
        "{ ...All } fragment All on Query { incidents { nodes { id } } ... { streamPosition { cursor } } }",
        "query A { incidents { nodes { id } } streamPosition @include(if: true) { cursor } }",
    ] {
        statements.take_all();
        service.data(query, json!({})).await;
        let reads = statements.take_all();
        let at = |what: &str| reads.iter().position(|sql| sql.contains(what));
        assert!(at("\"oldest?\"") < at("FROM incident_manager.incident WHERE"), "{query}: {reads:#?}");
        assert_eq!(reads.iter().filter(|sql| sql.contains("\"oldest?\"")).count(), 1, "{query}: once");
    }
    statements.take_all();
    service.data("{ incidents { nodes { id } } }", json!({})).await;
    assert!(!statements.take_all().iter().any(|sql| sql.contains("\"oldest?\"")), "nobody asked");
    service.stop().await;
}
