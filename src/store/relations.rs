//! Which incidents belong together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::incidents::{fetch_by_id, parse};
use super::nested::sources_of;
use super::{Store, StoreError, Work};
use crate::domain::{
    Candidate, Detail, IncidentId, IncidentPair, Neighbour, RelatedIncident, Scope, Timestamp, relate,
};

impl Store {
    /// What incidents are related to inside the scope, the best first; those that are related to none are left out.
    pub async fn related_incidents(
        &self,
        scope: &Scope,
        asked: &[(IncidentId, Detail)],
    ) -> Result<HashMap<(IncidentId, Detail), Vec<RelatedIncident>>, StoreError> {
        let incidents: Vec<IncidentId> = asked.iter().map(|(id, _)| *id).collect();
        let ids = incidents.iter().map(|id| id.0).collect();
        let sources = sources_of(scope);
        let mut lease = self.lease().await?;
        let rows = lease.within(|connection| Box::pin(fetch_candidates(connection, ids, sources))).await?;
        let (mut candidates, mut neighbours) = (Vec::new(), Vec::new());
        for row in rows {
            let id = IncidentId(row.id);
            match (row.incident.map(IncidentId), row.at) {
                (Some(of), at) => candidates.push(Candidate {
                    of,
                    id,
                    reason: parse("reason", &row.reason.unwrap_or_default())?,
                    score: row.score.unwrap_or_default(),
                    at,
                }),
                (None, Some(created_at)) => {
                    let affected_resources = row.affected_resources.unwrap_or_default();
                    neighbours.push(Neighbour { id, created_at, affected_resources });
                }
                (None, None) => {}
            }
        }
        let related = relate(&incidents, candidates, neighbours);
        let ids: HashSet<Uuid> = related.values().flatten().map(|one| one.id.0).collect();
        let detail = asked.iter().map(|(_, detail)| *detail).max().unwrap_or_default();
        let found = fetch_by_id(&mut lease, ids.into_iter().collect(), detail).await?;
        let found: HashMap<_, _> = found.into_iter().map(|(id, incident)| (id, Arc::new(incident))).collect();
        let known = |one: &Candidate| {
            let incident = Arc::clone(found.get(&one.id)?);
            Some(RelatedIncident { incident, reason: one.reason, score: one.score })
        };
        Ok(asked
            .iter()
            .filter_map(|key| Some((*key, related.get(&key.0)?.iter().filter_map(known).collect())))
            .collect())
    }

    /// Links two incidents; once linked they stay so. `Err` of the result names one that there is not inside the scope.
    pub async fn link_incidents(
        &self,
        actor: &str,
        scope: &Scope,
        pair: IncidentPair,
    ) -> Result<Result<(), IncidentId>, StoreError> {
        for id in [pair.low(), pair.high()] {
            if !self.sees(scope, id).await? {
                return Ok(Err(id));
            }
        }
        self.write(actor, &Link { pair }).await
    }
}

/// What the function of the same name returns.
struct CandidateRow {
    incident: Option<Uuid>,
    id: Uuid,
    reason: Option<String>,
    score: Option<f64>,
    at: Option<Timestamp>,
    affected_resources: Option<Vec<String>>,
}

async fn fetch_candidates(
    connection: &mut PgConnection,
    incidents: Vec<Uuid>,
    sources: Option<Vec<String>>,
) -> Result<Vec<CandidateRow>, sqlx::Error> {
    sqlx::query_as!(
        CandidateRow,
        r#"SELECT incident, id AS "id!", reason, score, at, affected_resources
           FROM incident_manager.related_candidates($1, $2)"#,
        &incidents,
        sources.as_deref(),
    )
    .fetch_all(connection)
    .await
}

struct Link {
    pair: IncidentPair,
}

impl Work for Link {
    type Output = Result<(), IncidentId>;

    /// Both are locked first, so that one that is being purged is waited for instead of failing the key.
    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let (low, high) = (self.pair.low(), self.pair.high());
        let found = sqlx::query_scalar!(
            "SELECT id FROM incident_manager.incident WHERE id = ANY($1) ORDER BY id FOR KEY SHARE",
            &[low.0, high.0]
        )
        .fetch_all(&mut *connection)
        .await?;
        if let Some(missing) = [low, high].into_iter().find(|id| !found.contains(&id.0)) {
            return Ok(Err(missing));
        }
        sqlx::query!(
            "INSERT INTO incident_manager.incident_link (a, b) VALUES ($1, $2) ON CONFLICT (a, b) DO NOTHING",
            low.0,
            high.0
        )
        .execute(connection)
        .await?;
        Ok(Ok(()))
    }
}
