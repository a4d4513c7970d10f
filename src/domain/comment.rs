//! Comments on incidents; once made they do not change.

use super::Timestamp;
use super::ids::{CommentId, IncidentId};
use super::incident::Severity;
use super::input::{self, InvalidInput, limits};
use super::page::{Keyset, ListTag};

/// What somebody said of an incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Comment {
    pub id: CommentId,
    pub incident_id: IncidentId,
    pub author: String,
    pub body: String,
    pub created_at: Timestamp,
}

impl Comment {
    /// Where it stands among the comments of its incident.
    pub fn key(&self) -> Keyset {
        Keyset { tag: ListTag::Comments, severity: Severity::P0, at: self.created_at, id: self.id.0 }
    }
}

/// What makes a comment, checked; its author is the actor of the transaction.
#[derive(Debug, Clone)]
pub struct NewComment {
    pub incident_id: IncidentId,
    pub body: String,
}

impl NewComment {
    /// Checks the text against [`limits`].
    pub fn check(self) -> Result<Self, InvalidInput> {
        if self.body.is_empty() {
            return Err(InvalidInput::new("body", "must not be empty"));
        }
        input::text_bytes("body", &self.body, limits::TEXT_BYTES)?;
        Ok(self)
    }
}
