//! HEARTBEATs: one task for all feeds. Each feed has its own time, an interval after its last activity, so that they spread.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Live;
use super::feed::Feed;

/// An open execution is given back when its feed has had nothing to execute for so long.
const IDLE_EXECUTION: Duration = Duration::from_secs(10);

/// When each feed is looked at next.
pub struct Heartbeats {
    interval: Duration,
    due: Mutex<Due>,
    added: Notify,
}

/// The number tells two of the same instant apart.
#[derive(Default)]
struct Due {
    last_number: u64,
    feeds: BTreeMap<(Instant, u64), Weak<Feed>>,
}

impl Heartbeats {
    pub fn new(interval: Duration) -> Self {
        Self { interval, due: Mutex::default(), added: Notify::new() }
    }

    pub fn add(&self, feed: &Arc<Feed>) {
        self.schedule(Instant::now() + self.period(feed), Arc::downgrade(feed));
        self.added.notify_one();
    }

    /// A feed without HEARTBEATs is looked at for what it holds open.
    fn period(&self, feed: &Feed) -> Duration {
        if feed.inbox().interest().filter.wants_heartbeat() { self.interval } else { IDLE_EXECUTION }
    }

    fn schedule(&self, at: Instant, feed: Weak<Feed>) {
        let mut due = self.due.lock();
        due.last_number += 1;
        let number = due.last_number;
        due.feeds.insert((at, number), feed);
    }

    fn next(&self) -> Option<Instant> {
        self.due.lock().feeds.first_key_value().map(|((at, _), _)| *at)
    }

    fn pop(&self, now: Instant) -> Option<Weak<Feed>> {
        let mut due = self.due.lock();
        let first = due.feeds.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

pub async fn run(live: Arc<Live>) {
    let beats = &live.heartbeats;
    loop {
        match beats.next() {
            Some(at) => tokio::select! { () = sleep_until(at) => {}, () = beats.added.notified() => {} },
            None => beats.added.notified().await,
        }
        let now = Instant::now();
        while let Some(weak) = beats.pop(now) {
            // not under the lock: this may be the feed's last handle
            let Some(feed) = weak.upgrade() else { continue };
            let next = attend(&live, &feed, now);
            beats.schedule(next, weak);
        }
    }
}

/// Sends a HEARTBEAT if one is due; when to look again.
fn attend(live: &Live, feed: &Feed, now: Instant) -> Instant {
    let quiet_since = feed.state.lock().active_at;
    let period = live.heartbeats.period(feed);
    let due = quiet_since + period;
    if due > now {
        return due;
    }
    if feed.inbox().interest().filter.wants_heartbeat() {
        let interval = live.heartbeats.interval;
        if live.hub().confirmed_within(interval) {
            live.hub().beat(feed.inbox());
        }
    } else {
        feed.forget_executions();
    }
    now + period
}
