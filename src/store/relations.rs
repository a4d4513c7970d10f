//! Which incidents belong together.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::document::Document;
use super::incidents::{IncidentRow, parse};
use super::nested::sources_of;
use super::{Store, StoreError, Work};
use crate::domain::{Incident, IncidentId, IncidentPair, RelatedIncident, Scope};

struct RelatedRow {
    of: Uuid,
    reason: String,
    score: f64,
    incident: IncidentRow,
}

impl Store {
    /// What incidents are related to inside the scope, the best first, in one statement; those that are related to none are left out.
    pub async fn related_incidents(
        &self,
        scope: &Scope,
        incidents: &[IncidentId],
    ) -> Result<HashMap<IncidentId, Vec<RelatedIncident>>, StoreError> {
        let ids: Vec<Uuid> = incidents.iter().map(|id| id.0).collect();
        let sources = sources_of(scope);
        let mut lease = self.lease().await?;
        let rows =
            lease.within(|connection| Box::pin(async move { fetch_related(connection, &ids, sources).await })).await?;
        let mut related: HashMap<IncidentId, Vec<RelatedIncident>> = HashMap::new();
        for row in rows {
            related.entry(IncidentId(row.of)).or_default().push(RelatedIncident {
                incident: Incident::try_from(row.incident)?,
                reason: parse("reason", &row.reason)?,
                score: row.score,
            });
        }
        Ok(related)
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

async fn fetch_related(
    connection: &mut PgConnection,
    ids: &[Uuid],
    sources: Option<Vec<String>>,
) -> Result<Vec<RelatedRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT r.incident AS "of!", r.reason AS "reason!", r.score AS "score!",
                  i.id, i.title, i.description, i.severity, i.state, i.incident_type, i.source, i.created_at,
                  i.updated_at, i.acknowledged_at, i.resolved_at, i.closed_at, i.assigned_to, i.affected_resources,
                  i.labels AS "labels: Document", i.metadata AS "metadata: Document", i.resolution, i.root_cause,
                  i.fingerprint, i.version
           FROM incident_manager.related_incidents_of($1, $2) r
           CROSS JOIN LATERAL (SELECT * FROM incident_manager.incident WHERE id = r.id LIMIT 1) i
           ORDER BY r.incident, r.rank"#,
        ids,
        sources.as_deref(),
    )
    .fetch_all(connection)
    .await?;
    let row = rows.into_iter().map(|row| RelatedRow {
        of: row.of,
        reason: row.reason,
        score: row.score,
        incident: IncidentRow {
            id: row.id,
            title: row.title,
            description: row.description,
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
            affected_resources: row.affected_resources,
            labels: row.labels,
            metadata: row.metadata,
            resolution: row.resolution,
            root_cause: row.root_cause,
            fingerprint: row.fingerprint,
            version: row.version,
        },
    });
    Ok(row.collect())
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
