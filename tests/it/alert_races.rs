//! Alerts from many sessions at once, inserted and submitted.

use std::sync::Arc;

use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::Barrier;

use crate::support::{TestDatabase, eventually};

const SESSIONS: usize = 16;
const ROUNDS: usize = 12;

/// One statement that brings these alerts in; of each its external id, fingerprint and whether it fires.
fn statement(submitted: bool, source: &str, alerts: &[(String, String, bool)]) -> String {
    let rows: Vec<String> = alerts
        .iter()
        .map(|(external_id, fingerprint, firing)| {
            if submitted {
                serde_json::json!({ "source": source, "title": "t", "severity": "P3", "firing": firing,
                                    "external_id": external_id, "fingerprint": fingerprint })
                .to_string()
            } else {
                format!("('{source}', 't', 'P3', {firing}, '{external_id}', '{fingerprint}')")
            }
        })
        .collect();
    let rows = rows.join(", ");
    if submitted {
        format!("select count(*) from incident_manager.submit_alerts('[{rows}]')")
    } else {
        format!(
            "insert into incident_manager.alert (source, title, severity, firing, external_id, fingerprint) values {rows}"
        )
    }
}

/// What must hold whenever nobody is writing: nothing that was opened by an alert outlives its alerts, and nothing fires in
/// what only their end resolves.
async fn assert_consistent(database: &TestDatabase) {
    let orphans: i64 = database
        .scalar(
            "select count(*) from incident_manager.incident i where i.opened_by_alert and i.state <> 'RESOLVED'
             and not exists (select 1 from incident_manager.alert a where a.incident_id = i.id and a.firing)",
        )
        .await;
    assert_eq!(orphans, 0, "active incidents in which nothing fires");
    let lost: i64 = database
        .scalar(
            "select count(*) from incident_manager.alert a join incident_manager.incident i on i.id = a.incident_id
             where a.firing and i.state = 'RESOLVED'",
        )
        .await;
    assert_eq!(lost, 0, "alerts that fire in incidents that were resolved");
    let wrong: i64 = database
        .scalar(
            "select count(*) from incident_manager.incident i where 1 <>
             (select count(*) from incident_manager.alert a where a.incident_id = i.id and a.status = 'CREATED')",
        )
        .await;
    assert_eq!(wrong, 0, "incidents that not exactly one alert says it opened");
}

/// Runs what each session does, all from the same instant on.
async fn at_once<F: Future<Output = ()>>(database: &TestDatabase, session: impl Fn(usize, PgConnection) -> F) {
    let barrier = Arc::new(Barrier::new(SESSIONS));
    let connections = join_all((0..SESSIONS).map(|_| database.connect())).await;
    join_all(connections.into_iter().enumerate().map(|(n, connection)| {
        let (barrier, session) = (Arc::clone(&barrier), &session);
        async move {
            barrier.wait().await;
            session(n, connection).await;
        }
    }))
    .await;
}

async fn run(connection: &mut PgConnection, sql: String) {
    connection.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn sixteen_at_once_with_one_fingerprint_open_one_incident() {
    let database = TestDatabase::new().await;
    for (round, submitted) in [|_| false, |_| true, |n| n % 2 == 0].into_iter().enumerate() {
        at_once(&database, async |n, mut connection| {
            for fingerprint in 0..ROUNDS {
                let alert = (format!("{n} {fingerprint}"), format!("{fingerprint}"), true);
                run(&mut connection, statement(submitted(n), &format!("{round}"), &[alert])).await;
            }
        })
        .await;
        let incidents = format!("select count(*) from incident_manager.incident where source = '{round}'");
        assert_eq!(database.scalar::<i64>(&incidents).await, i64::try_from(ROUNDS).unwrap());
        let statuses =
            format!("select count(*) from incident_manager.alert where source = '{round}' and status = 'DEDUPLICATED'");
        assert_eq!(database.scalar::<i64>(&statuses).await, i64::try_from(ROUNDS * (SESSIONS - 1)).unwrap());
        assert_consistent(&database).await;
    }
}

#[tokio::test]
async fn sixteen_repeats_at_once_fire_once() {
    let database = TestDatabase::new().await;
    for (round, submitted) in [|_| false, |_| true, |n| n % 2 == 0].into_iter().enumerate() {
        at_once(&database, async |n, mut connection| {
            for id in 0..ROUNDS {
                let alert = (format!("{id}"), format!("{id}"), true);
                run(&mut connection, statement(submitted(n), &format!("{round}"), &[alert])).await;
            }
        })
        .await;
        for (status, count) in [("CREATED", ROUNDS), ("IGNORED", ROUNDS * (SESSIONS - 1))] {
            let sql =
                format!("select count(*) from incident_manager.alert where source = '{round}' and status = '{status}'");
            assert_eq!(database.scalar::<i64>(&sql).await, i64::try_from(count).unwrap(), "{status}");
        }
        assert_consistent(&database).await;
    }
}

#[tokio::test]
async fn firing_and_ending_at_once_leaves_no_incident_behind() {
    let database = TestDatabase::new().await;
    for (round, submitted) in [|_| false, |_| true, |n| n % 3 == 0].into_iter().enumerate() {
        at_once(&database, async |n, mut connection| {
            for step in 0..2 * ROUNDS {
                let id = (n * 7 + step * 5) % 6;
                let alert = (format!("{id}"), format!("{}", id % 2), (n + step / 2) % 2 == 0);
                run(&mut connection, statement(submitted(n), &format!("{round}"), &[alert])).await;
            }
        })
        .await;
        assert_consistent(&database).await;
        // whatever is left ends with the last end of each
        for id in 0..6 {
            database
                .execute(&statement(true, &format!("{round}"), &[(format!("{id}"), String::from("x"), false)]))
                .await;
        }
        let active = "select count(*) from incident_manager.incident where state <> 'RESOLVED'";
        assert_eq!(database.scalar::<i64>(active).await, 0);
        let firing = "select count(*) from incident_manager.alert where firing";
        assert_eq!(database.scalar::<i64>(firing).await, 0);
    }
}

#[tokio::test]
async fn batches_in_any_order_never_wait_for_each_other_in_a_circle() {
    let database = TestDatabase::new().await;
    at_once(&database, async |n, mut connection| {
        for round in 0..ROUNDS {
            let mut alerts: Vec<_> =
                (0..20).map(|id| (format!("{id}"), format!("{}", id % 5), (id + round) % 3 != 0)).collect();
            alerts.rotate_left(n);
            if n % 2 == 0 {
                alerts.reverse();
            }
            // a deadlock would be an error
            run(&mut connection, statement(true, "s", &alerts)).await;
        }
    })
    .await;
    assert_consistent(&database).await;
}

#[tokio::test]
async fn bulk_inserts_of_different_sources_have_nothing_to_do_with_each_other() {
    let database = TestDatabase::new().await;
    at_once(&database, async |n, mut connection| {
        for round in 0..4 {
            let alerts: Vec<_> =
                (0..50).map(|id| (format!("{}", id * 31 + n * 17 + round * 7), format!("{}", id % 10), true)).collect();
            run(&mut connection, statement(false, &format!("source {n}"), &alerts)).await;
        }
    })
    .await;
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.incident").await, 160);
    assert_consistent(&database).await;
}

#[tokio::test]
async fn an_open_transaction_delays_only_alerts_of_its_incident() {
    let database = TestDatabase::new().await;
    let mut connection = database.connect().await;
    let mut open = connection.begin().await.unwrap();
    let many: Vec<_> = (0..2000).map(|id| (format!("{id}"), String::from("held"), true)).collect();
    open.execute(AssertSqlSafe(statement(false, "s", &many))).await.unwrap();
    let mut other = database.connect().await;
    // waiting would be an error
    other.execute("set lock_timeout = '2s'").await.unwrap();
    for id in 0..50 {
        run(&mut other, statement(id % 2 == 0, "s", &[(format!("other {id}"), format!("free {id}"), true)])).await;
    }
    open.commit().await.unwrap();
    assert_consistent(&database).await;
}

#[tokio::test]
async fn who_joins_what_is_being_ended_opens_anew() {
    let database = TestDatabase::new().await;
    for submitted in [false, true] {
        let source = format!("{submitted}");
        let alert = |id: &str, firing| [(id.to_owned(), String::from("f"), firing)];
        database.execute(&statement(submitted, &source, &alert("x", true))).await;
        let mut connection = database.connect().await;
        let mut ending = connection.begin().await.unwrap();
        ending.execute(AssertSqlSafe(statement(false, &source, &alert("x", false)))).await.unwrap();
        let mut joining = database.connect().await;
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut joining).await.unwrap();
        let sql = statement(submitted, &source, &alert("y", true));
        let joined = tokio::spawn(async move { run(&mut joining, sql).await });
        eventually("the alert waits for the incident", || async {
            database.scalar(&format!("select cardinality(pg_blocking_pids({pid})) > 0")).await
        })
        .await;
        ending.commit().await.unwrap();
        joined.await.unwrap();
        let states: String = database
            .scalar(&format!(
                "select string_agg(state, ' ' order by created_at) from incident_manager.incident where source = '{source}'"
            ))
            .await;
        assert_eq!(states, "RESOLVED DETECTED");
        assert_consistent(&database).await;
    }
}

#[tokio::test]
async fn writers_of_repeatable_read_either_see_the_incident_or_are_told_to_try_again() {
    let database = TestDatabase::new().await;
    at_once(&database, async |n, mut connection| {
        for id in 0..ROUNDS {
            let sql = statement(n % 4 == 0, "s", &[(format!("{n} {id}"), format!("{}", id % 3), true)]);
            loop {
                let mut writer = connection.begin_with("begin isolation level repeatable read").await.unwrap();
                let Err(error) = writer.execute(AssertSqlSafe(sql.clone())).await else {
                    writer.commit().await.unwrap();
                    break;
                };
                assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001", "{error}");
                writer.rollback().await.unwrap();
            }
        }
    })
    .await;
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.incident").await, 3);
    let all = i64::try_from(SESSIONS * ROUNDS).unwrap();
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.alert").await, all);
    assert_consistent(&database).await;
}

#[tokio::test]
async fn an_end_is_refused_where_an_old_snapshot_would_miss_what_fires() {
    let database = TestDatabase::new().await;
    let alert = |id: &str, firing| [(id.to_owned(), String::from("f"), firing)];
    database.execute(&statement(false, "s", &alert("x", true))).await;
    for (level, submitted) in [("repeatable read", false), ("serializable", true)] {
        let mut connection = database.connect().await;
        let mut writer = connection.begin_with(AssertSqlSafe(format!("begin isolation level {level}"))).await.unwrap();
        writer.execute("select count(*) from incident_manager.alert").await.unwrap();
        database.execute(&statement(false, "s", &alert(level, true))).await;
        let error = writer.execute(AssertSqlSafe(statement(submitted, "s", &alert("x", false)))).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "25000", "{error}");
    }
    assert_consistent(&database).await;
}
