//! The audit trail of an incident.

use super::event::UpdateType;
use super::{Position, Timestamp};

/// One entry: what changed, by whom, when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// Of its event.
    pub position: Position,
    pub update_type: UpdateType,
    pub actor: String,
    pub summary: String,
    /// GraphQL names.
    pub changed_fields: Vec<String>,
    pub at: Timestamp,
}
