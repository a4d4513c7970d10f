//! Subscriptions: one execution and one serialisation of an event, however many watch, and wherever in the log each of them is.
//!
//! A [`Feed`] is one distinct subscription. A [`Subscriber`] of it is a position in the log. What has been executed lately is in
//! the feed's ring, and whoever is not below its floor takes from there; whoever is below takes from [`block`]s, which are
//! executed from the log for all who are there, and goes on where a block ends. That is all there is to resuming, to joining
//! what is live, and to being slow: there is no hand-over, and wherever a bound is reached, the floor rises and nothing is
//! lost. A place in the log that has been given out anew is told from what it was by its numbering, which travels with it.

mod after;
mod block;
mod canonical;
mod execution;
mod feed;
mod heartbeat;
mod lanes;
mod payload;
mod plan;
mod replay;
mod runner;
mod subscriber;
mod turn;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_graphql::{Request, Response};
use bytes::Bytes;
use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use feed::Frame;
pub use payload::{errors_json, response_json};
pub use subscriber::{Ended, Subscriber};

use crate::domain::{Access, Cursor};
use crate::events::{History, Hub, NotRead, Numbering};
use crate::graphql::{Code, Gateway, Refusal};
use crate::lifecycle::Lifecycle;
use crate::telemetry::metric;
use after::AFTER;
use block::Budget;
use execution::NotOpened;
use feed::{Feed, Key};
use heartbeat::Heartbeats;
use plan::Plans;

/// How long a subscription waits for the event log to be read for the first time: clients that come back at once after a
/// restart would not try again a subscription that was refused.
const FIRST_READ: Duration = Duration::from_secs(5);

/// Bounds of feeds and replays. Whatever is reached, nothing is lost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Results that a feed keeps.
    pub ring: usize,
    /// Bytes of the results that a feed keeps.
    pub ring_bytes: usize,
    /// Events that may wait for a feed's execution.
    pub inbox: usize,
    /// Executions of a feed side by side where its selection waits for the database.
    pub side_by_side: usize,
    /// Executions of all feeds that wait for the database at a time, so that requests have connections too.
    pub waiting: usize,
    /// Results of one block of a replay.
    pub block_events: usize,
    /// Bytes of results at which a block ends.
    pub block_bytes: usize,
    /// Events in memory that are looked at for one block.
    pub block_scan: usize,
    /// Bytes of all blocks that are held.
    pub replay_bytes: usize,
    /// Blocks that are executed at a time.
    pub replays: usize,
    /// Subscribers that take from blocks at a time.
    pub turns: usize,
    /// Connections that replays may use at a time, to read the log and for selections that wait for the database.
    pub replay_connections: usize,
}

/// What is counted.
struct Counts {
    deliveries: Counter,
    executions: Counter,
    replays: Counter,
    blocks: Counter,
    expired: Counter,
}

/// All feeds of this process.
pub struct Live {
    history: History,
    gateway: Gateway,
    lifecycle: Lifecycle,
    limits: Limits,
    plans: Plans,
    feeds: Mutex<HashMap<Key, Weak<Feed>>>,
    heartbeats: Heartbeats,
    waiting: Semaphore,
    replays: Semaphore,
    replay_database: Semaphore,
    turns: Arc<Semaphore>,
    budget: Arc<Budget>,
    counts: Counts,
}

impl Live {
    /// Starts with no feed.
    pub fn start(
        history: History,
        gateway: Gateway,
        lifecycle: &Lifecycle,
        limits: Limits,
        heartbeat_interval: Duration,
    ) -> Arc<Self> {
        let live = Arc::new(Self {
            heartbeats: Heartbeats::new(heartbeat_interval),
            waiting: Semaphore::new(limits.waiting.max(limits.side_by_side)),
            replays: Semaphore::new(limits.replays),
            replay_database: Semaphore::new(limits.replay_connections),
            turns: Arc::new(Semaphore::new(limits.turns)),
            budget: Budget::new(limits.replay_bytes),
            history,
            gateway,
            lifecycle: lifecycle.clone(),
            limits,
            plans: Plans::default(),
            feeds: Mutex::default(),
            counts: Counts {
                deliveries: counter!(metric::DELIVERIES),
                executions: counter!(metric::EXECUTIONS),
                replays: counter!(metric::REPLAYS),
                blocks: counter!(metric::REPLAY_BLOCKS),
                expired: counter!(metric::CURSORS_EXPIRED),
            },
        });
        lifecycle.spawn_until_soft("heartbeats", heartbeat::run(Arc::clone(&live)));
        live
    }

    /// Executes queries and mutations.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn hub(&self) -> &Arc<Hub> {
        self.history.hub()
    }

    /// The stream's position now, as clients see it.
    pub fn cursor(&self) -> Option<String> {
        self.hub().head().map(|head| head.encode())
    }

    /// Subscribes: behind `last_seen`, where that is given, else behind the document's own cursor, else from now on. A
    /// request error is `Err`.
    pub async fn subscribe(
        self: &Arc<Self>,
        request: Request,
        access: &Access,
        last_seen: Option<String>,
    ) -> Result<Subscriber, Box<Response>> {
        let (key, after) = self.plans.key(&self.gateway, request, access).await?;
        // in vain, it is refused below
        let _ = timeout(FIRST_READ, self.hub().watch().wait_for(Option::is_some)).await;
        let resumed = match last_seen.or(after) {
            Some(text) => Some(self.locate(&text).await?),
            None => None,
        };
        let feed = match self.find(&key) {
            Some(feed) => feed,
            None => self.open(key).await?,
        };
        if let Some((at, numbering)) = resumed {
            self.counts.replays.increment(1);
            return Ok(Subscriber::new(feed, at, numbering));
        }
        match self.hub().now() {
            Some(now) => Ok(Subscriber::new(feed, now.cursor, now.numbering)),
            None => Err(self.not_read_yet()),
        }
    }

    /// Where a client's cursor is.
    async fn locate(&self, text: &str) -> Result<(Cursor, Numbering), Box<Response>> {
        let refuse = |refusal| Box::new(self.gateway.refuse(refusal));
        let cursor = Cursor::decode(text).map_err(|error| refuse(Refusal::of_input(AFTER, &error)))?;
        match self.history.locate(cursor).await {
            Ok(place) => Ok((cursor, place.numbering)),
            Err(NotRead::Expired) => Err(Box::new(self.expired().await)),
            Err(NotRead::Store(failed)) => Err(refuse(Refusal::from(&*failed))),
        }
    }

    fn find(&self, key: &Key) -> Option<Arc<Feed>> {
        let feed = self.feeds.lock().get(key)?.upgrade()?;
        feed.is_usable().then_some(feed)
    }

    async fn open(self: &Arc<Self>, key: Key) -> Result<Arc<Feed>, Box<Response>> {
        let feed = match Feed::open(self, key.clone()).await {
            Ok(Some(feed)) => feed,
            Ok(None) => return Err(self.not_read_yet()),
            Err(NotOpened::Refused(response)) => return Err(response),
            Err(NotOpened::NoField) => {
                let message = "a subscription has one root field";
                return Err(Box::new(self.gateway.refusal(Code::GraphqlValidationFailed, message)));
            }
        };
        // whichever feed is not wanted, ours or one that has failed, goes after the lock: it comes back to it as it goes
        let mut feeds = self.feeds.lock();
        let known = feeds.get(&key).and_then(Weak::upgrade);
        let somebody_was_faster = known.as_ref().is_some_and(|known| known.is_usable());
        if !somebody_was_faster {
            feeds.insert(key, Arc::downgrade(&feed));
        }
        drop(feeds);
        match known {
            Some(known) if somebody_was_faster => Ok(known),
            _ => {
                self.heartbeats.add(&feed);
                Ok(feed)
            }
        }
    }

    fn not_read_yet(&self) -> Box<Response> {
        Box::new(self.gateway.refusal(Code::DatabaseUnavailable, "the event log cannot be read yet"))
    }

    /// Tells a client that its cursor is gone, and from where on it could resume.
    async fn expired(&self) -> Response {
        self.counts.expired.increment(1);
        let message = "the stream cannot be resumed from this cursor; ask for the state and subscribe anew";
        // while the database is away nobody knows
        let oldest = self.history.newest().await.ok().map(|log| log.oldest_cursor().encode().into());
        self.gateway.refuse(Refusal { oldest_cursor: oldest, ..Refusal::new(Code::CursorExpired, message) })
    }

    /// The same as the payload of an `error`.
    async fn expired_json(&self) -> Bytes {
        errors_json(&self.expired().await.errors)
    }

    /// Forgets a feed that has ended.
    fn forget(&self, feed: &Feed) {
        let mut feeds = self.feeds.lock();
        if feeds.get(feed.key()).is_some_and(|known| std::ptr::eq(known.as_ptr(), feed)) {
            feeds.remove(feed.key());
        }
    }
}
