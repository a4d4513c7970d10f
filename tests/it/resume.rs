//! Going on from a cursor: after a break, on another replica, far behind, with many others.

use serde_json::json;

use crate::support::numbered::{NEW, assert_titles, first_of, insert, next, start, subscribe};
use crate::support::statements::Statements;
use crate::support::{Service, TestDatabase, eventually};

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_and_goes_on_live() {
    let (database, service) = start().await;
    let cursor = first_of(&database, &service, 2000).await;
    // from memory, and on a replica that has nothing of it in memory
    let other = Service::start(&database.database_url()).await;
    for replica in [&service, &other] {
        let mut socket = subscribe(replica, NEW, Some(&cursor)).await;
        assert_titles(&mut socket, 2..=2000).await;
    }
    let mut sockets = [subscribe(&service, NEW, Some(&cursor)).await, subscribe(&other, NEW, Some(&cursor)).await];
    for socket in &mut sockets {
        assert_titles(socket, 2..=1000).await;
    }
    insert(&database, 2001..=2001).await;
    for socket in &mut sockets {
        assert_titles(socket, 1001..=2001).await;
    }
    service.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn the_cursor_may_stand_in_the_document_or_in_a_variable_or_be_its_default() {
    let (database, service) = start().await;
    let cursor = first_of(&database, &service, 5).await;
    for (query, variables) in [
        (format!("subscription {{ newIncidents(after: \"{cursor}\") {{ title }} }}"), json!({})),
        (NEW.to_owned(), json!({ "after": cursor })),
        (format!("subscription($c: String = \"{cursor}\") {{ newIncidents(after: $c) {{ title }} }}"), json!({})),
        (
            "subscription($c: String!) { ...R } fragment R on Subscription { newIncidents(after: $c) { title } }".to_owned(),
            json!({ "c": cursor }),
        ),
        (
            "subscription($after: String) { incidentUpdates(updateTypes: [CREATED], after: $after) { incident { title } } }"
                .to_owned(),
            json!({ "after": cursor }),
        ),
    ] {
        let mut socket = service.socket().await;
        let payload = json!({ "query": query, "variables": variables });
        socket.send(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
        assert_titles(&mut socket, 2..=5).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn every_subscription_resumes() {
    let (database, service) = start().await;
    let position = service.data("{ streamPosition { cursor } }", json!({})).await["streamPosition"]["cursor"].take();
    database
        .execute(
            "insert into incident_manager.incident (title, severity, source) values ('1', 'P0', 'test');
             update incident_manager.incident set state = 'TRIAGED';
             insert into incident_manager.alert (title, severity, source) values ('2', 'P4', 'test')",
        )
        .await;
    let late = Service::start(&database.database_url()).await;
    for service in [&service, &late] {
        for (query, title) in [
            ("subscription($after: String) { newIncidents(after: $after) { title } }", "1"),
            ("subscription($after: String) { criticalIncidents(after: $after) { title } }", "1"),
            (
                "subscription($after: String) { incidentUpdates(updateTypes: [STATE_CHANGED], after: $after) { incident { title } } }",
                "1",
            ),
            ("subscription($after: String) { alerts(after: $after) { title } }", "2"),
        ] {
            let mut socket = subscribe(service, query, position.as_str()).await;
            assert_eq!(next(&mut socket).await.0.to_string(), title, "{query}");
        }
        let changes = "subscription($after: String) { incidentStateChanges(after: $after) { newState } }";
        let mut socket = subscribe(service, changes, position.as_str()).await;
        assert_eq!(socket.next("incidentStateChanges").await["newState"], "TRIAGED");
    }
    service.stop().await;
    late.stop().await;
}

#[tokio::test]
async fn a_selection_that_asks_the_database_is_replayed_in_order() {
    let (database, service) = start().await;
    let cursor = first_of(&database, &service, 300).await;
    let late = Service::start(&database.database_url()).await;
    let query = "subscription($after: String) { newIncidents(after: $after) { title comments { totalCount } } }";
    for replica in [&service, &late] {
        let mut socket = subscribe(replica, query, Some(&cursor)).await;
        assert_titles(&mut socket, 2..=300).await;
    }
    service.stop().await;
    late.stop().await;
}

#[tokio::test]
async fn what_a_ping_says_of_a_quiet_subscription_is_a_cursor_too() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--ping-interval", "200ms"]).await;
    service.ready().await;
    let alerts = "subscription($after: String) { alerts(after: $after) { title } }";
    let mut quiet = subscribe(&service, alerts, None).await;
    insert(&database, 1..=10).await;
    let head = loop {
        let message = quiet.receive().await.unwrap();
        assert_eq!(message["type"], "ping", "{message}");
        quiet.send(json!({ "type": "pong" })).await;
        if let Some(cursor) = message["payload"]["cursors"]["1"].as_str() {
            let decoded = incident_manager::domain::Cursor::decode(cursor).unwrap();
            if decoded.position.0 == 10 {
                break cursor.to_owned();
            }
        }
    };
    drop(quiet);
    database.execute("insert into incident_manager.alert (title, severity, source) values ('11', 'P4', 'test')").await;
    assert_eq!(next(&mut subscribe(&service, alerts, Some(&head)).await).await.0, 11);
    service.stop().await;
}

#[tokio::test]
async fn a_herd_costs_as_much_as_one() {
    const CLIENTS: usize = 200;
    const EVENTS: u32 = 40;
    let (database, service) = start().await;
    let cursor = first_of(&database, &service, EVENTS).await;
    let statements = Statements::of(&database).await;
    let late = Service::start(statements.url()).await;
    statements.take_all();
    // each execution of it asks the database once
    let query = "subscription($after: String) { newIncidents(after: $after) { title comments { totalCount } } }";
    for replica in [&late, &late] {
        let mut herd = Vec::new();
        for _ in 0..CLIENTS {
            herd.push(subscribe(replica, query, Some(&cursor)).await);
        }
        for socket in &mut herd {
            assert_titles(socket, 2..=EVENTS).await;
        }
        let ran = statements.take_all();
        let count = |what: &str| ran.iter().filter(|sql| sql.contains(what)).count();
        assert!(count("event_matches") <= 4, "{} reads of the log", count("event_matches"));
        let executions = count("incident_manager.comment");
        assert!(executions <= 2 * EVENTS as usize, "{executions} executions of {EVENTS} events for {CLIENTS} clients");
    }
    service.stop().await;
    late.stop().await;
}

#[tokio::test]
async fn a_slow_client_gets_everything_as_it_reads() {
    /// With 60 KB each more than the buffers of any socket.
    const EVENTS: u32 = 400;
    let database = TestDatabase::new().await;
    let flags = ["--tail-events", "16", "--feed-events", "16", "--replay-bytes", "100000"];
    let service = Service::start_with(&database.database_url(), &flags).await;
    service.ready().await;
    let mut slow = service.subscribe("subscription { newIncidents { title description } }").await;
    let mut quick = service.subscribe("subscription { newIncidents { title } }").await;
    for number in 1..=EVENTS {
        let insert = "insert into incident_manager.incident (title, description, severity, source) values ($1, repeat('x', 60000), 'P3', 'psql')";
        sqlx::query(insert).bind(number.to_string()).execute(database.pool()).await.unwrap();
        assert_titles(&mut quick, number..=number).await;
    }
    assert_titles(&mut slow, 1..=EVENTS).await;
    insert(&database, EVENTS + 1..=EVENTS + 1).await;
    assert_titles(&mut slow, EVENTS + 1..=EVENTS + 1).await;
    service.stop().await;
}

#[tokio::test]
async fn a_replay_waits_for_a_database_that_is_away() {
    let (database, service) = start().await;
    let cursor = first_of(&database, &service, 20).await;
    let late = Service::start(&database.database_url()).await;
    let terminate = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
         where datname = '{}' and application_name = 'incident-manager'",
        database.name()
    );
    for _ in 0..5 {
        let mut socket = subscribe(&late, NEW, Some(&cursor)).await;
        eventually("connections are ended", || async { database.scalar::<i64>(&terminate).await > 0 }).await;
        assert_titles(&mut socket, 2..=20).await;
    }
    service.stop().await;
    late.stop().await;
}

#[tokio::test]
async fn a_cursor_that_is_only_ahead_of_this_replica_is_waited_for() {
    let (database, first) = start().await;
    let second = Service::start(&database.database_url()).await;
    // seen by one, and resumed at once at the other, again and again: one of them is ahead at times
    let mut seen = first.data("{ streamPosition { cursor } }", json!({})).await["streamPosition"]["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    for (number, replica) in (1..=30).zip([&first, &second].into_iter().cycle()) {
        insert(&database, number..=number).await;
        let mut socket = subscribe(replica, NEW, Some(&seen)).await;
        let (title, cursor) = next(&mut socket).await;
        assert_eq!(title, number);
        seen = cursor;
    }
    first.stop().await;
    second.stop().await;
}
