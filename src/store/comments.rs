//! Comments of incidents.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, StoreError, Work};
use crate::domain::{Comment, CommentId, IncidentId, NewComment, Page, PageRequest, Seek, Timestamp};

struct CommentRow {
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
    /// Adds a comment by the actor; `None` where there is no such incident.
    pub async fn add_comment(&self, actor: &str, new: &NewComment) -> Result<Option<Comment>, StoreError> {
        Ok(self.write(actor, &Add { id: Uuid::now_v7(), new }).await?.map(Comment::from))
    }

    /// One page of an incident's comments, oldest first.
    pub async fn comments(&self, incident: IncidentId, page: PageRequest) -> Result<Page<Comment>, StoreError> {
        let (key, backward) = match page.seek {
            Seek::Forward(key) => (key, false),
            Seek::Backward(key) => (key, true),
        };
        let (at, id) = (key.map(|key| key.at), key.map(|key| key.id));
        let limit = i64::from(page.size) + 1;
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                if backward {
                    Box::pin(
                        sqlx::query_as!(
                            CommentRow,
                            "SELECT id, incident_id, author, body, created_at FROM incident_manager.comment
                             WHERE incident_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
                             ORDER BY created_at DESC, id DESC LIMIT $4",
                            incident.0,
                            at,
                            id,
                            limit
                        )
                        .fetch_all(connection),
                    )
                } else {
                    Box::pin(
                        sqlx::query_as!(
                            CommentRow,
                            "SELECT id, incident_id, author, body, created_at FROM incident_manager.comment
                             WHERE incident_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3::uuid))
                             ORDER BY created_at, id LIMIT $4",
                            incident.0,
                            at,
                            id,
                            limit
                        )
                        .fetch_all(connection),
                    )
                }
            })
            .await?;
        Ok(Page::from_search(page, rows.into_iter().map(Comment::from).collect()))
    }

    /// How many comments an incident has.
    pub async fn count_comments(&self, incident: IncidentId) -> Result<i64, StoreError> {
        let mut lease = self.lease().await?;
        Ok(lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_scalar!(
                        r#"SELECT count(*) AS "count!" FROM incident_manager.comment WHERE incident_id = $1"#,
                        incident.0
                    )
                    .fetch_one(connection),
                )
            })
            .await?)
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
            "INSERT INTO incident_manager.comment (id, incident_id, body)
             SELECT $1, id, $3 FROM incident_manager.incident WHERE id = $2 FOR NO KEY UPDATE
             RETURNING id, incident_id, author, body, created_at",
            self.id,
            self.new.incident_id.0,
            self.new.body,
        )
        .fetch_optional(connection)
        .await
    }
}
