//! The root `Mutation`. Mutations write tables and nothing else: what subscribers hear of them comes from the event log, as
//! what any other writer does.

use async_graphql::{Context, Object, Result};
use uuid::Uuid;

use super::alert::{Alert, AlertResult};
use super::comment::Comment;
use super::error::{Internal, NotFound};
use super::incident::Incident;
use super::input::{CreateIncidentInput, PlaybookInput, SubmitAlertInput, UpdateIncidentInput};
use super::playbook::Playbook;
use super::relation::{RelatedIncident, related_to};
use crate::auth::Viewer;
use crate::domain::{
    self, IncidentId, IncidentPair, IncidentState, InvalidInput, NewComment, PlaybookId, limits, optional_text,
};
use crate::store::Store;

/// Each returns the object as it now is. `expectedVersion`, where given, must be the incident's version, else CONFLICT.
pub struct Mutation;

fn actor<'c>(context: &'c Context<'_>) -> Result<&'c str> {
    Ok(&context.data::<Viewer>()?.subject)
}

fn found(id: Uuid, incident: Option<domain::Incident>) -> Result<Incident> {
    Ok(incident.map(Incident::from).ok_or(NotFound { kind: "incident", id })?)
}

fn long_text(field: &str, value: Option<&str>) -> Result<(), InvalidInput> {
    value.map_or(Ok(()), |value| domain::text_bytes(field, value, limits::TEXT_BYTES))
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
        id: Uuid,
        input: UpdateIncidentInput,
        expected_version: Option<i32>,
    ) -> Result<Incident> {
        let patch = input.check()?;
        let store = context.data::<Store>()?;
        found(id, store.update_incident(actor(context)?, IncidentId(id), &patch, expected_version).await?)
    }

    /// DETECTED to TRIAGED; sets acknowledgedAt. Acknowledging twice changes nothing.
    async fn acknowledge_incident(&self, context: &Context<'_>, id: Uuid) -> Result<Incident> {
        found(id, context.data::<Store>()?.acknowledge_incident(actor(context)?, IncidentId(id)).await?)
    }

    async fn transition_incident(
        &self,
        context: &Context<'_>,
        id: Uuid,
        to: IncidentState,
        expected_version: Option<i32>,
    ) -> Result<Incident> {
        let store = context.data::<Store>()?;
        found(id, store.transition_incident(actor(context)?, IncidentId(id), to, expected_version).await?)
    }

    async fn resolve_incident(
        &self,
        context: &Context<'_>,
        id: Uuid,
        resolution: Option<String>,
        root_cause: Option<String>,
    ) -> Result<Incident> {
        long_text("resolution", resolution.as_deref())?;
        long_text("rootCause", root_cause.as_deref())?;
        let (store, actor) = (context.data::<Store>()?, actor(context)?);
        let (resolution, root_cause) = (resolution.as_deref(), root_cause.as_deref());
        found(id, store.resolve_incident(actor, IncidentId(id), resolution, root_cause).await?)
    }

    async fn assign_incident(&self, context: &Context<'_>, id: Uuid, assignee: Option<String>) -> Result<Incident> {
        optional_text("assignee", assignee.as_deref(), limits::NAME_CHARS)?;
        let store = context.data::<Store>()?;
        found(id, store.assign_incident(actor(context)?, IncidentId(id), assignee.as_deref()).await?)
    }

    async fn add_comment(&self, context: &Context<'_>, incident_id: Uuid, body: String) -> Result<Comment> {
        let new = NewComment { incident_id: IncidentId(incident_id), body }.check()?;
        let added = context.data::<Store>()?.add_comment(actor(context)?, &new).await?;
        Ok(added.map(Comment::from).ok_or(NotFound { kind: "incident", id: incident_id })?)
    }

    async fn submit_alert(&self, context: &Context<'_>, input: SubmitAlertInput) -> Result<AlertResult> {
        let new = input.check()?;
        let store = context.data::<Store>()?;
        let submitted = store.submit_alerts(actor(context)?, std::slice::from_ref(&new)).await?;
        let stored = submitted.into_iter().next().ok_or(Internal)?;
        let alert = store.alert(stored.alert_id).await?.ok_or(Internal)?;
        let incident = match stored.incident_id {
            Some(id) => store.incident(id).await?,
            None => None,
        };
        Ok(AlertResult { alert: Alert::from(alert), incident: incident.map(Incident::from), status: stored.status })
    }
    /// Links two incidents, whichever is named first; gives what `a` is related to.
    async fn link_incidents(&self, context: &Context<'_>, a: Uuid, b: Uuid) -> Result<Vec<RelatedIncident>> {
        let pair = IncidentPair::new(IncidentId(a), IncidentId(b))?;
        let linked = context.data::<Store>()?.link_incidents(actor(context)?, pair).await?;
        linked.map_err(|missing| NotFound { kind: "incident", id: missing.0 })?;
        related_to(context, IncidentId(a)).await
    }

    /// Incidents that there are already do not get it.
    async fn create_playbook(&self, context: &Context<'_>, input: PlaybookInput) -> Result<Playbook> {
        let new = input.check()?;
        Ok(context.data::<Store>()?.create_playbook(actor(context)?, &new).await?.into())
    }

    /// What is left out gets its default. Incidents that have the playbook keep it.
    async fn update_playbook(&self, context: &Context<'_>, id: Uuid, input: PlaybookInput) -> Result<Playbook> {
        let new = input.check()?;
        let updated = context.data::<Store>()?.update_playbook(actor(context)?, PlaybookId(id), &new).await?;
        Ok(updated.map(Playbook::from).ok_or(NotFound { kind: "playbook", id })?)
    }

    /// Incidents that had it have none then. False where there was none of this id.
    async fn delete_playbook(&self, context: &Context<'_>, id: Uuid) -> Result<bool> {
        Ok(context.data::<Store>()?.delete_playbook(actor(context)?, PlaybookId(id)).await?)
    }
}
