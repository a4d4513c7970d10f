//! One distinct subscription.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use async_graphql::{Request, ServerError, Variables};
use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant;

use super::canonical::Canonical;
use super::execution::{Execution, NotOpened};
use super::payload::errors_json;
use super::runner;
use super::{Limits, Live};
use crate::domain::{Access, Cursor, Position};
use crate::events::{Hub, Inbox};

/// What makes two subscriptions the same; cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<Asked>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    subscription: Canonical,
    /// What is made use of; of a viewer there is nothing else in a feed.
    access: Access,
}

impl Key {
    pub fn new(subscription: Canonical, access: Access) -> Self {
        Self(Arc::new(Asked { subscription, access }))
    }

    /// The subscription, to be executed.
    pub fn request(&self) -> Request {
        let variables = serde_json::from_str(&self.0.subscription.variables).unwrap_or_default();
        Request::new(self.0.subscription.document.as_str()).variables(Variables::from_json(variables))
    }

    /// Under which it is executed.
    pub fn access(&self) -> &Access {
        &self.0.access
    }
}

/// The payload of a `next`, and the cursor of who has got it.
#[derive(Debug, Clone)]
pub struct Frame {
    pub cursor: Cursor,
    pub payload: Bytes,
}

/// A HEARTBEAT, as long as no later one replaces it.
#[derive(Debug, Clone)]
pub struct Beat {
    pub frame: Frame,
    /// Tells two at the same position apart.
    pub tick: u64,
}

/// What a feed's subscribers share.
pub struct State {
    /// Everything that matches above this and has been executed is in the ring.
    pub floor: Position,
    pub ring: VecDeque<Frame>,
    bytes: usize,
    pub beat: Option<Beat>,
    /// For each numbering of the log after the feed's first: the lowest position that it gave out anew.
    pub rewinds: Vec<Position>,
    pub wakers: Slab<Option<Waker>>,
    /// The payload of the `error` that ends every subscriber.
    pub failed: Option<Bytes>,
    pub active_at: Instant,
}

pub struct Feed {
    key: Key,
    inbox: Arc<Inbox>,
    pub state: Mutex<State>,
    /// Executions that are open and not in use; kept from one event to the next.
    executions: Mutex<Vec<Execution>>,
    running: Arc<AtomicBool>,
    live: Weak<Live>,
    hub: Arc<Hub>,
    limits: Limits,
}

impl Feed {
    /// Opens an execution, which says what is asked for, and begins at the hub's position. `None` while there is none.
    pub async fn open(live: &Arc<Live>, key: Key) -> Result<Option<Arc<Self>>, NotOpened> {
        let (execution, interest) = Execution::open(&live.gateway, key.request(), key.access()).await?;
        let running = Arc::new(AtomicBool::new(false));
        let feed = Arc::new_cyclic(|feed: &Weak<Self>| {
            let (me, is_running, lifecycle) = (feed.clone(), Arc::clone(&running), live.lifecycle.clone());
            let ring = move || {
                // only who starts the runner looks for the feed: dropped here, the last handle would come back to the hub
                if !is_running.swap(true, Ordering::AcqRel)
                    && let Some(feed) = me.upgrade()
                {
                    let hard = lifecycle.hard().clone();
                    lifecycle.spawn_connection("feed", async move {
                        hard.run_until_cancelled(runner::run(feed)).await;
                    });
                }
            };
            Self {
                key,
                inbox: Arc::new(Inbox::new(interest, live.limits.inbox, Box::new(ring))),
                state: Mutex::new(State {
                    floor: Position::default(),
                    ring: VecDeque::new(),
                    bytes: 0,
                    beat: None,
                    rewinds: Vec::new(),
                    wakers: Slab::new(),
                    failed: None,
                    active_at: Instant::now(),
                }),
                executions: Mutex::new(Vec::new()),
                running,
                live: Arc::downgrade(live),
                hub: Arc::clone(&live.hub),
                limits: live.limits,
            }
        });
        // an open execution is by far the largest part of a feed: most wait long for their first event
        drop(execution);
        let Some(now) = live.hub.register(&feed.inbox) else { return Ok(None) };
        let mut state = feed.state.lock();
        state.floor = state.floor.max(now.position);
        drop(state);
        Ok(Some(feed))
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn live(&self) -> Option<Arc<Live>> {
        self.live.upgrade()
    }

    /// Whether a new subscriber may begin here: it has not failed, and holds nothing from beyond the hub's head, as it does
    /// while it has not heard yet that positions are given out anew.
    pub fn is_usable(&self) -> bool {
        let head = self.hub.head().map(|head| head.position);
        let state = self.state.lock();
        state.failed.is_none() && state.ring.back().is_none_or(|last| Some(last.cursor.position) <= head)
    }

    /// The runner has nothing more to do. False: something came meanwhile, and it goes on.
    pub fn rest(&self, executions: Vec<Execution>) -> Result<(), Vec<Execution>> {
        *self.executions.lock() = executions;
        self.running.store(false, Ordering::Release);
        if self.inbox.is_idle() || self.running.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        Err(self.take_executions())
    }

    pub fn take_executions(&self) -> Vec<Execution> {
        std::mem::take(&mut *self.executions.lock())
    }

    /// Drops open executions of a feed that rests.
    pub fn forget_executions(&self) {
        self.executions.lock().clear();
    }

    /// Adds what has been executed, in order, and wakes the subscribers.
    pub fn publish(&self, results: impl IntoIterator<Item = (Frame, Option<u64>)>) {
        let mut state = self.state.lock();
        state.active_at = Instant::now();
        for (frame, tick) in results {
            if let Some(tick) = tick {
                state.beat = Some(Beat { frame, tick });
            } else {
                state.bytes += frame.payload.len();
                state.ring.push_back(frame);
            }
        }
        while state.ring.len() > self.limits.ring || (state.bytes > self.limits.ring_bytes && state.ring.len() > 1) {
            let Some(oldest) = state.ring.pop_front() else { break };
            state.bytes -= oldest.payload.len();
            state.floor = state.floor.max(oldest.cursor.position);
        }
        state.wake();
    }

    /// What waited was dropped: whoever is below `position` has to get it elsewhere.
    pub fn overflow(&self, position: Position) {
        let mut state = self.state.lock();
        state.floor = state.floor.max(position);
        state.ring.clear();
        state.bytes = 0;
        state.wake();
    }

    /// Positions from `rewound_to` on have been given out anew.
    pub fn rewind(&self, rewound_to: Position) {
        let mut state = self.state.lock();
        while state.ring.back().is_some_and(|last| last.cursor.position >= rewound_to) {
            let gone = state.ring.pop_back().map_or(0, |last| last.payload.len());
            state.bytes -= gone;
        }
        state.floor = state.floor.min(Position(rewound_to.0 - 1));
        state.beat = None;
        state.rewinds.push(rewound_to);
        state.wake();
    }

    /// Ends every subscriber with these errors, and takes no new ones.
    pub fn fail(&self, errors: &[ServerError]) {
        {
            let mut state = self.state.lock();
            state.failed = Some(errors_json(errors));
            state.ring = VecDeque::new();
            state.bytes = 0;
            state.wake();
        }
        if let Some(live) = self.live() {
            live.forget(self);
        }
    }
}

impl State {
    fn wake(&mut self) {
        for (_, waker) in &mut self.wakers {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.hub.unregister(&self.inbox);
        if let Some(live) = self.live() {
            live.forget(self);
        }
    }
}
