//! Playbooks, and the incidents that have them.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::incidents::parse;
use super::{Store, StoreError, Work};
use crate::domain::{
    IncidentId, IncidentKind, NewPlaybook, Page, PageRequest, Playbook, PlaybookId, PlaybookStep, Seek, Severity,
    Timestamp,
};

struct PlaybookRow {
    id: Uuid,
    name: String,
    description: String,
    enabled: bool,
    severities: Vec<String>,
    incident_types: Vec<String>,
    sources: Vec<String>,
    steps: Json<Vec<PlaybookStep>>,
    created_at: Timestamp,
}

impl TryFrom<PlaybookRow> for Playbook {
    type Error = StoreError;

    fn try_from(row: PlaybookRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: PlaybookId(row.id),
            name: row.name,
            description: row.description,
            enabled: row.enabled,
            severities: row.severities.iter().map(|name| parse("severities", name)).collect::<Result<_, _>>()?,
            kinds: row.incident_types.iter().map(|name| parse("incident_types", name)).collect::<Result<_, _>>()?,
            sources: row.sources,
            steps: row.steps.0,
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// Makes a playbook. Incidents that there are already do not get it.
    pub async fn create_playbook(&self, actor: &str, new: &NewPlaybook) -> Result<Playbook, StoreError> {
        self.write(actor, &Create { id: Uuid::now_v7(), new }).await?.try_into()
    }

    /// Changes all of a playbook but its id; incidents that have it keep it. `None` where there is none of this id.
    pub async fn update_playbook(
        &self,
        actor: &str,
        id: PlaybookId,
        new: &NewPlaybook,
    ) -> Result<Option<Playbook>, StoreError> {
        self.write(actor, &Update { id: id.0, new }).await?.map(Playbook::try_from).transpose()
    }

    /// Deletes a playbook; incidents that had it have none. False: there is none of this id.
    pub async fn delete_playbook(&self, actor: &str, id: PlaybookId) -> Result<bool, StoreError> {
        self.write(actor, &Delete { id: id.0 }).await
    }

    /// One playbook.
    pub async fn playbook(&self, id: PlaybookId) -> Result<Option<Playbook>, StoreError> {
        let mut lease = self.lease().await?;
        let row = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_as!(
                        PlaybookRow,
                        r#"SELECT id, name, description, enabled, severities, incident_types, sources,
                                  steps AS "steps: Json<Vec<PlaybookStep>>", created_at
                           FROM incident_manager.playbook WHERE id = $1"#,
                        id.0
                    )
                    .fetch_optional(connection),
                )
            })
            .await?;
        row.map(Playbook::try_from).transpose()
    }

    /// One page of all playbooks, oldest first; read forward.
    pub async fn playbooks(&self, page: PageRequest) -> Result<Page<Playbook>, StoreError> {
        let (Seek::Forward(after) | Seek::Backward(after)) = page.seek;
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_as!(
                        PlaybookRow,
                        r#"SELECT id, name, description, enabled, severities, incident_types, sources,
                                  steps AS "steps: Json<Vec<PlaybookStep>>", created_at
                           FROM incident_manager.playbook
                           WHERE (created_at, id) >
                                 (coalesce($1::timestamptz, '-infinity'), coalesce($2::uuid, '00000000-0000-0000-0000-000000000000'))
                           ORDER BY created_at, id LIMIT $3"#,
                        after.map(|key| key.at),
                        after.map(|key| key.id),
                        i64::from(page.size) + 1
                    )
                    .fetch_all(connection),
                )
            })
            .await?;
        let found = rows.into_iter().map(Playbook::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_search(page, found))
    }

    /// How many playbooks there are.
    pub async fn count_playbooks(&self) -> Result<i64, StoreError> {
        let mut lease = self.lease().await?;
        Ok(lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM incident_manager.playbook"#)
                        .fetch_one(connection),
                )
            })
            .await?)
    }

    /// The playbooks of incidents, in one statement; incidents that have none are left out.
    pub async fn playbooks_of(
        &self,
        incidents: &[IncidentId],
    ) -> Result<HashMap<IncidentId, Arc<Playbook>>, StoreError> {
        let ids: Vec<Uuid> = incidents.iter().map(|id| id.0).collect();
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query!(
                        r#"SELECT x.incidents AS "incidents!", p.id, p.name, p.description, p.enabled, p.severities,
                                  p.incident_types, p.sources, p.steps AS "steps: Json<Vec<PlaybookStep>>", p.created_at
                           FROM (SELECT playbook_id, array_agg(incident_id) AS incidents
                                 FROM incident_manager.incident_playbook
                                 WHERE incident_id = ANY($1) GROUP BY playbook_id) x
                           JOIN incident_manager.playbook p ON p.id = x.playbook_id"#,
                        &ids
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        let mut found = HashMap::with_capacity(incidents.len());
        for row in rows {
            let playbook = PlaybookRow {
                id: row.id,
                name: row.name,
                description: row.description,
                enabled: row.enabled,
                severities: row.severities,
                incident_types: row.incident_types,
                sources: row.sources,
                steps: row.steps,
                created_at: row.created_at,
            };
            let playbook = Arc::new(Playbook::try_from(playbook)?);
            found.extend(row.incidents.into_iter().map(|id| (IncidentId(id), Arc::clone(&playbook))));
        }
        Ok(found)
    }
}

fn names(new: &NewPlaybook) -> (Vec<String>, Vec<String>) {
    let severities = new.severities.iter().copied().map(Severity::as_str).map(str::to_owned).collect();
    let kinds = new.kinds.iter().copied().map(IncidentKind::as_str).map(str::to_owned).collect();
    (severities, kinds)
}

struct Create<'a> {
    id: Uuid,
    new: &'a NewPlaybook,
}

impl Work for Create<'_> {
    type Output = PlaybookRow;

    async fn run(&self, connection: &mut PgConnection) -> Result<PlaybookRow, sqlx::Error> {
        let (severities, kinds) = names(self.new);
        sqlx::query_as!(
            PlaybookRow,
            r#"INSERT INTO incident_manager.playbook
                 (id, name, description, enabled, severities, incident_types, sources, steps)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               RETURNING id, name, description, enabled, severities, incident_types, sources,
                         steps AS "steps: Json<Vec<PlaybookStep>>", created_at"#,
            self.id,
            self.new.name,
            self.new.description,
            self.new.enabled,
            &severities,
            &kinds,
            &self.new.sources,
            Json(&self.new.steps) as _,
        )
        .fetch_one(connection)
        .await
    }
}

struct Update<'a> {
    id: Uuid,
    new: &'a NewPlaybook,
}

impl Work for Update<'_> {
    type Output = Option<PlaybookRow>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Option<PlaybookRow>, sqlx::Error> {
        let (severities, kinds) = names(self.new);
        sqlx::query_as!(
            PlaybookRow,
            r#"UPDATE incident_manager.playbook
               SET name = $2, description = $3, enabled = $4, severities = $5, incident_types = $6, sources = $7,
                   steps = $8
               WHERE id = $1
               RETURNING id, name, description, enabled, severities, incident_types, sources,
                         steps AS "steps: Json<Vec<PlaybookStep>>", created_at"#,
            self.id,
            self.new.name,
            self.new.description,
            self.new.enabled,
            &severities,
            &kinds,
            &self.new.sources,
            Json(&self.new.steps) as _,
        )
        .fetch_optional(connection)
        .await
    }
}

struct Delete {
    id: Uuid,
}

impl Work for Delete {
    type Output = bool;

    async fn run(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let deleted = sqlx::query!("DELETE FROM incident_manager.playbook WHERE id = $1", self.id);
        Ok(deleted.execute(connection).await?.rows_affected() > 0)
    }
}
