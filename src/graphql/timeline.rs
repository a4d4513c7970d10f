//! The object type `TimelineEntry`.

use async_graphql::Object;

use super::scalar::DateTime;
use crate::domain::{self, UpdateType};

/// One entry of the audit trail: what changed, by whom, when. It comes with its event and outlives the event log.
pub struct TimelineEntry(pub domain::TimelineEntry);

impl From<domain::TimelineEntry> for TimelineEntry {
    fn from(entry: domain::TimelineEntry) -> Self {
        Self(entry)
    }
}

#[Object]
impl TimelineEntry {
    async fn update_type(&self) -> UpdateType {
        self.0.update_type
    }

    async fn actor(&self) -> Option<&str> {
        Some(&self.0.actor)
    }

    async fn summary(&self) -> &str {
        &self.0.summary
    }

    async fn changed_fields(&self) -> &[String] {
        &self.0.changed_fields
    }

    async fn timestamp(&self) -> DateTime {
        self.0.at.into()
    }
}
