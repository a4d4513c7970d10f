//! A subscription that has more events than it may be sent in a second falls behind and catches up: nothing is lost.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::events::Events;
use crate::support::{Service, Socket, TestDatabase};

const RATE: &str = "--max-events-per-second-per-subscription";
const NEW: &str = "subscription($after: String) { newIncidents(severities: [P1], after: $after) { title } }";

async fn start(rate: usize, flags: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let rate = rate.to_string();
    let service = Service::start_with(&database.database_url(), &[&[RATE, &rate], flags].concat()).await;
    service.ready().await;
    (database, service)
}

/// Incidents with these numbers as their titles, in one transaction.
async fn insert(database: &TestDatabase, severity: &str, numbers: std::ops::Range<usize>) {
    database
        .execute(&format!(
            "insert into incident_manager.incident (title, severity, source)
             select n::text, '{severity}', 'test' from generate_series({}, {}) n",
            numbers.start,
            numbers.end - 1
        ))
        .await;
}

fn title(data: &Value) -> usize {
    data["newIncidents"]["title"].as_str().unwrap_or_else(|| panic!("{data}")).parse().unwrap()
}

/// The next message of a subscription; pings are answered.
async fn next(socket: &mut Socket) -> Value {
    loop {
        let message = socket.receive().await.expect("the connection is open");
        if message["type"] != "ping" {
            assert_eq!(message["type"], "next", "{message}");
            return message;
        }
        socket.send(json!({ "type": "pong" })).await;
    }
}

/// Hears of these and no others, in their order; the last one's cursor.
async fn hear(socket: &mut Socket, numbers: std::ops::Range<usize>) -> String {
    let mut cursor = String::new();
    for number in numbers {
        let message = next(socket).await;
        assert_eq!(title(&message["payload"]["data"]), number);
        message["payload"]["extensions"]["cursor"].as_str().unwrap().clone_into(&mut cursor);
    }
    cursor
}

#[tokio::test]
async fn a_burst_is_slowed_and_whole_and_slows_no_other_subscription_of_its_connection() {
    const RATE: usize = 20;
    const BURST: usize = 6 * RATE;
    let (database, service) = start(RATE, &[]).await;
    let mut socket = service.socket().await;
    socket.subscribe("much", NEW, json!({})).await;
    socket.subscribe("little", "subscription { newIncidents(severities: [P2]) { title } }", json!({})).await;
    insert(&database, "P1", 0..BURST).await;
    insert(&database, "P2", 0..1).await;
    let (mut much, mut little) = (0, None);
    while much < BURST {
        let message = next(&mut socket).await;
        let number = title(&message["payload"]["data"]);
        if message["id"] == "much" {
            assert_eq!(number, much, "in order, and once");
            much += 1;
        } else {
            assert_eq!((number, little.replace(much)), (0, None), "once");
        }
    }
    // what was over its rate had five seconds more to come
    assert!(little.is_some_and(|before| before < BURST), "{little:?}");
    let metrics = service.http().get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let held_back =
        metrics.lines().find_map(|line| line.strip_prefix("incident_manager_subscriptions_held_back_total "));
    assert!(held_back.is_some_and(|times| times != "0"), "{held_back:?}");
    insert(&database, "P1", BURST..BURST + 1).await;
    hear(&mut socket, BURST..BURST + 1).await;
    service.stop().await;
}

#[tokio::test]
async fn what_is_more_than_memory_holds_comes_too_over_websocket_and_event_stream() {
    const RATE: usize = 200;
    const BURST: usize = 3 * RATE;
    const LEFT: usize = RATE + 100;
    let (database, service) = start(RATE, &["--feed-events", "16", "--tail-events", "16"]).await;
    let mut stays = service.socket().await;
    stays.subscribe("1", NEW, json!({})).await;
    let mut leaves = service.socket().await;
    leaves.subscribe("1", NEW, json!({})).await;
    // open when its head is there
    let mut stream = Events::open(&service, "subscription { newIncidents(severities: [P1]) { title } }").await;
    let begun = Instant::now();
    insert(&database, "P1", 0..BURST).await;
    let cursor = hear(&mut leaves, 0..LEFT).await;
    drop(leaves);
    let mut returns = service.socket().await;
    let payload = json!({ "query": NEW, "variables": { "after": cursor } });
    returns.send(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
    let by_stream = async {
        for number in 0..BURST {
            assert_eq!(title(&stream.next_result().await.0["data"]), number);
        }
        // a second's worth at once, the others evenly
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    };
    tokio::join!(hear(&mut stays, 0..BURST), hear(&mut returns, LEFT..BURST), by_stream);
    insert(&database, "P1", BURST..BURST + 1).await;
    hear(&mut stays, BURST..BURST + 1).await;
    hear(&mut returns, BURST..BURST + 1).await;
    assert_eq!(title(&stream.next_result().await.0["data"]), BURST);
    service.stop().await;
}

/// Few may take from the log at a time; who is held back is none of them.
#[tokio::test]
async fn who_is_held_back_keeps_nobody_from_catching_up() {
    const RATE: usize = 20;
    const MISSED: usize = 5 * RATE;
    const CLIENTS: usize = 24;
    let (database, service) = start(RATE, &["--feed-events", "16", "--tail-events", "16"]).await;
    let position = "{ streamPosition { cursor } }";
    let cursor = service.data(position, json!({})).await["streamPosition"]["cursor"].take();
    insert(&database, "P1", 0..MISSED).await;
    let heard: [_; CLIENTS] = std::array::from_fn(|_| Cell::new(0));
    let clients = heard.iter().map(async |mine| {
        let mut socket = service.socket().await;
        let payload = json!({ "query": NEW, "variables": { "after": cursor } });
        socket.send(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
        for number in 0..MISSED {
            hear(&mut socket, number..number + 1).await;
            mine.set(number + 1);
        }
        // four seconds after its first
        assert!(heard.iter().all(|heard| heard.get() > 0), "{heard:?}");
    });
    join_all(clients).await;
    service.stop().await;
}

fn position(cursor: &Value) -> Option<usize> {
    let cursor = incident_manager::domain::Cursor::decode(cursor.as_str()?).unwrap();
    Some(cursor.position.0.try_into().unwrap())
}

#[tokio::test]
async fn a_ping_s_cursor_is_behind_what_waits() {
    const RATE: usize = 10;
    const BURST: usize = 4 * RATE;
    let (database, service) = start(RATE, &["--ping-interval", "200ms"]).await;
    let mut socket = service.socket().await;
    socket.subscribe("1", NEW, json!({})).await;
    insert(&database, "P1", 0..BURST).await;
    // which nobody is told of, so that only a ping moves on past them
    insert(&database, "P4", 0..5).await;
    let (mut heard, mut pinged, mut told) = (0, 0, None);
    while told < Some(BURST + 5) {
        let message = socket.receive().await.expect("the connection is open");
        let told_now = if message["type"] == "ping" {
            socket.send(json!({ "type": "pong" })).await;
            pinged += usize::from(heard < BURST);
            position(&message["payload"]["cursors"]["1"])
        } else {
            heard += 1;
            position(&message["payload"]["extensions"]["cursor"])
        };
        assert!(told_now.is_none() || told_now > told, "{message}: {told:?} was told before");
        told = told_now.or(told);
        assert!(told.is_none_or(|told| told <= heard || heard == BURST), "{message}");
    }
    assert_eq!(heard, BURST);
    assert!(pinged > 0, "there were pings while something waited");
    service.stop().await;
}
