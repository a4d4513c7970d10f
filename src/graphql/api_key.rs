//! API keys over GraphQL. Nobody makes, sees or revokes one that permits more than they have themselves.

use async_graphql::{Context, InputObject, Object, Result};

use super::error::{Internal, NotFound};
use super::scalar::{DateTime, Id};
use crate::auth::{ApiKeySecret, Authenticator, Caller, Viewer};
use crate::clock::Clock;
use crate::domain::{self, Access, InvalidInput, NewApiKey, Permission, Permissions, Scope, Timestamp};
use crate::store::{Revoked, Store};

/// Somebody would give on more than they have.
#[derive(Debug, thiserror::Error)]
#[error("the key would have {0} beyond your own")]
pub struct BeyondOwn(&'static str);

/// `sources` limits the key to incidents and alerts of these sources; null is no limit. Without `expiresAt` it ends with the
/// credential that makes it, if that ends.
#[derive(InputObject)]
pub struct CreateApiKeyInput {
    name: String,
    permissions: Vec<String>,
    sources: Option<Vec<String>>,
    expires_at: Option<DateTime>,
}

impl CreateApiKeyInput {
    fn check(self, now: Timestamp) -> Result<NewApiKey, InvalidInput> {
        let permission = |name: &String| {
            let unknown = |_| InvalidInput::new("permissions", format!("must be permissions, which {name:?} is not"));
            name.parse::<Permission>().map_err(unknown)
        };
        let permissions: Permissions = self.permissions.iter().map(permission).collect::<Result<_, _>>()?;
        let access = Access { permissions, scope: self.sources.map_or(Scope::All, Scope::of) };
        NewApiKey { name: self.name, access, expires_at: self.expires_at.map(|at| at.0) }.check(now)
    }
}

/// Whether who makes the key has all that it is to have.
fn within_own(viewer: &Viewer, new: &NewApiKey) -> Result<(), BeyondOwn> {
    if !viewer.access.permissions.includes(new.access.permissions) {
        return Err(BeyondOwn("permissions"));
    }
    if !viewer.access.scope.includes(&new.access.scope) {
        return Err(BeyondOwn("sources"));
    }
    if viewer.expires_at.is_some_and(|own| new.expires_at.is_none_or(|wanted| wanted > own)) {
        return Err(BeyondOwn("time"));
    }
    Ok(())
}

/// Makes a key, which without an expiry of its own ends with the credential that makes it.
pub async fn create(context: &Context<'_>, input: CreateApiKeyInput) -> Result<CreatedApiKey> {
    let viewer = context.data::<Caller>()?.viewer();
    let mut new = input.check(context.data::<Clock>()?.now())?;
    // as far as one's own goes
    new.expires_at = new.expires_at.or(viewer.expires_at);
    within_own(viewer, &new)?;
    let secret = ApiKeySecret::generate().map_err(|_| Internal)?;
    let store = context.data::<Store>()?;
    let key = store.create_api_key(&viewer.subject, &new, secret.prefix(), &secret.hash()).await?;
    Ok(CreatedApiKey { key, secret })
}

/// The keys within one's own access, the newest first.
pub async fn list(context: &Context<'_>) -> Result<Vec<ApiKey>> {
    let keys = context.data::<Store>()?.api_keys(&context.data::<Caller>()?.viewer().access).await?;
    Ok(keys.into_iter().map(ApiKey).collect())
}

/// Revokes a key within one's own access. False: it was revoked before.
pub async fn revoke(context: &Context<'_>, id: Id) -> Result<bool> {
    let viewer = context.data::<Caller>()?.viewer();
    let store = context.data::<Store>()?;
    let revoked = store.revoke_api_key(&viewer.subject, &id.0.to_string(), &viewer.access).await?;
    match revoked.ok_or(NotFound { kind: "API key", id: id.0 })? {
        Revoked::Now(key) => {
            // here at once; other replicas see it within a second or two
            context.data::<Authenticator>()?.revoked(key);
            Ok(true)
        }
        Revoked::Before(_) => Ok(false),
    }
}

/// An API key, without its secret.
pub struct ApiKey(domain::ApiKey);

#[Object]
impl ApiKey {
    async fn id(&self) -> Id {
        Id(self.0.id.0)
    }

    async fn name(&self) -> &str {
        &self.0.name
    }

    /// The part of the key that finds it.
    async fn prefix(&self) -> &str {
        &self.0.prefix
    }

    async fn permissions(&self) -> Vec<&'static str> {
        self.0.access.permissions.iter().map(Permission::as_str).collect()
    }

    /// Null: there is no limit.
    async fn sources(&self) -> Option<Vec<&str>> {
        Some(self.0.access.scope.sources()?.iter().map(String::as_str).collect())
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    async fn expires_at(&self) -> Option<DateTime> {
        self.0.expires_at.map(DateTime::from)
    }

    async fn revoked_at(&self) -> Option<DateTime> {
        self.0.revoked_at.map(DateTime::from)
    }

    /// At most a minute or so behind.
    async fn last_used_at(&self) -> Option<DateTime> {
        self.0.last_used_at.map(DateTime::from)
    }
}

/// A key that was made just now.
pub struct CreatedApiKey {
    key: domain::ApiKey,
    secret: ApiKeySecret,
}

#[Object]
impl CreatedApiKey {
    async fn id(&self) -> Id {
        Id(self.key.id.0)
    }

    async fn name(&self) -> &str {
        &self.key.name
    }

    /// Shown this once; only its hash is stored.
    async fn secret(&self) -> &str {
        self.secret.expose()
    }

    async fn expires_at(&self) -> Option<DateTime> {
        self.key.expires_at.map(DateTime::from)
    }
}

/// Who asks.
#[Object]
impl Viewer {
    /// Who acts in what is changed.
    async fn subject(&self) -> &str {
        &self.subject
    }

    async fn permissions(&self) -> Vec<&'static str> {
        self.access.permissions.iter().map(Permission::as_str).collect()
    }

    /// The sources that the credential is limited to; null is no limit.
    async fn sources(&self) -> Option<Vec<&str>> {
        Some(self.access.scope.sources()?.iter().map(String::as_str).collect())
    }

    /// When the credential ends; null where it does not by itself.
    async fn expires_at(&self) -> Option<DateTime> {
        self.expires_at.map(DateTime::from)
    }
}
