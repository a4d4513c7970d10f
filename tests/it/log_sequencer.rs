//! The sequencer: order, bounds, and what must not delay it.

use sqlx::{Connection as _, Row as _};

use crate::support::TestDatabase;
use crate::support::log::{
    Sequenced, assert_in_order, call_sequencer, heard_of, insert, last_position, log, maintain, refusal, run, sequence,
    sequence_all, value,
};

#[tokio::test]
async fn a_statement_of_many_rows_is_as_many_events_in_order() {
    let database = TestDatabase::new().await;
    database
        .execute(
            "insert into incident_manager.incident (title, severity, source)
               select n::text, 'P3', 'bulk' from generate_series(1, 10000) n;
             update incident_manager.incident set severity = 'P1'",
        )
        .await;
    assert_eq!(sequence_all(&database).await, 20_000);
    let log = log(&database).await;
    assert_in_order(&log);
    let titles: Vec<_> = log[..10_000].iter().map(|event| event.title.parse::<i32>().unwrap()).collect();
    assert_eq!(titles, (1..=10_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_transaction_of_a_million_rows_is_moved_in_bounded_calls() {
    let rows = 1_000_000;
    let database = TestDatabase::new().await;
    database
        .execute(&format!(
            "insert into incident_manager.incident (title, severity, source)
               select 'x', 'P3', 's' from generate_series(1, {rows})"
        ))
        .await;
    let mut calls = 0;
    loop {
        let done = sequence(&database, 20_000).await;
        calls += 1;
        assert!(done.moved <= 20_000, "{done:?}");
        assert!(done.more || done.moved < 20_000, "{done:?}");
        if !done.more {
            break;
        }
    }
    // the last two find that the backlog is at its end, and that nothing was committed meanwhile
    assert_eq!(calls, rows / 20_000 + 2);
    let counts: (i64, i64, i64) =
        sqlx::query_as("select count(*), max(pos), count(distinct incident_id) from incident_manager.event_log")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(counts, (rows, rows, rows));
}

#[tokio::test]
async fn a_backlog_keeps_each_incidents_order_whatever_is_committed_meanwhile() {
    let database = TestDatabase::new().await;
    let mut late = database.connect().await;
    run(&mut late, "begin").await;
    insert(&mut late, "early number, late commit").await;
    database
        .execute(
            "insert into incident_manager.incident (title, severity, source)
               select n::text, 'P3', 'bulk' from generate_series(1, 20) n",
        )
        .await;
    // far more than five calls' worth
    for n in 0..10 {
        database.execute(&format!("update incident_manager.incident set title = title || '.{n}'")).await;
    }
    let mut moved = 0;
    let mut calls = 0;
    loop {
        let done = sequence(&database, 7).await;
        assert!(done.moved <= 7);
        moved += done.moved;
        calls += 1;
        if calls <= 15 {
            database
                .execute(
                    "update incident_manager.incident set severity = case severity when 'P1' then 'P2' else 'P1' end",
                )
                .await;
        } else if calls == 16 {
            run(&mut late, "commit").await;
        } else if !done.more {
            break;
        }
    }
    let log = log(&database).await;
    assert_eq!(moved, 1 + 20 * (1 + 10 + 15));
    assert_eq!(log.len(), usize::try_from(moved).unwrap());
    assert_in_order(&log);
}

#[tokio::test]
async fn an_open_transaction_delays_its_own_rows_alone() {
    let database = TestDatabase::new().await;
    let mut holder = database.connect().await;
    run(&mut holder, "begin; select pg_current_xact_id()").await;
    let other = TestDatabase::empty().await;
    let mut elsewhere = other.connect().await;
    run(&mut elsewhere, "begin; create table t (a int)").await;
    let mut open = database.connect().await;
    run(&mut open, "begin").await;
    let held = insert(&mut open, "held").await;
    for n in 1..=300 {
        database
            .execute(&format!(
                "insert into incident_manager.incident (title, severity, source) values ('{n}', 'P3', 's')"
            ))
            .await;
        assert_eq!(heard_of(&database).await, 1);
    }
    run(&mut open, &format!("update incident_manager.incident set title = 'still held' where id = '{held}'; commit"))
        .await;
    assert_eq!(heard_of(&database).await, 2);
    run(
        &mut holder,
        "insert into incident_manager.incident (title, severity, source) values ('last', 'P3', 's'); commit",
    )
    .await;
    assert_eq!(heard_of(&database).await, 1);
    let log = log(&database).await;
    assert_in_order(&log);
    assert_eq!(log[300].incident_id, Some(held));
    elsewhere.close().await.unwrap();
}

#[tokio::test]
async fn a_lock_on_an_incident_does_not_stop_the_sequencer() {
    let database = TestDatabase::new().await;
    let mut holder = database.connect().await;
    insert(&mut holder, "locked").await;
    run(&mut holder, "begin; select * from incident_manager.incident for update").await;
    let mut sequencer = database.connect().await;
    // a wait for the lock would be an error
    run(&mut sequencer, "set lock_timeout = 1").await;
    let done = call_sequencer(&mut sequencer, 20_000).await.unwrap();
    assert_eq!((done.moved, done.head), (1, Some(1)));
    let entry = sqlx::query("select summary, actor, update_type, pos from incident_manager.timeline")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(entry.get::<String, _>("summary"), "P3 created: locked");
    assert_eq!((entry.get::<&str, _>("actor"), entry.get::<&str, _>("update_type")), ("postgres", "CREATED"));
    assert_eq!(entry.get::<i64, _>("pos"), 1);
}

#[tokio::test]
async fn the_timeline_has_a_line_for_each_event_of_an_incident() {
    let database = TestDatabase::new().await;
    insert(&mut database.connect().await, "Checkout fails").await;
    for set in [
        "severity = 'P1'",
        "assigned_to = 'ann'",
        "assigned_to = null",
        "state = 'TRIAGED'",
        "title = 'b', labels = '{\"a\":\"b\"}'",
        "state = 'RESOLVED'",
        "state = 'CLOSED'",
    ] {
        database.execute(&format!("update incident_manager.incident set {set}")).await;
    }
    database
        .execute(
            "insert into incident_manager.comment (incident_id, body) select id, 'done' from incident_manager.incident",
        )
        .await;
    sequence_all(&database).await;
    let summaries: Vec<String> = sqlx::query_scalar("select summary from incident_manager.timeline order by pos")
        .fetch_all(database.pool())
        .await
        .unwrap();
    assert_eq!(
        summaries,
        [
            "P3 created: Checkout fails",
            "severity changed from P3 to P1",
            "assigned to ann",
            "unassigned",
            "state changed from DETECTED to TRIAGED",
            "changed title, labels",
            "resolved, was TRIAGED",
            "state changed from RESOLVED to CLOSED",
            "comment added",
        ]
    );
}

#[tokio::test]
async fn one_call_at_a_time_has_its_turn() {
    let database = TestDatabase::new().await;
    insert(&mut database.connect().await, "t").await;
    let mut holder = database.connect().await;
    run(&mut holder, "begin; select pg_advisory_xact_lock(incident_manager.event_lock_key())").await;
    let done = sequence(&database, 20_000).await;
    assert_eq!(done, Sequenced { locked: false, head: None, moved: 0, more: false, epoch: None });
    run(&mut holder, "rollback").await;
    let done = sequence(&database, 20_000).await;
    assert_eq!(done, Sequenced { locked: true, head: Some(1), moved: 1, more: false, epoch: Some(1) });
}

#[tokio::test]
async fn the_log_is_moved_and_maintained_in_transactions_of_its_own_alone() {
    let database = TestDatabase::new().await;
    let write = "insert into incident_manager.incident (title, severity, source) values ('t', 'P3', 's')";
    database.execute(write).await;
    for call in ["select incident_manager.sequence_events()", "select incident_manager.event_maintain()"] {
        for before in [
            format!("begin; {write}"),
            "begin isolation level repeatable read".to_owned(),
            "begin isolation level serializable".to_owned(),
            "set default_transaction_isolation = 'repeatable read'".to_owned(),
        ] {
            assert_eq!(refusal(&database, &before, call).await, "25000", "{before}; {call}");
        }
    }
    // its record would look as if a dump had brought it
    assert_eq!(refusal(&database, "begin; savepoint s", "select incident_manager.sequence_events()").await, "25000");
    let done = sequence(&database, 20_000).await;
    assert_eq!(done, Sequenced { locked: true, head: Some(1), moved: 1, more: false, epoch: Some(1) });
}

#[tokio::test]
async fn a_call_that_moves_events_commits_synchronously_whatever_its_session_says() {
    let database = TestDatabase::new().await;
    let mut session = database.connect().await;
    run(&mut session, "set synchronous_commit = off").await;
    insert(&mut session, "t").await;
    run(&mut session, "begin").await;
    assert_eq!(call_sequencer(&mut session, 20_000).await.unwrap().moved, 1);
    assert_eq!(value::<String>(&mut session, "show synchronous_commit").await, "on");
    run(&mut session, "commit").await;
    assert_eq!(value::<String>(&mut session, "show synchronous_commit").await, "off");
}

#[tokio::test]
async fn an_idle_call_writes_nothing() {
    let database = TestDatabase::new().await;
    insert(&mut database.connect().await, "t").await;
    sequence_all(&database).await;
    let mut session = database.connect().await;
    for _ in 0..50 {
        run(&mut session, "begin").await;
        assert_eq!(call_sequencer(&mut session, 20_000).await.unwrap().moved, 0);
        let wrote: bool = value(&mut session, "select pg_current_xact_id_if_assigned() is not null").await;
        assert!(!wrote);
        run(&mut session, "commit").await;
    }
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.event_batch").await, 2);
}

#[tokio::test]
async fn snapshots_that_rolled_back_writers_moved_on_are_kept_once_a_second() {
    let database = TestDatabase::new().await;
    sequence_all(&database).await;
    // 20 times over the 1,000 transactions after which an idle call keeps its snapshot; subtransactions count
    let storm = "do $$ begin for n in 1 .. 2000 loop begin
          insert into incident_manager.incident (title, severity, source) values ('never', 'P3', 's');
          raise exception sqlstate '40001';
        exception when serialization_failure then null; end; end loop; end $$";
    for _ in 0..20 {
        database.execute(storm).await;
        assert_eq!(heard_of(&database).await, 0);
    }
    let gaps: Vec<bool> = sqlx::query_scalar("select at - lag(at) over (order by n) > interval '1 second' from incident_manager.event_batch order by n offset 1")
        .fetch_all(database.pool())
        .await
        .unwrap();
    assert!(gaps.iter().all(|apart| *apart), "{gaps:?}");
    insert(&mut database.connect().await, "after the storm").await;
    assert_eq!(heard_of(&database).await, 1);
}

#[tokio::test]
async fn nothing_decays_under_a_held_snapshot() {
    let database = TestDatabase::new().await;
    let mut holder = database.connect().await;
    run(&mut holder, "begin isolation level repeatable read; select count(*) from incident_manager.incident").await;
    let mut session = database.connect().await;
    for n in 0..300 {
        insert(&mut session, "t").await;
        assert_eq!(call_sequencer(&mut session, 20_000).await.unwrap().moved, 1);
        if n % 10 == 0 {
            maintain(&database, 20).await;
        }
    }
    assert_eq!(last_position(&database).await, 300);
    // appended, never updated: no dead rows for the next call to look through
    let updated: i64 = database.scalar("select pg_stat_get_xact_tuples_updated('incident_manager.event_batch'::regclass) + coalesce(pg_stat_get_tuples_updated('incident_manager.event_batch'::regclass), 0)").await;
    assert_eq!(updated, 0);
    assert!(database.scalar::<i64>("select count(*) from incident_manager.event_batch").await <= 120);
    let seen: i64 = value(&mut holder, "select count(*) from incident_manager.event_log").await;
    assert_eq!(seen, 0);
    assert_in_order(&log(&database).await);
}
