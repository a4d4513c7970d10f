//! `api-key`: makes, shows and revokes API keys, in the database itself. It needs no key, so it is how the first one is made.

use std::fmt::Write as _;
use std::io;

use chrono::TimeDelta;

use super::{complain, database_url, print};
use crate::auth::ApiKeySecret;
use crate::clock::Clock;
use crate::config::{
    ApiKeyCommand, ApiKeyCreateConfig, ApiKeyListConfig, ApiKeyRevokeConfig, DatabaseConfig, LogConfig,
};
use crate::domain::{
    Access, ApiKey, InvalidInput, NewApiKey, Permission, Permissions, Role, Scope, Timestamp, UnknownName,
};
use crate::embedded::EmbeddedError;
use crate::store::{InvalidUrl, Revoked, Store, StoreError};
use crate::telemetry::{self, TelemetryError};

#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    #[error(transparent)]
    StartTelemetry(#[from] TelemetryError),
    #[error("cannot join the embedded database")]
    JoinDatabase(#[source] EmbeddedError),
    #[error("cannot use the database URL")]
    UseUrl(#[source] InvalidUrl),
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    #[error("the system has no random bytes")]
    Random,
    #[error("cannot ask the database")]
    Ask(#[source] StoreError),
    #[error("there is no API key {0:?}")]
    Unknown(String),
    #[error("cannot write to the standard output")]
    WriteOutput(#[source] io::Error),
}

pub async fn run(command: ApiKeyCommand) -> Result<(), ApiKeyError> {
    match command {
        ApiKeyCommand::Create(config) => create(config).await,
        ApiKeyCommand::List(config) => list(config).await,
        ApiKeyCommand::Revoke(config) => revoke(config).await,
    }
}

fn open(database: &DatabaseConfig, log: &LogConfig) -> Result<Store, ApiKeyError> {
    telemetry::init_log(log)?;
    let url = database_url(database).map_err(ApiKeyError::JoinDatabase)?;
    Store::new(url.expose(), database).map_err(ApiKeyError::UseUrl)
}

/// The key alone goes to the standard output, so that a script can take it from there.
async fn create(config: ApiKeyCreateConfig) -> Result<(), ApiKeyError> {
    let now = Clock::system().now();
    let new = NewApiKey {
        access: Access {
            permissions: permissions(&config)?,
            scope: config.sources.clone().map_or(Scope::All, Scope::of),
        },
        expires_at: config.expires_in.map(|within| {
            let within = TimeDelta::from_std(within).unwrap_or(TimeDelta::MAX);
            now.checked_add_signed(within).unwrap_or(Timestamp::MAX_UTC)
        }),
        name: config.name,
    }
    .check(now)?;
    let store = open(&config.database, &config.log)?;
    let secret = ApiKeySecret::generate().map_err(|_| ApiKeyError::Random)?;
    // the actor is the database's role, as of any direct writer
    let key = store.create_api_key("", &new, secret.prefix(), &secret.hash()).await.map_err(ApiKeyError::Ask)?;
    print(&format!("{}\n", secret.expose())).map_err(ApiKeyError::WriteOutput)?;
    complain(&format!("made {} for {:?}; it is shown this once", key.prefix, key.name));
    Ok(())
}

fn permissions(config: &ApiKeyCreateConfig) -> Result<Permissions, UnknownName> {
    let named: Permissions =
        config.permissions.iter().map(|name| name.parse::<Permission>()).collect::<Result<_, _>>()?;
    config.roles.iter().try_fold(named, |all, name| Ok(all.union(name.parse::<Role>()?.permissions())))
}

async fn list(config: ApiKeyListConfig) -> Result<(), ApiKeyError> {
    let store = open(&config.database, &config.log)?;
    let keys = store.api_keys(&Access::all()).await.map_err(ApiKeyError::Ask)?;
    print(&table(&keys, Clock::system().now())).map_err(ApiKeyError::WriteOutput)
}

async fn revoke(config: ApiKeyRevokeConfig) -> Result<(), ApiKeyError> {
    let store = open(&config.database, &config.log)?;
    let revoked = store.revoke_api_key("", &config.key, &Access::all()).await.map_err(ApiKeyError::Ask)?;
    match revoked.ok_or_else(|| ApiKeyError::Unknown(config.key.clone()))? {
        Revoked::Now(_) => complain(&format!("revoked {}", config.key)),
        Revoked::Before(_) => complain(&format!("{} was revoked before", config.key)),
    }
    Ok(())
}

/// A line for each key, in columns.
fn table(keys: &[ApiKey], now: Timestamp) -> String {
    let heads = ["PREFIX", "NAME", "STATE", "LAST USED", "SOURCES", "PERMISSIONS"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(heads).chain(keys.iter().map(|key| row(key, now))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            // writing to a String cannot fail
            let _ = write!(text, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", row[5]);
    }
    text
}

fn row(key: &ApiKey, now: Timestamp) -> [String; 6] {
    let day = |at: Timestamp| at.format("%Y-%m-%d %H:%M").to_string();
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", day(at)),
        (None, Some(at)) if at <= now => format!("expired {}", day(at)),
        (None, Some(at)) => format!("until {}", day(at)),
        (None, None) => "good".to_owned(),
    };
    let last_used = key.last_used_at.map_or_else(|| "never".to_owned(), day);
    let sources = key.access.scope.sources();
    let sources =
        sources.map_or_else(|| "all".to_owned(), |sources| sources.iter().cloned().collect::<Vec<_>>().join(","));
    let permissions: Vec<_> = key.access.permissions.iter().map(Permission::as_str).collect();
    [key.prefix.clone(), key.name.clone(), state, last_used, sources, permissions.join(",")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ApiKeyId;

    #[test]
    fn keys_are_shown_in_columns() {
        let now = Timestamp::from_timestamp(1_762_977_600, 0).unwrap();
        let key = |name: &str, expires: Option<i64>, scope| ApiKey {
            id: ApiKeyId(uuid::Uuid::nil()),
            name: name.to_owned(),
            prefix: "im_0123456789ab".to_owned(),
            access: Access { permissions: Role::Integration.permissions(), scope },
            created_at: now,
            expires_at: expires.map(|seconds| now + TimeDelta::seconds(seconds)),
            revoked_at: None,
            last_used_at: None,
        };
        let keys = [
            key("dashboard", None, Scope::All),
            key("ci", Some(60), Scope::of(["a", "b"])),
            ApiKey { revoked_at: Some(now), ..key("old", Some(-60), Scope::All) },
            ApiKey { last_used_at: Some(now), ..key("gone", Some(0), Scope::All) },
        ];
        let expected = "\
PREFIX           NAME       STATE                     LAST USED         SOURCES  PERMISSIONS
im_0123456789ab  dashboard  good                      never             all      alerts.submit
im_0123456789ab  ci         until 2025-11-12 20:01    never             a,b      alerts.submit
im_0123456789ab  old        revoked 2025-11-12 20:00  never             all      alerts.submit
im_0123456789ab  gone       expired 2025-11-12 20:00  2025-11-12 20:00  all      alerts.submit
";
        assert_eq!(table(&keys, now), expected);
    }
}
