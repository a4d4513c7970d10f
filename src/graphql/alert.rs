//! The object types `Alert` and `AlertResult`.

use std::sync::Arc;

use async_graphql::{Context, Lookahead, Object};

use super::access::{needs, require};
use super::connection::detail;
use super::error::nullable;
use super::incident::Incident;
use super::loader::Loaders;
use super::scalar::{DateTime, Id, Map};
use crate::domain::Permission::IncidentsRead;
use crate::domain::{self, AlertStatus, Detail, IncidentId, IncidentKind, Severity};

/// What a source sent, as it sent it: each submission is one.
pub struct Alert(pub Arc<domain::Alert>);

impl From<domain::Alert> for Alert {
    fn from(alert: domain::Alert) -> Self {
        Self(Arc::new(alert))
    }
}

impl Alert {
    /// What is asked for where alerts are selected.
    pub fn detail(selected: &[Lookahead<'_>]) -> Detail {
        detail(selected, &["description", "labels", "annotations", "affectedServices"])
    }
}

#[Object]
impl Alert {
    async fn id(&self) -> Id {
        Id(self.0.id.0)
    }

    async fn external_id(&self) -> Option<&str> {
        self.0.external_id.as_deref()
    }

    async fn source(&self) -> &str {
        &self.0.source
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

    async fn alert_type(&self) -> IncidentKind {
        self.0.kind
    }

    async fn labels(&self) -> Map {
        Map(self.0.labels.clone())
    }

    async fn annotations(&self) -> Map {
        Map(self.0.annotations.clone())
    }

    async fn affected_services(&self) -> &[String] {
        &self.0.affected_services
    }

    async fn runbook_url(&self) -> Option<&str> {
        self.0.runbook_url.as_deref()
    }

    /// False once the source has said that it is over.
    async fn firing(&self) -> bool {
        self.0.firing
    }

    async fn received_at(&self) -> DateTime {
        self.0.received_at.into()
    }

    /// True where it joined an incident that was already open.
    async fn deduplicated(&self) -> bool {
        self.0.deduplicated
    }

    #[graphql(directive = needs::apply(IncidentsRead.into()))]
    async fn incident(&self, context: &Context<'_>) -> Option<Incident> {
        incident_of(context, self.0.incident_id).await
    }
}

/// The incident that an alert belongs to, if it belongs to one that may be seen.
async fn incident_of(context: &Context<'_>, id: Option<IncidentId>) -> Option<Incident> {
    let id = id?;
    let found = async {
        require(context, IncidentsRead)?;
        Ok(context.data::<Loaders>()?.incident(id).await?.map(Incident))
    };
    nullable(context, found.await)
}

pub struct AlertResult {
    pub alert: Arc<domain::Alert>,
    pub incident_id: Option<IncidentId>,
    pub status: AlertStatus,
}

/// A stored alert and what became of it.
#[Object]
impl AlertResult {
    async fn alert(&self) -> Alert {
        Alert(Arc::clone(&self.alert))
    }

    #[graphql(directive = needs::apply(IncidentsRead.into()))]
    async fn incident(&self, context: &Context<'_>) -> Option<Incident> {
        incident_of(context, self.incident_id).await
    }

    async fn status(&self) -> AlertStatus {
        self.status
    }
}
