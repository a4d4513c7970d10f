//! Which incidents belong together.

use super::IncidentId;
use super::incident::Incident;
use super::input::InvalidInput;
use super::wire::wire_enum;

wire_enum! {
    /// Why an incident is related to another.
    RelationReason {
        /// somebody linked them
        Linked = "LINKED",
        /// one was merged into the other
        Merged = "MERGED",
        /// the same fingerprint, or an affected resource in common at nearly the same time
        Correlated = "CORRELATED",
    }
}

/// An incident, as another is related to it.
#[derive(Debug, Clone, PartialEq)]
pub struct RelatedIncident {
    pub incident: Incident,
    pub reason: RelationReason,
    /// 1 where it is certain.
    pub score: f64,
}

/// Two incidents, the lower id first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncidentPair {
    low: IncidentId,
    high: IncidentId,
}

impl IncidentPair {
    /// An incident is no pair with itself.
    pub fn new(a: IncidentId, b: IncidentId) -> Result<Self, InvalidInput> {
        if a == b {
            return Err(InvalidInput::new("b", "must be another incident than a"));
        }
        Ok(Self { low: a.min(b), high: a.max(b) })
    }

    pub const fn low(self) -> IncidentId {
        self.low
    }

    pub const fn high(self) -> IncidentId {
        self.high
    }
}
