//! What waits for a feed's execution.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::slot::Delivery;
use crate::domain::{Cursor, Event, Interest, Position};

/// Wakes a feed. Called with no lock of ours held but the hub's: must not block, and must not come back.
pub type Ring = Box<dyn Fn() + Send + Sync>;

/// Events that a feed asks for and that have not been executed yet; bounded, and what does not fit is told and not lost.
pub struct Inbox {
    interest: Interest,
    bound: usize,
    ring: Ring,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// The last event that was put in: one that comes by several of the index's keys is put in once.
    last: Position,
    /// Something was taken and is being executed.
    busy: bool,
}

/// What a feed takes out of its inbox, in this order.
#[derive(Debug)]
pub enum Item {
    /// To be executed.
    Delivery(Delivery),
    /// Everything up to here has been dropped, and is before all that follows.
    Overflow(Position),
    /// The next numbering begins, which gives out positions from here on anew: what was delivered of them is void.
    Rewind(Position),
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("interest", &self.interest).finish_non_exhaustive()
    }
}

impl Inbox {
    /// `bound`: events that may wait.
    pub fn new(interest: Interest, bound: usize, ring: Ring) -> Self {
        Self { interest, bound, ring, queue: Mutex::default() }
    }

    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    pub(super) fn put(&self, event: &Arc<Event>) {
        {
            let mut queue = self.queue.lock();
            if event.position <= queue.last {
                return;
            }
            queue.last = event.position;
            if queue.items.len() >= self.bound {
                // a rewind stays: it is about what was delivered before
                queue.items.retain(|item| matches!(item, Item::Rewind(_)));
                queue.items.push_back(Item::Overflow(event.position));
            } else {
                queue.items.push_back(Item::Delivery(Delivery::Event(Arc::clone(event))));
            }
        }
        (self.ring)();
    }

    /// Puts a HEARTBEAT behind everything that came before it; not where something waits, which is a sign of life itself.
    pub(super) fn put_heartbeat(&self, cursor: Cursor) {
        {
            let mut queue = self.queue.lock();
            if queue.busy || !queue.items.is_empty() {
                return;
            }
            queue.items.push_back(Item::Delivery(Delivery::Heartbeat(cursor)));
        }
        (self.ring)();
    }

    /// Nothing up to here comes any more: it cannot be read.
    pub(super) fn skip(&self, to: Position) {
        self.queue.lock().items.push_back(Item::Overflow(to));
        (self.ring)();
    }

    /// Takes up to `limit` items. None: there is nothing, and nothing is being executed either.
    pub fn take(&self, limit: usize) -> Vec<Item> {
        let mut queue = self.queue.lock();
        let count = queue.items.len().min(limit);
        let items: Vec<Item> = queue.items.drain(..count).collect();
        queue.busy = count > 0;
        if queue.items.is_empty() {
            queue.items.shrink_to(4);
        }
        items
    }

    /// Whether nothing waits and nothing is being executed.
    pub fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        !queue.busy && queue.items.is_empty()
    }

    /// A new numbering has begun: those from `rewound_to` on will come again.
    pub(super) fn rewind(&self, rewound_to: Position) {
        {
            let mut queue = self.queue.lock();
            queue.last = queue.last.min(Position(rewound_to.0 - 1));
            queue.items.retain(|item| match item {
                Item::Delivery(delivery) => delivery.cursor().position < rewound_to,
                Item::Overflow(_) | Item::Rewind(_) => true,
            });
            queue.items.push_back(Item::Rewind(rewound_to));
        }
        (self.ring)();
    }
}
