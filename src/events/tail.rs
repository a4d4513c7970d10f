//! The tail of the log, and the numberings of its positions that this process has met.

use std::collections::VecDeque;
use std::sync::Arc;

use super::hub::TailBounds;
use crate::domain::{Cursor, Epochs, Event, Position};

/// A numbering of the log's positions, counted since this process began to read it. The next one begins when positions have
/// been given out anew; what is before the lowest of those is the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Numbering(usize);

impl Numbering {
    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A position and the numbering that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub position: Position,
    pub numbering: Numbering,
}

/// The end of what is held or handed out.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub cursor: Cursor,
    pub numbering: Numbering,
}

impl Head {
    pub fn place(&self) -> Place {
        Place { position: self.cursor.position, numbering: self.numbering }
    }
}

/// What was asked for of `(from, upto]` of the log.
#[derive(Debug)]
pub struct Stretch {
    pub from: Position,
    pub events: Vec<Arc<Event>>,
    pub upto: Cursor,
    pub numbering: Numbering,
}

/// How much of the tail one stretch may be.
#[derive(Debug, Clone, Copy)]
pub struct StretchBounds {
    /// Events that are looked at.
    pub scan: usize,
    /// Events that are asked for.
    pub matches: usize,
}

/// What the tail has of a stretch.
#[derive(Debug)]
pub enum FromTail {
    Here(Stretch),
    /// It begins before the tail, which ends here.
    Below(Head),
    /// Nothing yet.
    NotYet,
    /// Its beginning was given out anew.
    Void,
}

/// What the tail knows of a client's cursor.
#[derive(Debug)]
pub enum Located {
    At(Place),
    /// It may be that another replica is ahead of this one, or that the log has lost its end.
    Ahead(Place),
    /// It may be of an epoch that this process has not heard of yet.
    UnknownEpoch,
    /// What it says was seen has been given out anew.
    Void,
}

#[derive(Default)]
pub(super) struct Tail {
    /// Every event after `floor`, positions without a gap.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    floor: Position,
    /// For each numbering but the first: the lowest position that it gave out anew.
    rewinds: Vec<Position>,
    /// Of the log as it was when this numbering began.
    epochs: Epochs,
    head: Option<Cursor>,
}

impl Tail {
    /// Goes on at the log's `head`, of which nothing is held.
    pub(super) fn begin(&mut self, head: Cursor, epochs: Epochs) {
        self.epochs = epochs;
        self.skip(head);
    }

    pub(super) fn skip(&mut self, head: Cursor) {
        self.events.clear();
        self.bytes = 0;
        self.floor = head.position;
        self.head = Some(head);
    }

    pub(super) fn append(&mut self, events: &[Arc<Event>], bounds: TailBounds) {
        for event in events {
            self.bytes += event.size();
            self.events.push_back(Arc::clone(event));
            self.head = Some(event.cursor());
        }
        while self.events.len() > bounds.events || self.bytes > bounds.bytes {
            let Some(event) = self.events.pop_front() else { break };
            self.bytes -= event.size();
            self.floor = event.position;
        }
    }

    /// Begins a numbering that gives out positions from `rewound_to` on anew, and goes on after `head`.
    pub(super) fn rewind(&mut self, rewound_to: Position, head: Cursor, epochs: Epochs) {
        while let Some(event) = self.events.pop_back_if(|event| event.position >= rewound_to) {
            self.bytes -= event.size();
        }
        self.rewinds.push(rewound_to);
        self.epochs = epochs;
        let end = self.events.back().map_or(self.floor, |event| event.position);
        if end == head.position {
            self.head = Some(head);
        } else {
            self.skip(head);
        }
    }

    pub(super) fn numbering(&self) -> Numbering {
        Numbering(self.rewinds.len())
    }

    /// The same place in the same or a later numbering; `None`: its position has been given out anew since.
    pub(super) fn carry(&self, place: Place, to: Numbering) -> Option<Place> {
        let since = self.rewinds.get(place.numbering.0..to.0)?;
        since.iter().all(|rewound_to| place.position < *rewound_to).then_some(Place { numbering: to, ..place })
    }

    /// What is wanted after a place and up to `end`.
    pub(super) fn stretch(
        &self,
        from: Place,
        end: Option<Position>,
        wanted: impl Fn(&Event) -> bool,
        bounds: StretchBounds,
    ) -> FromTail {
        let Some(head) = self.head else { return FromTail::NotYet };
        let Some(Place { position: from, numbering }) = self.carry(from, self.numbering()) else {
            return FromTail::Void;
        };
        if from < self.floor {
            return FromTail::Below(Head { cursor: head, numbering });
        }
        let end = end.unwrap_or(head.position).min(head.position);
        let mut stretch = Stretch { from, events: Vec::new(), upto: head, numbering };
        let mut looked_at = None;
        for event in self.events.range(self.after(from)..).take(bounds.scan) {
            if event.position > end || stretch.events.len() == bounds.matches {
                break;
            }
            looked_at = Some(event);
            if wanted(event) {
                stretch.events.push(Arc::clone(event));
            }
        }
        match looked_at {
            Some(last) => {
                stretch.upto = last.cursor();
                FromTail::Here(stretch)
            }
            None => FromTail::NotYet,
        }
    }

    /// Where the first event after a position is, which is not below the floor.
    fn after(&self, position: Position) -> usize {
        let skipped = usize::try_from(position.0 - self.floor.0).unwrap_or(0);
        skipped.min(self.events.len())
    }

    /// What a client's cursor means here. `None` while nothing is known of the log.
    pub(super) fn locate(&self, cursor: Cursor) -> Option<Located> {
        let head = self.head?;
        let place = Place { position: cursor.position, numbering: self.numbering() };
        Some(match self.epochs.void_from(cursor.epoch) {
            Err(_) => Located::UnknownEpoch,
            Ok(Some(void_from)) if cursor.position >= void_from => Located::Void,
            Ok(_) if cursor.position > head.position => Located::Ahead(place),
            Ok(_) if self.tells_apart(cursor) => Located::Void,
            Ok(_) => Located::At(place),
        })
    }

    /// Whether a position was given out at another time than the cursor says: anew, without an epoch that says so, as where
    /// the server's timeline cannot be seen.
    fn tells_apart(&self, cursor: Cursor) -> bool {
        if cursor.position <= self.floor || cursor.logged_at == Cursor::UNKNOWN_TIME {
            return false;
        }
        let at = self.after(cursor.position) - 1;
        self.events.get(at).is_some_and(|event| event.logged_at != cursor.logged_at)
    }
}

#[cfg(test)]
mod tests;
