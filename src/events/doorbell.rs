//! The doorbell, as the listener hears it and the sequencer heeds it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Wakes the sequencer, and counts: rings that come while it is busy wake it once, but tell how many writers there are.
#[derive(Default)]
pub(super) struct Doorbell {
    wake: Notify,
    rings: AtomicUsize,
}

impl Doorbell {
    /// A writer has rung.
    pub(super) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// There may be something to move, whoever may have said so.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until there may be something to move since the last wait.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// How many have rung since this was last asked.
    pub(super) fn take_rings(&self) -> usize {
        self.rings.swap(0, Ordering::Relaxed)
    }
}
