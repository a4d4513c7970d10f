//! Events: one change of one row, as the log holds it.

use std::sync::Arc;

use super::Timestamp;
use super::alert::Alert;
use super::cursor::Cursor;
use super::ids::{EpochId, Position};
use super::incident::{Incident, IncidentState, Severity};
use super::wire::wire_enum;

wire_enum! {
    /// What a change of an incident was; the first that fits of RESOLVED, STATE_CHANGED, ASSIGNED, UPDATED.
    #[graphql(name = "IncidentUpdateType")]
    UpdateType {
        Created = "CREATED",
        Updated = "UPDATED",
        StateChanged = "STATE_CHANGED",
        Resolved = "RESOLVED",
        Assigned = "ASSIGNED",
        CommentAdded = "COMMENT_ADDED",
        /// Nothing happened, and the stream is alive.
        Heartbeat = "HEARTBEAT",
    }
}

/// One change of one row.
#[derive(Debug)]
pub struct Event {
    pub epoch: EpochId,
    pub position: Position,
    /// When it got its position.
    pub logged_at: Timestamp,
    /// When the change was made.
    pub at: Timestamp,
    /// Who made it: what the writer said of itself, else its database role.
    pub actor: String,
    pub change: Change,
}

/// What changed.
#[derive(Debug)]
pub enum Change {
    /// An incident was created or changed, or commented on.
    Incident(IncidentChange),
    /// An alert came in.
    Alert(Arc<Alert>),
    /// Something of which this release can read no more than that it was: nobody is told of it, and nobody waits for it.
    Unreadable,
}

/// A change of an incident.
#[derive(Debug)]
pub struct IncidentChange {
    pub update_type: UpdateType,
    /// As this change left it.
    pub incident: Arc<Incident>,
    /// Before the change; `None` where there was no before.
    pub old_severity: Option<Severity>,
    /// Before the change; `None` where there was no before.
    pub old_state: Option<IncidentState>,
    /// Names of the GraphQL fields that changed, but for `version` and `updatedAt`.
    pub changed_fields: Vec<String>,
}

impl Event {
    /// The cursor of a subscriber that has seen this event and all before it.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position, logged_at: self.logged_at }
    }

    /// Whose incident or alert it is about; no source's where that cannot be read.
    pub fn source(&self) -> &str {
        match &self.change {
            Change::Incident(change) => &change.incident.source,
            Change::Alert(alert) => &alert.source,
            Change::Unreadable => "",
        }
    }

    /// An estimate of the memory that this event holds, in bytes.
    pub fn size(&self) -> usize {
        const FIXED: usize = 1024;
        FIXED
            + match &self.change {
                Change::Incident(change) => {
                    let incident = &change.incident;
                    incident.title.len()
                        + incident.description.len()
                        + incident.source.len()
                        + incident.resolution.as_ref().map_or(0, String::len)
                        + incident.root_cause.as_ref().map_or(0, String::len)
                        + incident.affected_resources.iter().map(|text| text.len() + 24).sum::<usize>()
                        + json_size(&incident.labels)
                        + json_size(&incident.metadata)
                }
                Change::Alert(alert) => {
                    alert.title.len()
                        + alert.description.len()
                        + alert.source.len()
                        + alert.affected_services.iter().map(|text| text.len() + 24).sum::<usize>()
                        + json_size(&alert.labels)
                        + json_size(&alert.annotations)
                }
                Change::Unreadable => 0,
            }
    }
}

fn json_size(object: &super::JsonObject) -> usize {
    fn value_size(value: &serde_json::Value) -> usize {
        const NODE: usize = 32;
        NODE + match value {
            serde_json::Value::String(text) => text.len(),
            serde_json::Value::Array(items) => items.iter().map(value_size).sum(),
            serde_json::Value::Object(object) => json_size(object),
            _ => 0,
        }
    }
    object.iter().map(|(key, value)| 48 + key.len() + value_size(value)).sum()
}
