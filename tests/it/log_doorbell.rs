//! Who is told, and when: the doorbell, the head, and the writers that may not have seen the bell.

use sqlx::postgres::PgListener;
use uuid::Uuid;

use crate::support::TestDatabase;
use crate::support::log::{heard_of, insert, last_position, run, sequence_all};

const CREATE: &str = "insert into incident_manager.incident (title, severity, source) values ('t', 'P3', 's')";

/// Hears the doorbell and the head; everything up to a mark that it sends itself.
struct Ear(PgListener, TestDatabase);

impl Ear {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let mut listener = PgListener::connect(database.url()).await.unwrap();
        listener.listen_all(["incident_manager_doorbell", "incident_manager_head", "mark"]).await.unwrap();
        Self(listener, database)
    }

    /// What was notified since the last time. Notifications come in the order of commits, so the mark is the last.
    async fn heard(&mut self) -> Vec<(String, String)> {
        let mark = Uuid::new_v4().to_string();
        self.1.execute(&format!("notify mark, '{mark}'")).await;
        let mut heard = Vec::new();
        loop {
            let told = self.0.recv().await.unwrap();
            if told.payload() == mark {
                return heard;
            }
            heard.push((told.channel().trim_start_matches("incident_manager_").to_owned(), told.payload().to_owned()));
        }
    }

    async fn rings(&mut self) -> usize {
        self.heard().await.into_iter().filter(|(channel, _)| channel == "doorbell").count()
    }
}

#[tokio::test]
async fn each_commit_that_makes_events_rings_once() {
    let mut ear = Ear::new().await;
    let mut writer = ear.1.connect().await;
    run(&mut writer, &format!("begin; {CREATE}; {CREATE}; update incident_manager.incident set title = 'b'")).await;
    assert_eq!(ear.rings().await, 0, "not before the commit");
    run(&mut writer, "commit").await;
    assert_eq!(ear.rings().await, 1);
    run(
        &mut writer,
        "insert into incident_manager.comment (incident_id, body) select id, 'c' from incident_manager.incident",
    )
    .await;
    assert_eq!(ear.rings().await, 1);
    run(&mut writer, "insert into incident_manager.alert (title, severity, source) values ('a', 'P3', 's')").await;
    assert_eq!(ear.rings().await, 1);
    run(&mut writer, &format!("begin; {CREATE}; rollback")).await;
    run(&mut writer, &format!("begin; savepoint s; {CREATE}; rollback to s; commit")).await;
    assert_eq!(ear.rings().await, 0, "rolled back");
}

#[tokio::test]
async fn nobody_rings_while_the_bell_is_off() {
    let mut ear = Ear::new().await;
    let mut writer = ear.1.connect().await;
    ear.1.execute("select incident_manager.sequence_events(20000, false)").await;
    run(&mut writer, CREATE).await;
    assert_eq!(ear.rings().await, 0);
    // a transaction that is open already sees that the bell is on
    run(&mut writer, "begin isolation level serializable; select count(*) from incident_manager.incident").await;
    ear.1.execute("select incident_manager.sequence_events(20000, true)").await;
    run(&mut writer, &format!("{CREATE}; commit")).await;
    assert_eq!(ear.rings().await, 1);
    sequence_all(&ear.1).await;
    assert_eq!(last_position(&ear.1).await, 2);
}

#[tokio::test]
async fn a_writer_that_prepares_its_transaction_turns_its_own_bell_off() {
    let mut ear = Ear::new().await;
    let mut writer = ear.1.connect().await;
    let id = ear.1.name().to_owned();
    let refused = ear.1.refused(&format!("begin; {CREATE}; prepare transaction '{id}'")).await;
    assert_eq!(refused.0, "0A000");
    run(
        &mut writer,
        &format!("begin; set local incident_manager.doorbell = 'off'; {CREATE}; prepare transaction '{id}'"),
    )
    .await;
    assert_eq!(heard_of(&ear.1).await, 0);
    run(&mut writer, &format!("commit prepared '{id}'")).await;
    assert_eq!(ear.rings().await, 0);
    assert_eq!(heard_of(&ear.1).await, 1);
    run(&mut writer, CREATE).await;
    assert_eq!(ear.rings().await, 1, "it was off for that transaction alone");
}

#[tokio::test]
async fn a_new_head_is_told_and_an_idle_call_tells_nothing() {
    let mut ear = Ear::new().await;
    let mut writer = ear.1.connect().await;
    run(&mut writer, &format!("set incident_manager.doorbell = 'off'; {CREATE}; {CREATE}")).await;
    sequence_all(&ear.1).await;
    sequence_all(&ear.1).await;
    run(&mut writer, CREATE).await;
    sequence_all(&ear.1).await;
    let head = |position: &str| ("head".to_owned(), position.to_owned());
    assert_eq!(ear.heard().await, [head("2"), head("3")]);
}

#[tokio::test]
async fn writers_are_those_that_have_written_and_not_ended() {
    let database = TestDatabase::new().await;
    let writers = || database.scalar::<Vec<String>>("select incident_manager.event_writers()");
    let mut idle = database.connect().await;
    run(&mut idle, "begin; select count(*) from incident_manager.incident").await;
    let mut open = database.connect().await;
    run(&mut open, "begin").await;
    assert_eq!(writers().await, [""; 0]);
    insert(&mut open, "t").await;
    assert_eq!(writers().await.len(), 1);
    sequence_all(&database).await;
    let mut preparer = database.connect().await;
    let id = database.name();
    run(
        &mut preparer,
        &format!("begin; set local incident_manager.doorbell = 'off'; {CREATE}; prepare transaction '{id}'"),
    )
    .await;
    let both = writers().await;
    assert_eq!(both.len(), 2);
    run(&mut open, "rollback").await;
    let left = writers().await;
    assert_eq!(left.len(), 1);
    assert!(both.contains(&left[0]), "{both:?} {left:?}");
    run(&mut preparer, &format!("rollback prepared '{id}'")).await;
    assert_eq!(writers().await, [""; 0]);
}
