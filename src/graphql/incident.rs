//! The object type `Incident`.

use std::sync::Arc;

use async_graphql::{Context, Object, Result};
use uuid::Uuid;

use super::alert::Alert;
use super::comment::Comment;
use super::connection::{Counted, TotalCount, connection};
use super::scalar::{DateTime, Map};
use crate::domain::{self, AlertFilter, IncidentKind, IncidentState, ListTag, PageRequest, Severity};
use crate::store::Store;

/// Something that somebody has to respond to.
pub struct Incident(pub Arc<domain::Incident>);

impl From<domain::Incident> for Incident {
    fn from(incident: domain::Incident) -> Self {
        Self(Arc::new(incident))
    }
}

#[Object]
impl Incident {
    async fn id(&self) -> Uuid {
        self.0.id.0
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
    async fn alerts(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Counted<Alert>> {
        let page = PageRequest::from_args(ListTag::Alerts, 20, (first, after.as_deref()), (None, None))?;
        let filter = AlertFilter { incident_id: Some(self.0.id), ..AlertFilter::default() };
        let found = context.data::<Store>()?.alerts(&filter, page).await?;
        Ok(connection(found, ListTag::Alerts, TotalCount::Alerts(filter)))
    }

    /// Comments, oldest first.
    async fn comments(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Counted<Comment>> {
        let page = PageRequest::from_args(ListTag::Comments, 20, (first, after.as_deref()), (None, None))?;
        let found = context.data::<Store>()?.comments(self.0.id, page).await?;
        Ok(connection(found, ListTag::Comments, TotalCount::Comments(self.0.id)))
    }
}
