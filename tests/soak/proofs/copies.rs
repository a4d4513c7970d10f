//! Databases that are copies of another: those who saw more than was copied are told, the others go on.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::client::{Client, Manner, Wants};
use crate::cluster::{Database, program};
use crate::scene::{Scene, Setting};
use crate::waiting::{PATIENCE, eventually};
use crate::{Outcome, Stage};

/// Clients of which some leave before the copy, and the others see what it does not have.
struct Two {
    scene: Scene,
    late: Vec<Client>,
}

impl Two {
    async fn start(stage: &Stage) -> Self {
        let scene = Scene::on(&stage.cluster, Setting::default()).await;
        let late = late(&scene).await;
        for client in &scene.clients {
            client.leave().await;
        }
        Self { scene, late }
    }

    /// Writes what no replica moves to the log any more.
    async fn leave_rows_in_the_outbox(&self) {
        for replica in &self.scene.replicas {
            replica.signal(Signal::STOP);
        }
        // what was under way when they were stopped is over once others can have the sequencer's lock; the mutations wait
        self.scene.writers.commit(20).await;
    }

    /// The log's head, which the copy has too.
    async fn head(&self) -> i64 {
        self.scene.database.value("select last_pos from incident_manager.event_batch order by n desc limit 1").await
    }

    /// All is over with the original, and goes on with the copy.
    async fn go_on_with(mut self, copy: &Database, head: i64) -> Outcome {
        seen_more_than(&self.late, head).await;
        self.scene.writers.stop().await;
        let waited: i64 = copy
            .value(
                "select count(*) from incident_manager.event_outbox o
            where not exists (select from incident_manager.event_log l where l.seq = o.seq and l.at = o.at)",
            )
            .await;
        assert!(waited > 0, "rows wait in the copy's outbox");
        self.scene.move_to(copy.url()).await;
        self.scene.write_to(copy.url());
        for client in &self.scene.clients {
            client.come_back();
        }
        eventually("those who saw more are told", || async {
            self.late.iter().all(|client| client.ledger().expired > 0)
        })
        .await;
        self.scene.clients.extend(self.late);
        self.scene.goes_on().await;
        let note = format!("{waited} rows were in the copy's outbox");
        Outcome::Shown { counts: self.scene.settle_on(Some(copy)).await, note }
    }
}

/// Clients of each replica who have to expect that what they have seen is void.
pub async fn late(scene: &Scene) -> Vec<Client> {
    let homes = 0..scene.replicas.len();
    let manners = homes.flat_map(|home| {
        Wants::ALL.into_iter().map(move |wants| Manner { wants, patient: true, may_expire: true, home })
    });
    let late: Vec<_> = manners.map(|manner| Client::start(&scene.addresses, manner)).collect();
    eventually("they hear", || async { late.iter().all(|client| client.ledger().delivered > 0) }).await;
    late
}

/// Waits until each has been told so often that its cursor has expired.
pub async fn all_told(clients: &[Client], times: u64) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(client) = clients.iter().find(|client| client.ledger().expired < times) {
        assert!(Instant::now() < deadline, "{:?} is not told: {}", client.manner, client.ledger().summary());
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn seen_more_than(late: &[Client], head: i64) {
    eventually("some see more", || async {
        late.iter().all(|client| client.ledger().cursor().is_some_and(|cursor| cursor.position.0 > head))
    })
    .await;
}

pub async fn a_dump_restored_into_a_new_database(stage: &Stage) -> Outcome {
    let two = Two::start(stage).await;
    two.leave_rows_in_the_outbox().await;
    let head = two.head().await;
    let copy = stage.cluster.empty_database().await;
    let mut dump =
        Command::new(program("pg_dump")).arg(two.scene.database.url()).stdout(Stdio::piped()).spawn().unwrap();
    let text: Stdio = dump.stdout.take().unwrap().try_into().unwrap();
    let restored = Command::new(program("psql"))
        .args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--output", "/dev/null", &copy.url()])
        .stdin(text)
        .status()
        .await
        .unwrap();
    assert!(dump.wait().await.unwrap().success() && restored.success());
    for replica in &two.scene.replicas {
        replica.signal(Signal::CONT);
    }
    two.go_on_with(&copy, head).await
}

pub async fn a_database_copied_as_a_template(stage: &Stage) -> Outcome {
    let mut two = Two::start(stage).await;
    two.leave_rows_in_the_outbox().await;
    // a template may have no sessions
    two.scene.writers.stop().await;
    let head = two.head().await;
    let (replicas, original) = (two.scene.replicas.len(), two.scene.database.name.clone());
    while !two.scene.replicas.is_empty() {
        two.scene.take_replica(0).kill().await;
    }
    two.scene.database.pool.close().await;
    let name = stage.cluster.next_name();
    let administration = stage.cluster.existing("postgres".to_owned());
    eventually("nobody uses the original", || async {
        let sql = format!("select not exists (select from pg_stat_activity where datname = '{original}')");
        administration.value::<bool>(sql).await
    })
    .await;
    administration.execute(format!("create database {name} template {original}")).await;
    let copy = stage.cluster.existing(name);
    two.scene.database = stage.cluster.existing(original);
    for _ in 0..replicas {
        two.scene.add_replica().await;
    }
    two.scene.write_to(two.scene.database.url());
    two.go_on_with(&copy, head).await
}
