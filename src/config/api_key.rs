//! Settings of `api-key`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{DatabaseConfig, LogConfig, duration};

/// What is to be done with API keys.
#[derive(Debug, Clone, Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key and print it; it is never shown again
    Create(ApiKeyCreateConfig),
    /// Show all keys, the newest first
    List(ApiKeyListConfig),
    /// Revoke a key: within seconds nobody gets in with it, and its connections end
    Revoke(ApiKeyRevokeConfig),
}

/// Settings of `api-key create`.
#[derive(Debug, Clone, Args)]
pub struct ApiKeyCreateConfig {
    /// What the key is for; its changes are made by `api-key:<name>`
    #[arg(long, env = "INCIDENT_MANAGER_API_KEY_NAME", value_name = "NAME")]
    pub name: String,

    /// What the key permits, such as incidents.read
    #[arg(
        long,
        env = "INCIDENT_MANAGER_API_KEY_PERMISSIONS",
        value_delimiter = ',',
        value_name = "PERMISSION",
        required_unless_present = "roles"
    )]
    pub permissions: Vec<String>,

    /// Sets of permissions: viewer, responder, integration, admin
    #[arg(long, env = "INCIDENT_MANAGER_API_KEY_ROLES", value_delimiter = ',', value_name = "ROLE")]
    pub roles: Vec<String>,

    /// The sources that the key is limited to [default: no limit]
    #[arg(long, env = "INCIDENT_MANAGER_API_KEY_SOURCES", value_delimiter = ',', value_name = "SOURCE")]
    pub sources: Option<Vec<String>>,

    /// How long the key is good for [default: until it is revoked]
    #[arg(long, env = "INCIDENT_MANAGER_API_KEY_EXPIRES_IN", value_parser = duration, value_name = "DURATION")]
    pub expires_in: Option<Duration>,

    #[command(flatten)]
    pub database: DatabaseConfig,

    #[command(flatten)]
    pub log: LogConfig,
}

/// Settings of `api-key list`.
#[derive(Debug, Clone, Args)]
pub struct ApiKeyListConfig {
    #[command(flatten)]
    pub database: DatabaseConfig,

    #[command(flatten)]
    pub log: LogConfig,
}

/// Settings of `api-key revoke`.
#[derive(Debug, Clone, Args)]
pub struct ApiKeyRevokeConfig {
    /// The key, by its id or its prefix
    #[arg(value_name = "ID|PREFIX")]
    pub key: String,

    #[command(flatten)]
    pub database: DatabaseConfig,

    #[command(flatten)]
    pub log: LogConfig,
}
