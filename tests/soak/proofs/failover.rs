//! A standby that takes the primary's place, with everything or without the last of it.

use std::sync::Arc;

use crate::cluster::{Cluster, Database, Stop};
use crate::proofs::copies::{all_told, late, seen_more_than};
use crate::proxy::{Proxy, Weather};
use crate::scene::{Scene, Setting};
use crate::waiting::eventually;
use crate::{Outcome, Stage};

/// Two servers of which one follows the other, and everybody by way of a proxy that leads to the one that counts.
struct Pair {
    primary: Arc<Cluster>,
    standby: Arc<Cluster>,
    replication: Proxy,
    front: Proxy,
    scene: Scene,
}

impl Pair {
    async fn start() -> Self {
        let primary = Cluster::start().await;
        let replication = Proxy::to(primary.address).await;
        let standby = Cluster::standby(&primary, replication.address).await;
        let front = Proxy::to(primary.address).await;
        let database = primary.database().await;
        let url = primary.url_by(front.address, &database.name);
        let scene = Scene::of(database, url.clone(), Setting::default()).await;
        *scene.writers.url.write() = url;
        scene.goes_on().await;
        Self { primary, standby, replication, front, scene }
    }

    /// The same database on the standby.
    fn followed(&self) -> Database {
        self.standby.existing(self.scene.database.name.clone())
    }

    async fn fail_over(&self, how: Stop) {
        self.primary.take_down(how).await;
        self.replication.set(Weather::Cut);
        self.standby.promote().await;
        self.front.lead_to(self.standby.address);
    }
}

/// The newest position that a standby has, once it has applied all that it got.
async fn applied_head(database: &Database) -> i64 {
    eventually("the standby has applied what it got", || async {
        database.value::<bool>("select pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()").await
    })
    .await;
    database.value("select last_pos from incident_manager.event_batch order by n desc limit 1").await
}

pub async fn a_failover_that_loses_nothing(_: &Stage) -> Outcome {
    let pair = Pair::start().await;
    pair.fail_over(Stop::Fast).await;
    pair.scene.goes_on().await;
    let promoted = pair.followed();
    pair.scene.settle_on(Some(&promoted)).await.into()
}

pub async fn a_failover_that_loses_events(_: &Stage) -> Outcome {
    let mut pair = Pair::start().await;
    let late = late(&pair.scene).await;
    for client in &pair.scene.clients {
        client.leave().await;
    }
    let seen = pair.scene.clients.iter().map(|client| client.ledger().cursor().unwrap().position.0).max().unwrap();
    let promoted = pair.followed();
    eventually("the standby has what those who left have seen", || async { applied_head(&promoted).await >= seen })
        .await;
    pair.replication.set(Weather::Stalled);
    // by then it has applied what was on its way
    pair.scene.writers.commit(20).await;
    let head = applied_head(&promoted).await;
    seen_more_than(&late, head).await;
    pair.fail_over(Stop::Immediate).await;
    all_told(&late, 1).await;
    // only now: before, a replica would have told them too what it had in memory and is lost
    for client in &pair.scene.clients {
        client.come_back();
    }
    pair.scene.clients.extend(late);
    pair.scene.goes_on().await;
    pair.scene.settle_on(Some(&promoted)).await.into()
}
