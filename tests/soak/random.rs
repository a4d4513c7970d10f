//! Faults at random, from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::Stage;
use crate::client::Client;
use crate::cluster::{Cluster, Stop};
use crate::proxy::{Proxy, Weather};
use crate::scene::{Scene, Setting};

/// Of the replicas, the one that no fault ends: of it the memory is shown at the start and at the end.
const KEPT: usize = 0;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Pause,
    Terminate,
    Restart,
    Add,
    Remove,
    EndSessions,
    CrashDatabase,
    CutDatabase,
    StallDatabase,
    DelayDatabase,
    CutClients,
    NarrowClients,
    RollPartitions,
    HoldSnapshot,
}

const FAULTS: [Fault; 15] = [
    Fault::Kill,
    Fault::Pause,
    Fault::Terminate,
    Fault::Restart,
    Fault::Add,
    Fault::Remove,
    Fault::EndSessions,
    Fault::CrashDatabase,
    Fault::CutDatabase,
    Fault::StallDatabase,
    Fault::DelayDatabase,
    Fault::CutClients,
    Fault::NarrowClients,
    Fault::RollPartitions,
    Fault::HoldSnapshot,
];

impl Fault {
    /// Whether it is over only after a while.
    fn lasts(self) -> bool {
        matches!(
            self,
            Self::Pause
                | Self::CutDatabase
                | Self::StallDatabase
                | Self::DelayDatabase
                | Self::NarrowClients
                | Self::HoldSnapshot
        )
    }
}

/// Faults until the time is over, then whether everything was heard.
pub async fn run(stage: &Stage, time: Duration) -> bool {
    println!("\nfaults at random for {:.1} min, seed {}", time.as_secs_f64() / 60.0, stage.seed);
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let to_database = Proxy::to(cluster.address).await;
    let url = cluster.url_by(to_database.address, &database.name);
    // what a replica holds of the log in memory soon reaches its bound, so that what grows beyond it shows
    let setting = Setting { replicas: 3, flags: &["--tail-events", "5000"], seed: stage.seed, ..Setting::default() };
    let mut scene = Scene::of(database, url, setting).await;
    // clients reach the kept replica by a proxy too, so that they can be cut off without it
    let to_kept = Proxy::to(scene.replicas[KEPT].address).await;
    scene.addresses.add(to_kept.address);
    scene.clients.iter().for_each(Client::come_back);
    scene.goes_on().await;

    let mut rng = StdRng::seed_from_u64(stage.seed);
    let (began, at_start) = (Instant::now(), scene.replicas[KEPT].kilobytes());
    let mut faults = 0;
    while began.elapsed() < time {
        let fault = FAULTS[rng.random_range(0..FAULTS.len())];
        let lasting = Duration::from_millis(rng.random_range(200..10_000));
        let shown = if fault.lasts() { format!(" for {:.1} s", lasting.as_secs_f64()) } else { String::new() };
        println!("{:8.1} s  {fault:?}{shown}", began.elapsed().as_secs_f64());
        let chosen = rng.random_range(1..scene.replicas.len());
        strike(fault, lasting, chosen, &mut scene, &cluster, &to_database, &to_kept).await;
        scene.goes_on().await;
        faults += 1;
    }
    let at_end = scene.replicas[KEPT].kilobytes();
    let counts = scene.settle().await;
    println!("{faults} faults: {counts}");
    println!("memory of the replica that was not ended: {at_start} KB at the start, {at_end} KB at the end");
    counts.are_clean()
}

async fn strike(
    fault: Fault,
    lasting: Duration,
    chosen: usize,
    scene: &mut Scene,
    cluster: &Cluster,
    to_database: &Proxy,
    to_kept: &Proxy,
) {
    const MOST: usize = 5;
    match fault {
        Fault::Kill => {
            scene.take_replica(chosen).kill().await;
            scene.add_replica().await;
        }
        Fault::Pause => {
            let index = if lasting.as_millis().is_multiple_of(2) { scene.sequencing().await } else { chosen };
            scene.replicas[index].signal(Signal::STOP);
            sleep(lasting).await;
            scene.replicas[index].signal(Signal::CONT);
        }
        Fault::Terminate => {
            let stopped = scene.take_replica(chosen);
            stopped.signal(Signal::TERM);
            stopped.signal(Signal::TERM);
            stopped.end().await;
            scene.add_replica().await;
        }
        Fault::Restart => {
            for _ in 1..scene.replicas.len() {
                scene.add_replica().await;
                let stopped = scene.take_replica(1);
                stopped.signal(Signal::TERM);
                assert!(stopped.end().await.success());
            }
        }
        Fault::Add if scene.replicas.len() < MOST => scene.add_replica().await,
        Fault::Remove if scene.replicas.len() > 2 => {
            let removed = scene.take_replica(chosen);
            removed.signal(Signal::TERM);
            assert!(removed.end().await.success());
        }
        Fault::Add | Fault::Remove => {}
        Fault::EndSessions => {
            let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                       where datname = current_database() and application_name like 'incident-manager%'";
            scene.database.value::<i64>(sql).await;
        }
        Fault::CrashDatabase => {
            cluster.take_down(Stop::Immediate).await;
            cluster.bring_up().await;
        }
        Fault::CutDatabase => during(to_database, Weather::Cut, lasting).await,
        Fault::StallDatabase => during(to_database, Weather::Stalled, lasting).await,
        Fault::DelayDatabase => during(to_database, Weather::Delayed(Duration::from_millis(30)), lasting).await,
        Fault::CutClients => {
            to_kept.cut();
            scene.clients.iter().step_by(2).for_each(Client::come_back);
        }
        Fault::NarrowClients => during(to_kept, Weather::Narrow(10_000), lasting).await,
        Fault::RollPartitions => {
            let sql = "select rotated from incident_manager.event_maintain('7 days', 10000000, 10)";
            for _ in 0..4 {
                scene.database.value::<bool>(sql).await;
                scene.writers.commit(5).await;
            }
        }
        Fault::HoldSnapshot => {
            // a snapshot that is held while others go on
            let mut open = scene.database.pool.begin().await.unwrap();
            sqlx::query("select pg_current_xact_id()").execute(&mut *open).await.unwrap();
            sleep(lasting).await;
            scene.writers.commit(20).await;
            open.rollback().await.unwrap();
        }
    }
}

async fn during(proxy: &Proxy, weather: Weather, lasting: Duration) {
    proxy.set(weather);
    sleep(lasting).await;
    proxy.set(Weather::Clear);
}
