//! Pure types and rules: what an incident, an alert and an event are, which events a subscription asks for, what a cursor
//! means. No async, no SQL, no clock.

mod access;
mod alert;
mod api_key;
mod comment;
mod cursor;
mod event;
mod filter;
mod ids;
mod incident;
mod input;
mod interest;
mod page;
mod playbook;
mod relation;
mod timeline;
mod wire;

pub use access::{Access, Forbidden, Permission, Permissions, Role, Scope};
pub use alert::{Alert, AlertFilter, AlertStatus, NewAlert, SubmittedAlert};
pub use api_key::{ApiKey, NewApiKey};
pub use comment::{Comment, NewComment};
pub use cursor::{Cursor, CursorError, Epoch, Epochs, StreamPosition, UnknownEpoch};
pub use event::{Change, Event, IncidentChange, UpdateType};
pub use filter::Filter;
pub use ids::{AlertId, ApiKeyId, CommentId, EpochId, IncidentId, PlaybookId, Position};
pub use incident::{
    Assignment, Incident, IncidentFilter, IncidentKind, IncidentOrder, IncidentPatch, IncidentState, NewIncident,
    Resolution, Severity,
};
pub use input::{
    InvalidInput, JsonObject, instant, limits, object, optional_text, string_map, text, text_bytes, text_list,
};
pub use interest::Interest;
pub use page::{Detail, Keyset, ListTag, NestedPage, Page, PageError, PageRequest, Seek};
pub use playbook::{NewPlaybook, Playbook, PlaybookStep};
pub use relation::{Candidate, IncidentPair, Neighbour, RelatedIncident, RelationReason, relate};
pub use timeline::TimelineEntry;
pub use wire::UnknownName;

/// An instant in UTC; the database keeps microseconds.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
