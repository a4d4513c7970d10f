//! The root `Mutation`. Mutations write tables and nothing else: what subscribers hear of them comes from the event log, as
//! what any other writer does.

use async_graphql::{Context, Object, Result};

use super::alert::{Alert, AlertResult};
use super::comment::Comment;
use super::error::{Internal, NotFound};
use super::incident::Incident;
use super::input::{CreateIncidentInput, PlaybookInput, SubmitAlertInput, UpdateIncidentInput};
use super::playbook::Playbook;
use super::relation::{RelatedIncident, related_to};
use super::scalar::Id;
use crate::auth::Viewer;
use crate::domain::{self, Assignment, IncidentId, IncidentPair, IncidentState, NewComment, PlaybookId, Resolution};
use crate::store::{Intake, Store};

/// Each returns the object as it now is. `expectedVersion`, where given, must be the incident's version, else CONFLICT.
pub struct Mutation;

fn actor<'c>(context: &'c Context<'_>) -> Result<&'c str> {
    Ok(&context.data::<Viewer>()?.subject)
}

fn found(id: Id, incident: Option<domain::Incident>) -> Result<Incident> {
    Ok(incident.map(Incident::from).ok_or(NotFound { kind: "incident", id: id.0 })?)
}

#[Object]
impl Mutation {
    async fn create_incident(&self, context: &Context<'_>, input: CreateIncidentInput) -> Result<Incident> {
        let new = input.check()?;
        Ok(context.data::<Store>()?.create_incident(actor(context)?, &new).await?.into())
    }

    async fn update_incident(
        &self,
        context: &Context<'_>,
        id: Id,
        input: UpdateIncidentInput,
        expected_version: Option<i32>,
    ) -> Result<Incident> {
        let patch = input.check()?;
        let store = context.data::<Store>()?;
        found(id, store.update_incident(actor(context)?, IncidentId(id.0), &patch, expected_version).await?)
    }

    /// DETECTED to TRIAGED; sets acknowledgedAt. Acknowledging twice changes nothing.
    async fn acknowledge_incident(&self, context: &Context<'_>, id: Id) -> Result<Incident> {
        found(id, context.data::<Store>()?.acknowledge_incident(actor(context)?, IncidentId(id.0)).await?)
    }

    async fn transition_incident(
        &self,
        context: &Context<'_>,
        id: Id,
        to: IncidentState,
        expected_version: Option<i32>,
    ) -> Result<Incident> {
        let store = context.data::<Store>()?;
        found(id, store.transition_incident(actor(context)?, IncidentId(id.0), to, expected_version).await?)
    }

    async fn resolve_incident(
        &self,
        context: &Context<'_>,
        id: Id,
        resolution: Option<String>,
        root_cause: Option<String>,
    ) -> Result<Incident> {
        let resolution = Resolution { resolution, root_cause }.check()?;
        let store = context.data::<Store>()?;
        found(id, store.resolve_incident(actor(context)?, IncidentId(id.0), &resolution).await?)
    }

    async fn assign_incident(&self, context: &Context<'_>, id: Id, assignee: Option<String>) -> Result<Incident> {
        let assignment = Assignment { assignee }.check()?;
        let store = context.data::<Store>()?;
        found(id, store.assign_incident(actor(context)?, IncidentId(id.0), &assignment).await?)
    }

    async fn add_comment(&self, context: &Context<'_>, incident_id: Id, body: String) -> Result<Comment> {
        let new = NewComment { incident_id: IncidentId(incident_id.0), body }.check()?;
        let added = context.data::<Store>()?.add_comment(actor(context)?, &new).await?;
        Ok(added.map(Comment::from).ok_or(NotFound { kind: "incident", id: incident_id.0 })?)
    }

    async fn submit_alert(&self, context: &Context<'_>, input: SubmitAlertInput) -> Result<AlertResult> {
        let new = input.check()?;
        let submitted = context.data::<Intake>()?.submit(actor(context)?, vec![new]).await?;
        let stored = submitted.into_iter().next().ok_or(Internal)?;
        let store = context.data::<Store>()?;
        let alert = store.alert(stored.alert_id).await?.ok_or(Internal)?;
        let incident = match stored.incident_id {
            Some(id) => store.incident(id).await?,
            None => None,
        };
        Ok(AlertResult { alert: Alert::from(alert), incident: incident.map(Incident::from), status: stored.status })
    }
    /// Links two incidents, whichever is named first; gives what `a` is related to.
    async fn link_incidents(&self, context: &Context<'_>, a: Id, b: Id) -> Result<Vec<RelatedIncident>> {
        let pair = IncidentPair::new(IncidentId(a.0), IncidentId(b.0))?;
        let linked = context.data::<Store>()?.link_incidents(actor(context)?, pair).await?;
        linked.map_err(|missing| NotFound { kind: "incident", id: missing.0 })?;
        related_to(context, IncidentId(a.0)).await
    }

    /// Incidents that there are already do not get it.
    async fn create_playbook(&self, context: &Context<'_>, input: PlaybookInput) -> Result<Playbook> {
        let new = input.check()?;
        Ok(context.data::<Store>()?.create_playbook(actor(context)?, &new).await?.into())
    }

    /// What is left out gets its default. Incidents that have the playbook keep it.
    async fn update_playbook(&self, context: &Context<'_>, id: Id, input: PlaybookInput) -> Result<Playbook> {
        let new = input.check()?;
        let updated = context.data::<Store>()?.update_playbook(actor(context)?, PlaybookId(id.0), &new).await?;
        Ok(updated.map(Playbook::from).ok_or(NotFound { kind: "playbook", id: id.0 })?)
    }

    /// Incidents that had it have none then. False where there was none of this id.
    async fn delete_playbook(&self, context: &Context<'_>, id: Id) -> Result<bool> {
        Ok(context.data::<Store>()?.delete_playbook(actor(context)?, PlaybookId(id.0)).await?)
    }
}
