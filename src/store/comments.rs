//! Comments of incidents.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::nested::Asked;
use super::{Store, StoreError, Work};
use crate::domain::{Comment, CommentId, IncidentId, NestedPage, NewComment, Page, Scope, Timestamp};

struct CommentRow {
    /// Of the lists that were asked for, which one, from 1.
    list: i64,
    id: Uuid,
    incident_id: Uuid,
    author: String,
    body: String,
    created_at: Timestamp,
}

impl From<CommentRow> for Comment {
    fn from(row: CommentRow) -> Self {
        Self {
            id: CommentId(row.id),
            incident_id: IncidentId(row.incident_id),
            author: row.author,
            body: row.body,
            created_at: row.created_at,
        }
    }
}

impl Store {
    /// Adds a comment by the actor; `None` where there is no such incident inside the scope.
    pub async fn add_comment(
        &self,
        actor: &str,
        scope: &Scope,
        new: &NewComment,
    ) -> Result<Option<Comment>, StoreError> {
        if !self.sees(scope, new.incident_id).await? {
            return Ok(None);
        }
        Ok(self.write(actor, &Add { id: Uuid::now_v7(), new }).await?.map(Comment::from))
    }

    /// Pages of incidents' comments, oldest first, in one statement.
    pub async fn comment_pages(&self, pages: &[NestedPage]) -> Result<HashMap<NestedPage, Page<Comment>>, StoreError> {
        let asked = &Asked::of(pages);
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query_as!(
                        CommentRow,
                        r#"SELECT k.list AS "list!", c.id, c.incident_id, c.author, c.body, c.created_at
                           FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[])
                                WITH ORDINALITY k(incident_id, at, id, list)
                           CROSS JOIN LATERAL (
                             SELECT * FROM incident_manager.comment c
                             WHERE c.incident_id = k.incident_id AND (c.created_at, c.id) >
                                   (coalesce(k.at, '-infinity'), coalesce(k.id, '00000000-0000-0000-0000-000000000000'))
                             ORDER BY c.created_at, c.id LIMIT $4) c"#,
                        &asked.incidents,
                        &asked.at as &[Option<Timestamp>],
                        &asked.ids as &[Option<Uuid>],
                        asked.limit,
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        let rows = rows.into_iter().map(|row| (row.list, Comment::from(row)));
        Ok(asked.pages(rows, |a, b| (a.created_at, a.id).cmp(&(b.created_at, b.id))))
    }

    /// How many comments incidents have; those that have none are left out.
    pub async fn comment_counts(&self, incidents: &[IncidentId]) -> Result<HashMap<IncidentId, i64>, StoreError> {
        let ids: Vec<Uuid> = incidents.iter().map(|id| id.0).collect();
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query!(
                        r#"SELECT incident_id, count(*) AS "count!" FROM incident_manager.comment
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

struct Add<'a> {
    id: Uuid,
    new: &'a NewComment,
}

impl Work for Add<'_> {
    type Output = Option<CommentRow>;

    /// The incident is locked first, so that one that is being purged is waited for instead of failing the key.
    async fn run(&self, connection: &mut PgConnection) -> Result<Option<CommentRow>, sqlx::Error> {
        sqlx::query_as!(
            CommentRow,
            r#"INSERT INTO incident_manager.comment (id, incident_id, body)
             SELECT $1, id, $3 FROM incident_manager.incident WHERE id = $2 FOR NO KEY UPDATE
             RETURNING 1::bigint AS "list!", id, incident_id, author, body, created_at"#,
            self.id,
            self.new.incident_id.0,
            self.new.body,
        )
        .fetch_optional(connection)
        .await
    }
}
