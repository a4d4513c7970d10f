//! Blocks: stretches of the log, executed for those who are below their feed's floor.
//!
//! A block is made once, whoever asks for it, by a task that nobody cancels; who goes away meanwhile wastes nothing for the
//! others. Who waits has its block from the wish itself, not from what is cached, so that an eviction keeps nobody from going
//! on: each block that a subscriber gets moves it on, because it begins at or below where the subscriber is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{Shared, WeakShared};
use metrics::gauge;
use parking_lot::Mutex;

use super::feed::{Feed, Frame};
use crate::domain::{Cursor, Position};
use crate::events::{Hub, Numbering, Place};
use crate::telemetry::metric;

/// What a block takes beside its frames' payloads: of each frame, and of itself.
const FRAME_BYTES: usize = size_of::<Frame>() + 32;
const BLOCK_BYTES: usize = 256;

/// What matches in `(from, upto]` of the log, executed.
pub struct Block {
    pub from: Position,
    pub upto: Cursor,
    pub numbering: Numbering,
    pub frames: Vec<Frame>,
    stamp: u64,
    bytes: usize,
    budget: Arc<Budget>,
}

impl Block {
    pub fn end(&self) -> Place {
        Place { position: self.upto.position, numbering: self.numbering }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut accounts = self.budget.accounts.lock();
        accounts.blocks.remove(&self.stamp);
        let bytes = accounts.bytes - self.bytes;
        accounts.set(bytes);
    }
}

/// The bytes of all blocks of all feeds, in one bound. A block counts until the last who has it lets it go.
pub struct Budget {
    bound: usize,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    bytes: usize,
    last_stamp: u64,
    /// Oldest first: whose it is, and where it begins.
    blocks: BTreeMap<u64, (Weak<Feed>, Position)>,
}

impl Accounts {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn set(&mut self, bytes: usize) {
        self.bytes = bytes;
        gauge!(metric::REPLAY_BYTES).set(bytes as f64);
    }
}

impl Budget {
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound, accounts: Mutex::default() })
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.accounts.lock().bytes
    }

    pub fn block(
        self: &Arc<Self>,
        feed: &Arc<Feed>,
        (from, upto): (Position, Cursor),
        numbering: Numbering,
        frames: Vec<Frame>,
    ) -> Arc<Block> {
        let bytes = BLOCK_BYTES + frames.iter().map(|frame| frame.payload.len() + FRAME_BYTES).sum::<usize>();
        let mut accounts = self.accounts.lock();
        let all = accounts.bytes + bytes;
        accounts.set(all);
        accounts.last_stamp += 1;
        let stamp = accounts.last_stamp;
        accounts.blocks.insert(stamp, (Arc::downgrade(feed), from));
        Arc::new(Block { from, upto, numbering, frames, stamp, bytes, budget: Arc::clone(self) })
    }

    /// Forgets the oldest blocks while there are more bytes than fit.
    pub fn evict(&self) {
        while let Some((stamp, feed, from)) = self.oldest_too_many() {
            // without the lock: the block comes back to it as it goes, and so may the feed
            if let Some(feed) = feed.upgrade() {
                let evicted = feed.blocks.lock().forget(from, stamp);
                drop(evicted);
            }
        }
    }

    fn oldest_too_many(&self) -> Option<(u64, Weak<Feed>, Position)> {
        let mut accounts = self.accounts.lock();
        if accounts.bytes <= self.bound {
            return None;
        }
        let (stamp, (feed, from)) = accounts.blocks.pop_first()?;
        Some((stamp, feed, from))
    }
}

/// What becomes of a wish.
#[derive(Clone)]
pub enum Outcome {
    Made(Arc<Block>),
    /// The log does not reach back so far, or has given those positions out anew.
    Expired,
    /// It could not be made: the payload of an `error`.
    Failed(Bytes),
}

/// A block that has been asked for; who waits for it has a clone.
pub type Wish = Shared<oneshot::Receiver<Outcome>>;

/// A wish, and how to fulfil it.
pub struct Wanted {
    pub from: Place,
    pub done: oneshot::Sender<Outcome>,
    number: u64,
}

/// Where a wish begins. One of an older numbering may come to another end.
type Start = (Numbering, Position);

/// A feed's blocks, and those that are wished for.
#[derive(Default)]
pub struct Blocks {
    /// By where they begin.
    made: BTreeMap<Position, Arc<Block>>,
    /// Those that are wanted and not made yet, with their numbers. One that nobody waits for any more is gone by itself.
    wishes: BTreeMap<Start, (u64, WeakShared<oneshot::Receiver<Outcome>>)>,
    /// In the order in which they were wished for.
    wanted: VecDeque<Wanted>,
    last_number: u64,
    /// A task is making what is wanted.
    pub filling: bool,
}

impl Blocks {
    /// The block that has what comes after a position, if it still holds.
    pub fn covering(&mut self, position: Position, hub: &Hub) -> Option<Arc<Block>> {
        let (from, block) = self.made.range(..=position).next_back()?;
        if block.upto.position <= position {
            return None;
        }
        let from = *from;
        if !hub.holds(block.end()) {
            self.made.remove(&from);
            return None;
        }
        self.made.get(&from).cloned()
    }

    /// Where the first block after a position begins: another one ends there.
    pub fn next_after(&self, position: Position) -> Option<Position> {
        self.made.range(position.next()..).next().map(|(from, _)| *from)
    }

    /// Wishes for what comes after a place: the wish, and where it begins. Somebody else's will do that begins no more than
    /// `share` positions before.
    pub fn wish(&mut self, place: Place, share: i64) -> (Wish, Position) {
        let start = (place.numbering, place.position);
        let lowest = (place.numbering, Position(place.position.0.saturating_sub(share)));
        if let Some(((_, from), (_, wish))) = self.wishes.range(lowest..=start).next_back()
            && let Some(wish) = wish.upgrade()
        {
            return (wish, *from);
        }
        let (done, wish) = oneshot::channel();
        let wish = wish.shared();
        self.last_number += 1;
        if let Some(weak) = wish.downgrade() {
            self.wishes.insert(start, (self.last_number, weak));
        }
        self.wanted.push_back(Wanted { from: place, done, number: self.last_number });
        (wish, place.position)
    }

    /// What is to be made next. `None`: nothing, and whoever wishes next has to start a task.
    pub fn next_wanted(&mut self) -> Option<Wanted> {
        while let Some(wanted) = self.wanted.pop_front() {
            if !wanted.done.is_canceled() {
                return Some(wanted);
            }
            self.close(&wanted);
        }
        self.filling = false;
        None
    }

    /// Nobody else may join this wish.
    pub fn close(&mut self, wanted: &Wanted) {
        let start = (wanted.from.numbering, wanted.from.position);
        // a later one from the same place, made when nobody waited for this one any more, stays
        if self.wishes.get(&start).is_some_and(|(number, _)| *number == wanted.number) {
            self.wishes.remove(&start);
        }
    }

    pub fn insert(&mut self, block: Arc<Block>) {
        self.made.insert(block.from, block);
    }

    #[cfg(test)]
    pub fn made(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.made.values()
    }

    fn forget(&mut self, from: Position, stamp: u64) -> Option<Arc<Block>> {
        if self.made.get(&from)?.stamp == stamp { self.made.remove(&from) } else { None }
    }
}
