//! A row of the event log becomes an event.

use std::sync::Arc;

use uuid::Uuid;

use super::StoreError;
use super::document::Document;
use super::incidents::parse;
use crate::domain::{
    Alert, AlertId, Change, EpochId, Event, Incident, IncidentChange, IncidentId, Position, Timestamp,
};

/// A row of `event_log`, with its epoch and its long text. Columns of an incident are null in an alert's row, and the
/// other way round.
pub(super) struct EventRow {
    pub epoch_id: Uuid,
    pub pos: i64,
    pub logged_at: Timestamp,
    pub at: Timestamp,
    pub kind: String,
    pub update_type: Option<String>,
    pub incident_id: Option<Uuid>,
    pub alert_id: Option<Uuid>,
    pub source: String,
    pub severity: String,
    pub old_severity: Option<String>,
    pub state: Option<String>,
    pub old_state: Option<String>,
    pub actor: String,
    pub changed: Vec<String>,
    pub title: String,
    pub description: Option<String>,
    pub labels: Document,
    pub fingerprint: Option<String>,
    pub incident_type: Option<String>,
    pub assigned_to: Option<String>,
    pub affected_resources: Option<Vec<String>>,
    pub metadata: Option<Document>,
    pub resolution: Option<String>,
    pub root_cause: Option<String>,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
    pub acknowledged_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub version: Option<i32>,
    pub external_id: Option<String>,
    pub alert_type: Option<String>,
    pub annotations: Option<Document>,
    pub affected_services: Option<Vec<String>>,
    pub runbook_url: Option<String>,
    pub firing: Option<bool>,
    pub received_at: Option<Timestamp>,
    pub deduplicated: Option<bool>,
}

/// A column that rows of this kind always have.
fn present<T>(column: &'static str, value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Decode { column, source: "is null in an event of this kind".into() })
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let (epoch, position) = (EpochId(row.epoch_id), Position(row.pos));
        let (logged_at, at, actor) = (row.logged_at, row.at, row.actor.clone());
        let change = match row.kind.as_str() {
            "alert" => Change::Alert(Arc::new(alert(row)?)),
            "incident" | "comment" => Change::Incident(incident_change(row)?),
            kind => {
                let source = format!("{kind:?} is no kind of event").into();
                return Err(StoreError::Decode { column: "kind", source });
            }
        };
        Ok(Self { epoch, position, logged_at, at, actor, change })
    }
}

fn incident_change(row: EventRow) -> Result<IncidentChange, StoreError> {
    let id = present("incident_id", row.incident_id)?;
    Ok(IncidentChange {
        update_type: parse("update_type", &present("update_type", row.update_type)?)?,
        old_severity: row.old_severity.map(|severity| parse("old_severity", &severity)).transpose()?,
        old_state: row.old_state.map(|state| parse("old_state", &state)).transpose()?,
        changed_fields: row.changed,
        incident: Arc::new(Incident {
            id: IncidentId(id),
            title: row.title,
            description: present("description", row.description)?,
            severity: parse("severity", &row.severity)?,
            state: parse("state", &present("state", row.state)?)?,
            kind: parse("incident_type", &present("incident_type", row.incident_type)?)?,
            source: row.source,
            created_at: present("created_at", row.created_at)?,
            updated_at: present("updated_at", row.updated_at)?,
            acknowledged_at: row.acknowledged_at,
            resolved_at: row.resolved_at,
            closed_at: row.closed_at,
            assigned_to: row.assigned_to,
            affected_resources: present("affected_resources", row.affected_resources)?,
            labels: row.labels.object("labels", id),
            metadata: present("metadata", row.metadata)?.object("metadata", id),
            resolution: row.resolution,
            root_cause: row.root_cause,
            fingerprint: row.fingerprint,
            version: present("version", row.version)?,
        }),
    })
}

fn alert(row: EventRow) -> Result<Alert, StoreError> {
    let id = present("alert_id", row.alert_id)?;
    Ok(Alert {
        id: AlertId(id),
        external_id: row.external_id,
        source: row.source,
        title: row.title,
        description: present("description", row.description)?,
        severity: parse("severity", &row.severity)?,
        kind: parse("alert_type", &present("alert_type", row.alert_type)?)?,
        labels: row.labels.object("labels", id),
        annotations: present("annotations", row.annotations)?.object("annotations", id),
        affected_services: present("affected_services", row.affected_services)?,
        runbook_url: row.runbook_url,
        firing: present("firing", row.firing)?,
        received_at: present("received_at", row.received_at)?,
        deduplicated: present("deduplicated", row.deduplicated)?,
        incident_id: row.incident_id.map(IncidentId),
    })
}
