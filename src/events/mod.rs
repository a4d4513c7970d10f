//! The event log, in order, in memory: the sequencer gives positions out, the listener reads them, the hub holds the
//! tail, and a subscription's resolver opens its stream here.

mod doorbell;
mod history;
mod hub;
mod inbox;
mod index;
mod listener;
mod maintenance;
mod sequencer;
mod slot;
mod tail;

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

pub use history::{History, NotRead};
pub use hub::{Hub, TailBounds};
pub use inbox::{Inbox, Item};
pub use slot::{Deliveries, Delivery, EventSlot, SecondRootField};
pub use tail::{FromTail, Numbering, Place, Stretch, StretchBounds};

use crate::config::EventsConfig;
use crate::lifecycle::Lifecycle;
use crate::store::{Retention, Store};

/// A thread for the log alone. An event takes some steps from its commit to the hub, and each would wait behind all that is
/// ready to run among clients, as when many come back at once.
pub struct LogThread {
    /// There until this is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl LogThread {
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("log").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        // where tasks run nothing may be waited for
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts what keeps the log moving and the hub up to date, for the life of the process, on a thread of its own.
///
/// `migrated` is cancelled when the schema may be used.
pub fn start(
    thread: &LogThread,
    store: &Store,
    config: &EventsConfig,
    lifecycle: &Lifecycle,
    migrated: &CancellationToken,
) -> Arc<Hub> {
    let _entered = thread.handle.enter();
    let hub = Arc::new(Hub::new(TailBounds {
        events: usize::try_from(config.tail_events).unwrap_or(usize::MAX),
        bytes: usize::try_from(config.tail_bytes).unwrap_or(usize::MAX),
    }));
    let doorbell = Arc::new(doorbell::Doorbell::default());
    let listener = listener::Listener::new(store.clone(), Arc::clone(&hub), Arc::clone(&doorbell));
    spawn_when(migrated, lifecycle, "listener", listener.run());

    let sequencer = sequencer::Sequencer::new(store.clone(), Arc::clone(&hub), doorbell);
    let (migrated_too, soft) = (migrated.clone(), lifecycle.soft().clone());
    lifecycle.spawn("sequencer", async move {
        if soft.run_until_cancelled(migrated_too.cancelled()).await.is_some() {
            sequencer.run(soft).await;
        }
    });

    let retention = Retention { age: config.retention_age, events: config.retention_events };
    spawn_when(migrated, lifecycle, "maintenance", maintenance::run(store.clone(), retention));
    hub
}

/// Runs a task from when the schema may be used until the service stops.
fn spawn_when(
    migrated: &CancellationToken,
    lifecycle: &Lifecycle,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let migrated = migrated.clone();
    lifecycle.spawn_until_soft(name, async move {
        migrated.cancelled().await;
        task.await;
    });
}
