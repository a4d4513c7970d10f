//! Replicas that end, stop, come and go.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::client::{Client, Manner, Wants};
use crate::replica::{Addresses, Replica};
use crate::scene::{Scene, Setting};
use crate::waiting::eventually;
use crate::{Outcome, Stage};

pub async fn a_replica_killed(stage: &Stage) -> Outcome {
    let mut scene = Scene::on(&stage.cluster, Setting::default()).await;
    for _ in 0..stage.scale(2, 6) {
        let killed = scene.take_replica(0);
        killed.kill().await;
        scene.goes_on().await;
        scene.add_replica().await;
        scene.goes_on().await;
    }
    scene.settle().await.into()
}

pub async fn the_sequencing_replica_killed(stage: &Stage) -> Outcome {
    let mut scene = Scene::on(&stage.cluster, Setting::default()).await;
    let mut recoveries = Vec::new();
    for _ in 0..stage.scale(2, 6) {
        let index = scene.sequencing().await;
        let killed = scene.take_replica(index);
        // a client that stays with another replica, and hears only what is written from now on
        let others = Addresses::default();
        others.add(scene.replicas[0].address);
        let manner = Manner { wants: Wants::Changes, patient: true, may_expire: false, home: 0 };
        let client = Client::start(&others, manner);
        eventually("it is subscribed", || async { client.subscriptions() > 0 }).await;
        let began = Instant::now();
        killed.signal(Signal::KILL);
        let id: uuid::Uuid = scene
            .database
            .value("insert into incident_manager.incident (title, severity, source) values ('After', 'P1', 'proof') returning id")
            .await;
        eventually("the next event is heard", || async { client.ledger().has_heard(id) }).await;
        recoveries.push(began.elapsed());
        killed.end().await;
        scene.add_replica().await;
        scene.goes_on().await;
    }
    recoveries.sort();
    let shown: Vec<String> = recoveries.iter().map(|time| format!("{:.2} s", time.as_secs_f64())).collect();
    Outcome::Shown {
        counts: scene.settle().await,
        note: format!("others heard the next event after the crash within {}", shown.join(", ")),
    }
}

async fn stopped(stage: &Stage, index: Option<usize>) -> Outcome {
    let scene = Scene::on(&stage.cluster, Setting::default()).await;
    for _ in 0..stage.scale(1, 2) {
        let index = match index {
            Some(index) => index,
            None => scene.sequencing().await,
        };
        let stopped = &scene.replicas[index];
        stopped.signal(Signal::STOP);
        // the fault itself lasts so long
        sleep(stage.scale(Duration::from_secs(7), Duration::from_secs(10))).await;
        scene.writers.commit(20).await;
        stopped.signal(Signal::CONT);
        scene.goes_on().await;
    }
    scene.settle().await.into()
}

pub async fn a_replica_stopped_for_a_while(stage: &Stage) -> Outcome {
    stopped(stage, Some(0)).await
}

pub async fn the_sequencing_replica_stopped_for_a_while(stage: &Stage) -> Outcome {
    stopped(stage, None).await
}

pub async fn a_replica_added_and_removed(stage: &Stage) -> Outcome {
    let mut scene = Scene::on(&stage.cluster, Setting { replicas: 1, clients: 2, ..Setting::default() }).await;
    for _ in 0..stage.scale(2, 5) {
        scene.add_replica().await;
        scene.goes_on().await;
        let removed = scene.take_replica(0);
        removed.signal(Signal::TERM);
        assert!(removed.end().await.success());
        scene.goes_on().await;
    }
    scene.settle().await.into()
}

pub async fn a_rolling_restart(stage: &Stage) -> Outcome {
    let mut scene = Scene::on(&stage.cluster, Setting { replicas: 3, ..Setting::default() }).await;
    for _ in 0..scene.replicas.len() * stage.scale(1, 3) {
        // as orchestrators do it: one more, and then one less
        scene.add_replica().await;
        let removed = scene.take_replica(0);
        removed.signal(Signal::TERM);
        assert!(removed.end().await.success());
    }
    scene.goes_on().await;
    scene.settle().await.into()
}

pub async fn a_second_signal_in_a_drain(stage: &Stage) -> Outcome {
    let flags = &["--drain-delay", "1h"];
    let mut scene = Scene::on(&stage.cluster, Setting { flags, ..Setting::default() }).await;
    for _ in 0..stage.scale(1, 4) {
        let stopped = scene.take_replica(0);
        stopped.signal(Signal::TERM);
        eventually("it is not ready", || async { stopped.readiness().await.is_some_and(|(status, _)| status == 503) })
            .await;
        // it serves on
        scene.goes_on().await;
        stopped.signal(Signal::TERM);
        assert!(stopped.end().await.success());
        scene.add_replica().await;
        scene.goes_on().await;
    }
    scene.settle().await.into()
}

/// Nothing is released yet: unless `--old-program` names one of an earlier commit with the same migrations, the other program
/// is this build's with bounds so small that everything takes another way through it.
pub async fn an_upgrade_side_by_side(stage: &Stage) -> Outcome {
    const SMALL: [&str; 4] = ["--tail-events", "64", "--feed-events", "16"];
    let mut scene = Scene::on(&stage.cluster, Setting { replicas: 1, clients: 2, ..Setting::default() }).await;
    let other = |scene: &Scene| match &stage.old_program {
        Some(old) => Replica::spawn(old.clone(), &scene.service_url, &[]),
        None => Replica::spawn(scene.program.clone(), &scene.service_url, &SMALL),
    };
    for _ in 0..stage.scale(1, 3) {
        let old = other(&scene);
        old.ready().await;
        scene.addresses.add(old.address);
        scene.replicas.insert(0, old);
        let new = scene.take_replica(1);
        new.signal(Signal::TERM);
        assert!(new.end().await.success());
        // all are with the old one now; half of them go to the new one as it comes, the rest as the old one goes
        scene.goes_on().await;
        scene.add_replica().await;
        scene.goes_on().await;
        let old = scene.take_replica(0);
        old.signal(Signal::TERM);
        assert!(old.end().await.success());
        scene.goes_on().await;
    }
    let note = match stage.old_program {
        Some(_) => "beside the older program",
        None => "beside this program with other settings, as there is no older one",
    };
    Outcome::Shown { counts: scene.settle().await, note: note.to_owned() }
}
