//! One distinct subscription.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};

use async_graphql::{Request, ServerError, Variables};
use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::block::{Blocks, Wish};
use super::canonical::Canonical;
use super::execution::{Execution, NotOpened};
use super::payload::errors_json;
use super::{Limits, Live, replay, runner};
use crate::domain::{Access, Cursor, Position};
use crate::events::{Inbox, Numbering, Place};

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
///
/// Everything that matches in `(floor, …]` of its numbering, as far as the runner has come, is in the ring. Whoever is at the
/// floor or above takes from there, whoever is below replays (see [`super::block`]): so a bound that overflows raises the
/// floor, and nothing is lost.
pub struct State {
    pub floor: Position,
    pub ring: VecDeque<Frame>,
    bytes: usize,
    pub beat: Option<Beat>,
    ticks: u64,
    /// The numbering of the log that the runner has come to; a subscriber may know of a later one already.
    pub numbering: Numbering,
    wakers: Slab<Option<Waker>>,
    /// The payload of the `error` that ends every subscriber.
    pub failed: Option<Bytes>,
    pub active_at: Instant,
}

pub struct Feed {
    key: Key,
    inbox: Arc<Inbox>,
    pub state: Mutex<State>,
    pub blocks: Mutex<Blocks>,
    /// Executions that are open and not in use; kept from one event to the next.
    executions: Mutex<Vec<Execution>>,
    running: Arc<AtomicBool>,
    live: Arc<Live>,
}

impl Feed {
    /// Opens an execution, which says what is asked for, and begins at the hub's position. `None` while there is none.
    pub async fn open(live: &Arc<Live>, key: Key) -> Result<Option<Arc<Self>>, NotOpened> {
        let (execution, interest) = Execution::open(&live.gateway, key.request(), key.access()).await?;
        // an open execution is by far the largest part of a feed: most wait long for their first event
        drop(execution);
        let running = Arc::new(AtomicBool::new(false));
        let feed = Arc::new_cyclic(|feed: &Weak<Self>| {
            let (me, is_running, lifecycle) = (feed.clone(), Arc::clone(&running), live.lifecycle.clone());
            let home = Handle::current();
            let ring = move || {
                // only who starts the runner looks for the feed: dropped here, the last handle would come back to the hub
                if !is_running.swap(true, Ordering::AcqRel)
                    && let Some(feed) = me.upgrade()
                {
                    let hard = lifecycle.hard().clone();
                    // it runs among clients, whoever rings
                    let _entered = home.enter();
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
                    ticks: 0,
                    numbering: Numbering::default(),
                    wakers: Slab::new(),
                    failed: None,
                    active_at: Instant::now(),
                }),
                blocks: Mutex::default(),
                executions: Mutex::new(Vec::new()),
                running,
                live: Arc::clone(live),
            }
        });
        {
            // the runner waits until the place is known at which it begins
            let mut state = feed.state.lock();
            let Some(begin) = live.hub().register(&feed.inbox) else {
                drop(state);
                return Ok(None);
            };
            state.floor = begin.position;
            state.numbering = begin.numbering;
        }
        Ok(Some(feed))
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub fn limits(&self) -> &Limits {
        &self.live.limits
    }

    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Whether a new subscriber may begin here.
    pub fn is_usable(&self) -> bool {
        self.state.lock().failed.is_none()
    }

    /// The runner has nothing more to do. `Err`: something came meanwhile, and it goes on.
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
    pub fn publish(&self, frames: Vec<Frame>) {
        let limits = self.limits();
        let mut state = self.state.lock();
        state.active_at = Instant::now();
        for frame in frames {
            state.bytes += frame.payload.len();
            state.ring.push_back(frame);
        }
        while state.ring.len() > limits.ring || (state.bytes > limits.ring_bytes && state.ring.len() > 1) {
            let Some(oldest) = state.ring.pop_front() else { break };
            state.bytes -= oldest.payload.len();
            state.floor = state.floor.max(oldest.cursor.position);
        }
        state.wake();
    }

    /// Replaces the HEARTBEAT.
    pub fn publish_beat(&self, frame: Frame) {
        let mut state = self.state.lock();
        state.active_at = Instant::now();
        state.ticks += 1;
        state.beat = Some(Beat { frame, tick: state.ticks });
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

    /// The next numbering, in which positions from `rewound_to` on have been given out anew.
    pub fn rewind(&self, rewound_to: Position) {
        let mut state = self.state.lock();
        while let Some(gone) = state.ring.pop_back_if(|last| last.cursor.position >= rewound_to) {
            state.bytes -= gone.payload.len();
        }
        state.floor = state.floor.min(Position(rewound_to.0 - 1));
        state.beat = None;
        state.numbering = state.numbering.next();
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
        self.live.forget(self);
    }

    /// Wishes for a block of what comes after a place: the wish, and where it begins; see [`Blocks::wish`].
    pub fn wish(self: &Arc<Self>, place: Place, share: i64) -> (Wish, Position) {
        let (wish, is_filling) = {
            let mut blocks = self.blocks.lock();
            let wish = blocks.wish(place, share);
            (wish, std::mem::replace(&mut blocks.filling, true))
        };
        if !is_filling {
            let (feed, hard) = (Arc::clone(self), self.live.lifecycle.hard().clone());
            self.live.lifecycle.spawn_connection("replay", async move {
                hard.run_until_cancelled(replay::fill(feed)).await;
            });
        }
        wish
    }

    /// A slot for a subscriber's waker, and the tick of the HEARTBEAT before it came.
    pub fn join(&self) -> (usize, u64) {
        let mut state = self.state.lock();
        (state.wakers.insert(None), state.ticks)
    }

    pub fn leave(&self, slot: usize) {
        self.state.lock().wakers.try_remove(slot);
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

    /// Has a subscriber's task woken when anything changes.
    pub fn wake_later(&mut self, slot: usize, context: &Context<'_>) {
        let waker = &mut self.wakers[slot];
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.live.hub().unregister(&self.inbox);
        self.live.forget(self);
    }
}
