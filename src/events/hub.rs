//! The tail of the log in memory, and who gets what is appended to it.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::inbox::Inbox;
use super::index::Index;
use super::tail::{FromTail, Head, Located, Numbering, Place, StretchBounds, Tail};
use crate::domain::{Cursor, Epochs, Event, Position};
use crate::telemetry::metric;

/// How much of the log is held in memory.
#[derive(Debug, Clone, Copy)]
pub struct TailBounds {
    pub events: usize,
    pub bytes: usize,
}

/// The tail of the log and the index of feeds. One task writes it, in order; any number read it by position.
///
/// What is appended is in the tail first, then in every inbox that it belongs in, and only then is it "now".
pub struct Hub {
    bounds: TailBounds,
    tail: RwLock<Tail>,
    /// Held from before a change of the tail until the head is published, so that who holds it sees the tail, all inboxes
    /// and the head agree: nothing falls between the place at which a feed begins and what its inbox gets.
    index: Mutex<Index>,
    /// The head up to which every inbox has got what it should: what "now" is to a new subscriber. Wakes readers.
    head: watch::Sender<Option<Head>>,
    /// When the database last said that nothing is after the head.
    confirmed: RwLock<Option<Instant>>,
}

impl Hub {
    pub fn new(bounds: TailBounds) -> Self {
        Self {
            bounds,
            tail: RwLock::default(),
            index: Mutex::default(),
            head: watch::Sender::new(None),
            confirmed: RwLock::new(None),
        }
    }

    /// How much of the log it holds at most.
    pub fn bounds(&self) -> TailBounds {
        self.bounds
    }

    /// The newest position that has been handed out; `None` until the log has been read for the first time.
    pub fn head(&self) -> Option<Cursor> {
        self.now().map(|head| head.cursor)
    }

    /// The same, with its numbering.
    pub fn now(&self) -> Option<Head> {
        *self.head.borrow()
    }

    /// Sees every change of the head.
    pub fn watch(&self) -> watch::Receiver<Option<Head>> {
        self.head.subscribe()
    }

    /// Whether the database has confirmed within `interval` that the head is the log's: one that is dead must not look
    /// healthy.
    pub fn confirmed_within(&self, interval: Duration) -> bool {
        self.confirmed.read().is_some_and(|at| at.elapsed() <= interval)
    }

    /// The same place in the same or a later numbering; `None`: its position has been given out anew since.
    pub fn carry(&self, place: Place, to: Numbering) -> Option<Place> {
        if place.numbering == to {
            return Some(place);
        }
        self.tail.read().carry(place, to)
    }

    /// Whether a place is one of the log as it is now: its position has not been given out anew.
    pub fn holds(&self, place: Place) -> bool {
        let tail = self.tail.read();
        tail.carry(place, tail.numbering()).is_some()
    }

    /// What is wanted of the tail after a place and up to `end`.
    pub fn stretch(
        &self,
        from: Place,
        end: Option<Position>,
        wanted: impl Fn(&Event) -> bool,
        bounds: StretchBounds,
    ) -> FromTail {
        self.tail.read().stretch(from, end, wanted, bounds)
    }

    /// What a client's cursor means here. `None` while nothing is known of the log.
    pub(super) fn locate(&self, cursor: Cursor) -> Option<Located> {
        self.tail.read().locate(cursor)
    }

    /// Begins at the log's head: what was before is not held.
    pub(crate) fn begin(&self, head: Cursor, epochs: Epochs) {
        let _index = self.index.lock();
        self.tail.write().begin(head, epochs);
        self.publish(head);
    }

    /// Appends a page; its first event is the one after the head.
    pub(crate) fn append(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        let index = self.index.lock();
        self.tail.write().append(events, self.bounds);
        for event in events {
            index.dispatch(event);
        }
        self.publish(last.cursor());
    }

    /// Goes on after `head`, because what is before it can no longer be read.
    pub(super) fn skip(&self, head: Cursor) {
        let index = self.index.lock();
        self.tail.write().skip(head);
        index.skip(head.position);
        self.publish(head);
    }

    /// Goes on after `head` in a new numbering, in which the positions from `rewound_to` on have been given out anew.
    pub(crate) fn rewind(&self, rewound_to: Position, head: Cursor, epochs: Epochs) {
        let index = self.index.lock();
        self.tail.write().rewind(rewound_to, head, epochs);
        index.rewind(rewound_to);
        if head.position >= rewound_to {
            index.skip(head.position);
        }
        self.publish(head);
    }

    /// Registers a feed's inbox; it gets every event after the place that is returned. `None` until the log has been read.
    pub fn register(&self, inbox: &Arc<Inbox>) -> Option<Place> {
        let mut index = self.index.lock();
        let now = self.now()?;
        index.insert(inbox);
        Some(now.place())
    }

    /// The counterpart of [`Hub::register`].
    pub fn unregister(&self, inbox: &Arc<Inbox>) {
        self.index.lock().remove(inbox);
    }

    /// Puts a HEARTBEAT of the head behind everything up to it.
    pub fn beat(&self, inbox: &Inbox) {
        // a head that was read without it might be rewound before the inbox has it
        let _index = self.index.lock();
        if let Some(head) = self.head() {
            inbox.put_heartbeat(head);
        }
    }

    /// The database has just said that the log ends where this hub does.
    pub(super) fn confirm(&self) {
        *self.confirmed.write() = Some(Instant::now());
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn publish(&self, head: Cursor) {
        gauge!(metric::HUB_POSITION).set(head.position.0 as f64);
        let numbering = self.tail.read().numbering();
        self.head.send_replace(Some(Head { cursor: head, numbering }));
    }
}
