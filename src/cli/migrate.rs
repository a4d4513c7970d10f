//! `migrate`: brings the database's schema up to date, and ends.

use tracing::info;

use super::database_url;
use crate::config::MigrateConfig;
use crate::embedded::EmbeddedError;
use crate::store::{self, InvalidUrl, Store};
use crate::telemetry::{self, TelemetryError};

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    StartTelemetry(#[from] TelemetryError),
    #[error("cannot join the embedded database")]
    JoinDatabase(#[source] EmbeddedError),
    #[error("cannot use the database URL")]
    UseUrl(#[source] InvalidUrl),
    #[error("cannot migrate the database")]
    Migrate(#[source] store::MigrateError),
}

/// Migrates the given database, or the embedded one of a service that is running.
pub async fn run(config: MigrateConfig) -> Result<(), MigrateError> {
    telemetry::init_log(&config.log)?;
    let database = &config.database;
    let url = database_url(database).map_err(MigrateError::JoinDatabase)?;
    let store = Store::new(url.expose(), database).map_err(MigrateError::UseUrl)?;
    store.migrate().await.map_err(MigrateError::Migrate)?;
    info!("the schema is up to date");
    Ok(())
}
