//! Input types, and how they become what the domain takes. What REST takes is the same types, read from JSON and from
//! parameters instead of GraphQL values.

use std::collections::BTreeMap;

use async_graphql::{InputObject, MaybeUndefined};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::scalar::{DateTime, Id, Map};
use crate::domain::{
    self, IncidentId, IncidentKind, IncidentPatch, IncidentState, InvalidInput, NewAlert, NewIncident, NewPlaybook,
    PlaybookStep, Severity, instant, optional_text, string_map, text_list,
};

#[derive(InputObject, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateIncidentInput {
    #[schema(min_length = 1, max_length = 500)]
    title: String,
    #[graphql(default_with = "Some(String::new())")]
    #[schema(max_length = 65536)]
    description: Option<String>,
    severity: Severity,
    #[graphql(default_with = "Some(IncidentKind::Unknown)")]
    incident_type: Option<IncidentKind>,
    #[schema(min_length = 1, max_length = 200)]
    source: String,
    #[graphql(default_with = "Some(Vec::new())")]
    affected_resources: Option<Vec<String>>,
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    labels: Option<Map>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map>,
    #[schema(min_length = 1, max_length = 200)]
    assigned_to: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    fingerprint: Option<String>,
}

impl CreateIncidentInput {
    pub fn check(self) -> Result<NewIncident, InvalidInput> {
        NewIncident {
            title: self.title,
            description: self.description.unwrap_or_default(),
            severity: self.severity,
            kind: self.incident_type.unwrap_or(IncidentKind::Unknown),
            source: self.source,
            affected_resources: self.affected_resources.unwrap_or_default(),
            labels: strings("labels", self.labels)?,
            metadata: self.metadata.unwrap_or_default().0,
            assigned_to: self.assigned_to,
            fingerprint: self.fingerprint,
        }
        .check()
    }
}

/// A field left out stays as it is; a null clears it where the object's field may be null.
#[derive(InputObject, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateIncidentInput {
    #[serde(default)]
    #[schema(value_type = String, min_length = 1, max_length = 500)]
    title: MaybeUndefined<String>,
    #[serde(default)]
    #[schema(value_type = String, max_length = 65536)]
    description: MaybeUndefined<String>,
    #[serde(default)]
    #[schema(value_type = Severity)]
    severity: MaybeUndefined<Severity>,
    #[serde(default)]
    #[schema(value_type = IncidentKind)]
    incident_type: MaybeUndefined<IncidentKind>,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    affected_resources: MaybeUndefined<Vec<String>>,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    labels: MaybeUndefined<Map>,
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: MaybeUndefined<Map>,
}

impl UpdateIncidentInput {
    pub fn check(self) -> Result<IncidentPatch, InvalidInput> {
        IncidentPatch {
            title: not_null("title", self.title)?,
            description: not_null("description", self.description)?,
            severity: not_null("severity", self.severity)?,
            kind: not_null("incidentType", self.incident_type)?,
            affected_resources: not_null("affectedResources", self.affected_resources)?,
            labels: not_null("labels", self.labels)?.map(|labels| string_map("labels", labels.0)).transpose()?,
            metadata: not_null("metadata", self.metadata)?.map(|metadata| metadata.0),
        }
        .check()
    }
}

/// What may be left out but not cleared.
fn not_null<T>(field: &str, value: MaybeUndefined<T>) -> Result<Option<T>, InvalidInput> {
    match value {
        MaybeUndefined::Undefined => Ok(None),
        MaybeUndefined::Value(value) => Ok(Some(value)),
        MaybeUndefined::Null => Err(InvalidInput::new(field, "must not be null; leave it out to keep it")),
    }
}

fn strings(field: &str, map: Option<Map>) -> Result<BTreeMap<String, String>, InvalidInput> {
    string_map(field, map.unwrap_or_default().0)
}

#[derive(InputObject, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitAlertInput {
    #[schema(min_length = 1, max_length = 500)]
    external_id: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    source: String,
    #[schema(min_length = 1, max_length = 500)]
    title: String,
    #[graphql(default_with = "Some(String::new())")]
    #[schema(max_length = 65536)]
    description: Option<String>,
    severity: Severity,
    #[graphql(default_with = "Some(IncidentKind::Unknown)")]
    alert_type: Option<IncidentKind>,
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    labels: Option<Map>,
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    annotations: Option<Map>,
    #[graphql(default_with = "Some(Vec::new())")]
    affected_services: Option<Vec<String>>,
    #[schema(min_length = 1, max_length = 2000)]
    runbook_url: Option<String>,
    #[graphql(default_with = "Some(true)")]
    firing: Option<bool>,
    #[schema(min_length = 1, max_length = 200)]
    fingerprint: Option<String>,
}

impl SubmitAlertInput {
    pub fn check(self) -> Result<NewAlert, InvalidInput> {
        NewAlert {
            external_id: self.external_id,
            source: self.source,
            title: self.title,
            description: self.description.unwrap_or_default(),
            severity: self.severity,
            kind: self.alert_type.unwrap_or(IncidentKind::Unknown),
            labels: strings("labels", self.labels)?,
            annotations: strings("annotations", self.annotations)?,
            affected_services: self.affected_services.unwrap_or_default(),
            runbook_url: self.runbook_url,
            firing: self.firing.unwrap_or(true),
            fingerprint: self.fingerprint,
        }
        .check()
    }
}

#[derive(InputObject)]
pub struct PlaybookInput {
    name: String,
    #[graphql(default_with = "Some(String::new())")]
    description: Option<String>,
    #[graphql(default_with = "Some(true)")]
    enabled: Option<bool>,
    #[graphql(default_with = "Some(Vec::new())")]
    severities: Option<Vec<Severity>>,
    #[graphql(default_with = "Some(Vec::new())")]
    incident_types: Option<Vec<IncidentKind>>,
    #[graphql(default_with = "Some(Vec::new())")]
    sources: Option<Vec<String>>,
    steps: Vec<PlaybookStepInput>,
}

#[derive(InputObject)]
pub struct PlaybookStepInput {
    title: String,
    #[graphql(default_with = "Some(String::new())")]
    instructions: Option<String>,
}

impl PlaybookInput {
    pub fn check(self) -> Result<NewPlaybook, InvalidInput> {
        NewPlaybook {
            name: self.name,
            description: self.description.unwrap_or_default(),
            enabled: self.enabled.unwrap_or(true),
            severities: self.severities.unwrap_or_default(),
            kinds: self.incident_types.unwrap_or_default(),
            sources: self.sources.unwrap_or_default(),
            steps: self
                .steps
                .into_iter()
                .map(|step| PlaybookStep { title: step.title, instructions: step.instructions.unwrap_or_default() })
                .collect(),
        }
        .check()
    }
}

/// Of lists, null is no filter and [] matches nothing.
#[derive(InputObject, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct IncidentFilter {
    #[param(value_type = Option<Vec<uuid::Uuid>>)]
    ids: Option<Vec<Id>>,
    states: Option<Vec<IncidentState>>,
    severities: Option<Vec<Severity>>,
    incident_types: Option<Vec<IncidentKind>>,
    sources: Option<Vec<String>>,
    #[param(min_length = 1, max_length = 200)]
    assigned_to: Option<String>,
    active_only: Option<bool>,
    /// All of these labels, with these values.
    #[param(value_type = Option<BTreeMap<String, String>>, style = DeepObject, explode)]
    labels: Option<Map>,
    #[param(value_type = Option<String>, format = DateTime)]
    created_after: Option<DateTime>,
    #[param(value_type = Option<String>, format = DateTime)]
    created_before: Option<DateTime>,
}

impl IncidentFilter {
    pub fn check(self) -> Result<domain::IncidentFilter, InvalidInput> {
        const ASSIGNEE_CHARS: usize = domain::limits::NAME_CHARS;
        text_list("sources", self.sources.as_deref().unwrap_or_default())?;
        optional_text("assignedTo", self.assigned_to.as_deref(), ASSIGNEE_CHARS)?;
        let labels = self.labels.map(|labels| {
            domain::object("labels", &labels.0)?;
            string_map("labels", labels.0)
        });
        Ok(domain::IncidentFilter {
            ids: self.ids.map(|ids| ids.into_iter().map(|id| IncidentId(id.0)).collect()),
            states: self.states,
            severities: self.severities,
            kinds: self.incident_types,
            sources: self.sources,
            assigned_to: self.assigned_to,
            active_only: self.active_only.unwrap_or(false),
            labels: labels.transpose()?,
            created_after: self.created_after.map(|at| instant("createdAfter", at.0)).transpose()?,
            created_before: self.created_before.map(|at| instant("createdBefore", at.0)).transpose()?,
        })
    }
}
