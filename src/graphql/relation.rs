//! The object type `RelatedIncident`.

use std::sync::Arc;

use async_graphql::{Context, Result, SimpleObject};

use super::incident::Incident;
use super::loader::Loaders;
use crate::domain::{self, IncidentId, RelationReason};

/// An incident, as another is related to it.
#[derive(SimpleObject)]
pub struct RelatedIncident {
    incident: Incident,
    reason: RelationReason,
    /// 1 where it is certain. Of what is CORRELATED: 0.9 of the same source and fingerprint; 0.8 with the same fingerprint
    /// in another source; 0.4 to 0.7 with an affected resource in common and created within an hour, the closer the higher.
    score: f64,
}

impl From<&domain::RelatedIncident> for RelatedIncident {
    fn from(related: &domain::RelatedIncident) -> Self {
        Self { incident: Incident(Arc::clone(&related.incident)), reason: related.reason, score: related.score }
    }
}

/// What an incident is related to, best first.
pub async fn related_to(context: &Context<'_>, id: IncidentId) -> Result<Vec<RelatedIncident>> {
    let detail = Incident::detail(&[context.look_ahead().field("incident")]);
    let related = context.data::<Loaders>()?.related(id, detail).await?;
    Ok(related.iter().map(RelatedIncident::from).collect())
}
