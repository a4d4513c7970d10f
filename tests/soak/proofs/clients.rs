//! Clients that are cut off, and clients that read slowly.

use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use crate::client::{Client, Manner, Wants};
use crate::proxy::{Proxy, Weather};
use crate::replica::Addresses;
use crate::scene::{Scene, Setting};
use crate::waiting::eventually;
use crate::writers::Pace;
use crate::{Outcome, Stage};

pub async fn clients_cut_at_random_points(stage: &Stage) -> Outcome {
    let pace = Pace { writers: 2, pause: Duration::from_millis(stage.scale(100, 400)) };
    let mut scene = Scene::on(&stage.cluster, Setting { pace, ..Setting::default() }).await;
    let unsteady = Addresses::default();
    let mut proxies = Vec::new();
    for replica in &scene.replicas {
        // from the first bytes after the handshake to some dozen results
        let rng = Mutex::new(StdRng::seed_from_u64(stage.seed));
        let proxy = Proxy::mortal(replica.address, move || rng.lock().random_range(1_000..12_000)).await;
        unsteady.add(proxy.address);
        proxies.push(proxy);
    }
    let clients = stage.scale(60, 1000);
    let mut cut = Vec::new();
    for home in 0..clients {
        // of what comes often enough to reach the end of each connection
        let wants = if home % 2 == 0 { Wants::Changes } else { Wants::Urgent };
        let manner = Manner { wants, patient: true, may_expire: false, home };
        cut.push(Client::start(&unsteady, manner));
    }
    eventually("they are subscribed", || async { cut.iter().all(|client| client.subscriptions() > 0) }).await;
    eventually("each was cut", || async {
        let all: usize = cut.iter().map(Client::subscriptions).sum();
        all > 2 * clients && cut.iter().all(|client| client.subscriptions() > 1)
    })
    .await;
    let all: usize = cut.iter().map(Client::subscriptions).sum();
    scene.clients.extend(cut);
    let note = format!("{clients} clients were cut {} times", all - clients);
    Outcome::Shown { counts: scene.settle().await, note }
}

/// So much that no buffer of the network can hold it.
pub async fn a_client_that_reads_slowly(stage: &Stage) -> Outcome {
    const RATE: usize = 10_000;
    let flags = &["--tail-events", "1000", "--feed-events", "256", "--ping-interval", "3s"];
    let mut scene = Scene::on(&stage.cluster, Setting { replicas: 1, flags, ..Setting::default() }).await;
    let proxy = Proxy::to(scene.replicas[0].address).await;
    let narrow = Addresses::default();
    narrow.add(proxy.address);
    let mut slow = Vec::new();
    for wants in Wants::ALL {
        slow.push(Client::start(&narrow, Manner { wants, patient: true, may_expire: false, home: 0 }));
    }
    eventually("they are subscribed", || async { slow.iter().all(|client| client.subscriptions() > 0) }).await;
    proxy.set(Weather::Narrow(RATE));
    let before = scene.replicas[0].kilobytes();
    let events = stage.scale(4_000, 10_000);
    for _ in 0..events / 100 {
        scene
            .database
            .execute(
                "insert into incident_manager.incident (title, description, severity, source)
                 select 'Wide', repeat('x', 1900), 'P1', 'wide' from generate_series(1, 100)",
            )
            .await;
        scene.all_hear(1).await;
    }
    // for so long it has read at that rate; by then many pings are behind what it has not read
    sleep(stage.scale(Duration::from_secs(8), Duration::from_mins(1))).await;
    let behind = slow[0].ledger().distinct();
    let peak = scene.replicas[0].kilobytes();
    proxy.set(Weather::Clear);
    let connections: usize = slow.iter().map(Client::subscriptions).sum();
    scene.clients.extend(slow);
    let note = format!(
        "{events} events of 2 KB passed a client at {RATE} bytes/s, which had {behind} then; 3 such clients on {connections} \
         connections; the service's memory was {before} KB before, {peak} KB after"
    );
    Outcome::Shown { counts: scene.settle().await, note }
}
