//! The end of a process that clients are connected to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{Process, Socket, TestDatabase, eventually};

const HEAR: &str = "subscription { newIncidents { title } }";
const ACKNOWLEDGE: &str = "mutation($id: UUID!) { acknowledgeIncident(id: $id) { state } }";

async fn insert(database: &TestDatabase, title: &str) -> uuid::Uuid {
    database
        .scalar(&format!(
            "insert into incident_manager.incident (title, severity, source) values ('{title}', 'P3', 's') returning id"
        ))
        .await
}

#[tokio::test]
async fn readiness_fails_first_and_a_second_signal_stops_at_once() {
    let database = TestDatabase::new().await;
    let process = Process::start(&database, &["--drain-delay", "1h"]).await;
    let mut before = Socket::connect(process.address).await;
    before.subscribe("1", HEAR, json!({})).await;
    process.terminate();
    eventually("it is not ready", || async { process.readiness().await == Some(503) }).await;
    let mut after = Socket::connect(process.address).await;
    after.subscribe("1", HEAR, json!({})).await;
    insert(&database, "heard").await;
    for socket in [&mut before, &mut after] {
        assert_eq!(socket.next("newIncidents").await["title"], "heard");
    }
    process.terminate();
    assert!(process.end().await.success());
    assert!(before.receive().await.is_none() && after.receive().await.is_none());
}

/// How many results come before the connection is closed with 1012; nothing else may.
async fn heard_until_restart(mut socket: Socket) -> usize {
    let mut heard = 0;
    loop {
        match socket.receive_or_close().await {
            Ok(message) => assert_eq!(message["type"], "next", "{message}"),
            Err(code) => {
                assert_eq!(code, Some(1012));
                return heard;
            }
        }
        heard += 1;
    }
}

#[tokio::test]
async fn a_drain_under_load_closes_in_turn_and_finishes_what_is_under_way() {
    const SOCKETS: usize = 40;
    let database = TestDatabase::new().await;
    let flags = ["--lock-timeout", "1m", "--statement-timeout", "1m", "--drain-timeout", "1m", "--drain-spread", "1m"];
    let process = Process::start(&database, &flags).await;
    let mut first = Socket::connect(process.address).await;
    first.subscribe("1", HEAR, json!({})).await;
    let ids = [insert(&database, "over HTTP").await, insert(&database, "over a socket").await];
    // once these have been heard, nobody who comes later hears of them
    for title in ["over HTTP", "over a socket"] {
        assert_eq!(first.next("newIncidents").await["title"], title);
    }
    let mut sockets = vec![tokio::spawn(heard_until_restart(first))];
    for _ in 1..SOCKETS {
        let mut socket = Socket::connect(process.address).await;
        socket.subscribe("1", HEAR, json!({})).await;
        sockets.push(tokio::spawn(heard_until_restart(socket)));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (stop, mut connection) = (Arc::clone(&stop), database.connect().await);
        async move {
            let insert = "insert into incident_manager.incident (title, severity, source) values ('load', 'P3', 's')";
            while !stop.load(Ordering::Relaxed) {
                sqlx::query(insert).execute(&mut connection).await.unwrap();
            }
        }
    });

    // two mutations wait for rows that somebody holds
    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("select from incident_manager.incident where id = any($1) for update")
        .bind(ids.as_slice())
        .execute(&mut *holder)
        .await
        .unwrap();
    let body = json!({ "query": ACKNOWLEDGE, "variables": { "id": ids[0] } });
    let over_http = reqwest::Client::new().post(format!("http://{}/graphql", process.address)).json(&body).send();
    let over_http = tokio::spawn(async move { over_http.await.unwrap().json::<Value>().await.unwrap() });
    let mut over_socket = Socket::connect(process.address).await;
    let payload = json!({ "query": ACKNOWLEDGE, "variables": { "id": ids[1] } });
    over_socket.send(json!({ "id": "m", "type": "subscribe", "payload": payload })).await;
    eventually("both wait", || async {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        database.scalar::<i64>(waiting).await == 2
    })
    .await;

    process.terminate();
    let mut heard = Vec::new();
    for socket in sockets {
        heard.push(socket.await.unwrap());
    }
    assert!(heard[0] < heard[SOCKETS - 1], "the last heard more than the first: {heard:?}");
    assert!(TcpStream::connect(process.address).await.is_err(), "no more connections are taken");
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();

    holder.rollback().await.unwrap();
    let answer = over_http.await.unwrap();
    assert_eq!(answer["data"]["acknowledgeIncident"]["state"], "TRIAGED", "{answer}");
    let answer = over_socket.receive_or_close().await.expect("an answer before the end");
    assert_eq!(answer["payload"]["data"]["acknowledgeIncident"]["state"], "TRIAGED", "{answer}");
    assert_eq!(over_socket.receive_or_close().await, Ok(json!({ "id": "m", "type": "complete" })));
    assert_eq!(over_socket.receive_or_close().await, Err(Some(1012)));
    assert!(process.end().await.success());
}
