//! Databases that a dump or a copy made: a new epoch, nothing missing, nothing doubled, positions go on.

use std::process::{Command, Stdio};

use crate::support::TestDatabase;
use crate::support::database::{connect, server_url, url_of};
use crate::support::log::{
    Logged, Sequenced, assert_in_order, insert, log, maintain, run, sequence, sequence_all, value,
};

/// Three incidents: one logged, its slot written still; one logged in part; one that waits in the outbox. And one that
/// never comes.
async fn source() -> TestDatabase {
    let database = TestDatabase::new().await;
    let mut writer = database.connect().await;
    insert(&mut writer, "logged").await;
    insert(&mut writer, "half").await;
    sequence_all(&database).await;
    run(&mut writer, "update incident_manager.incident set severity = 'P1' where title = 'half'").await;
    insert(&mut writer, "waits").await;
    database
}

/// A program of PostgreSQL, where the path does not have it: in the newest of the usual places.
fn program(name: &str) -> Command {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    Command::new(found.pop().unwrap_or_else(|| name.into()))
}

async fn restore(from: &TestDatabase) -> TestDatabase {
    let to = TestDatabase::empty().await;
    let mut dump = program("pg_dump").arg(from.url()).stdout(Stdio::piped()).spawn().expect("pg_dump");
    let restored = program("psql")
        .args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--output", "/dev/null", to.url()])
        .stdin(dump.stdout.take().unwrap())
        .status()
        .expect("psql");
    assert!(dump.wait().unwrap().success() && restored.success());
    to
}

fn told(log: &[Logged]) -> Vec<(i64, &str, i32)> {
    log.iter().map(|event| (event.pos, event.title.as_str(), event.version.unwrap())).collect()
}

async fn reason(database: &TestDatabase) -> String {
    database
        .scalar("select reason || ' from ' || first_pos from incident_manager.event_epoch order by epoch desc limit 1")
        .await
}

#[tokio::test]
async fn a_restored_dump_goes_on_in_a_new_epoch() {
    let original = source().await;
    let restored = restore(&original).await;
    // whose transaction ids mean nothing here: maintenance leaves the outbox to the sequencer
    let done = maintain(&restored, 0).await;
    assert!(!done.emptied && !done.rotated);
    let done = sequence(&restored, 20_000).await;
    assert_eq!(done, Sequenced { locked: true, head: Some(4), moved: 2, more: false, epoch: Some(2) });
    assert_eq!(reason(&restored).await, "restored from a dump from 3");
    insert(&mut restored.connect().await, "new").await;
    sequence_all(&restored).await;
    let events = log(&restored).await;
    assert_eq!(told(&events), [(1, "logged", 1), (2, "half", 1), (3, "half", 2), (4, "waits", 1), (5, "new", 1)]);
    assert_in_order(&events);
    assert_eq!(restored.scalar::<i64>("select count(*) from incident_manager.event_epoch").await, 2);
    assert_eq!(restored.scalar::<i64>("select count(*) from incident_manager.timeline").await, 5);

    // the original does not notice
    assert_eq!(
        sequence(&original, 20_000).await,
        Sequenced { locked: true, head: Some(4), moved: 2, more: false, epoch: Some(1) }
    );
    let again = restore(&restored).await;
    assert_eq!(
        sequence(&again, 20_000).await,
        Sequenced { locked: true, head: Some(5), moved: 0, more: false, epoch: Some(3) }
    );
}

#[tokio::test]
async fn what_is_committed_while_a_restored_outbox_is_moved_is_not_lost() {
    let restored = restore(&source().await).await;
    let mut open = restored.connect().await;
    run(&mut open, "begin").await;
    insert(&mut open, "open").await;
    // commits while the sequencer is between two of its statements: its write to the log waits for this lock
    let mut holder = restored.connect().await;
    run(&mut holder, "begin; lock table incident_manager.event_log in share mode").await;
    let mut writer = restored.connect().await;
    let url = restored.url().to_owned();
    let sequencer =
        tokio::spawn(
            async move { crate::support::log::call_sequencer(&mut connect(&url).await, 20_000).await.unwrap() },
        );
    crate::support::eventually("the sequencer waits for the log", || async {
        restored.scalar::<bool>("select exists (select 1 from pg_locks where not granted and relation = 'incident_manager.event_log'::regclass)").await
    })
    .await;
    insert(&mut writer, "meanwhile").await;
    run(&mut holder, "rollback").await;
    assert_eq!(sequencer.await.unwrap().moved, 2);
    run(&mut open, "commit").await;
    sequence_all(&restored).await;
    let events = log(&restored).await;
    let mut titles: Vec<_> = events.iter().map(|event| event.title.as_str()).collect();
    titles[4..].sort_unstable();
    assert_eq!(titles, ["logged", "half", "half", "waits", "meanwhile", "open"]);
    assert_in_order(&events);
}

#[tokio::test]
async fn a_copied_database_goes_on_in_a_new_epoch() {
    let original = source().await;
    // in the middle of a backlog
    sequence(&original, 1).await;
    original.pool().close().await;
    let mut server = connect(&server_url()).await;
    let name = format!("{}_copy", original.name());
    crate::support::eventually("nobody uses the original", || async {
        let users = format!("select not exists (select 1 from pg_stat_activity where datname = '{}')", original.name());
        value::<bool>(&mut connect(&server_url()).await, &users).await
    })
    .await;
    run(&mut server, &format!("create database {name} template {}", original.name())).await;
    let copy = TestDatabase::existing(name);
    assert_eq!(
        sequence(&copy, 20_000).await,
        Sequenced { locked: true, head: Some(4), moved: 1, more: false, epoch: Some(2) }
    );
    assert_eq!(reason(&copy).await, "the database was copied from 4");
    insert(&mut copy.connect().await, "new").await;
    sequence_all(&copy).await;
    let events = log(&copy).await;
    assert_eq!(told(&events), [(1, "logged", 1), (2, "half", 1), (3, "half", 2), (4, "waits", 1), (5, "new", 1)]);

    let mut session = connect(&url_of(original.name())).await;
    let done = crate::support::log::call_sequencer(&mut session, 20_000).await.unwrap();
    assert_eq!((done.head, done.moved, done.epoch), (Some(4), 1, Some(1)));
}

#[tokio::test]
async fn a_promotion_goes_on_in_a_new_epoch_with_the_same_transaction_ids() {
    let database = source().await;
    let mut open = database.connect().await;
    run(&mut open, "begin").await;
    insert(&mut open, "open").await;
    // as if the server were on another timeline than when it logged
    database.execute("update incident_manager.event_epoch set timeline = '000000FF'").await;
    assert_eq!(
        sequence(&database, 20_000).await,
        Sequenced { locked: true, head: Some(4), moved: 2, more: false, epoch: Some(2) }
    );
    assert_eq!(reason(&database).await, "a standby was promoted from 3");
    run(&mut open, "commit").await;
    assert_eq!(
        sequence(&database, 20_000).await,
        Sequenced { locked: true, head: Some(5), moved: 1, more: false, epoch: Some(2) }
    );
    assert_in_order(&log(&database).await);
}
