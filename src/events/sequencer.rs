//! Calls the database's sequencer when there is something to move: at once when the doorbell rings, or, when it would ring
//! too often, by polling with the bell turned off, as network drivers do with interrupts.
//!
//! Any replica may call. The one that last moved events goes at once; the others only if the head has not moved a little
//! later. No session state is involved, so a replica that dies is replaced without an election.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::doorbell::Doorbell;
use super::hub::Hub;
use crate::domain::Position;
use crate::store::{Sequenced, Store, StoreError};
use crate::telemetry::metric;

/// How long the replica that last moved events has, before another one goes in its place.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often to look though nobody rang.
const SAFETY_POLL: Duration = Duration::from_secs(1);
/// So many rings within [`RING_WINDOW`], about 100 a second, or during one call are too many. Transactions that ring commit
/// one after the other, so that where a commit is slow there never are many in a window, and a call waits behind them.
const TOO_MANY_RINGS: usize = 10;
const RING_WINDOW: Duration = Duration::from_millis(100);
/// Between two calls while the bell is off: what an event waits at most, and half of it on average.
const BUSY_POLL: Duration = Duration::from_millis(5);
/// With nothing to move for so long, the bell is turned on again.
const QUIET_AFTER: Duration = Duration::from_millis(200);
/// Between two looks for transactions that may have seen the bell turned off: from the first to the last.
const DRAIN_POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Between two calls of which the first found another session sequencing, and the bell has to be set.
const MISSED_RETRY: Duration = Duration::from_millis(1);
/// Between two attempts while the database is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

pub(super) struct Sequencer {
    store: Store,
    hub: Arc<Hub>,
    doorbell: Arc<Doorbell>,
    /// The head after the last call of ours that moved events: nobody else has moved any while it is the hub's too.
    led_to: Option<Position>,
    rings: VecDeque<Instant>,
}

/// Why a call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Ring,
    Safety,
}

impl Sequencer {
    pub(super) fn new(store: Store, hub: Arc<Hub>, doorbell: Arc<Doorbell>) -> Self {
        Self { store, hub, doorbell, led_to: None, rings: VecDeque::with_capacity(TOO_MANY_RINGS) }
    }

    /// Runs until `stop`; then leaves the doorbell on, for the replicas that stay.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let work = async {
            let mut cause = Cause::Safety;
            loop {
                self.serve(cause).await;
                cause = self.wait().await;
            }
        };
        stop.run_until_cancelled(work).await;
        if let Err(error) = self.store.sequence_events(Some(true)).await {
            debug!(error = &error as &dyn std::error::Error, "left without a last call of the sequencer");
        }
    }

    /// Waits for a ring, or for so long without a new head that somebody has to look.
    async fn wait(&self) -> Cause {
        let mut head = self.hub.watch();
        loop {
            tokio::select! {
                () = self.doorbell.woken() => return Cause::Ring,
                changed = head.changed() => if changed.is_err() { return Cause::Safety },
                () = sleep(SAFETY_POLL) => return Cause::Safety,
            }
        }
    }

    async fn serve(&mut self, cause: Cause) {
        if !self.leads() && self.head_moves_within(PATIENCE).await {
            self.forget_rings();
            return;
        }
        let called = self.call(None).await;
        let nobody_leads = called.moved > 0 || cause == Cause::Safety;
        if (!called.bell_on && nobody_leads) || (cause == Cause::Ring && self.rings_too_often()) {
            self.poll_without_bell().await;
        }
    }

    /// Whether nobody has moved events since this replica did.
    fn leads(&self) -> bool {
        match (self.led_to, self.hub.head()) {
            (Some(led_to), Some(head)) => head.position <= led_to,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    async fn head_moves_within(&self, patience: Duration) -> bool {
        timeout(patience, self.hub.watch().changed()).await.is_ok()
    }

    /// Counts the rings since it was last asked, which may have come during a call.
    fn rings_too_often(&mut self) -> bool {
        let now = Instant::now();
        for _ in 0..self.doorbell.take_rings().min(TOO_MANY_RINGS) {
            if self.rings.len() == TOO_MANY_RINGS {
                self.rings.pop_front();
            }
            self.rings.push_back(now);
        }
        self.rings.len() == TOO_MANY_RINGS && self.rings.front().is_some_and(|first| now - *first < RING_WINDOW)
    }

    fn forget_rings(&mut self) {
        self.doorbell.take_rings();
        self.rings.clear();
    }

    /// With the bell off: calls often, until there has been nothing to move for a while or another replica leads.
    async fn poll_without_bell(&mut self) {
        self.call(Some(false)).await;
        let mut last_moved = Instant::now();
        loop {
            sleep(BUSY_POLL).await;
            if !self.leads() && self.led_to.is_some() {
                return;
            }
            if self.call(None).await.moved > 0 {
                last_moved = Instant::now();
            } else if last_moved.elapsed() >= QUIET_AFTER {
                self.turn_bell_on().await;
                return;
            }
        }
    }

    /// Sets the bell, then goes on calling until every transaction is over that may have looked at it before, prepared ones
    /// too: none of those will ring.
    async fn turn_bell_on(&mut self) {
        self.forget_rings();
        self.call(Some(true)).await;
        let mut silent = self.writers().await;
        let mut pause = DRAIN_POLL.0;
        while !silent.is_empty() {
            let rung = timeout(pause, self.doorbell.woken()).await.is_ok();
            pause = (pause * 2).min(DRAIN_POLL.1);
            self.call(None).await;
            if rung && self.rings_too_often() {
                // busy again; the ring that is left behind leads back to polling
                self.doorbell.wake();
                return;
            }
            let writers = self.writers().await;
            silent.retain(|writer| writers.contains(writer));
        }
        self.call(None).await;
    }

    /// Calls the sequencer until nothing more waits; again and again while the database is away.
    async fn call(&mut self, ring: Option<bool>) -> Sequenced {
        let mut moved = 0;
        loop {
            let store = self.store.clone();
            let called = persist("sequencer", || store.sequence_events(ring)).await;
            counter!(metric::SEQUENCER_CALLS).increment(1);
            counter!(metric::SEQUENCED_EVENTS).increment(called.moved);
            gauge!(metric::DOORBELL_ON).set(i32::from(called.bell_on));
            moved += called.moved;
            if let Some(head) = called.head {
                if called.moved > 0 || self.led_to.is_none() {
                    self.led_to = Some(head);
                }
                if !called.more {
                    return Sequenced { moved, ..called };
                }
                continue;
            }
            // another session is at it, perhaps with a snapshot from before our ring
            if ring.is_none() && self.head_moves_within(PATIENCE).await {
                return Sequenced { moved, ..called };
            }
            sleep(MISSED_RETRY).await;
        }
    }

    async fn writers(&self) -> Vec<String> {
        persist("look for writers", || self.store.outbox_writers()).await
    }
}

/// Does something until the database lets it be done.
async fn persist<T, F>(what: &'static str, attempt: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = RETRY.0;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, what, "failed; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
        }
    }
}
