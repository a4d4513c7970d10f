//! Many writers at once, of every kind, while several sessions sequence and maintain: every committed event exactly once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use uuid::Uuid;

use crate::support::log::{assert_in_order, call_sequencer, insert, log, maintain, run, sequence_all, value};
use crate::support::{TestDatabase, eventually};

const WRITERS: u64 = 16;
const TRANSACTIONS: u32 = 40;

/// One transaction of some changes, some of them undone, that ends in one of the ways there are. What it should leave in the
/// log is told by the tables; a failure to serialize or a deadlock is a rollback.
async fn transaction(
    writer: &mut PgConnection,
    random: &mut StdRng,
    shared: &[Uuid],
    id: &str,
) -> Result<(), sqlx::Error> {
    let level = ["read committed", "repeatable read", "serializable"][random.random_range(0..3)];
    let prepares = random.random_ratio(1, 8);
    let mut sql = format!("begin isolation level {level};");
    if prepares {
        sql += "set local incident_manager.doorbell = 'off';";
    }
    for n in 0..random.random_range(1..5) {
        let one = shared[random.random_range(0..shared.len())];
        let change = match random.random_range(0..5) {
            0 => format!("insert into incident_manager.incident (title, severity, source, fingerprint) values ('{id}', 'P3', 'upsert', '{}')
                          on conflict (source, fingerprint) where state not in ('RESOLVED', 'CLOSED') do update set title = excluded.title || '.'",
                         random.random_range(0..6)),
            1 => format!("insert into incident_manager.comment (incident_id, body) values ('{one}', '{id}')"),
            2 => format!("insert into incident_manager.incident (title, severity, source) select '{id}', 'P4', 'new' from generate_series(1, 3)"),
            _ => format!("update incident_manager.incident set title = '{id}.{n}' where id = '{one}'"),
        };
        let (before, after) = [("savepoint s;", "rollback to s;"), ("savepoint s;", "release s;"), ("", ""), ("", "")]
            [random.random_range(0..4)];
        sql.extend([before, &change, ";", after]);
    }
    writer.execute(AssertSqlSafe(sql)).await?;
    // open for a while: others commit, and calls look, meanwhile
    writer
        .execute(AssertSqlSafe(format!("select pg_sleep({})", f64::from(random.random_range(0..20)) / 1000.0)))
        .await?;
    if prepares {
        writer.execute(AssertSqlSafe(format!("prepare transaction '{id}'"))).await?;
        let end = if random.random_ratio(1, 4) { "rollback" } else { "commit" };
        writer.execute(AssertSqlSafe(format!("{end} prepared '{id}'"))).await?;
    } else {
        writer.execute(if random.random_ratio(1, 5) { "rollback" } else { "commit" }).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_committed_event_is_logged_once_and_in_order_while_slots_change() {
    let database = Arc::new(TestDatabase::new().await);
    let mut first = database.connect().await;
    let mut shared = Vec::new();
    for n in 0..8 {
        shared.push(insert(&mut first, &n.to_string()).await);
    }
    // from before the first event to after the last
    let mut reader = database.connect().await;
    run(&mut reader, "begin isolation level repeatable read; select count(*) from incident_manager.incident").await;
    let mut holder = database.connect().await;
    run(&mut holder, "begin").await;
    insert(&mut holder, "held").await;

    let done = Arc::new(AtomicBool::new(false));
    let (rotations, emptied) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut keepers = Vec::new();
    for n in 0..3 {
        let (database, done, rotations, emptied) = (database.clone(), done.clone(), rotations.clone(), emptied.clone());
        keepers.push(tokio::spawn(async move {
            let mut session = database.connect().await;
            while !done.load(Relaxed) {
                call_sequencer(&mut session, [5, 50, 20_000][n]).await.unwrap();
                let did = maintain(&database, 10).await;
                rotations.fetch_add(did.rotated.into(), Relaxed);
                emptied.fetch_add(did.emptied.into(), Relaxed);
                tokio::task::yield_now().await;
            }
        }));
    }
    let mut writers = Vec::new();
    for seed in 0..WRITERS {
        let (database, shared) = (database.clone(), shared.clone());
        writers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut writer = database.connect().await;
            let mut ended = 0;
            for n in 0..TRANSACTIONS {
                let id = format!("{}.{seed}.{n}", database.name());
                match transaction(&mut writer, &mut random, &shared, &id).await {
                    Ok(()) => ended += 1,
                    Err(error) => {
                        let code = error
                            .as_database_error()
                            .and_then(sqlx::error::DatabaseError::code)
                            .unwrap_or_default()
                            .into_owned();
                        assert!(["40001", "40P01"].contains(&code.as_str()), "{error}");
                        run(&mut writer, "rollback").await;
                    }
                }
            }
            ended
        }));
    }
    let mut ended = 0;
    for writer in writers {
        ended += writer.await.unwrap();
    }
    run(&mut holder, "commit").await;
    // the slots go on changing once nobody holds them
    eventually("both slots have been emptied", || async {
        database.execute("update incident_manager.incident set metadata = jsonb_build_object('n', random()) where source = 'test'").await;
        emptied.load(Relaxed) >= 2 && rotations.load(Relaxed) >= 2
    })
    .await;
    done.store(true, Relaxed);
    for keeper in keepers {
        keeper.await.unwrap();
    }
    sequence_all(&database).await;
    assert!(ended > 100, "{ended} transactions ended as they were to");

    let log = log(&database).await;
    assert_in_order(&log);
    let logged: HashMap<_, _> = log
        .iter()
        .filter(|event| event.kind == "incident")
        .map(|event| (event.incident_id.unwrap(), event.version.unwrap()))
        .collect();
    let stored: Vec<(Uuid, i32)> =
        sqlx::query_as("select id, version from incident_manager.incident").fetch_all(database.pool()).await.unwrap();
    assert_eq!(logged, stored.into_iter().collect(), "the last version of each incident, and of no other");
    let mut comments: Vec<Uuid> = log.iter().filter_map(|event| event.comment_id).collect();
    let mut stored: Vec<Uuid> =
        sqlx::query_scalar("select id from incident_manager.comment").fetch_all(database.pool()).await.unwrap();
    comments.sort_unstable();
    stored.sort_unstable();
    assert_eq!(comments, stored);
    assert_eq!(value::<i64>(&mut reader, "select count(*) from incident_manager.incident").await, 8);
}

#[tokio::test]
async fn a_comment_waits_for_its_incidents_change_and_says_what_that_left() {
    for level in ["read committed", "repeatable read"] {
        let database = TestDatabase::new().await;
        let mut changer = database.connect().await;
        let id = insert(&mut changer, "before").await;
        run(&mut changer, &format!("begin; update incident_manager.incident set title = 'after' where id = '{id}'"))
            .await;
        let mut commenter = database.connect().await;
        let comment = format!(
            "begin isolation level {level}; insert into incident_manager.comment (incident_id, body) values ('{id}', 'c'); commit"
        );
        let waiting = tokio::spawn(async move {
            let ended = commenter.execute(AssertSqlSafe(comment)).await;
            ended.map_err(|error| error.into_database_error().unwrap().code().unwrap().into_owned())
        });
        eventually("the comment waits", || async {
            database.scalar::<bool>("select exists (select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')").await
        })
        .await;
        run(&mut changer, "commit").await;
        let ended = waiting.await.unwrap();
        sequence_all(&database).await;
        let log = log(&database).await;
        let titles: Vec<_> = log.iter().map(|event| event.title.as_str()).collect();
        if level == "read committed" {
            ended.unwrap();
            assert_eq!(titles, ["before", "after", "after"]);
        } else {
            assert_eq!(ended.unwrap_err(), "40001");
            assert_eq!(titles, ["before", "after"]);
        }
        assert_in_order(&log);
    }
}

#[tokio::test]
async fn a_change_waits_for_an_earlier_comment() {
    let database = TestDatabase::new().await;
    let mut commenter = database.connect().await;
    let id = insert(&mut commenter, "before").await;
    run(
        &mut commenter,
        &format!("begin; insert into incident_manager.comment (incident_id, body) values ('{id}', 'c')"),
    )
    .await;
    let mut changer = database.connect().await;
    run(&mut changer, "set lock_timeout = '20ms'").await;
    let change = "update incident_manager.incident set title = 'after'";
    let refused = changer.execute(change).await.unwrap_err().into_database_error().unwrap();
    assert_eq!(refused.code().as_deref(), Some("55P03"));
    run(&mut commenter, "commit").await;
    run(&mut changer, change).await;
    sequence_all(&database).await;
    let kinds: Vec<_> = log(&database).await.into_iter().map(|event| (event.kind, event.version)).collect();
    assert_eq!(
        kinds,
        [("incident".to_owned(), Some(1)), ("comment".to_owned(), Some(1)), ("incident".to_owned(), Some(2))]
    );
}
