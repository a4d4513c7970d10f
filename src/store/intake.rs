//! Takes alerts in for all who bring some: what comes while a call of the database is under way goes into the next one,
//! together. So many senders of single alerts share a transaction and its flush to disk, and one alone waits for nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Store, StoreError};
use crate::domain::{NewAlert, SubmittedAlert, limits};
use crate::lifecycle::Lifecycle;
use crate::telemetry::metric;

/// Calls under way at a time: while one waits for the disk, the other computes.
const CALLS: usize = 2;

/// Alerts that wait before a call begins beside another. Calls with alerts of the same source and cause wait for each other
/// until they are on the disk: a few alerts are stored sooner by one call than by two that have half of them each.
const ENOUGH_FOR_ANOTHER: usize = 128;

/// How long a call for several senders waits for a row that another transaction holds. Those whose alert needs the row then
/// wait for it alone, and the others wait no longer for them.
const SHARED_PATIENCE: Duration = Duration::from_millis(250);

/// Senders whose alerts are stored apart at a time, each on a connection: others need some too.
const APART: usize = 4;

/// Where alerts are brought; clones share it.
#[derive(Clone)]
pub struct Intake(Arc<Inner>);

struct Inner {
    store: Store,
    lifecycle: Lifecycle,
    /// For alerts that wait or are being stored.
    room: Arc<Semaphore>,
    apart: Semaphore,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Submission>,
    /// That these bring.
    alerts: usize,
    /// Tasks that store what waits.
    calls: usize,
}

/// What one sender brings: all of it is stored, or nothing.
struct Submission {
    actor: String,
    alerts: Vec<NewAlert>,
    answer: oneshot::Sender<Answer>,
    _room: Room,
}

/// What a submission takes of the room for alerts, until it has its answer.
struct Room {
    alerts: u32,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    fn take(room: &Arc<Semaphore>, alerts: usize) -> Option<Self> {
        let alerts = u32::try_from(alerts).ok()?;
        let permit = Arc::clone(room).try_acquire_many_owned(alerts).ok()?;
        gauge!(metric::ALERTS_WAITING).increment(alerts);
        Some(Self { alerts, _permit: permit })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        gauge!(metric::ALERTS_WAITING).decrement(self.alerts);
    }
}

type Answer = Result<Vec<SubmittedAlert>, Arc<StoreError>>;

/// Why alerts were not stored.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Nothing was done.
    #[error("too many alerts wait to be stored; try again")]
    Full,
    /// The task that was to store them is gone.
    #[error("the task that stores alerts ended")]
    Lost,
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl Intake {
    /// `max_waiting`: alerts that may wait at a time, at least as many as a request may bring.
    pub fn new(store: Store, lifecycle: Lifecycle, max_waiting: usize) -> Self {
        Self(Arc::new(Inner {
            store,
            lifecycle,
            room: Arc::new(Semaphore::new(max_waiting)),
            apart: Semaphore::new(APART),
            queue: Mutex::default(),
        }))
    }

    /// Stores alerts, in their order and in one transaction, and says what became of each. Whoever goes away before their
    /// turn has come takes them along.
    pub async fn submit(&self, actor: &str, alerts: Vec<NewAlert>) -> Result<Vec<SubmittedAlert>, IntakeError> {
        let inner = &self.0;
        let room = Room::take(&inner.room, alerts.len()).ok_or(IntakeError::Full)?;
        let (answer, answered) = oneshot::channel();
        inner.queue.lock().put(Submission { actor: actor.to_owned(), alerts, answer, _room: room });
        self.begin();
        answered.await.map_err(|_| IntakeError::Lost)?.map_err(IntakeError::Store)
    }

    /// Begins another call, if there is something to store and not enough store it.
    fn begin(&self) {
        let inner = &self.0;
        {
            let mut queue = inner.queue.lock();
            if !queue.needs_another_call() || inner.lifecycle.hard().is_cancelled() {
                return;
            }
            queue.calls += 1;
        }
        let calls = Calls(self.clone());
        let hard = inner.lifecycle.hard().clone();
        inner.lifecycle.spawn_connection("intake", async move {
            hard.run_until_cancelled(calls.run()).await;
        });
    }
}

/// A task that stores what waits, until nothing does.
struct Calls(Intake);

impl Calls {
    async fn run(self) {
        loop {
            let batch = self.0.0.queue.lock().take();
            if batch.is_empty() {
                return;
            }
            self.store(batch).await;
        }
    }

    async fn store(&self, batch: Vec<Submission>) {
        let inner = &self.0.0;
        let shared = batch.len() > 1;
        match inner.store(&batch, shared.then_some(SHARED_PATIENCE)).await {
            Ok(mut stored) => {
                for submission in batch {
                    let rest = stored.split_off(submission.alerts.len().min(stored.len()));
                    // whoever does not wait any more has their alerts stored all the same
                    let _ = submission.answer.send(Ok(std::mem::replace(&mut stored, rest)));
                }
            }
            // one is at fault, or waits for somebody: that is no reason for the others to fail
            Err(failed) if shared && !matches!(failed, StoreError::Unavailable(_)) => self.store_apart(batch),
            Err(failed) => {
                let failed = Arc::new(failed);
                for submission in batch {
                    let _ = submission.answer.send(Err(Arc::clone(&failed)));
                }
            }
        }
    }

    /// Stores each sender's alerts in a transaction of their own, while others' go on.
    fn store_apart(&self, batch: Vec<Submission>) {
        let inner = Arc::clone(&self.0.0);
        let hard = inner.lifecycle.hard().clone();
        self.0.0.lifecycle.spawn_connection("intake", async move {
            let each = batch.into_iter().map(|submission| async {
                // it is never closed
                let _permit = inner.apart.acquire().await;
                let stored = inner.store(std::slice::from_ref(&submission), None).await;
                let _ = submission.answer.send(stored.map_err(Arc::new));
            });
            hard.run_until_cancelled(join_all(each)).await;
        });
    }
}

impl Drop for Calls {
    /// Whatever came after the last look, or is left by a panic, is another task's.
    fn drop(&mut self) {
        self.0.0.queue.lock().calls -= 1;
        self.0.begin();
    }
}

impl Inner {
    async fn store(&self, batch: &[Submission], patience: Option<Duration>) -> Result<Vec<SubmittedAlert>, StoreError> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let alerts = batch.iter().flat_map(|submission| &submission.alerts);
        let stored = self.store.submit_alerts(&first.actor, alerts, patience).await?;
        counter!(metric::ALERT_CALLS).increment(1);
        counter!(metric::ALERTS_STORED).increment(stored.len() as u64);
        Ok(stored)
    }
}

impl Queue {
    fn put(&mut self, submission: Submission) {
        self.alerts += submission.alerts.len();
        self.waiting.push_back(submission);
    }

    fn needs_another_call(&self) -> bool {
        match self.calls {
            0 => !self.waiting.is_empty(),
            calls => calls < CALLS && self.alerts >= ENOUGH_FOR_ANOTHER,
        }
    }

    /// What the next call stores: from the first on, of one actor, and not more than one sender may bring.
    fn take(&mut self) -> Vec<Submission> {
        let (mut batch, mut left): (Vec<Submission>, Vec<Submission>) = (Vec::new(), Vec::new());
        let mut alerts = 0;
        while let Some(submission) = self.waiting.pop_front() {
            self.alerts -= submission.alerts.len();
            if submission.answer.is_closed() {
                continue;
            }
            let fits = batch.is_empty() || alerts + submission.alerts.len() <= limits::ALERTS;
            if fits && batch.first().is_none_or(|first| first.actor == submission.actor) {
                alerts += submission.alerts.len();
                batch.push(submission);
            } else {
                left.push(submission);
                if !fits {
                    break;
                }
            }
        }
        for submission in left.into_iter().rev() {
            self.alerts += submission.alerts.len();
            self.waiting.push_front(submission);
        }
        batch
    }
}
