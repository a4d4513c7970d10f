//! The root `Mutation`. Mutations write tables and nothing else: what subscribers hear of them comes from the event log, as
//! what any other writer does.

use std::sync::Arc;

use async_graphql::{Context, Object, Result};

use super::access::{needs, require};
use super::alert::AlertResult;
use super::api_key::{self, CreateApiKeyInput, CreatedApiKey};
use super::comment::Comment;
use super::error::{Internal, NotFound};
use super::incident::Incident;
use super::input::{CreateIncidentInput, PlaybookInput, SubmitAlertInput, UpdateIncidentInput};
use super::playbook::Playbook;
use super::relation::{RelatedIncident, related_to};
use super::scalar::Id;
use crate::auth::{Caller, Rates};
use crate::domain::Permission::{AlertsSubmit, IncidentsWrite, KeysManage, PlaybooksWrite};
use crate::domain::{self, Assignment, IncidentId, IncidentPair, IncidentState, NewComment, PlaybookId, Resolution};
use crate::store::{Intake, Store};

/// Each returns the object as it now is, to whoever may write it. `expectedVersion`, where given, must be the incident's version, else CONFLICT.
pub struct Mutation;

fn actor<'c>(context: &'c Context<'_>) -> Result<&'c str> {
    Ok(&context.data::<Caller>()?.viewer().subject)
}

fn found(id: Id, incident: Option<domain::Incident>) -> Result<Incident> {
    Ok(incident.map(Incident::from).ok_or(NotFound { kind: "incident", id: id.0 })?)
}

#[Object]
impl Mutation {
    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn create_incident(&self, context: &Context<'_>, input: CreateIncidentInput) -> Result<Incident> {
        let scope = require(context, IncidentsWrite)?;
        let new = input.check()?;
        scope.require(&new.source)?;
        Ok(context.data::<Store>()?.create_incident(actor(context)?, &new).await?.into())
    }

    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn update_incident(
        &self,
        context: &Context<'_>,
        id: Id,
        input: UpdateIncidentInput,
        expected_version: Option<i32>,
    ) -> Result<Incident> {
        let scope = require(context, IncidentsWrite)?;
        let patch = input.check()?;
        let store = context.data::<Store>()?;
        found(id, store.update_incident(actor(context)?, scope, IncidentId(id.0), &patch, expected_version).await?)
    }

    /// DETECTED to TRIAGED; sets acknowledgedAt. Acknowledging twice changes nothing.
    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn acknowledge_incident(&self, context: &Context<'_>, id: Id) -> Result<Incident> {
        let scope = require(context, IncidentsWrite)?;
        found(id, context.data::<Store>()?.acknowledge_incident(actor(context)?, scope, IncidentId(id.0)).await?)
    }

    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn transition_incident(
        &self,
        context: &Context<'_>,
        id: Id,
        to: IncidentState,
        expected_version: Option<i32>,
    ) -> Result<Incident> {
        let scope = require(context, IncidentsWrite)?;
        let store = context.data::<Store>()?;
        found(id, store.transition_incident(actor(context)?, scope, IncidentId(id.0), to, expected_version).await?)
    }

    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn resolve_incident(
        &self,
        context: &Context<'_>,
        id: Id,
        resolution: Option<String>,
        root_cause: Option<String>,
    ) -> Result<Incident> {
        let scope = require(context, IncidentsWrite)?;
        let resolution = Resolution { resolution, root_cause }.check()?;
        let store = context.data::<Store>()?;
        found(id, store.resolve_incident(actor(context)?, scope, IncidentId(id.0), &resolution).await?)
    }

    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn assign_incident(&self, context: &Context<'_>, id: Id, assignee: Option<String>) -> Result<Incident> {
        let scope = require(context, IncidentsWrite)?;
        let assignment = Assignment { assignee }.check()?;
        let store = context.data::<Store>()?;
        found(id, store.assign_incident(actor(context)?, scope, IncidentId(id.0), &assignment).await?)
    }

    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn add_comment(&self, context: &Context<'_>, incident_id: Id, body: String) -> Result<Comment> {
        let scope = require(context, IncidentsWrite)?;
        let new = NewComment { incident_id: IncidentId(incident_id.0), body }.check()?;
        let added = context.data::<Store>()?.add_comment(actor(context)?, scope, &new).await?;
        Ok(added.map(Comment::from).ok_or(NotFound { kind: "incident", id: incident_id.0 })?)
    }

    #[graphql(directive = needs::apply(AlertsSubmit.into()))]
    async fn submit_alert(&self, context: &Context<'_>, input: SubmitAlertInput) -> Result<AlertResult> {
        let scope = require(context, AlertsSubmit)?;
        let new = input.check()?;
        scope.require(&new.source)?;
        context.data::<Arc<Rates>>()?.alerts(context.data::<Caller>()?, 1)?;
        let submitted = context.data::<Intake>()?.submit(actor(context)?, vec![new]).await?;
        let stored = submitted.into_iter().next().ok_or(Internal)?;
        let store = context.data::<Store>()?;
        let alert = store.alert(scope, stored.alert_id).await?.ok_or(Internal)?;
        Ok(AlertResult { alert: Arc::new(alert), incident_id: stored.incident_id, status: stored.status })
    }

    /// Links two incidents, whichever is named first; gives what `a` is related to.
    #[graphql(directive = needs::apply(IncidentsWrite.into()))]
    async fn link_incidents(&self, context: &Context<'_>, a: Id, b: Id) -> Result<Vec<RelatedIncident>> {
        let scope = require(context, IncidentsWrite)?;
        let pair = IncidentPair::new(IncidentId(a.0), IncidentId(b.0))?;
        let linked = context.data::<Store>()?.link_incidents(actor(context)?, scope, pair).await?;
        linked.map_err(|missing| NotFound { kind: "incident", id: missing.0 })?;
        related_to(context, IncidentId(a.0)).await
    }

    /// Incidents that there are already do not get it.
    #[graphql(directive = needs::apply(PlaybooksWrite.into()))]
    async fn create_playbook(&self, context: &Context<'_>, input: PlaybookInput) -> Result<Playbook> {
        require(context, PlaybooksWrite)?;
        let new = input.check()?;
        Ok(context.data::<Store>()?.create_playbook(actor(context)?, &new).await?.into())
    }

    /// What is left out gets its default. Incidents that have the playbook keep it.
    #[graphql(directive = needs::apply(PlaybooksWrite.into()))]
    async fn update_playbook(&self, context: &Context<'_>, id: Id, input: PlaybookInput) -> Result<Playbook> {
        require(context, PlaybooksWrite)?;
        let new = input.check()?;
        let updated = context.data::<Store>()?.update_playbook(actor(context)?, PlaybookId(id.0), &new).await?;
        Ok(updated.map(Playbook::from).ok_or(NotFound { kind: "playbook", id: id.0 })?)
    }

    /// Incidents that had it have none then. False where there was none of this id.
    #[graphql(directive = needs::apply(PlaybooksWrite.into()))]
    async fn delete_playbook(&self, context: &Context<'_>, id: Id) -> Result<bool> {
        require(context, PlaybooksWrite)?;
        Ok(context.data::<Store>()?.delete_playbook(actor(context)?, PlaybookId(id.0)).await?)
    }

    /// Makes an API key. It gets no permission, source or expiry beyond one's own.
    #[graphql(directive = needs::apply(KeysManage.into()))]
    async fn create_api_key(&self, context: &Context<'_>, input: CreateApiKeyInput) -> Result<CreatedApiKey> {
        require(context, KeysManage)?;
        api_key::create(context, input).await
    }

    /// Within seconds nobody gets in with the key, and its connections end. False where it was revoked before.
    #[graphql(directive = needs::apply(KeysManage.into()))]
    async fn revoke_api_key(&self, context: &Context<'_>, id: Id) -> Result<bool> {
        require(context, KeysManage)?;
        api_key::revoke(context, id).await
    }
}
