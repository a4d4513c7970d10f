//! API keys. Of a key's secret the database has a hash alone.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, StoreError, Work};
use crate::domain::{Access, ApiKey, ApiKeyId, NewApiKey, Permission, Permissions, Scope, Timestamp};

/// SHA-256 of a whole key.
pub type KeyHash = [u8; 32];

/// A key, with what it is known by.
#[derive(Debug, Clone)]
pub struct StoredApiKey {
    pub key: ApiKey,
    pub hash: Vec<u8>,
}

/// What became of a key that was to be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    Now(ApiKeyId),
    Before(ApiKeyId),
}

struct Row {
    id: Uuid,
    name: String,
    prefix: String,
    permissions: Vec<String>,
    sources: Option<Vec<String>>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        // a name that a newer release has given is none of ours to permit
        let permissions: Permissions = row.permissions.iter().filter_map(|name| name.parse().ok()).collect();
        let scope = row.sources.map_or(Scope::All, Scope::of);
        Self {
            id: ApiKeyId(row.id),
            name: row.name,
            prefix: row.prefix,
            access: Access { permissions, scope },
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        }
    }
}

fn names(permissions: Permissions) -> Vec<String> {
    permissions.iter().map(Permission::as_str).map(str::to_owned).collect()
}

/// What a key may permit at most; `None` is no limit, not even to the permissions that this release knows.
fn limit(permissions: Permissions) -> Option<Vec<String>> {
    (permissions != Permissions::ALL).then(|| names(permissions))
}

fn sources(scope: &Scope) -> Option<Vec<String>> {
    scope.sources().map(|sources| sources.iter().cloned().collect())
}

impl Store {
    /// Makes a key.
    pub async fn create_api_key(
        &self,
        actor: &str,
        new: &NewApiKey,
        prefix: &str,
        hash: &KeyHash,
    ) -> Result<ApiKey, StoreError> {
        Ok(self.write(actor, &Create { id: Uuid::now_v7(), new, prefix, hash }).await?.into())
    }

    /// The keys that permit nothing beyond `access`, the newest first; revoked ones too.
    pub async fn api_keys(&self, access: &Access) -> Result<Vec<ApiKey>, StoreError> {
        let (permissions, sources) = (limit(access.permissions), sources(&access.scope));
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query_as!(
                        Row,
                        r#"SELECT id, name, prefix, permissions, sources, created_at, expires_at, revoked_at, last_used_at
                           FROM incident_manager.api_key
                           WHERE ($1::text[] IS NULL OR permissions <@ $1) AND ($2::text[] IS NULL OR sources <@ $2)
                           ORDER BY created_at DESC, id DESC"#,
                        permissions.as_deref(),
                        sources.as_deref(),
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        Ok(rows.into_iter().map(ApiKey::from).collect())
    }

    /// Revokes the key of an id or a prefix, if it permits nothing beyond `access`; `None` where there is no such key.
    pub async fn revoke_api_key(&self, actor: &str, key: &str, access: &Access) -> Result<Option<Revoked>, StoreError> {
        let (permissions, sources) = (limit(access.permissions), sources(&access.scope));
        self.write(actor, &Revoke { key, permissions: permissions.as_deref(), sources: sources.as_deref() }).await
    }

    /// The keys of these prefixes, in one statement.
    pub async fn api_keys_by_prefix(&self, prefixes: &[String]) -> Result<Vec<StoredApiKey>, StoreError> {
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query!(
                        "SELECT id, name, prefix, hash, permissions, sources, created_at, expires_at, revoked_at,
                                last_used_at
                         FROM incident_manager.api_key WHERE prefix = ANY($1)",
                        prefixes,
                    )
                    .fetch_all(connection),
                )
            })
            .await?;
        let stored = rows.into_iter().map(|row| StoredApiKey {
            hash: row.hash,
            key: ApiKey::from(Row {
                id: row.id,
                name: row.name,
                prefix: row.prefix,
                permissions: row.permissions,
                sources: row.sources,
                created_at: row.created_at,
                expires_at: row.expires_at,
                revoked_at: row.revoked_at,
                last_used_at: row.last_used_at,
            }),
        });
        Ok(stored.collect())
    }

    /// Which of these keys are good no more: revoked, or gone. On a connection of the event log's, so that a revocation is
    /// seen in time whatever requests do.
    pub async fn revoked_api_keys(&self, keys: &[ApiKeyId]) -> Result<Vec<ApiKeyId>, StoreError> {
        let ids: Vec<Uuid> = keys.iter().map(|key| key.0).collect();
        let mut lease = self.log_lease().await?;
        let revoked = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query_scalar!(
                        r#"SELECT asked AS "asked!" FROM unnest($1::uuid[]) asked
                           WHERE NOT EXISTS (
                             SELECT FROM incident_manager.api_key k WHERE k.id = asked AND k.revoked_at IS NULL)"#,
                        &ids
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        Ok(revoked.into_iter().map(ApiKeyId).collect())
    }

    /// Notes that these keys have been used; not where another replica has done so within half a minute.
    pub async fn note_use_of_api_keys(&self, keys: &[ApiKeyId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = keys.iter().map(|key| key.0).collect();
        let mut lease = self.lease().await?;
        lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query!(
                        "UPDATE incident_manager.api_key k SET last_used_at = clock_timestamp()
                         FROM (
                           SELECT id FROM incident_manager.api_key
                           WHERE id = ANY($1)
                             AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '30 seconds')
                           ORDER BY id FOR UPDATE SKIP LOCKED) used
                         WHERE k.id = used.id",
                        &ids
                    )
                    .execute(connection)
                    .await
                })
            })
            .await?;
        Ok(())
    }
}

struct Create<'a> {
    id: Uuid,
    new: &'a NewApiKey,
    prefix: &'a str,
    hash: &'a KeyHash,
}

impl Work for Create<'_> {
    type Output = Row;

    async fn run(&self, connection: &mut PgConnection) -> Result<Row, sqlx::Error> {
        let access = &self.new.access;
        let (permissions, sources) = (names(access.permissions), sources(&access.scope));
        sqlx::query_as!(
            Row,
            r#"INSERT INTO incident_manager.api_key (id, name, prefix, hash, permissions, sources, expires_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               RETURNING id, name, prefix, permissions, sources, created_at, expires_at, revoked_at, last_used_at"#,
            self.id,
            self.new.name,
            self.prefix,
            self.hash.as_slice(),
            &permissions,
            sources.as_deref(),
            self.new.expires_at,
        )
        .fetch_one(connection)
        .await
    }
}

struct Revoke<'a> {
    key: &'a str,
    permissions: Option<&'a [String]>,
    sources: Option<&'a [String]>,
}

impl Work for Revoke<'_> {
    type Output = Option<Revoked>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Option<Revoked>, sqlx::Error> {
        let found = sqlx::query!(
            r#"SELECT id, revoked_at FROM incident_manager.api_key
               WHERE (id::text = lower($1) OR prefix = $1)
                 AND ($2::text[] IS NULL OR permissions <@ $2) AND ($3::text[] IS NULL OR sources <@ $3)
               FOR UPDATE"#,
            self.key,
            self.permissions,
            self.sources,
        )
        .fetch_optional(&mut *connection)
        .await?;
        let Some(found) = found else { return Ok(None) };
        let id = ApiKeyId(found.id);
        if found.revoked_at.is_some() {
            return Ok(Some(Revoked::Before(id)));
        }
        sqlx::query!(
            "UPDATE incident_manager.api_key
             SET revoked_at = clock_timestamp(), revoked_by = incident_manager.current_actor() WHERE id = $1",
            found.id
        )
        .execute(connection)
        .await?;
        Ok(Some(Revoked::Now(id)))
    }
}
