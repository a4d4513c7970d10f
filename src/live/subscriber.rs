//! One subscriber of a feed: a position in the log.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use metrics::gauge;

use super::feed::{Feed, Frame};
use crate::domain::{Cursor, Position};
use crate::events::Hub;
use crate::telemetry::metric;

/// Why a subscriber gets nothing more.
#[derive(Debug, Clone)]
pub enum Ended {
    /// What comes next is no longer held.
    Expired,
    /// The feed has failed; the payload of an `error`.
    Failed(Bytes),
}

pub struct Subscriber {
    feed: Arc<Feed>,
    hub: Arc<Hub>,
    position: Position,
    /// The position that the client knows of.
    told: Position,
    /// How many of the feed's rewinds this subscriber has lived through.
    generation: usize,
    tick: u64,
    slot: usize,
}

impl Subscriber {
    /// Begins at what the hub has handed out.
    pub(super) fn new(feed: Arc<Feed>, hub: &Arc<Hub>) -> Self {
        let (position, generation, tick, slot) = {
            let mut state = feed.state.lock();
            let now = hub.head().map_or(state.floor, |head| head.position).max(state.floor);
            let tick = state.beat.as_ref().map_or(0, |beat| beat.tick);
            (now, state.rewinds.len(), tick, state.wakers.insert(None))
        };
        gauge!(metric::SUBSCRIPTIONS).increment(1);
        Self { feed, hub: Arc::clone(hub), position, told: position, generation, tick, slot }
    }

    /// Takes what comes next, at most `limit` and `bytes`, in order. Call it when the socket can take more, never before.
    pub fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        limit: usize,
        bytes: usize,
        frames: &mut Vec<Frame>,
    ) -> Poll<Result<(), Ended>> {
        let mut state = self.feed.state.lock();
        if let Some(errors) = &state.failed {
            return Poll::Ready(Err(Ended::Failed(errors.clone())));
        }
        if state.rewinds[self.generation..].iter().any(|rewound_to| self.position >= *rewound_to)
            || self.position < state.floor
        {
            return Poll::Ready(Err(Ended::Expired));
        }
        self.generation = state.rewinds.len();
        let from = state.ring.partition_point(|frame| frame.cursor.position <= self.position);
        let mut taken = 0;
        for frame in state.ring.range(from..).take(limit) {
            if taken > 0 && taken + frame.payload.len() > bytes {
                break;
            }
            taken += frame.payload.len();
            self.position = frame.cursor.position;
            frames.push(frame.clone());
        }
        if taken > 0 {
            self.told = self.position;
            return Poll::Ready(Ok(()));
        }
        // nobody who is behind a HEARTBEAT gets it; here everything in the ring has been taken
        if let Some(beat) = state.beat.as_ref().filter(|beat| beat.tick > self.tick) {
            self.tick = beat.tick;
            if beat.frame.cursor.position >= self.position {
                self.position = beat.frame.cursor.position;
                self.told = self.position;
                frames.push(beat.frame.clone());
                return Poll::Ready(Ok(()));
            }
        }
        let waker = &mut state.wakers[self.slot];
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The cursor up to which this subscriber has got everything, if that is further than what its client knows of.
    pub fn bookmark(&mut self) -> Option<Cursor> {
        // before the inbox is looked at: everything up to here has been put into it
        let head = self.hub.head()?;
        if !self.feed.inbox().is_idle() {
            return None;
        }
        let state = self.feed.state.lock();
        let caught_up = self.position >= state.floor
            && self.generation == state.rewinds.len()
            && state.failed.is_none()
            && state.ring.back().is_none_or(|last| last.cursor.position <= self.position);
        if !caught_up || head.position <= self.told {
            return None;
        }
        self.position = self.position.max(head.position);
        self.told = head.position;
        Some(head)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.feed.state.lock().wakers.try_remove(self.slot);
        gauge!(metric::SUBSCRIPTIONS).decrement(1);
    }
}
