//! Many writers at once, in whatever way: what commits is heard, once and in order; what does not is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::support::{Heard, Service, TestDatabase, committed, eventually};

const INSERT: &str = "insert into incident_manager.incident (title, severity, source) values ('An incident', 'P3', 'writer') returning id";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

async fn insert(connection: &mut PgConnection) -> Uuid {
    sqlx::query_scalar(INSERT).fetch_one(connection).await.unwrap()
}

async fn run(connection: &mut PgConnection, sql: impl Into<String>) {
    let sql = sql.into();
    connection.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn retitle(connection: &mut PgConnection, id: Uuid, title: &str) {
    run(connection, format!("update incident_manager.incident set title = '{title}' where id = '{id}'")).await;
}

/// One transaction of a writer; which kind depends on the step. At most one shared incident in each, so that no two wait
/// for each other.
async fn transaction(connection: &mut PgConnection, step: usize, shared: Uuid) {
    let title = format!("{step} of {}", Uuid::new_v4());
    match step % 6 {
        // without BEGIN
        0 => retitle(connection, shared, &title).await,
        1 => {
            run(connection, "begin").await;
            let own = insert(connection).await;
            retitle(connection, own, &title).await;
            retitle(connection, shared, &title).await;
            run(connection, "rollback").await;
        }
        2 => {
            run(connection, "begin isolation level repeatable read").await;
            let own = insert(connection).await;
            for inner in 0..3 {
                run(connection, format!("savepoint s{inner}")).await;
                retitle(connection, own, &format!("{inner} {title}")).await;
                if inner == 1 {
                    run(connection, "rollback to savepoint s1").await;
                }
            }
            run(connection, "commit").await;
        }
        3 => {
            run(connection, "begin").await;
            run(connection, "savepoint undone").await;
            insert(connection).await;
            run(connection, "rollback to savepoint undone").await;
            retitle(connection, shared, &title).await;
            retitle(connection, shared, &format!("{title}, again")).await;
            run(connection, "commit").await;
        }
        4 => {
            // an error, and all of it is undone
            run(connection, "begin").await;
            insert(connection).await;
            assert!(connection.execute("select 1 / 0").await.is_err());
            run(connection, "rollback").await;
        }
        _ => {
            run(connection, "begin").await;
            let own = insert(connection).await;
            run(connection, format!("update incident_manager.incident set state = 'RESOLVED' where id = '{own}'"))
                .await;
            run(connection, "commit").await;
        }
    }
}

#[tokio::test]
async fn sixteen_writers_are_heard_by_two_services_exactly_and_in_order() {
    const WRITERS: usize = 16;
    const STEPS: usize = 24;
    let (database, first) = start().await;
    let second = Service::start(&database.database_url()).await;
    let mut subscribers = [Heard::start(&first).await, Heard::start(&second).await];

    let mut connection = database.connect().await;
    let mut shared = Vec::new();
    for _ in 0..4 {
        shared.push(insert(&mut connection).await);
    }
    // open across all that the others do, with rows of its own from before
    let mut open = database.connect().await;
    run(&mut open, "begin").await;
    let early = insert(&mut open).await;

    let together = Arc::new(Barrier::new(WRITERS));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (mut connection, together, shared) = (database.connect().await, Arc::clone(&together), shared.clone());
        writers.push(tokio::spawn(async move {
            together.wait().await;
            for step in 0..STEPS {
                transaction(&mut connection, writer + step, shared[(writer + step) % shared.len()]).await;
            }
            connection.close().await.unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let expected = committed(&mut connection).await;
    assert!(!expected.contains_key(&early));
    for subscriber in &mut subscribers {
        subscriber.all(&expected).await;
    }
    retitle(&mut open, early, "Its last word").await;
    run(&mut open, "commit").await;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.one().await, early);
        assert_eq!(subscriber.one().await, early);
    }
    let last = insert(&mut connection).await;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.one().await, last);
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_long_transaction_elsewhere_delays_nothing() {
    let (database, service) = start().await;
    let other = TestDatabase::empty().await;
    let mut heard = Heard::start(&service).await;
    let mut connection = database.connect().await;
    // each has a transaction id that stays in progress: one in another database, one here, one that has written an incident
    let (mut far, mut near, mut writer) = (other.connect().await, database.connect().await, database.connect().await);
    run(&mut far, "begin; create table held (id integer)").await;
    run(&mut near, "begin isolation level repeatable read; create temporary table held (id integer)").await;
    run(&mut writer, "begin").await;
    let late = insert(&mut writer).await;
    for _ in 0..3 {
        let id = insert(&mut connection).await;
        assert_eq!(heard.one().await, id);
    }
    run(&mut writer, "commit").await;
    assert_eq!(heard.one().await, late);
    run(&mut near, "rollback").await;
    run(&mut far, "rollback").await;
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_is_rolled_back_is_never_heard_of() {
    let (database, service) = start().await;
    let mut heard = Heard::start(&service).await;
    let mut connection = database.connect().await;
    let id = insert(&mut connection).await;
    assert_eq!(heard.one().await, id);
    run(&mut connection, "begin").await;
    retitle(&mut connection, id, "Never").await;
    insert(&mut connection).await;
    run(&mut connection, "rollback").await;
    // the version that was rolled back is given out again, to another change
    retitle(&mut connection, id, "For good").await;
    assert_eq!(heard.one().await, id);
    // a connection that goes away in the middle
    run(&mut connection, "begin").await;
    insert(&mut connection).await;
    connection.close_hard().await.unwrap();
    let mut connection = database.connect().await;
    let last = insert(&mut connection).await;
    assert_eq!(heard.one().await, last);
    service.stop().await;
}

#[tokio::test]
async fn an_event_of_which_nobody_was_notified_arrives_all_the_same() {
    let (database, service) = start().await;
    let mut heard = Heard::start(&service).await;
    let mut connection = database.connect().await;
    for _ in 0..2 {
        run(&mut connection, "begin; set local incident_manager.doorbell = 'off'").await;
        let id = insert(&mut connection).await;
        run(&mut connection, "commit").await;
        assert_eq!(heard.one().await, id);
    }
    service.stop().await;
}

#[tokio::test]
async fn the_bell_goes_off_in_a_storm_and_on_again_and_no_event_is_stuck() {
    const WRITERS: usize = 8;
    let (database, first) = start().await;
    let second = Service::start(&database.database_url()).await;
    let mut subscribers = [Heard::start(&first).await, Heard::start(&second).await];
    let bell = async || database.scalar::<i64>("select last_value from incident_manager.event_doorbell").await;
    let mut connection = database.connect().await;
    for _ in 0..2 {
        eventually("the bell is on", || async { bell().await == 1 }).await;
        let over = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let (mut connection, over) = (database.connect().await, Arc::clone(&over));
            writers.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    insert(&mut connection).await;
                }
            }));
        }
        eventually("the bell is off", || async { bell().await == 0 }).await;
        // has seen the bell off, and commits only when it is on again
        let mut silent = database.connect().await;
        run(&mut silent, "begin").await;
        insert(&mut silent).await;
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        eventually("the bell is on again", || async { bell().await == 1 }).await;
        run(&mut silent, "commit").await;
        let expected = committed(&mut connection).await;
        for subscriber in &mut subscribers {
            subscriber.all(&expected).await;
        }
        let last = insert(&mut connection).await;
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.one().await, last);
        }
    }
    first.stop().await;
    second.stop().await;
}
