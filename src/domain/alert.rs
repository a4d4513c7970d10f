//! Alerts: what sources send, as they sent it. What becomes of one is decided in the database, for any writer.

use std::collections::BTreeMap;

use super::Timestamp;
use super::ids::{AlertId, IncidentId};
use super::incident::{IncidentKind, Severity};
use super::input::{self, InvalidInput, JsonObject, limits};
use super::wire::wire_enum;

/// One submission of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub id: AlertId,
    pub external_id: Option<String>,
    pub source: String,
    pub title: String,
    pub description: String,
    pub severity: Severity,
    pub kind: IncidentKind,
    pub labels: JsonObject,
    pub annotations: JsonObject,
    pub affected_services: Vec<String>,
    pub runbook_url: Option<String>,
    pub firing: bool,
    pub received_at: Timestamp,
    pub deduplicated: bool,
    pub incident_id: Option<IncidentId>,
}

wire_enum! {
    /// What became of a submitted alert.
    AlertStatus {
        /// opened an incident
        Created = "CREATED",
        /// joined an open incident
        Deduplicated = "DEDUPLICATED",
        /// ended its incident
        Resolved = "RESOLVED",
        /// its externalId already fires there, or the end of what does not: stored, nothing else
        Ignored = "IGNORED",
    }
}

/// What makes an alert, checked.
#[derive(Debug, Clone)]
pub struct NewAlert {
    pub external_id: Option<String>,
    pub source: String,
    pub title: String,
    pub description: String,
    pub severity: Severity,
    pub kind: IncidentKind,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub affected_services: Vec<String>,
    pub runbook_url: Option<String>,
    pub firing: bool,
    pub fingerprint: Option<String>,
}

impl NewAlert {
    /// Checks texts and sizes against [`limits`].
    pub fn check(self) -> Result<Self, InvalidInput> {
        input::optional_text("externalId", self.external_id.as_deref(), limits::EXTERNAL_ID_CHARS)?;
        input::text("source", &self.source, limits::NAME_CHARS)?;
        input::text("title", &self.title, limits::TITLE_CHARS)?;
        input::text_bytes("description", &self.description, limits::TEXT_BYTES)?;
        input::label_size("labels", &self.labels)?;
        input::label_size("annotations", &self.annotations)?;
        input::text_list("affectedServices", &self.affected_services)?;
        input::optional_text("runbookUrl", self.runbook_url.as_deref(), limits::URL_CHARS)?;
        input::optional_text("fingerprint", self.fingerprint.as_deref(), limits::NAME_CHARS)?;
        Ok(self)
    }
}

/// A stored alert and what became of it.
#[derive(Debug, Clone)]
pub struct SubmittedAlert {
    pub alert_id: AlertId,
    pub incident_id: Option<IncidentId>,
    pub status: AlertStatus,
}

/// Which alerts a list holds; `None` is no filter, an empty list matches nothing.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    pub sources: Option<Vec<String>>,
    pub incident_id: Option<IncidentId>,
    pub firing: Option<bool>,
}
