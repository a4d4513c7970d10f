//! Calls the log's maintenance from time to time, and ends what holds up notifications. Any replica's call does; they take
//! turns by the sequencer's lock.

use std::time::Duration;

use metrics::gauge;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::store::{Retention, Store};
use crate::telemetry::metric;

/// Between two calls. Partitions are made so far ahead that many calls may fail.
const INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn run(store: Store, retention: Retention) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match store.maintain_log(retention).await {
            Ok(done) => gauge!(metric::MAINTENANCE_OVERDUE).set(i32::from(done.overdue)),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "the log's maintenance failed; trying again"),
        }
        match store.end_stuck_listeners().await {
            Ok(0) => {}
            Ok(ended) => {
                warn!(ended, "ended connections that took no notifications: of replicas that are stopped or gone");
            }
            Err(error) => warn!(error = &error as &dyn std::error::Error, "cannot look for listeners that are stuck"),
        }
    }
}
