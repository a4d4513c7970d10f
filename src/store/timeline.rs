//! The audit trail of incidents, which the sequencer writes.

use std::collections::HashMap;

use uuid::Uuid;

use super::incidents::parse;
use super::nested::Asked;
use super::{Store, StoreError};
use crate::domain::{IncidentId, NestedPage, Page, Position, TimelineEntry};

impl Store {
    /// Pages of incidents' timelines, oldest first, in one statement.
    pub async fn timeline_pages(
        &self,
        pages: &[NestedPage],
    ) -> Result<HashMap<NestedPage, Page<TimelineEntry>>, StoreError> {
        let asked = &Asked::of(pages);
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query!(
                        r#"SELECT k.list AS "list!", t.pos, t.at, t.update_type, t.actor, t.summary, t.changed_fields
                           FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY k(incident_id, pos, list)
                           CROSS JOIN LATERAL (
                             SELECT * FROM incident_manager.timeline t
                             WHERE t.incident_id = k.incident_id AND t.pos > coalesce(k.pos, 0)
                             ORDER BY t.pos LIMIT $3) t"#,
                        &asked.incidents,
                        &asked.positions as &[Option<i64>],
                        asked.limit,
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        let rows: Vec<(i64, TimelineEntry)> = rows
            .into_iter()
            .map(|row| {
                let entry = TimelineEntry {
                    position: Position(row.pos),
                    update_type: parse("update_type", &row.update_type)?,
                    actor: row.actor,
                    summary: row.summary,
                    changed_fields: row.changed_fields,
                    at: row.at,
                };
                Ok((row.list, entry))
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(asked.pages(rows, |a, b| a.position.cmp(&b.position)))
    }

    /// How many entries incidents' timelines have; those that have none are left out.
    pub async fn timeline_counts(&self, incidents: &[IncidentId]) -> Result<HashMap<IncidentId, i64>, StoreError> {
        let ids: Vec<Uuid> = incidents.iter().map(|id| id.0).collect();
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query!(
                        r#"SELECT incident_id, count(*) AS "count!" FROM incident_manager.timeline
                           WHERE incident_id = ANY($1) GROUP BY incident_id"#,
                        &ids
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        Ok(rows.into_iter().map(|row| (IncidentId(row.incident_id), row.count)).collect())
    }
}
