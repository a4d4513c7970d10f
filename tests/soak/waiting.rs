//! Waiting for what is to be.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long anything may take before a proof fails. No proof waits for it: it waits for a condition.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until a condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "still not so: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
