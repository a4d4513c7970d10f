//! The tail of the log in memory, read by position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::inbox::Inbox;
use super::index::Index;
use crate::domain::{Cursor, Event, Position};
use crate::store::LogHead;
use crate::telemetry::metric;

/// How much of the log is held in memory.
#[derive(Debug, Clone, Copy)]
pub struct TailBounds {
    pub events: usize,
    pub bytes: usize,
}

/// A position that this hub cannot go on from: it is before what is held, or was given out anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream does not reach back to this position")]
pub struct Expired;

/// Where a reader of the hub is: everything up to its position has been read.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    position: Position,
    /// Which numbering of the log the position is of, counted since this hub began.
    generation: usize,
}

impl Place {
    pub fn position(&self) -> Position {
        self.position
    }

    /// Everything up to `position` has been read now.
    pub fn advance(&mut self, position: Position) {
        self.position = self.position.max(position);
    }
}

/// The tail of the log. One task writes it, in order; any number read it by position.
pub struct Hub {
    bounds: TailBounds,
    tail: RwLock<Tail>,
    /// Held while events are put into inboxes and while an inbox is registered, so that nothing falls between the position
    /// at which a feed begins and what its inbox gets.
    index: Mutex<Index>,
    /// The head up to which every inbox has got what it should: what "now" is to a new subscriber. Wakes readers: the head after the last change of any kind.
    head: watch::Sender<Option<Cursor>>,
    /// When the database last said that nothing is after the head.
    confirmed: RwLock<Option<Instant>>,
}

#[derive(Default)]
struct Tail {
    /// Every event after `floor`, positions without a gap.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    floor: Position,
    /// For each numbering of the log after the first that this hub met: the lowest position that it gave out anew.
    rewinds: Vec<Position>,
    head: Option<Cursor>,
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

    /// The head of what is held; `None` until the log has been read for the first time.
    pub fn head(&self) -> Option<Cursor> {
        *self.head.borrow()
    }

    /// Sees every change of the head.
    pub fn watch(&self) -> watch::Receiver<Option<Cursor>> {
        self.head.subscribe()
    }

    /// Whether the database has confirmed within `interval` that the head is the log's: one that is dead must not look
    /// healthy.
    pub fn confirmed_within(&self, interval: Duration) -> bool {
        self.confirmed.read().is_some_and(|at| at.elapsed() <= interval)
    }

    /// The place of a reader that begins now; `None` until the log has been read for the first time.
    pub fn now(&self) -> Option<Place> {
        let tail = self.tail.read();
        tail.head.map(|head| Place { position: head.position, generation: tail.rewinds.len() })
    }

    /// Up to `limit` events after a reader's place, which is moved by the reader itself.
    pub fn after(&self, place: &mut Place, limit: usize) -> Result<Vec<Arc<Event>>, Expired> {
        let tail = self.tail.read();
        // what later numberings gave out anew is not what the reader has seen
        let later = tail.rewinds.get(place.generation..).ok_or(Expired)?;
        if later.iter().any(|rewound_to| place.position >= *rewound_to) || place.position < tail.floor {
            return Err(Expired);
        }
        place.generation = tail.rewinds.len();
        let skip = usize::try_from(place.position.0 - tail.floor.0).map_err(|_| Expired)?;
        Ok(tail.events.range(skip.min(tail.events.len())..).take(limit).cloned().collect())
    }

    /// Begins at the log's head: what was before is not held.
    pub(super) fn begin(&self, head: LogHead) {
        let cursor = Cursor { epoch: head.epoch, position: head.position, logged_at: head.logged_at };
        {
            let mut tail = self.tail.write();
            *tail = Tail { floor: head.position, head: Some(cursor), ..Tail::default() };
        }
        self.publish(cursor);
    }

    /// Appends a page; its first event is the one after the head.
    pub(super) fn append(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        let cursor = last.cursor();
        let index = self.index.lock();
        {
            let mut tail = self.tail.write();
            for event in events {
                tail.bytes += event.size();
                tail.events.push_back(Arc::clone(event));
            }
            while tail.events.len() > self.bounds.events || tail.bytes > self.bounds.bytes {
                let Some(event) = tail.events.pop_front() else { break };
                tail.bytes -= event.size();
                tail.floor = event.position;
            }
            tail.head = Some(cursor);
        }
        for event in events {
            index.dispatch(event);
        }
        self.publish(cursor);
    }

    /// Registers a feed's inbox; it gets every event after the cursor that is returned. `None` until the log has been read.
    pub fn register(&self, inbox: &Arc<Inbox>) -> Option<Cursor> {
        let mut index = self.index.lock();
        let now = self.head()?;
        index.insert(inbox);
        Some(now)
    }

    /// The counterpart of [`Hub::register`].
    pub fn unregister(&self, inbox: &Arc<Inbox>) {
        self.index.lock().remove(inbox);
    }

    /// The last position that stays when those from `rewound_to` on have been given out anew.
    pub(super) fn kept_below(&self, rewound_to: Position) -> Position {
        let head = self.head().map_or(Position(0), |head| head.position);
        head.min(Position(rewound_to.0 - 1))
    }

    /// Goes on in a new numbering, in which the positions from `rewound_to` on have been given out anew. `head` is the
    /// place from which the log is read on: see [`Hub::kept_below`].
    pub(super) fn rewind(&self, rewound_to: Position, head: Cursor) {
        let index = self.index.lock();
        index.rewind(rewound_to);
        {
            let mut tail = self.tail.write();
            while tail.events.back().is_some_and(|event| event.position >= rewound_to) {
                let gone = tail.events.pop_back().map_or(0, |event| event.size());
                tail.bytes -= gone;
            }
            tail.floor = tail.floor.min(head.position);
            tail.rewinds.push(rewound_to);
            tail.head = Some(head);
        }
        self.publish(head);
    }

    /// The database has just said that the log ends where this hub does.
    pub(super) fn confirm(&self) {
        *self.confirmed.write() = Some(Instant::now());
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn publish(&self, head: Cursor) {
        gauge!(metric::HUB_POSITION).set(head.position.0 as f64);
        self.head.send_replace(Some(head));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Alert, AlertId, Change, EpochId, IncidentKind, Severity, Timestamp};
    use uuid::Uuid;

    const EPOCH: EpochId = EpochId(Uuid::from_u128(1));

    fn event(position: i64) -> Arc<Event> {
        let alert = Alert {
            id: AlertId(Uuid::nil()),
            external_id: None,
            source: "source".to_owned(),
            title: "title".to_owned(),
            description: String::new(),
            severity: Severity::P3,
            kind: IncidentKind::Unknown,
            labels: serde_json::Map::new(),
            annotations: serde_json::Map::new(),
            affected_services: Vec::new(),
            runbook_url: None,
            firing: true,
            received_at: Timestamp::UNIX_EPOCH,
            deduplicated: false,
            incident_id: None,
        };
        Arc::new(Event {
            epoch: EPOCH,
            position: Position(position),
            logged_at: Timestamp::UNIX_EPOCH,
            at: Timestamp::UNIX_EPOCH,
            actor: "somebody".to_owned(),
            change: Change::Alert(Arc::new(alert)),
        })
    }

    fn cursor(position: i64) -> Cursor {
        Cursor { epoch: EPOCH, position: Position(position), logged_at: Timestamp::UNIX_EPOCH }
    }

    fn hub(events: usize, begin: i64) -> Hub {
        let hub = Hub::new(TailBounds { events, bytes: usize::MAX });
        hub.begin(LogHead {
            epoch: EPOCH,
            position: Position(begin),
            logged_at: Timestamp::UNIX_EPOCH,
            rewound_to: None,
        });
        hub
    }

    fn positions(events: &[Arc<Event>]) -> Vec<i64> {
        events.iter().map(|event| event.position.0).collect()
    }

    #[test]
    fn a_reader_takes_what_is_after_its_place() {
        let hub = hub(10, 5);
        let mut place = hub.now().unwrap();
        hub.append(&(6..=9).map(event).collect::<Vec<_>>());
        assert_eq!(positions(&hub.after(&mut place, 2).unwrap()), [6, 7]);
        place.advance(Position(7));
        assert_eq!(positions(&hub.after(&mut place, 9).unwrap()), [8, 9]);
        place.advance(Position(9));
        assert!(hub.after(&mut place, 9).unwrap().is_empty());
    }

    #[test]
    fn a_reader_that_falls_off_the_tail_is_told() {
        let hub = hub(3, 0);
        let mut place = hub.now().unwrap();
        hub.append(&(1..=3).map(event).collect::<Vec<_>>());
        assert_eq!(hub.after(&mut place, 9).unwrap().len(), 3);
        hub.append(&[event(4)]);
        assert_eq!(hub.after(&mut place, 9).err(), Some(Expired));
    }

    #[test]
    fn a_tail_of_bytes_is_bounded_too() {
        let hub = Hub::new(TailBounds { events: usize::MAX, bytes: event(1).size() * 2 });
        hub.begin(LogHead { epoch: EPOCH, position: Position(0), logged_at: Timestamp::UNIX_EPOCH, rewound_to: None });
        let mut before_1 = hub.now().unwrap();
        hub.append(&(1..=3).map(event).collect::<Vec<_>>());
        assert_eq!(hub.after(&mut before_1, 9).err(), Some(Expired));
    }

    #[test]
    fn who_saw_positions_that_were_given_out_anew_is_told_and_nobody_else() {
        let hub = hub(10, 0);
        hub.append(&(1..=5).map(event).collect::<Vec<_>>());
        let mut saw_3 = hub.now().unwrap();
        saw_3.position = Position(3);
        let mut saw_5 = hub.now().unwrap();
        assert_eq!(hub.kept_below(Position(4)), Position(3));
        hub.rewind(Position(4), cursor(3));
        assert_eq!(hub.after(&mut saw_5, 9).err(), Some(Expired));
        hub.append(&(4..=6).map(event).collect::<Vec<_>>());
        assert_eq!(hub.after(&mut saw_5, 9).err(), Some(Expired), "the new 6 is not what came after the old 5");
        assert_eq!(positions(&hub.after(&mut saw_3, 9).unwrap()), [4, 5, 6]);
        saw_3.advance(Position(6));
        hub.append(&[event(7)]);
        assert_eq!(positions(&hub.after(&mut saw_3, 9).unwrap()), [7], "it has gone on to the new numbering");
    }

    #[test]
    fn a_new_epoch_that_lost_nothing_expires_nobody() {
        let hub = hub(10, 0);
        hub.append(&(1..=5).map(event).collect::<Vec<_>>());
        let mut place = hub.now().unwrap();
        assert_eq!(hub.kept_below(Position(6)), Position(5));
        hub.rewind(Position(6), cursor(5));
        hub.append(&[event(6)]);
        assert_eq!(positions(&hub.after(&mut place, 9).unwrap()), [6]);
    }
}
