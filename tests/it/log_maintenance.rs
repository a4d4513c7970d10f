//! Housekeeping: slots of the outbox, partitions, retention, long texts.

use sqlx::Row as _;

use crate::support::log::{
    Maintained, assert_in_order, heard_of, insert, log, maintain, retain, run, sequence, sequence_all, value,
};
use crate::support::{TestDatabase, eventually};

const NOTHING: Maintained = Maintained { rotated: false, emptied: false, dropped: None, overdue: false };
const FOREVER: &str = "1000 years";

async fn insert_many(database: &TestDatabase, rows: u32) {
    database
        .execute(&format!(
            "insert into incident_manager.incident (title, severity, source)
               select n::text, 'P3', 's' from generate_series(1, {rows}) n"
        ))
        .await;
}

/// A log whose partitions are as small as this; the first too.
async fn with_partitions_of(rows: i64) -> TestDatabase {
    let database = TestDatabase::new().await;
    database
        .execute(&format!(
            "create or replace function incident_manager.event_partition_size(from_pos bigint) returns bigint
               language sql as 'select {rows}::bigint';
             drop table incident_manager.event_log_1;
             truncate incident_manager.event_partition;
             update incident_manager.event_batch set covered = incident_manager.event_add_partition(1, {rows}), xid = pg_current_xact_id()"
        ))
        .await;
    database
}

async fn slot_rows(database: &TestDatabase) -> (i64, i64) {
    let row = sqlx::query("select (select count(*) from incident_manager.event_outbox_0), (select count(*) from incident_manager.event_outbox_1)")
        .fetch_one(database.pool())
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn the_slots_are_written_in_turn_and_emptied_once_all_is_logged() {
    let database = TestDatabase::new().await;
    insert_many(&database, 5).await;
    assert_eq!(maintain(&database, 10).await, NOTHING);
    insert_many(&database, 20).await;
    assert_eq!(maintain(&database, 10).await, Maintained { rotated: true, ..NOTHING });
    insert_many(&database, 1).await;
    assert_eq!(slot_rows(&database).await, (25, 1));
    assert_eq!(maintain(&database, 10).await, NOTHING, "not logged yet");
    assert_eq!(sequence_all(&database).await, 26);
    assert_eq!(maintain(&database, 10).await, Maintained { emptied: true, ..NOTHING });
    assert_eq!(slot_rows(&database).await, (0, 1));
    insert_many(&database, 20).await;
    assert_eq!(maintain(&database, 10).await, Maintained { rotated: true, ..NOTHING });
    insert_many(&database, 1).await;
    assert_eq!(slot_rows(&database).await, (1, 21));
    sequence_all(&database).await;
    assert_in_order(&log(&database).await);
}

#[tokio::test]
async fn a_slot_with_an_open_or_prepared_writer_is_not_emptied() {
    let database = TestDatabase::new().await;
    let mut open = database.connect().await;
    run(&mut open, "begin; set local incident_manager.doorbell = 'off'").await;
    insert(&mut open, "open").await;
    insert_many(&database, 20).await;
    sequence_all(&database).await;
    assert!(maintain(&database, 10).await.rotated);
    assert_eq!(maintain(&database, 10).await, NOTHING, "open");
    run(&mut open, &format!("prepare transaction '{}'", database.name())).await;
    assert_eq!(maintain(&database, 10).await, NOTHING, "prepared");
    run(&mut open, &format!("commit prepared '{}'", database.name())).await;
    assert_eq!(maintain(&database, 10).await, NOTHING, "committed, not logged");
    assert_eq!(heard_of(&database).await, 1);
    assert!(maintain(&database, 10).await.emptied);
}

#[tokio::test]
async fn no_slot_is_emptied_in_the_middle_of_a_backlog() {
    let database = TestDatabase::new().await;
    insert_many(&database, 40).await;
    assert!(maintain(&database, 10).await.rotated);
    assert!(sequence(&database, 10).await.more);
    assert_eq!(maintain(&database, 10).await, NOTHING);
    assert_eq!(sequence_all(&database).await, 40);
    assert!(maintain(&database, 10).await.emptied);
}

#[tokio::test]
async fn partitions_are_made_ahead_and_follow_each_other_under_writers() {
    let database = with_partitions_of(50).await;
    let covered = || database.scalar::<i64>("select covered from incident_manager.event_batch order by n desc limit 1");
    assert_eq!(covered().await, 51);
    insert_many(&database, 30).await;
    sequence_all(&database).await;
    maintain(&database, 1_000_000).await;
    assert_eq!(covered().await, 101, "more than half is used");
    maintain(&database, 1_000_000).await;
    assert_eq!(covered().await, 101);
    // more in a call than there are partitions for
    insert_many(&database, 500).await;
    assert_eq!(sequence(&database, 20_000).await.head, Some(530));
    for n in 0..20 {
        insert_many(&database, 15).await;
        sequence(&database, if n % 2 == 0 { 4 } else { 20_000 }).await;
        maintain(&database, 40).await;
    }
    assert_eq!(sequence_all(&database).await, 830);
    let log = log(&database).await;
    assert_eq!(log.len(), 830);
    assert_in_order(&log);
    let gaps: i64 = database
        .scalar("select count(*) from (select from_pos <> lag(to_pos, 1, 1::bigint) over (order by from_pos) as gap from incident_manager.event_partition) p where gap")
        .await;
    assert_eq!(gaps, 0);
}

#[tokio::test]
async fn retention_by_count_drops_the_oldest_alone_and_keeps_that_many() {
    let database = with_partitions_of(10).await;
    insert_many(&database, 45).await;
    sequence_all(&database).await;
    let mut dropped = Vec::new();
    while let Some(name) = retain(&database, FOREVER, 20).await.dropped {
        dropped.push(name);
    }
    assert_eq!(dropped, ["event_log_1", "event_log_11"]);
    let left = log(&database).await;
    assert_eq!((left[0].pos, left.len()), (21, 25));
    assert_eq!(
        database.scalar::<i64>("select count(*) from incident_manager.timeline").await,
        45,
        "it outlives the log"
    );
    insert_many(&database, 1).await;
    assert_eq!(sequence_all(&database).await, 46);
}

#[tokio::test]
async fn retention_by_age_drops_what_is_old_to_its_last_event() {
    let database = with_partitions_of(10).await;
    insert_many(&database, 35).await;
    sequence_all(&database).await;
    assert_eq!(retain(&database, "1 hour", 1_000_000).await, NOTHING);
    database
        .execute("update incident_manager.event_log set logged_at = now() - interval '2 hours' where pos < 20")
        .await;
    assert_eq!(retain(&database, "1 hour", 1_000_000).await.dropped.as_deref(), Some("event_log_1"));
    assert_eq!(retain(&database, "1 hour", 1_000_000).await, NOTHING, "position 20 is young");
    database.execute("update incident_manager.event_log set logged_at = now() - interval '2 hours'").await;
    assert_eq!(retain(&database, "1 hour", 1_000_000).await.dropped.as_deref(), Some("event_log_11"));
    assert_eq!(retain(&database, "1 hour", 1_000_000).await.dropped.as_deref(), Some("event_log_21"));
    assert_eq!(retain(&database, "1 hour", 1_000_000).await, NOTHING, "the head's stays");
    assert_eq!(log(&database).await.len(), 5);
}

#[tokio::test]
async fn a_partition_that_a_reader_holds_is_overdue_and_nobody_writes_later_for_it() {
    let database = with_partitions_of(10).await;
    insert_many(&database, 25).await;
    sequence_all(&database).await;
    maintain(&database, 5).await;
    let mut reader = database.connect().await;
    run(&mut reader, "begin; select count(*) from incident_manager.event_log").await;
    let done = retain(&database, FOREVER, 5).await;
    assert!(done.overdue && done.dropped.is_none(), "{done:?}");
    assert_eq!(log(&database).await.len(), 25);

    // maintenance that would wait for long: as much as it holds meanwhile, a writer commits
    database.execute("alter function incident_manager.event_maintain set lock_timeout = '1min'").await;
    let url = database.url().to_owned();
    let waiting = tokio::spawn(async move {
        let mut session = crate::support::database::connect(&url).await;
        value::<Option<String>>(&mut session, "select dropped from incident_manager.event_maintain('1000 years', 5, 1)")
            .await
    });
    eventually("maintenance waits for the reader", || async {
        database.scalar::<bool>("select exists (select 1 from pg_locks where not granted and relation = 'incident_manager.event_log'::regclass)").await
    })
    .await;
    let mut writer = database.connect().await;
    run(&mut writer, "set lock_timeout = 1").await;
    insert(&mut writer, "meanwhile").await;
    run(&mut reader, "commit").await;
    assert_eq!(waiting.await.unwrap().as_deref(), Some("event_log_1"));
    assert_eq!(heard_of(&database).await, 1);
}

#[tokio::test]
async fn maintenance_goes_on_while_somebody_keeps_new_partitions_out() {
    let database = with_partitions_of(10).await;
    insert_many(&database, 9).await;
    sequence_all(&database).await;
    let mut holder = database.connect().await;
    run(&mut holder, "begin; lock table incident_manager.event_log in share update exclusive mode").await;
    assert!(maintain(&database, 5).await.rotated);
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.event_partition").await, 1);
    run(&mut holder, "rollback").await;
    maintain(&database, 5).await;
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.event_partition").await, 2);
}

async fn texts(database: &TestDatabase) -> Vec<i32> {
    sqlx::query_scalar("select version from incident_manager.event_text order by n")
        .fetch_all(database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_long_description_is_kept_once_and_read_by_a_join() {
    let database = TestDatabase::new().await;
    let long = "ä".repeat(1001);
    let short = "ä".repeat(1000);
    database.execute(&format!("insert into incident_manager.incident (title, description, severity, source) values ('t', '{long}', 'P3', 's')")).await;
    database
        .execute(&format!(
            "update incident_manager.incident set severity = 'P1';
             insert into incident_manager.comment (incident_id, body) select id, 'c' from incident_manager.incident;
             update incident_manager.incident set description = '{short}';
             update incident_manager.incident set description = '{long}!';
             insert into incident_manager.alert (title, description, severity, source) values ('a', '{long}', 'P3', 's')"
        ))
        .await;
    sequence_all(&database).await;
    // the alert's own, and that of the incident which it opened
    assert_eq!(texts(&database).await, [1, 4, 1, 0]);
    let read: Vec<String> = sqlx::query_scalar(
        "select coalesce(l.description, t.body) from incident_manager.event_log l
         left join incident_manager.event_text t on l.description is null
           and t.object_id = coalesce(l.alert_id, l.incident_id) and t.version = l.description_version order by l.pos",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    let last = format!("{long}!");
    assert!(read.iter().eq([&long, &long, &long, &short, &last, &long, &long]), "{read:?}");
    let stored =
        database.scalar::<i64>("select count(*) from incident_manager.event_log where description is not null").await;
    assert_eq!(stored, 1);
}

#[tokio::test]
async fn a_text_is_forgotten_when_no_event_needs_it_or_can() {
    let database = with_partitions_of(10).await;
    let long = "x".repeat(3000);
    database.execute(&format!("insert into incident_manager.incident (title, description, severity, source) values ('t', '{long}', 'P3', 's')")).await;
    insert_many(&database, 25).await;
    sequence_all(&database).await;
    let forget = || retain(&database, FOREVER, 1);
    assert!(forget().await.dropped.is_some());
    assert!(forget().await.dropped.is_some());
    forget().await;
    assert_eq!(texts(&database).await, [1], "the incident's current text: the next event needs it");

    database.execute("update incident_manager.incident set severity = 'P1' where title = 't'").await;
    database.execute(&format!("update incident_manager.incident set description = '{long}!' where title = 't'")).await;
    forget().await;
    assert_eq!(texts(&database).await, [1, 3], "an event in the outbox needs it");
    sequence_all(&database).await;
    forget().await;
    assert_eq!(texts(&database).await, [1, 3], "an event in the log needs it");
    insert_many(&database, 25).await;
    sequence_all(&database).await;
    while forget().await.dropped.is_some() {}
    assert_eq!(texts(&database).await, [3]);
    database.execute("update incident_manager.incident set description = '' where title = 't'").await;
    insert_many(&database, 25).await;
    sequence_all(&database).await;
    while forget().await.dropped.is_some() {}
    assert_eq!(texts(&database).await, [0; 0]);
}

#[tokio::test]
async fn texts_are_looked_at_in_turn() {
    let database = TestDatabase::new().await;
    database
        .execute(
            "insert into incident_manager.event_text (object_id, version, body)
               select gen_random_uuid(), n, 'left over' from generate_series(1, 25) n",
        )
        .await;
    for left in [15, 5, 0] {
        database.execute("select incident_manager.event_forget_texts(pg_current_snapshot(), 10)").await;
        assert_eq!(texts(&database).await.len(), left);
    }
    database.execute("insert into incident_manager.event_text (object_id, version, body) values (gen_random_uuid(), 1, 'left over')").await;
    database.execute("select incident_manager.event_forget_texts(pg_current_snapshot(), 10)").await;
    assert_eq!(texts(&database).await, [0; 0]);
}
