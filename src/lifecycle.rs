//! The life of the process: signals, a shutdown in three stages, and every task that runs in the background.
//!
//! **Draining** sends clients elsewhere, while all that serves them goes on. The **soft** stage asks: take no more work,
//! finish what is under way. The **hard** stage ends what is left: it follows a second signal, or a drain that takes too
//! long. No task is spawned anywhere else, so that none is forgotten in a shutdown and none dies unnoticed.

use std::collections::BTreeMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// How long tasks have to notice the hard stage; a task that blocks its thread for longer is left behind.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// Why a process that was shut down did not end well.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("the background task `{0}` panicked")]
    TaskPanicked(&'static str),
}

/// A handle on the life of one service; clones share it.
#[derive(Clone, Default)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    hard: CancellationToken,
    /// A child of `hard`: what ends at once also stops taking work.
    soft: CancellationToken,
    /// A child of `soft`: who takes no more work is not to be sent any.
    draining: CancellationToken,
    tracker: TaskTracker,
    /// How many tasks of each name run, for the log line about those that did not end.
    running: Mutex<BTreeMap<&'static str, usize>>,
    /// The first task that panicked and brought the service down.
    panicked: OnceLock<&'static str>,
}

impl Default for Inner {
    fn default() -> Self {
        let hard = CancellationToken::new();
        let soft = hard.child_token();
        Self {
            draining: soft.child_token(),
            soft,
            hard,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            panicked: OnceLock::new(),
        }
    }
}

impl Lifecycle {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when clients are to go elsewhere: a shutdown's first stage.
    pub fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    /// Cancelled when no more work is to be taken; never before [`Self::draining`].
    pub fn soft(&self) -> &CancellationToken {
        &self.inner.soft
    }

    /// Cancelled when everything has to end; never before [`Self::soft`].
    pub fn hard(&self) -> &CancellationToken {
        &self.inner.hard
    }

    /// Asks for a shutdown, as the first signal does: whoever runs the service drains it, then calls [`Self::shutdown`].
    pub fn stop(&self) {
        self.inner.draining.cancel();
    }

    /// Runs a task that the service cannot do without: its panic is logged and shuts the service down.
    ///
    /// The hard stage drops it at its next await.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (hard, lifecycle, running) = (self.inner.hard.clone(), self.clone(), self.started(name));
        let run = async move {
            let _running = running;
            if AssertUnwindSafe(hard.run_until_cancelled(task)).catch_unwind().await.is_err() {
                error!(task = name, "a background task panicked; shutting down");
                let _ = lifecycle.inner.panicked.set(name);
                lifecycle.stop();
            }
        };
        tokio::spawn(self.inner.tracker.track_future(run));
    }

    /// The same, of a task that knows no end: the soft stage drops it.
    pub fn spawn_until_soft(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let soft = self.inner.soft.clone();
        self.spawn(name, async move {
            soft.run_until_cancelled(task).await;
        });
    }

    /// Runs one of many tasks of which none matters to another, such as a connection: its panic is logged and costs
    /// nothing else.
    ///
    /// It watches [`Self::hard`] by itself: to wrap each in it would cost a lock at every poll.
    pub fn spawn_connection(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.started(name);
        let run = async move {
            let _running = running;
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                error!(task = name, "a connection's task panicked");
            }
        };
        tokio::spawn(self.inner.tracker.track_future(run));
    }

    /// From now on the first SIGTERM or SIGINT begins a shutdown, the second ends it at once.
    pub fn listen_for_signals(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let lifecycle = self.clone();
        // Not tracked: it has to hear of a second signal until the very end.
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if lifecycle.inner.draining.is_cancelled() {
                    warn!(signal, "stopping at once");
                    lifecycle.inner.hard.cancel();
                } else {
                    info!(signal, "shutting down; a second signal stops at once");
                    lifecycle.stop();
                }
            }
        });
        Ok(())
    }

    /// Goes through the last two stages: asks all tasks to end, waits for them up to `drain_timeout` (or a second signal),
    /// then ends what is left. An error if a task's panic was the reason for the shutdown, or came during it.
    pub async fn shutdown(&self, drain_timeout: Duration) -> Result<(), LifecycleError> {
        let inner = &self.inner;
        inner.soft.cancel();
        inner.tracker.close();
        tokio::select! {
            biased;
            () = inner.tracker.wait() => {}
            () = inner.hard.cancelled() => warn!(tasks = self.unfinished(), "ending what still runs"),
            () = sleep(drain_timeout) => {
                warn!(tasks = self.unfinished(), ?drain_timeout, "the drain took too long; ending what still runs");
            }
        }
        inner.hard.cancel();
        if timeout(HARD_GRACE, inner.tracker.wait()).await.is_err() {
            warn!(tasks = self.unfinished(), "left behind: these tasks do not end");
        }
        inner.panicked.get().map_or(Ok(()), |name| Err(LifecycleError::TaskPanicked(name)))
    }

    /// Names and numbers of the tasks that run: `listener, session ×12`.
    fn unfinished(&self) -> String {
        let running = self.inner.running.lock();
        let names = running.iter().map(|(name, count)| match count {
            1 => (*name).to_owned(),
            _ => format!("{name} ×{count}"),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    fn started(&self, name: &'static str) -> Running {
        *self.inner.running.lock().entry(name).or_default() += 1;
        Running { name, inner: Arc::clone(&self.inner) }
    }
}

/// Counts a task as running until it ends, by whatever way: finished, panicked or dropped.
struct Running {
    name: &'static str,
    inner: Arc<Inner>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock();
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const DRAIN: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_task_that_heeds_the_soft_stage_is_waited_for() {
        let lifecycle = Lifecycle::new();
        let soft = lifecycle.soft().clone();
        let finished = Arc::new(Mutex::new(false));
        let done = Arc::clone(&finished);
        lifecycle.spawn("worker", async move {
            soft.cancelled().await;
            sleep(DRAIN / 2).await;
            *done.lock() = true;
        });
        lifecycle.shutdown(DRAIN).await.unwrap();
        assert!(*finished.lock());
        assert_eq!(lifecycle.unfinished(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_dropped_after_the_drain() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("stuck", pending());
        let begun = tokio::time::Instant::now();
        lifecycle.shutdown(DRAIN).await.unwrap();
        assert_eq!(begun.elapsed(), DRAIN);
        assert_eq!(lifecycle.unfinished(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_stage_cuts_the_drain_short() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("stuck", pending());
        let begun = tokio::time::Instant::now();
        let hard = lifecycle.hard().clone();
        let second_signal = async move {
            sleep(Duration::from_secs(1)).await;
            hard.cancel();
        };
        let (ended, ()) = tokio::join!(lifecycle.shutdown(DRAIN), second_signal);
        ended.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_background_task_shuts_the_service_down() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("sequencer", async { panic!("as a test") });
        lifecycle.draining().cancelled().await;
        let LifecycleError::TaskPanicked(name) = lifecycle.shutdown(DRAIN).await.unwrap_err();
        assert_eq!(name, "sequencer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_connection_costs_nothing_else() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn_connection("session", async { panic!("as a test") });
        while !lifecycle.inner.tracker.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!lifecycle.draining().is_cancelled());
        lifecycle.shutdown(DRAIN).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_did_not_end_are_named_and_counted() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("listener", pending());
        lifecycle.spawn_connection("session", pending());
        lifecycle.spawn_connection("session", pending());
        assert_eq!(lifecycle.unfinished(), "listener, session ×2");
    }

    #[tokio::test]
    async fn a_later_stage_implies_the_earlier_ones() {
        let lifecycle = Lifecycle::new();
        lifecycle.stop();
        assert!(lifecycle.draining().is_cancelled() && !lifecycle.soft().is_cancelled());
        let lifecycle = Lifecycle::new();
        lifecycle.hard().cancel();
        assert!(lifecycle.draining().is_cancelled() && lifecycle.soft().is_cancelled());
    }
}
