//! The network between the service and its database, and its clients.

use std::time::Duration;

use tokio::time::sleep;

use crate::client::Client;
use crate::proxy::{Proxy, Weather};
use crate::scene::{Scene, Setting};
use crate::{Outcome, Stage};

/// Services reach the database by the proxy, writers go straight there.
async fn behind_a_proxy(stage: &Stage) -> (Proxy, Scene) {
    let database = stage.cluster.database().await;
    let proxy = Proxy::to(stage.cluster.address).await;
    let url = stage.cluster.url_by(proxy.address, &database.name);
    let scene = Scene::of(database, url, Setting::default()).await;
    (proxy, scene)
}

async fn bad_weather(stage: &Stage, weather: Weather) -> Outcome {
    let (proxy, scene) = behind_a_proxy(stage).await;
    for _ in 0..stage.scale(1, 3) {
        proxy.set(weather);
        // the fault itself lasts so long
        sleep(Duration::from_secs(5)).await;
        scene.writers.commit(20).await;
        proxy.set(Weather::Clear);
        scene.goes_on().await;
    }
    scene.settle().await.into()
}

pub async fn the_network_to_the_database_cut(stage: &Stage) -> Outcome {
    bad_weather(stage, Weather::Cut).await
}

pub async fn the_network_to_the_database_stalled(stage: &Stage) -> Outcome {
    bad_weather(stage, Weather::Stalled).await
}

/// Between the service and the database, and between the service and its clients.
pub async fn a_network_with_delays(stage: &Stage) -> Outcome {
    const DELAY: Weather = Weather::Delayed(Duration::from_millis(40));
    let (to_database, scene) = behind_a_proxy(stage).await;
    let mut to_clients = Vec::new();
    scene.addresses.clear();
    for replica in &scene.replicas {
        let proxy = Proxy::to(replica.address).await;
        proxy.set(DELAY);
        scene.addresses.add(proxy.address);
        to_clients.push(proxy);
    }
    to_database.set(DELAY);
    scene.clients.iter().for_each(Client::come_back);
    for _ in 0..stage.scale(2, 10) {
        scene.goes_on().await;
        to_clients.iter().for_each(Proxy::cut);
    }
    scene.goes_on().await;
    scene.settle().await.into()
}
