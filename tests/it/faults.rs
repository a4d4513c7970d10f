//! Breaks in the middle of a stream: connections, the server, a replica, a client that does not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use incident_manager::embedded::Shutdown;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{Heard, Server, Service, Socket, TestDatabase, committed, eventually};

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// Makes an incident and changes it twice, each in a transaction of its own.
async fn make_and_change(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let make = "insert into incident_manager.incident (title, severity, source) values ('An incident', 'P3', 'writer') returning id";
    let id: Uuid = sqlx::query_scalar(make).fetch_one(&mut *connection).await?;
    for change in [
        "update incident_manager.incident set state = 'TRIAGED' where id = $1",
        "update incident_manager.incident set severity = 'P1' where id = $1",
    ] {
        sqlx::query(change).bind(id).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes without a pause until it is told to stop, whatever happens to its connection.
struct Writer {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(url: &str) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (url, stopped, done) = (url.to_owned(), Arc::clone(&stop), Arc::clone(&rounds));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let Ok(mut connection) = PgConnection::connect(&url).await else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                while !stopped.load(Ordering::Relaxed) && make_and_change(&mut connection).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, rounds, task }
    }

    /// Waits until it has written some more.
    async fn goes_on(&self) {
        let from = self.rounds.load(Ordering::Relaxed);
        eventually("the writer goes on", || async { self.rounds.load(Ordering::Relaxed) > from + 5 }).await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

/// Everything that is committed has been heard, and what is committed next is what is heard next.
async fn assert_all_heard(connection: &mut PgConnection, subscribers: &mut [Heard]) {
    let expected = committed(connection).await;
    for subscriber in &mut *subscribers {
        subscriber.all(&expected).await;
    }
    let last =
        "insert into incident_manager.incident (title, severity, source) values ('Last', 'P3', 'writer') returning id";
    let last: Uuid = sqlx::query_scalar(last).fetch_one(connection).await.unwrap();
    for subscriber in subscribers {
        assert_eq!(subscriber.one().await, last);
    }
}

/// The service's connection that LISTENs.
const LISTENING: &str = "application_name = 'incident-manager listener'";

/// Ends connections of the service to this database; how many there were.
async fn terminate(database: &TestDatabase, which: &str) -> i64 {
    database
        .scalar(&format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and application_name like 'incident-manager%' and {which}"
        ))
        .await
}

#[tokio::test]
async fn nothing_is_lost_when_the_listening_connection_is_killed() {
    let (database, service) = start().await;
    let mut heard = Heard::start(&service).await;
    let writer = Writer::start(database.url());
    for _ in 0..3 {
        heard.some(20).await;
        eventually("a connection that listens is killed", || async { terminate(&database, LISTENING).await > 0 }).await;
        writer.goes_on().await;
    }
    writer.stop().await;
    assert_all_heard(&mut database.connect().await, &mut [heard]).await;
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_when_all_connections_are_killed() {
    let (database, service) = start().await;
    let mut heard = Heard::start(&service).await;
    let writer = Writer::start(database.url());
    for _ in 0..3 {
        heard.some(20).await;
        eventually("connections are killed", || async { terminate(&database, "true").await > 0 }).await;
        writer.goes_on().await;
    }
    writer.stop().await;
    assert_all_heard(&mut database.connect().await, &mut [heard]).await;
    service.ready().await;
    service.data("{ incidents { totalCount } }", json!({})).await;
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_when_postgresql_crashes_and_comes_back() {
    let server = Server::start().await;
    let service = Service::start(&server.embedded.url()).await;
    let mut heard = Heard::start(&service).await;
    let writer = Writer::start(server.embedded.url().expose());
    for how in [Shutdown::Immediate, Shutdown::Kill, Shutdown::Fast] {
        heard.some(20).await;
        server.embedded.take_down(how).await.unwrap();
        server.embedded.bring_up().await.unwrap();
        writer.goes_on().await;
    }
    writer.stop().await;
    assert_all_heard(&mut server.connect().await, &mut [heard]).await;
    service.ready().await;
    service.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn two_services_both_hear_everything_and_one_goes_on_when_the_other_stops() {
    let (database, first) = start().await;
    let second = Service::start(&database.database_url()).await;
    let mut subscribers = [Heard::start(&first).await, Heard::start(&second).await];
    let writers = [Writer::start(database.url()), Writer::start(database.url())];
    for writer in &writers {
        writer.goes_on().await;
    }
    for subscriber in &mut subscribers {
        subscriber.some(50).await;
    }
    let [of_first, mut of_second] = subscribers;
    let (cut_off, ()) = tokio::join!(of_first.until_the_end(), first.stop());
    for writer in &writers {
        writer.goes_on().await;
    }
    of_second.some(20).await;
    for writer in writers {
        writer.stop().await;
    }
    let mut connection = database.connect().await;
    let all = committed(&mut connection).await;
    assert!(cut_off.len() < all.len());
    assert_all_heard(&mut connection, &mut [of_second]).await;

    let third = Service::start(&database.database_url()).await;
    let subscribers = &mut [Heard::start(&third).await, Heard::start(&second).await];
    database
        .execute("insert into incident_manager.incident (title, severity, source) values ('One', 'P3', 'psql')")
        .await;
    for subscriber in subscribers {
        subscriber.one().await;
    }
    second.stop().await;
    third.stop().await;
}

/// Sends a ping and skips what comes before the answer.
async fn drain(socket: &mut Socket) -> usize {
    socket.send(json!({ "type": "ping" })).await;
    let mut skipped = 0;
    while socket.receive().await.unwrap()["type"] != "pong" {
        skipped += 1;
    }
    skipped
}

#[tokio::test]
async fn a_database_that_is_away_is_told_and_all_recovers_when_it_comes() {
    let server = Server::start().await;
    server.embedded.take_down(Shutdown::Fast).await.unwrap();
    let service = Service::start_with(&server.embedded.url(), &[]).await;
    assert_eq!((service.status("/health/live").await, service.status("/health/ready").await), (200, 503));
    let create = "mutation { createIncident(input: { title: \"One\", severity: P1, source: \"test\" }) { id } }";
    for (query, data) in [
        ("{ incidents { totalCount } }", Value::Null),
        ("{ incident(id: \"00000000-0000-0000-0000-000000000000\") { id } }", json!({ "incident": null })),
        (create, Value::Null),
    ] {
        let response = service.graphql(query, json!({})).await;
        assert_eq!(response["data"], data, "{response}");
        assert_eq!(response["errors"][0]["extensions"]["code"], "DATABASE_UNAVAILABLE", "{response}");
        assert!(response["errors"][0]["extensions"]["timestamp"].is_string(), "{response}");
    }
    let mut socket = service.socket().await;
    let subscribe = json!({ "query": "subscription { newIncidents { id } }" });
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": subscribe })).await;
    let refused = socket.receive().await.unwrap();
    assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &json!("1")), "{refused}");
    assert_eq!(refused["payload"][0]["extensions"]["code"], "DATABASE_UNAVAILABLE", "{refused}");

    server.embedded.bring_up().await.unwrap();
    service.ready().await;
    socket.subscribe("1", "subscription { newIncidents { id } }", json!({})).await;
    let created = service.data(create, json!({})).await;
    assert_eq!(socket.next("newIncidents").await, created["createIncident"]);
    service.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn heartbeats_stop_while_the_database_is_away() {
    const BEATS: &str = "subscription { incidentUpdates(severities: [P0]) { updateType incidentId } }";
    const OFTEN: [&str; 2] = ["--heartbeat-interval", "300ms"];
    let (server, healthy) = (Server::start().await, TestDatabase::new().await);
    let service = Service::start_with(&server.embedded.url(), &OFTEN).await;
    let clock = Service::start_with(&healthy.database_url(), &OFTEN).await;
    service.ready().await;
    clock.ready().await;
    let (mut socket, mut ticks) = (service.socket().await, clock.socket().await);
    for socket in [&mut socket, &mut ticks] {
        socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": BEATS } })).await;
        assert_eq!(socket.next("incidentUpdates").await["updateType"], "HEARTBEAT");
    }
    server.embedded.take_down(Shutdown::Immediate).await.unwrap();
    eventually("the service is not ready", || async { service.status("/health/ready").await == 503 }).await;
    assert_eq!(service.status("/health/live").await, 200);
    drain(&mut socket).await;
    // another service's heart tells the time
    drain(&mut ticks).await;
    for _ in 0..3 {
        assert_eq!(ticks.next("incidentUpdates").await["updateType"], "HEARTBEAT");
    }
    assert_eq!(drain(&mut socket).await, 0, "no sign of life from a dead database");

    server.embedded.bring_up().await.unwrap();
    assert_eq!(socket.next("incidentUpdates").await["updateType"], "HEARTBEAT");
    let insert =
        "insert into incident_manager.incident (title, severity, source) values ('Back', 'P0', 'psql') returning id";
    let id: Uuid = sqlx::query_scalar(insert).fetch_one(&mut server.connect().await).await.unwrap();
    loop {
        let update = socket.next("incidentUpdates").await;
        if update["updateType"] == "CREATED" {
            assert_eq!(update["incidentId"], json!(id));
            break;
        }
    }
    service.stop().await;
    clock.stop().await;
    server.stop().await;
}
