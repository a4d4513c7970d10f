//! One subscriber of a feed: a position in the log.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use metrics::gauge;

use super::block::{Block, Outcome, Wish};
use super::feed::{Feed, Frame};
use super::turn::Turn;
use crate::domain::{Cursor, Position};
use crate::events::{Hub, Numbering, Place};
use crate::telemetry::metric;

/// Positions below one's own at which somebody else's block may begin, to be waited for instead of one of one's own.
const SHARE: i64 = 512;

/// A subscriber gets nothing more; the payload of the `error` that says why.
#[derive(Debug, Clone)]
pub struct Ended(pub Bytes);

/// Its client has got exactly what matches from where it began up to `at`, in the order of the log.
pub struct Subscriber {
    pub(super) feed: Arc<Feed>,
    at: Cursor,
    pub(super) numbering: Numbering,
    /// The position that the client knows of.
    told: Position,
    /// The last HEARTBEAT that was taken or passed over.
    tick: u64,
    slot: usize,
    waiting: Option<Waiting>,
    turn: Turn,
    /// Somebody else's block did not help: the next is to begin right here.
    alone: bool,
}

/// What has to come before anything is taken.
enum Waiting {
    /// A block, which begins there. It outlives a wait that is cut off.
    Block(Wish, Position),
    /// Its turn to take from this block.
    Turn(Arc<Block>),
    /// The words in which to say that this cannot be resumed.
    Farewell(BoxFuture<'static, Bytes>),
}

/// How much is taken at a time.
struct Room<'f> {
    limit: usize,
    bytes: usize,
    frames: &'f mut Vec<Frame>,
}

impl Room<'_> {
    /// Takes the frames that fit, one at least; the last that was taken, and whether all were.
    fn take<'a>(&mut self, frames: impl Iterator<Item = &'a Frame>) -> (Option<Cursor>, bool) {
        let (mut last, mut taken) = (None, 0);
        for (count, frame) in frames.enumerate() {
            if count == self.limit || (count > 0 && taken + frame.payload.len() > self.bytes) {
                return (last, false);
            }
            taken += frame.payload.len();
            last = Some(frame.cursor);
            self.frames.push(frame.clone());
        }
        (last, true)
    }
}

/// What the feed has for a subscriber.
enum Next {
    Taken,
    Nothing,
    /// It is below the floor.
    Below,
    Void,
    Failed(Bytes),
}

impl Subscriber {
    pub(super) fn new(feed: Arc<Feed>, at: Cursor, numbering: Numbering) -> Self {
        let (slot, tick) = feed.join();
        gauge!(metric::SUBSCRIPTIONS).increment(1);
        Self { feed, at, numbering, told: at.position, tick, slot, waiting: None, turn: Turn::None, alone: false }
    }

    fn hub(&self) -> &Arc<Hub> {
        self.feed.live().hub()
    }

    fn place(&self) -> Place {
        Place { position: self.at.position, numbering: self.numbering }
    }

    /// Up to where it has got everything.
    pub fn cursor(&self) -> Cursor {
        self.at
    }

    /// Takes what comes next, at most `limit` and `bytes`, in order. Call it when the socket can take more, never before; and
    /// after something was taken, call it again, or [`Self::rest`].
    pub fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        limit: usize,
        bytes: usize,
        frames: &mut Vec<Frame>,
    ) -> Poll<Result<(), Ended>> {
        let before = frames.len();
        let polled = self.poll(context, Room { limit, bytes, frames });
        if polled.is_pending() {
            self.turn.end();
        }
        let taken = frames.len() - before;
        if taken > 0 {
            self.told = self.at.position;
            self.feed.live().counts.deliveries.increment(taken as u64);
        }
        polled
    }

    fn poll(&mut self, context: &mut Context<'_>, mut room: Room<'_>) -> Poll<Result<(), Ended>> {
        let nothing_yet = room.frames.len();
        loop {
            match &mut self.waiting {
                Some(Waiting::Turn(block)) => {
                    ready!(self.turn.poll(&self.feed.live().turns, context));
                    let block = Arc::clone(block);
                    self.waiting = None;
                    self.take_block(&block, &mut room);
                }
                Some(Waiting::Farewell(words)) => return Poll::Ready(Err(Ended(ready!(words.as_mut().poll(context))))),
                Some(Waiting::Block(wish, from)) => {
                    let (outcome, from) = (ready!(wish.poll_unpin(context)), *from);
                    self.waiting = None;
                    match outcome {
                        Ok(Outcome::Made(block)) if block.from <= self.at.position => {
                            self.waiting = Some(Waiting::Turn(block));
                        }
                        // whose place has been overtaken by retention, or by a new numbering
                        Ok(Outcome::Made(_) | Outcome::Expired) if from == self.at.position => self.expire(),
                        Ok(Outcome::Made(_) | Outcome::Expired) => self.alone = true,
                        Ok(Outcome::Failed(errors)) => return Poll::Ready(Err(Ended(errors))),
                        // the service stops
                        Err(_) => return Poll::Pending,
                    }
                }
                None => match self.poll_feed(context, &mut room) {
                    Next::Taken => {}
                    Next::Nothing => return Poll::Pending,
                    Next::Failed(errors) => return Poll::Ready(Err(Ended(errors))),
                    Next::Void => self.expire(),
                    Next::Below => self.replay(),
                },
            }
            if room.frames.len() > nothing_yet {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_feed(&mut self, context: &Context<'_>, room: &mut Room<'_>) -> Next {
        let place = self.place();
        let Self { feed, at, numbering, tick, slot, .. } = self;
        let mut state = feed.state.lock();
        if let Some(errors) = &state.failed {
            return Next::Failed(errors.clone());
        }
        if *numbering > state.numbering {
            // the feed is about to hear of it
            state.wake_later(*slot, context);
            return Next::Nothing;
        }
        match feed.live().hub().carry(place, state.numbering) {
            Some(carried) => *numbering = carried.numbering,
            None => return Next::Void,
        }
        if at.position < state.floor {
            return Next::Below;
        }
        let from = state.ring.partition_point(|frame| frame.cursor.position <= at.position);
        if let (Some(last), _) = room.take(state.ring.range(from..)) {
            *at = last;
            return Next::Taken;
        }
        // nobody who is behind a HEARTBEAT gets it; here everything in the ring has been taken
        if let Some(beat) = state.beat.as_ref().filter(|beat| beat.tick > *tick) {
            *tick = beat.tick;
            if beat.frame.cursor.position >= at.position {
                *at = beat.frame.cursor;
                room.frames.push(beat.frame.clone());
                return Next::Taken;
            }
        }
        state.wake_later(*slot, context);
        Next::Nothing
    }

    /// Looks for a block that is there, or wishes for one.
    fn replay(&mut self) {
        let covering = self.feed.blocks.lock().covering(self.at.position, self.hub());
        self.waiting = Some(if let Some(block) = covering {
            Waiting::Turn(block)
        } else {
            let (wish, from) = self.feed.wish(self.place(), if self.alone { 0 } else { SHARE });
            Waiting::Block(wish, from)
        });
    }

    /// Takes from a block that begins here or below.
    fn take_block(&mut self, block: &Block, room: &mut Room<'_>) {
        let numbering = self.numbering.max(block.numbering);
        if self.hub().carry(self.place(), numbering).is_none() {
            return self.expire();
        }
        if block.upto.position <= self.at.position || !self.hub().holds(block.end()) {
            self.alone = true;
            return;
        }
        let from = block.frames.partition_point(|frame| frame.cursor.position <= self.at.position);
        match room.take(block.frames[from..].iter()) {
            (_, true) => self.at = block.upto,
            (Some(last), false) => self.at = last,
            (None, false) => {}
        }
        self.numbering = numbering;
        self.alone = false;
    }

    fn expire(&mut self) {
        let live = Arc::clone(self.feed.live());
        self.waiting = Some(Waiting::Farewell(Box::pin(async move { live.expired_json().await })));
    }

    /// Its client takes nothing for now: others get its turn, and it keeps no block from being evicted.
    pub fn rest(&mut self) {
        self.turn = Turn::None;
        self.waiting.take_if(|waiting| matches!(waiting, Waiting::Turn(_)));
    }

    /// The cursor up to which this subscriber has got everything, if that is further than what its client knows of.
    pub fn bookmark(&mut self) -> Option<Cursor> {
        self.settle();
        if self.at.position <= self.told {
            return None;
        }
        self.told = self.at.position;
        Some(self.at)
    }

    /// Moves on one who has got everything that has been handed out, though nothing of the last matched.
    fn settle(&mut self) {
        // before the inbox is looked at: everything up to here has been put into it
        let Some(head) = self.hub().now() else { return };
        if !self.feed.inbox().is_idle() {
            return;
        }
        let state = self.feed.state.lock();
        let caught_up = self.waiting.is_none()
            && state.failed.is_none()
            && self.numbering == state.numbering
            && head.numbering == state.numbering
            && self.at.position >= state.floor
            && state.ring.back().is_none_or(|last| last.cursor.position <= self.at.position);
        if caught_up && head.cursor.position > self.at.position {
            self.at = head.cursor;
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.feed.leave(self.slot);
        gauge!(metric::SUBSCRIPTIONS).decrement(1);
    }
}
