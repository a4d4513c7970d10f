//! The object type `Incident`.

use std::sync::Arc;

use async_graphql::{Context, Lookahead, Object, Result};

use super::access::{needs, permitted, require};
use super::alert::Alert;
use super::comment::Comment;
use super::connection::{Counted, TimelineConnection, TotalCount, connection, detail, empty, nodes};
use super::error::nullable;
use super::loader::Loaders;
use super::playbook::Playbook;
use super::relation::{RelatedIncident, related_to};
use super::scalar::{DateTime, Id, Map};
use crate::domain::Permission::{AlertsRead, IncidentsRead, PlaybooksRead};
use crate::domain::{self, Detail, IncidentKind, IncidentState, ListTag, NestedPage, Severity};

/// Something that somebody has to respond to. Whoever has got hold of one may see it, and goes on to: its source never changes.
pub struct Incident(pub Arc<domain::Incident>);

impl From<domain::Incident> for Incident {
    fn from(incident: domain::Incident) -> Self {
        Self(Arc::new(incident))
    }
}

impl Incident {
    /// What is asked for where incidents are selected.
    pub fn detail(selected: &[Lookahead<'_>]) -> Detail {
        detail(selected, &["description", "affectedResources", "labels", "metadata", "resolution", "rootCause"])
    }
}

#[Object]
impl Incident {
    async fn id(&self) -> Id {
        Id(self.0.id.0)
    }

    async fn title(&self) -> &str {
        &self.0.title
    }

    async fn description(&self) -> &str {
        &self.0.description
    }

    async fn severity(&self) -> Severity {
        self.0.severity
    }

    async fn state(&self) -> IncidentState {
        self.0.state
    }

    async fn incident_type(&self) -> IncidentKind {
        self.0.kind
    }

    /// Never changes, like the id.
    async fn source(&self) -> &str {
        &self.0.source
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }

    /// When it first left DETECTED, by whatever way.
    async fn acknowledged_at(&self) -> Option<DateTime> {
        self.0.acknowledged_at.map(DateTime)
    }

    async fn resolved_at(&self) -> Option<DateTime> {
        self.0.resolved_at.map(DateTime)
    }

    async fn closed_at(&self) -> Option<DateTime> {
        self.0.closed_at.map(DateTime)
    }

    async fn assigned_to(&self) -> Option<&str> {
        self.0.assigned_to.as_deref()
    }

    async fn affected_resources(&self) -> &[String] {
        &self.0.affected_resources
    }

    async fn labels(&self) -> Map {
        Map(self.0.labels.clone())
    }

    async fn metadata(&self) -> Map {
        Map(self.0.metadata.clone())
    }

    async fn resolution(&self) -> Option<&str> {
        self.0.resolution.as_deref()
    }

    async fn root_cause(&self) -> Option<&str> {
        self.0.root_cause.as_deref()
    }

    /// Equal for incidents of the same cause; at most one active incident of a source has it.
    async fn fingerprint(&self) -> Option<&str> {
        self.0.fingerprint.as_deref()
    }

    /// Goes up by one with every change; a comment changes neither version nor updatedAt.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// Alerts that opened or joined it, newest first.
    #[graphql(directive = needs::apply(AlertsRead.into()))]
    async fn alerts(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Counted<Alert>> {
        if permitted(context, AlertsRead).is_none() {
            return Ok(empty());
        }
        let page = NestedPage::from_args(self.0.id, ListTag::Alerts, 20, first, after.as_deref())?;
        let page = NestedPage { detail: Alert::detail(&nodes(context)), ..page };
        let found = context.data::<Loaders>()?.alerts(page).await?;
        Ok(connection(found, ListTag::Alerts, TotalCount::AlertsOf(self.0.id)))
    }

    /// Comments, oldest first.
    #[graphql(directive = needs::apply(IncidentsRead.into()))]
    async fn comments(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Counted<Comment>> {
        if permitted(context, IncidentsRead).is_none() {
            return Ok(empty());
        }
        let page = NestedPage::from_args(self.0.id, ListTag::Comments, 20, first, after.as_deref())?;
        let found = context.data::<Loaders>()?.comments(page).await?;
        Ok(connection(found, ListTag::Comments, TotalCount::CommentsOf(self.0.id)))
    }

    /// Its audit trail, oldest first.
    #[graphql(directive = needs::apply(IncidentsRead.into()))]
    async fn timeline(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "Some(50)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<TimelineConnection> {
        if permitted(context, IncidentsRead).is_none() {
            return Ok(empty());
        }
        let page = NestedPage::from_args(self.0.id, ListTag::Timeline, 50, first, after.as_deref())?;
        let found = context.data::<Loaders>()?.timeline(page).await?;
        Ok(connection(found, ListTag::Timeline, TotalCount::TimelineOf(self.0.id)))
    }

    /// Incidents that it was linked or merged with, or that may have the same cause: at most twenty, best first.
    #[graphql(directive = needs::apply(IncidentsRead.into()))]
    async fn related_incidents(&self, context: &Context<'_>) -> Result<Vec<RelatedIncident>> {
        if permitted(context, IncidentsRead).is_none() {
            return Ok(Vec::new());
        }
        related_to(context, self.0.id).await
    }

    /// The enabled playbook that fitted it best when it was created.
    #[graphql(directive = needs::apply(PlaybooksRead.into()))]
    async fn playbook(&self, context: &Context<'_>) -> Option<Playbook> {
        let found = async {
            require(context, PlaybooksRead)?;
            Ok(context.data::<Loaders>()?.playbook_of(self.0.id).await?.map(Playbook))
        };
        nullable(context, found.await)
    }
}
