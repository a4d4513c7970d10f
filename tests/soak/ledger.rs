//! What one client has heard, checked as it comes: nothing twice, nothing out of order; and at the end, nothing left out.

use std::collections::HashMap;

use incident_manager::domain::Cursor;
use uuid::Uuid;

/// The events that a sort of client is to hear: an incident and its version, or an alert and the number 1; where each is.
#[derive(Default)]
pub struct Log {
    /// What was before this position has been dropped.
    from: i64,
    events: HashMap<(Uuid, i32), i64>,
}

impl Log {
    pub fn new(from: i64, rows: Vec<(i64, Uuid, i32)>) -> Self {
        Self { from, events: rows.into_iter().map(|(position, id, version)| ((id, version), position)).collect() }
    }
}

/// One client's record.
#[derive(Default)]
pub struct Ledger {
    /// The versions of each incident, ascending.
    heard: HashMap<Uuid, Vec<i32>>,
    /// Where to go on from.
    cursor: Option<Cursor>,
    /// The position after which the record begins: of the first cursor, or where an expired one made it begin anew.
    began: i64,
    pub delivered: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// How often the client was told that it cannot go on from its cursor.
    pub expired: u64,
    /// What the protocol or the contract does not allow.
    pub breaches: Vec<String>,
}

impl Ledger {
    /// An event has come.
    pub fn hear(&mut self, id: Uuid, version: i32, cursor: Cursor) {
        self.delivered += 1;
        let versions = self.heard.entry(id).or_default();
        match versions.binary_search(&version) {
            Ok(_) => self.doubled += 1,
            Err(at) => {
                if at < versions.len() || !self.cursor.is_none_or(|last| goes_on(last, cursor, 1)) {
                    self.reordered += 1;
                }
                versions.insert(at, version);
            }
        }
        self.cursor = Some(cursor);
    }

    /// A cursor has come without an event. It may not go back.
    pub fn move_on(&mut self, cursor: Cursor) {
        match self.cursor {
            None => self.began = cursor.position.0,
            Some(last) if !goes_on(last, cursor, 0) => {
                self.breach(format!("the cursor went back: {cursor:?} after {last:?}"));
            }
            Some(_) => {}
        }
        self.cursor = Some(cursor);
    }

    /// Begins anew, after what the service says is the oldest that it can resume from.
    pub fn begin_again(&mut self, oldest: Cursor) {
        self.expired += 1;
        self.heard.clear();
        self.began = oldest.position.0;
        self.cursor = Some(oldest);
    }

    pub fn has_heard(&self, id: Uuid) -> bool {
        self.heard.contains_key(&id)
    }

    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    pub fn breach(&mut self, what: String) {
        // one that is repeated at every attempt says no more
        if self.breaches.len() < 5 {
            self.breaches.push(what);
        }
    }

    /// Where it stands, for people.
    pub fn summary(&self) -> String {
        let Self { delivered, expired, cursor, breaches, .. } = self;
        let position = cursor.map(|cursor| (cursor.epoch, cursor.position.0));
        format!("{delivered} delivered, {expired} times expired, at {position:?}, {breaches:?}")
    }

    /// Events that have not been heard.
    pub fn lost<'a>(&'a self, log: &'a Log) -> impl Iterator<Item = (Uuid, i32)> + 'a {
        let due = log.events.iter().filter(|(_, position)| **position > self.began).map(|(event, _)| *event);
        due.filter(|(id, version)| self.heard.get(id).is_none_or(|heard| heard.binary_search(version).is_err()))
    }

    /// Events that have been heard and are none; of what the log has dropped nobody knows any more.
    pub fn invented<'a>(&'a self, log: &'a Log) -> impl Iterator<Item = (Uuid, i32)> + 'a {
        let heard = self.heard.iter().flat_map(|(id, versions)| versions.iter().map(|version| (*id, *version)));
        let whole = log.from == 1;
        heard.filter(move |event| whole && log.events.get(event).is_none_or(|position| *position <= self.began))
    }

    /// Different events that have been heard.
    pub fn distinct(&self) -> usize {
        self.heard.values().map(Vec::len).sum()
    }
}

/// Whether a cursor is at least so far after another of the same epoch; of two epochs nothing is said.
fn goes_on(last: Cursor, next: Cursor, by: i64) -> bool {
    last.epoch != next.epoch || next.position.0 >= last.position.0 + by
}
