//! The event log by SQL: calling the sequencer as a replica does, and reading what it logged.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use super::TestDatabase;

/// A role that every server has and that may do nothing here of its own. Roles belong to the server: one that a test made
/// would outlive its database, while grants to this one go with it.
pub const WRITER: &str = "pg_signal_backend";

/// What a call of the sequencer says.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Sequenced {
    pub locked: bool,
    pub head: Option<i64>,
    pub moved: i32,
    pub more: bool,
    pub epoch: Option<i32>,
}

/// What a call of the maintenance says.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Maintained {
    pub rotated: bool,
    pub emptied: bool,
    pub dropped: Option<String>,
    pub overdue: bool,
}

/// A row of the log.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Logged {
    pub pos: i64,
    pub kind: String,
    pub update_type: Option<String>,
    pub incident_id: Option<Uuid>,
    pub alert_id: Option<Uuid>,
    pub comment_id: Option<Uuid>,
    pub source: String,
    pub severity: String,
    pub old_severity: Option<String>,
    pub state: Option<String>,
    pub old_state: Option<String>,
    pub actor: String,
    pub db_user: String,
    pub changed: Vec<String>,
    pub title: String,
    pub description: Option<String>,
    pub version: Option<i32>,
}

pub async fn call_sequencer(connection: &mut PgConnection, max_events: i32) -> Result<Sequenced, sqlx::Error> {
    sqlx::query_as("select * from incident_manager.sequence_events($1)").bind(max_events).fetch_one(connection).await
}

/// One call of the sequencer.
pub async fn sequence(database: &TestDatabase, max_events: i32) -> Sequenced {
    let mut connection = database.pool().acquire().await.unwrap();
    call_sequencer(&mut connection, max_events).await.expect("the sequencer")
}

/// Calls the sequencer until everything that is committed is in the log; the head.
pub async fn sequence_all(database: &TestDatabase) -> i64 {
    loop {
        let done = sequence(database, 20_000).await;
        if done.locked && !done.more {
            return done.head.expect("a head");
        }
    }
}

/// One call of the maintenance, whose retention keeps everything.
pub async fn maintain(database: &TestDatabase, outbox_rows: i64) -> Maintained {
    sqlx::query_as("select * from incident_manager.event_maintain('1000 years', 1000000000, $1)")
        .bind(outbox_rows)
        .fetch_one(database.pool())
        .await
        .expect("the maintenance")
}

/// One call of the maintenance, which drops what is further back than this.
pub async fn retain(database: &TestDatabase, keep: &str, keep_events: i64) -> Maintained {
    sqlx::query_as("select * from incident_manager.event_maintain($1::text::interval, $2)")
        .bind(keep)
        .bind(keep_events)
        .fetch_one(database.pool())
        .await
        .expect("the maintenance")
}

/// The log, in order.
pub async fn log(database: &TestDatabase) -> Vec<Logged> {
    sqlx::query_as("select * from incident_manager.event_log order by pos").fetch_all(database.pool()).await.unwrap()
}

/// Sequences, and says how many events that gave.
pub async fn heard_of(database: &TestDatabase) -> i64 {
    let before: i64 = last_position(database).await;
    sequence_all(database).await - before
}

pub async fn last_position(database: &TestDatabase) -> i64 {
    database.scalar("select last_pos from incident_manager.event_batch order by n desc limit 1").await
}

/// Inserts an incident on a connection of the writer's, committed or not as that is.
pub async fn insert(connection: &mut PgConnection, title: &str) -> Uuid {
    sqlx::query_scalar(
        "insert into incident_manager.incident (title, severity, source) values ($1, 'P3', 'test') returning id",
    )
    .bind(title)
    .fetch_one(connection)
    .await
    .unwrap()
}

/// Runs SQL text as it is, on a connection of the writer's.
pub async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The one value that a statement returns on this connection.
pub async fn value<T>(connection: &mut PgConnection, sql: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The SQLSTATE with which the sequencer or the maintenance refuses what comes before it on this connection.
pub async fn refusal(database: &TestDatabase, before: &str, call: &str) -> String {
    let mut connection = database.connect().await;
    run(&mut connection, before).await;
    let error = connection.execute(AssertSqlSafe(format!("{call}; commit"))).await.expect_err(before);
    // the error arrives before its transaction has let go of its locks
    run(&mut connection, "rollback").await;
    connection.close().await.unwrap();
    error.into_database_error().unwrap().code().unwrap().into_owned()
}

/// What must hold of any log: positions without a gap from the first on, each incident's versions in order, each event once.
pub fn assert_in_order(log: &[Logged]) {
    let mut versions = std::collections::HashMap::new();
    for (event, pos) in log.iter().zip(log.first().map_or(1, |first| first.pos)..) {
        assert_eq!(event.pos, pos, "a gap, or one twice");
        if event.kind == "incident" {
            let before = versions.insert(event.incident_id, event.version.unwrap()).unwrap_or(0);
            assert_eq!(event.version, Some(before + 1), "a version lost, twice or too early, at {pos}");
        } else if event.kind == "comment" {
            assert_eq!(versions.get(&event.incident_id).copied(), event.version, "a comment out of place, at {pos}");
        }
    }
}
