//! What is answered: the scalar fields of the GraphQL types, by the same names.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{self, AlertStatus, IncidentKind, IncidentState, JsonObject, Page, Severity, SubmittedAlert};
use crate::graphql::print_instant;

/// Something that somebody has to respond to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "`incidentType` is its name everywhere")]
pub struct Incident {
    id: Uuid,
    title: String,
    description: String,
    severity: Severity,
    state: IncidentState,
    incident_type: IncidentKind,
    /// Never changes, like the id.
    source: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// When it first left DETECTED, by whatever way.
    #[schema(format = DateTime, required)]
    acknowledged_at: Option<String>,
    #[schema(format = DateTime, required)]
    resolved_at: Option<String>,
    #[schema(format = DateTime, required)]
    closed_at: Option<String>,
    #[schema(required)]
    assigned_to: Option<String>,
    affected_resources: Vec<String>,
    #[schema(value_type = BTreeMap<String, String>)]
    labels: JsonObject,
    #[schema(value_type = Object)]
    metadata: JsonObject,
    #[schema(required)]
    resolution: Option<String>,
    #[schema(required)]
    root_cause: Option<String>,
    /// Equal for incidents of the same cause; at most one active incident of a source has it.
    #[schema(required)]
    fingerprint: Option<String>,
    /// Goes up by one with every change; a comment changes neither version nor updatedAt.
    version: i32,
}

impl From<domain::Incident> for Incident {
    fn from(incident: domain::Incident) -> Self {
        Self {
            id: incident.id.0,
            title: incident.title,
            description: incident.description,
            severity: incident.severity,
            state: incident.state,
            incident_type: incident.kind,
            source: incident.source,
            created_at: print_instant(incident.created_at),
            updated_at: print_instant(incident.updated_at),
            acknowledged_at: incident.acknowledged_at.map(print_instant),
            resolved_at: incident.resolved_at.map(print_instant),
            closed_at: incident.closed_at.map(print_instant),
            assigned_to: incident.assigned_to,
            affected_resources: incident.affected_resources,
            labels: incident.labels,
            metadata: incident.metadata,
            resolution: incident.resolution,
            root_cause: incident.root_cause,
            fingerprint: incident.fingerprint,
            version: incident.version,
        }
    }
}

/// What somebody said of an incident.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    id: Uuid,
    author: String,
    body: String,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<domain::Comment> for Comment {
    fn from(comment: domain::Comment) -> Self {
        Self {
            id: comment.id.0,
            author: comment.author,
            body: comment.body,
            created_at: print_instant(comment.created_at),
        }
    }
}

/// A stored alert and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertResult {
    /// The alert's.
    id: Uuid,
    /// The incident that it opened, joined or ended.
    #[schema(required)]
    incident_id: Option<Uuid>,
    status: AlertStatus,
}

impl From<SubmittedAlert> for AlertResult {
    fn from(alert: SubmittedAlert) -> Self {
        Self { id: alert.alert_id.0, incident_id: alert.incident_id.map(Uuid::from), status: alert.status }
    }
}

/// What became of one alert, or of each in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum AlertResults {
    One(AlertResult),
    Many(Vec<AlertResult>),
}

/// Where a page is in its list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PageInfo {
    pub has_next_page: bool,
    pub has_previous_page: bool,
    /// Of the first item.
    #[schema(required)]
    pub start_cursor: Option<String>,
    /// Of the last item.
    #[schema(required)]
    pub end_cursor: Option<String>,
}

impl PageInfo {
    pub fn of<T>(page: &Page<T>, cursor: impl Fn(&T) -> String) -> Self {
        Self {
            has_next_page: page.has_next,
            has_previous_page: page.has_previous,
            start_cursor: page.items.first().map(&cursor),
            end_cursor: page.items.last().map(&cursor),
        }
    }
}

/// A page of incidents.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Incidents {
    pub incidents: Vec<Incident>,
    pub page_info: PageInfo,
}

/// A page of comments, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comments {
    pub comments: Vec<Comment>,
    pub page_info: PageInfo,
}
