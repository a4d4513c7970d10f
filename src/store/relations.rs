//! Which incidents belong together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::incidents::{IncidentRow, fetch_by_id, parse};
use super::nested::sources_of;
use super::{Store, StoreError, Work};
use crate::domain::{
    Candidate, Detail, Incident, IncidentId, IncidentPair, Neighbour, RelatedIncident, Scope, Timestamp, relate,
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
        let detail = asked.iter().map(|(_, detail)| *detail).max().unwrap_or_default();
        let mut lease = self.lease().await?;
        let rows = lease.within(|connection| Box::pin(fetch_candidates(connection, ids, sources))).await?;
        let (mut candidates, mut neighbours, mut short) = (Vec::new(), Vec::new(), HashMap::new());
        for mut row in rows {
            let id = IncidentId(row.id);
            if let Some(of) = row.incident.map(IncidentId) {
                let reason = parse("reason", &row.reason.take().unwrap_or_default())?;
                candidates.push(Candidate { of, id, reason, score: row.score.unwrap_or_default(), at: row.at });
            } else {
                let affected_resources = row.affected_resources.take().unwrap_or_default();
                neighbours.push(Neighbour { id, created_at: row.created_at, affected_resources });
            }
            short.insert(id, row);
        }
        let related = relate(&incidents, candidates, neighbours);
        let ids: HashSet<IncidentId> = related.values().flatten().map(|one| one.id).collect();
        let found: HashMap<_, _> = if detail.is_whole() {
            let ids = ids.iter().map(|id| id.0).collect();
            fetch_by_id(&mut lease, ids, detail).await?.into_iter().map(|(id, found)| (id, Arc::new(found))).collect()
        } else {
            let known = ids.iter().filter_map(|id| Some((*id, short.remove(id)?)));
            known.map(|(id, row)| Ok((id, Arc::new(Incident::try_from(row)?)))).collect::<Result<_, StoreError>>()?
        };
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

/// What the function of the same name returns: an incident, and why it may be related to another; or, with none to relate it
/// to, what of it may relate it to others.
struct CandidateRow {
    incident: Option<Uuid>,
    reason: Option<String>,
    score: Option<f64>,
    at: Option<Timestamp>,
    id: Uuid,
    title: String,
    severity: String,
    state: String,
    incident_type: String,
    source: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    acknowledged_at: Option<Timestamp>,
    resolved_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    assigned_to: Option<String>,
    fingerprint: Option<String>,
    version: i32,
    affected_resources: Option<Vec<String>>,
}

impl TryFrom<CandidateRow> for Incident {
    type Error = StoreError;

    fn try_from(row: CandidateRow) -> Result<Self, StoreError> {
        let brief = IncidentRow {
            id: row.id,
            title: row.title,
            description: None,
            severity: row.severity,
            state: row.state,
            incident_type: row.incident_type,
            source: row.source,
            created_at: row.created_at,
            updated_at: row.updated_at,
            acknowledged_at: row.acknowledged_at,
            resolved_at: row.resolved_at,
            closed_at: row.closed_at,
            assigned_to: row.assigned_to,
            affected_resources: None,
            labels: None,
            metadata: None,
            resolution: None,
            root_cause: None,
            fingerprint: row.fingerprint,
            version: row.version,
        };
        brief.try_into()
    }
}

async fn fetch_candidates(
    connection: &mut PgConnection,
    incidents: Vec<Uuid>,
    sources: Option<Vec<String>>,
) -> Result<Vec<CandidateRow>, sqlx::Error> {
    sqlx::query_as!(
        CandidateRow,
        r#"SELECT incident, reason, score, at, id AS "id!", title AS "title!", severity AS "severity!", state AS "state!",
                  incident_type AS "incident_type!", source AS "source!", created_at AS "created_at!",
                  updated_at AS "updated_at!", acknowledged_at, resolved_at, closed_at, assigned_to, fingerprint,
                  version AS "version!", affected_resources
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
