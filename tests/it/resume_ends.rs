//! Cursors that are none, or are gone: by a failover that has lost something, or by retention. And those that are not, though
//! it looks like it.

use serde_json::{Value, json};

use crate::support::log::sequence_all;
use crate::support::numbered::{NEW, assert_titles, first_of, insert, next, start, subscribe};
use crate::support::{Service, Socket, TestDatabase};

/// As if the server were on another timeline from now on, as after a promotion.
async fn promote(database: &TestDatabase) {
    database.execute("update incident_manager.event_epoch set timeline = '000000FF' where epoch = (select max(epoch) from incident_manager.event_epoch)").await;
    sequence_all(database).await;
}

#[tokio::test]
async fn a_switchover_that_lost_nothing_disturbs_nobody() {
    let (database, service) = start().await;
    let mut live = service.subscribe("subscription { newIncidents { title } }").await;
    let cursor = first_of(&database, &service, 10).await;
    assert_titles(&mut live, 1..=10).await;
    promote(&database).await;
    insert(&database, 11..=20).await;
    assert_titles(&mut live, 11..=20).await;
    let late = Service::start(&database.database_url()).await;
    for replica in [&service, &late] {
        let mut socket = subscribe(replica, NEW, Some(&cursor)).await;
        assert_titles(&mut socket, 2..=20).await;
    }
    assert_eq!(database.count("event_epoch").await, 2);
    service.stop().await;
    late.stop().await;
}

/// The error with which a subscription is refused or ended, after so many results.
async fn refused(socket: &mut Socket) -> Value {
    let mut message = socket.receive().await.unwrap();
    assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("1")), "{message}");
    message["payload"][0]["extensions"].take()
}

#[tokio::test]
async fn a_cursor_that_is_none_is_told_from_one_that_is_gone() {
    let (database, service) = start().await;
    let cursor = first_of(&database, &service, 3).await;
    for wrong in ["", "nonsense", &cursor[1..], &format!("{cursor}A")] {
        let told = refused(&mut subscribe(&service, NEW, Some(wrong)).await).await;
        assert_eq!((&told["code"], &told["field"]), (&json!("BAD_USER_INPUT"), &json!("after")), "{wrong}: {told}");
    }
    let mut socket = service.socket().await;
    // the document is known by then, and refused as before
    for _ in 0..2 {
        socket
            .send(json!({ "id": "1", "type": "subscribe", "payload": { "query": NEW, "variables": { "after": 5 } } }))
            .await;
        assert_eq!(refused(&mut socket).await["code"], "GRAPHQL_VALIDATION_FAILED");
    }
    // another database has never had this epoch
    let (foreign, elsewhere) = start().await;
    insert(&foreign, 1..=9).await;
    let told = refused(&mut subscribe(&elsewhere, NEW, Some(&cursor)).await).await;
    assert_eq!(told["code"], "CURSOR_EXPIRED");
    let oldest = told["oldestCursor"].as_str().expect("from where on it goes");
    let mut socket = subscribe(&elsewhere, NEW, Some(oldest)).await;
    assert_titles(&mut socket, 1..=9).await;
    service.stop().await;
    elsewhere.stop().await;
}

/// The last events are lost, as by a failover to a standby that did not have them yet.
async fn lose(database: &TestDatabase, kept: i64) {
    database
        .execute(&format!(
            "begin;
             select pg_advisory_xact_lock(incident_manager.event_lock_key());
             delete from incident_manager.event_log where pos > {kept};
             insert into incident_manager.event_batch (n, last_pos, snap, seen_seq, covered, epoch)
               select n + 1, {kept}, snap, seen_seq, covered, epoch from incident_manager.event_batch order by n desc limit 1;
             update incident_manager.event_epoch set timeline = '000000FF';
             commit"
        ))
        .await;
}

#[tokio::test]
async fn a_failover_that_lost_something_ends_those_who_had_seen_it_and_nobody_else() {
    let (database, service) = start().await;
    let first = first_of(&database, &service, 1).await;
    let mut ahead = service.subscribe("subscription { newIncidents { title } }").await;
    let mut before = subscribe(&service, NEW, Some(&first)).await;
    insert(&database, 2..=5).await;
    let lost = assert_titles(&mut ahead, 2..=5).await;
    assert_titles(&mut before, 2..=5).await;
    let mut alerts = service.subscribe("subscription { alerts { title } }").await;
    lose(&database, 3).await;
    for socket in [&mut ahead, &mut before] {
        let told = refused(socket).await;
        assert_eq!(told["code"], "CURSOR_EXPIRED");
        assert!(told["oldestCursor"].is_string(), "{told}");
    }
    assert_eq!(refused(&mut alerts).await["code"], "CURSOR_EXPIRED", "it had begun after what is lost");
    let late = Service::start(&database.database_url()).await;
    for replica in [&service, &late] {
        // at once, and when others have those positions
        assert_eq!(refused(&mut subscribe(replica, NEW, Some(&lost)).await).await["code"], "CURSOR_EXPIRED");
        let mut socket = subscribe(replica, NEW, Some(&first)).await;
        assert_titles(&mut socket, 2..=3).await;
    }
    insert(&database, 6..=9).await;
    for replica in [&service, &late] {
        let mut socket = subscribe(replica, NEW, Some(&first)).await;
        for title in [2, 3, 6, 7, 8, 9] {
            assert_eq!(next(&mut socket).await.0, title);
        }
        assert_eq!(refused(&mut subscribe(replica, NEW, Some(&lost)).await).await["code"], "CURSOR_EXPIRED");
    }
    service.stop().await;
    late.stop().await;
}

#[tokio::test]
async fn retention_ends_what_it_has_passed() {
    let (database, service) = start().await;
    let cursor = first_of(&database, &service, 50).await;
    database.execute("delete from incident_manager.event_log where pos <= 20").await;
    // in memory it is still there
    assert_titles(&mut subscribe(&service, NEW, Some(&cursor)).await, 2..=50).await;
    let late = Service::start(&database.database_url()).await;
    let told = refused(&mut subscribe(&late, NEW, Some(&cursor)).await).await;
    assert_eq!(told["code"], "CURSOR_EXPIRED");
    assert_titles(&mut subscribe(&late, NEW, told["oldestCursor"].as_str()).await, 21..=50).await;
    service.stop().await;
    late.stop().await;
}
