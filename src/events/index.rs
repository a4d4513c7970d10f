//! From what feeds ask for to the feeds: an event costs only those that may want it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::inbox::Inbox;
use crate::domain::{Change, Event, Filter, IncidentId, Interest, Position, Severity};

/// Where an inbox is looked for: by the narrowest of what its filter and its scope name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Incident(IncidentId),
    Severity(Severity),
    IncidentOf(String),
    AnyIncident,
    AlertOf(String),
    AnyAlert,
}

/// The inboxes of all feeds, by what their filters ask for.
#[derive(Debug, Default)]
pub(super) struct Index {
    buckets: HashMap<Key, Vec<Arc<Inbox>>>,
    /// Each once, however many keys it has.
    all: HashMap<usize, Arc<Inbox>>,
}

/// Tells one inbox from another while both live.
fn address(inbox: &Arc<Inbox>) -> usize {
    Arc::as_ptr(inbox).addr()
}

/// The keys of which an event that matches has at least one.
fn keys(interest: &Interest) -> Vec<Key> {
    let scope = interest.scope.sources();
    match &interest.filter {
        Filter::IncidentUpdates { incident_ids: Some(ids), .. } => ids.iter().copied().map(Key::Incident).collect(),
        Filter::StateChanges { incident_id: Some(id) } => vec![Key::Incident(*id)],
        Filter::Alerts { sources: Some(sources) } => {
            let visible = sources.iter().filter(|source| interest.scope.contains(source));
            visible.cloned().map(Key::AlertOf).collect()
        }
        Filter::Alerts { sources: None } => match scope {
            Some(sources) => sources.iter().cloned().map(Key::AlertOf).collect(),
            None => vec![Key::AnyAlert],
        },
        _ if let Some(sources) = scope => sources.iter().cloned().map(Key::IncidentOf).collect(),
        Filter::IncidentUpdates { severities: Some(severities), .. }
        | Filter::NewIncidents { severities: Some(severities) } => {
            severities.iter().copied().map(Key::Severity).collect()
        }
        Filter::CriticalIncidents => vec![Key::Severity(Severity::P0), Key::Severity(Severity::P1)],
        Filter::IncidentUpdates { .. } | Filter::NewIncidents { .. } | Filter::StateChanges { .. } => {
            vec![Key::AnyIncident]
        }
    }
}

impl Index {
    pub(super) fn insert(&mut self, inbox: &Arc<Inbox>) {
        self.all.insert(address(inbox), Arc::clone(inbox));
        for key in keys(inbox.interest()) {
            self.buckets.entry(key).or_default().push(Arc::clone(inbox));
        }
    }

    pub(super) fn remove(&mut self, inbox: &Arc<Inbox>) {
        self.all.remove(&address(inbox));
        for key in keys(inbox.interest()) {
            if let Entry::Occupied(mut bucket) = self.buckets.entry(key) {
                bucket.get_mut().retain(|other| !Arc::ptr_eq(other, inbox));
                if bucket.get().is_empty() {
                    bucket.remove();
                } else if bucket.get().capacity() > 4 * bucket.get().len() {
                    bucket.get_mut().shrink_to_fit();
                }
            }
        }
    }

    /// Puts an event into every inbox that asks for it, once.
    pub(super) fn dispatch(&self, event: &Arc<Event>) {
        match &event.change {
            Change::Incident(change) => {
                self.offer(&Key::Incident(change.incident.id), event);
                self.offer(&Key::Severity(change.incident.severity), event);
                if let Some(old) = change.old_severity.filter(|old| *old != change.incident.severity) {
                    self.offer(&Key::Severity(old), event);
                }
                self.offer(&Key::IncidentOf(change.incident.source.clone()), event);
                self.offer(&Key::AnyIncident, event);
            }
            Change::Alert(alert) => {
                self.offer(&Key::AlertOf(alert.source.clone()), event);
                self.offer(&Key::AnyAlert, event);
            }
            Change::Unreadable => {}
        }
    }

    /// Tells every inbox that positions have been given out anew.
    pub(super) fn rewind(&self, rewound_to: Position) {
        for inbox in self.all.values() {
            inbox.rewind(rewound_to);
        }
    }

    /// Tells every inbox that nothing up to here comes any more.
    pub(super) fn skip(&self, to: Position) {
        for inbox in self.all.values() {
            inbox.skip(to);
        }
    }

    fn offer(&self, key: &Key, event: &Arc<Event>) {
        for inbox in self.buckets.get(key).into_iter().flatten() {
            if inbox.interest().matches(event) {
                inbox.put(event);
            }
        }
    }
}
