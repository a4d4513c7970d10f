//! Incidents: what they are, how one is made and changed. Which state may follow which is the database's to hold
//! (`incident_rules` in `migrations/`), because direct writers are held to it too.

use std::collections::BTreeMap;

use super::Timestamp;
use super::ids::IncidentId;
use super::input::{self, InvalidInput, JsonObject, limits};
use super::page::{Keyset, ListTag};
use super::wire::wire_enum;

wire_enum! {
    /// How bad it is; P0 is the worst.
    Severity { P0 = "P0", P1 = "P1", P2 = "P2", P3 = "P3", P4 = "P4" }
}

impl Severity {
    /// P0 and P1 are what `criticalIncidents` is about.
    pub const fn is_critical(self) -> bool {
        matches!(self, Self::P0 | Self::P1)
    }
}

wire_enum! {
    /// The first four are active. A new incident is DETECTED.
    IncidentState {
        Detected = "DETECTED",
        Triaged = "TRIAGED",
        Investigating = "INVESTIGATING",
        Remediating = "REMEDIATING",
        Resolved = "RESOLVED",
        Closed = "CLOSED",
    }
}

impl IncidentState {
    /// Whether somebody still has to do something about it.
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::Resolved | Self::Closed)
    }
}

wire_enum! {
    /// What kind of incident, or of alert.
    #[graphql(name = "IncidentType")]
    IncidentKind {
        Infrastructure = "INFRASTRUCTURE",
        Application = "APPLICATION",
        Availability = "AVAILABILITY",
        Performance = "PERFORMANCE",
        Security = "SECURITY",
        Data = "DATA",
        Compliance = "COMPLIANCE",
        Cost = "COST",
        /// LLM kinds
        ModelDrift = "MODEL_DRIFT",
        ModelQuality = "MODEL_QUALITY",
        PromptInjection = "PROMPT_INJECTION",
        ContentSafety = "CONTENT_SAFETY",
        Unknown = "UNKNOWN",
    }
}

wire_enum! {
    /// The order of a list of incidents; ties are broken by id.
    IncidentOrder {
        CreatedAtAsc = "CREATED_AT_ASC",
        CreatedAtDesc = "CREATED_AT_DESC",
        UpdatedAtDesc = "UPDATED_AT_DESC",
        /// P0 first, within a severity the newest first
        SeverityThenCreatedAt = "SEVERITY_THEN_CREATED_AT",
    }
}

/// An incident as it is, or as a change left it.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    pub id: IncidentId,
    pub title: String,
    pub description: String,
    pub severity: Severity,
    pub state: IncidentState,
    pub kind: IncidentKind,
    pub source: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub acknowledged_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub assigned_to: Option<String>,
    pub affected_resources: Vec<String>,
    pub labels: JsonObject,
    pub metadata: JsonObject,
    pub resolution: Option<String>,
    pub root_cause: Option<String>,
    pub fingerprint: Option<String>,
    pub version: i32,
}

impl Incident {
    /// Where it stands in a list of incidents.
    pub fn key(&self, tag: ListTag) -> Keyset {
        use IncidentOrder::{SeverityThenCreatedAt, UpdatedAtDesc};
        Keyset {
            tag,
            severity: if tag == ListTag::Incidents(SeverityThenCreatedAt) { self.severity } else { Severity::P0 },
            at: if tag == ListTag::Incidents(UpdatedAtDesc) { self.updated_at } else { self.created_at },
            id: self.id.0,
        }
    }
}

/// What makes an incident, checked.
#[derive(Debug, Clone)]
pub struct NewIncident {
    pub title: String,
    pub description: String,
    pub severity: Severity,
    pub kind: IncidentKind,
    pub source: String,
    pub affected_resources: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub metadata: JsonObject,
    pub assigned_to: Option<String>,
    pub fingerprint: Option<String>,
}

impl NewIncident {
    /// Checks texts and sizes against [`limits`].
    pub fn check(self) -> Result<Self, InvalidInput> {
        input::text("title", &self.title, limits::TITLE_CHARS)?;
        input::text_bytes("description", &self.description, limits::TEXT_BYTES)?;
        input::text("source", &self.source, limits::NAME_CHARS)?;
        input::text_list("affectedResources", &self.affected_resources)?;
        input::label_size("labels", &self.labels)?;
        input::object("metadata", &self.metadata)?;
        input::optional_text("assignedTo", self.assigned_to.as_deref(), limits::NAME_CHARS)?;
        input::optional_text("fingerprint", self.fingerprint.as_deref(), limits::NAME_CHARS)?;
        Ok(self)
    }
}

/// The fields to change; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct IncidentPatch {
    pub title: Option<String>,
    pub description: Option<String>,
    pub severity: Option<Severity>,
    pub kind: Option<IncidentKind>,
    pub affected_resources: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    pub metadata: Option<JsonObject>,
}

impl IncidentPatch {
    /// Checks texts and sizes against [`limits`].
    pub fn check(self) -> Result<Self, InvalidInput> {
        if let Some(title) = &self.title {
            input::text("title", title, limits::TITLE_CHARS)?;
        }
        if let Some(description) = &self.description {
            input::text_bytes("description", description, limits::TEXT_BYTES)?;
        }
        if let Some(resources) = &self.affected_resources {
            input::text_list("affectedResources", resources)?;
        }
        if let Some(labels) = &self.labels {
            input::label_size("labels", labels)?;
        }
        if let Some(metadata) = &self.metadata {
            input::object("metadata", metadata)?;
        }
        Ok(self)
    }
}

/// What ended an incident, checked; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    pub resolution: Option<String>,
    pub root_cause: Option<String>,
}

impl Resolution {
    /// Checks the texts against [`limits`].
    pub fn check(self) -> Result<Self, InvalidInput> {
        for (field, text) in [("resolution", &self.resolution), ("rootCause", &self.root_cause)] {
            text.as_deref().map_or(Ok(()), |text| input::text_bytes(field, text, limits::TEXT_BYTES))?;
        }
        Ok(self)
    }
}

/// Who is to respond to an incident, checked.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// `None` is nobody.
    pub assignee: Option<String>,
}

impl Assignment {
    /// Checks the name against [`limits`].
    pub fn check(self) -> Result<Self, InvalidInput> {
        input::optional_text("assignee", self.assignee.as_deref(), limits::NAME_CHARS)?;
        Ok(self)
    }
}

/// Which incidents a list holds; `None` is no filter, an empty list matches nothing.
#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    pub ids: Option<Vec<IncidentId>>,
    pub states: Option<Vec<IncidentState>>,
    pub severities: Option<Vec<Severity>>,
    pub kinds: Option<Vec<IncidentKind>>,
    pub sources: Option<Vec<String>>,
    pub assigned_to: Option<String>,
    pub active_only: bool,
    /// All of these labels, with these values.
    pub labels: Option<BTreeMap<String, String>>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
}
