//! The object types `Playbook` and `PlaybookStep`.

use std::sync::Arc;

use async_graphql::{Object, SimpleObject};

use super::scalar::Id;
use crate::domain::{self, IncidentKind, Severity};

/// What to do about incidents of a kind.
pub struct Playbook(pub Arc<domain::Playbook>);

impl From<domain::Playbook> for Playbook {
    fn from(playbook: domain::Playbook) -> Self {
        Self(Arc::new(playbook))
    }
}

/// One thing to do.
#[derive(SimpleObject)]
pub struct PlaybookStep {
    title: String,
    instructions: String,
}

#[Object]
impl Playbook {
    async fn id(&self) -> Id {
        Id(self.0.id.0)
    }

    async fn name(&self) -> &str {
        &self.0.name
    }

    async fn description(&self) -> &str {
        &self.0.description
    }

    async fn enabled(&self) -> bool {
        self.0.enabled
    }

    /// An incident matches when it matches every list that is not empty.
    async fn severities(&self) -> &[Severity] {
        &self.0.severities
    }

    async fn incident_types(&self) -> &[IncidentKind] {
        &self.0.kinds
    }

    async fn sources(&self) -> &[String] {
        &self.0.sources
    }

    async fn steps(&self) -> Vec<PlaybookStep> {
        self.0
            .steps
            .iter()
            .map(|step| PlaybookStep { title: step.title.clone(), instructions: step.instructions.clone() })
            .collect()
    }
}
