//! A server that drops connections, ends, or holds on to what is old; and a log that rolls over.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::client::{Client, Manner, Wants};
use crate::cluster::{Cluster, Database, Stop};
use crate::proofs::copies::all_told;
use crate::scene::{Scene, Setting};
use crate::waiting::eventually;
use crate::writers::Pace;
use crate::{Outcome, Stage};

pub async fn all_connections_terminated(stage: &Stage) -> Outcome {
    let scene = Scene::on(&stage.cluster, Setting::default()).await;
    for _ in 0..stage.scale(4, 20) {
        let ended: i64 = scene
            .database
            .value(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = current_database() and application_name like 'incident-manager%'",
            )
            .await;
        assert!(ended > 1);
        scene.goes_on().await;
    }
    scene.settle().await.into()
}

pub async fn postgresql_stopped_at_once_and_started(stage: &Stage) -> Outcome {
    let cluster = Cluster::start().await;
    let scene = Scene::on(&cluster, Setting::default()).await;
    for _ in 0..stage.scale(2, 6) {
        cluster.take_down(Stop::Immediate).await;
        cluster.bring_up().await;
        scene.goes_on().await;
    }
    scene.settle().await.into()
}

/// Transactions that hold a snapshot and an id, here and in another database of the server.
struct Open(Vec<PgConnection>);

impl Open {
    async fn at(urls: &[String]) -> Self {
        let mut sessions = Vec::new();
        for url in urls {
            let mut session = PgConnection::connect(url).await.unwrap();
            session.execute("begin isolation level repeatable read; select pg_current_xact_id()").await.unwrap();
            sessions.push(session);
        }
        Self(sessions)
    }

    async fn end(self) {
        for mut session in self.0 {
            session.execute("commit").await.expect("open all the while");
        }
    }
}

pub async fn a_transaction_open_all_the_while(stage: &Stage) -> Outcome {
    let database = stage.cluster.database().await;
    let open = Open::at(&[database.url(), stage.cluster.url("postgres")]).await;
    let url = database.url();
    let scene = Scene::of(database, url, Setting::default()).await;
    for _ in 0..stage.scale(3, 30) {
        scene.goes_on().await;
    }
    let counts = scene.settle().await;
    open.end().await;
    counts.into()
}

/// Makes the partitions of an empty log as small as this.
async fn with_partitions_of(database: &Database, rows: i64) {
    database
        .execute(format!(
            "create or replace function incident_manager.event_partition_size(from_pos bigint) returns bigint
             language sql volatile set search_path = pg_catalog, pg_temp as 'select {rows}::bigint';
             drop table incident_manager.event_log_1;
             truncate incident_manager.event_partition;
             update incident_manager.event_batch set covered = incident_manager.event_add_partition(1, {rows}), xid = pg_current_xact_id()"
        ))
        .await;
}

pub async fn partitions_of_outbox_and_log_rolling_over(stage: &Stage) -> Outcome {
    let database = stage.cluster.database().await;
    with_partitions_of(&database, 200).await;
    let url = database.url();
    let scene = Scene::of(database, url, Setting::default()).await;
    // beside the replicas' own calls, as often as they can be made, and with slots as small as can be
    let (mut rotated, mut emptied) = (0, 0);
    while rotated < stage.scale(4, 40) || emptied < 4 {
        let (turned, empty): (bool, bool) =
            sqlx::query_as("select rotated, emptied from incident_manager.event_maintain('7 days', 10000000, 20)")
                .fetch_one(&scene.database.pool)
                .await
                .unwrap();
        rotated += usize::from(turned);
        emptied += usize::from(empty);
        scene.writers.commit(5).await;
    }
    scene.goes_on().await;
    let partitions: i64 = scene.database.value("select count(*) from incident_manager.event_partition").await;
    let note =
        format!("{rotated} changes of the outbox's slot, {emptied} slots emptied, {partitions} partitions of the log");
    Outcome::Shown { counts: scene.settle().await, note }
}

pub async fn retention_passing_a_client_that_lags(stage: &Stage) -> Outcome {
    let database = stage.cluster.database().await;
    with_partitions_of(&database, 500).await;
    let url = database.url();
    let pace = Pace { writers: 6, pause: Duration::from_millis(5) };
    // what is held in memory would serve them longer
    let flags = &["--retention-events", "1000", "--tail-events", "64", "--feed-events", "16"];
    let mut scene = Scene::of(database, url, Setting { flags, pace, ..Setting::default() }).await;
    let mut lagging = Vec::new();
    for wants in Wants::ALL {
        let manner = Manner { wants, patient: true, may_expire: true, home: 0 };
        lagging.push(Client::start(&scene.addresses, manner));
    }
    let all_have_heard = || async { lagging.iter().all(|client| client.ledger().delivered > 0) };
    eventually("those that will lag have heard something", all_have_heard).await;
    for round in 1..=stage.scale(1, 3) {
        for client in &lagging {
            client.leave().await;
        }
        let cursors: Vec<i64> = lagging.iter().map(|client| client.ledger().cursor().unwrap().position.0).collect();
        let newest = *cursors.iter().max().unwrap();
        eventually("retention has passed them", || async {
            scene.database.value::<i64>("select min(from_pos) from incident_manager.event_partition").await > newest + 1
        })
        .await;
        for client in &lagging {
            client.come_back();
        }
        all_told(&lagging, round).await;
        scene.goes_on().await;
    }
    scene.clients.extend(lagging);
    scene.settle().await.into()
}
