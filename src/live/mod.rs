//! Subscriptions: one execution and one serialisation of an event, however many watch.
//!
//! A [`Feed`] is one distinct subscription. It holds what it has executed in a ring; its subscribers take from there by
//! position, each when its socket can take more.

mod canonical;
mod execution;
mod feed;
mod heartbeat;
mod payload;
mod plan;
mod runner;
mod subscriber;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_graphql::{Request, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use feed::Frame;
pub use payload::{errors_json, response_json};
pub use subscriber::{Ended, Subscriber};

use crate::domain::Access;
use crate::events::Hub;
use crate::graphql::{Code, Gateway};
use crate::lifecycle::Lifecycle;
use execution::NotOpened;
use feed::{Feed, Key};
use heartbeat::Heartbeats;
use plan::Plans;

/// Bounds of a feed. Whatever is reached, nothing is lost in silence.
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
}

/// All feeds of this process.
pub struct Live {
    hub: Arc<Hub>,
    gateway: Gateway,
    lifecycle: Lifecycle,
    limits: Limits,
    plans: Plans,
    feeds: Mutex<HashMap<Key, Weak<Feed>>>,
    heartbeats: Heartbeats,
    waiting: Semaphore,
}

impl Live {
    /// Starts with no feed.
    pub fn start(
        hub: Arc<Hub>,
        gateway: Gateway,
        lifecycle: &Lifecycle,
        limits: Limits,
        heartbeat_interval: Duration,
    ) -> Arc<Self> {
        let live = Arc::new(Self {
            heartbeats: Heartbeats::new(heartbeat_interval),
            waiting: Semaphore::new(limits.waiting.max(limits.side_by_side)),
            hub,
            gateway,
            lifecycle: lifecycle.clone(),
            limits,
            plans: Plans::default(),
            feeds: Mutex::default(),
        });
        lifecycle.spawn("heartbeats", heartbeat::run(Arc::clone(&live), lifecycle.soft().clone()));
        live
    }

    /// Executes queries and mutations.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The stream's position now, as clients see it.
    pub fn cursor(&self) -> Option<String> {
        self.hub.head().map(|head| head.encode())
    }

    /// Subscribes, from now on. A request error is `Err`.
    pub async fn subscribe(self: &Arc<Self>, request: Request, access: &Access) -> Result<Subscriber, Box<Response>> {
        let key = self.plans.key(&self.gateway, request, access).await?;
        let feed = match self.find(&key) {
            Some(feed) => feed,
            None => self.open(key).await?,
        };
        Ok(Subscriber::new(feed, &self.hub))
    }

    fn find(&self, key: &Key) -> Option<Arc<Feed>> {
        let feed = self.feeds.lock().get(key)?.upgrade()?;
        feed.is_usable().then_some(feed)
    }

    async fn open(self: &Arc<Self>, key: Key) -> Result<Arc<Feed>, Box<Response>> {
        let refuse = |code, message: &str| Box::new(self.gateway.refusal(code, message));
        let feed = match Feed::open(self, key.clone()).await {
            Ok(Some(feed)) => feed,
            Ok(None) => return Err(refuse(Code::DatabaseUnavailable, "the event log cannot be read yet")),
            Err(NotOpened::Refused(response)) => return Err(response),
            Err(NotOpened::NoField) => {
                return Err(refuse(Code::GraphqlValidationFailed, "a subscription has one root field"));
            }
        };
        let mut feeds = self.feeds.lock();
        // somebody may have been faster; ours is dropped after the lock
        if let Some(other) = feeds.get(&key).and_then(Weak::upgrade).filter(|other| other.is_usable()) {
            drop(feeds);
            return Ok(other);
        }
        feeds.insert(key, Arc::downgrade(&feed));
        drop(feeds);
        self.heartbeats.add(&feed);
        Ok(feed)
    }

    /// The payload of the `error` that tells a subscriber why it has ended.
    pub fn errors_of(&self, ended: Ended) -> Bytes {
        match ended {
            Ended::Failed(errors) => errors,
            Ended::Expired => {
                let message = "the subscriber fell behind what is held for it; ask for the state and subscribe anew";
                errors_json(&self.gateway.refusal(Code::CursorExpired, message).errors)
            }
        }
    }

    /// Forgets a feed that has ended.
    fn forget(&self, feed: &Feed) {
        let mut feeds = self.feeds.lock();
        if feeds.get(feed.key()).is_some_and(|known| std::ptr::eq(known.as_ptr(), feed)) {
            feeds.remove(feed.key());
        }
    }
}
