//! The schema's migrations.

use sqlx::migrate::{MigrateError as SqlxMigrateError, Migrator};
use sqlx::postgres::PgPoolOptions;

use super::{ACQUIRE_TIMEOUT, Store, StoreError};

/// How the database's schema stands to this release's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrations {
    /// Nothing to do. A database that is ahead is served: a migration keeps the previous release working.
    UpToDate,
    /// So many migrations have not been run.
    Pending(usize),
}

/// The schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database is away.
    #[error("cannot reach the database")]
    Connect(#[source] StoreError),
    /// This role may not create what the migrations create.
    #[error("role {role:?} may not migrate; run `incident-manager migrate` with a role that may create the schema")]
    Forbidden { role: String },
    /// A migration failed; it left nothing behind.
    #[error("a migration failed")]
    Run(#[source] SqlxMigrateError),
}

impl Store {
    /// Compares `_sqlx_migrations` with what this release brings, without asking for any right but to read it.
    pub async fn migrations(&self) -> Result<Migrations, StoreError> {
        let mut lease = self.log_lease().await?;
        let applied: Option<Vec<i64>> = lease
            .within(|connection| {
                Box::pin(async move {
                    let table = sqlx::query_scalar!(
                        r#"SELECT to_regclass('incident_manager._sqlx_migrations') IS NOT NULL AS "exists!""#
                    )
                    .fetch_one(&mut *connection)
                    .await?;
                    if !table {
                        return Ok(None);
                    }
                    // not checked at build time: the table is made by the migrator and not by a migration
                    sqlx::query_scalar("SELECT version FROM incident_manager._sqlx_migrations WHERE success")
                        .fetch_all(connection)
                        .await
                        .map(Some)
                })
            })
            .await?;
        let applied = applied.unwrap_or_default();
        match migrator().iter().filter(|migration| !applied.contains(&migration.version)).count() {
            0 => Ok(Migrations::UpToDate),
            pending => Ok(Migrations::Pending(pending)),
        }
    }

    /// Runs what is pending, on a connection without our time-outs; several at once wait for each other.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        let connect = |error| MigrateError::Connect(StoreError::from(error));
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(self.options.clone())
            .await
            .map_err(connect)?;
        let result = migrator().run(&pool).await.map_err(|error| self.migrate_error(error));
        pool.close().await;
        result
    }

    fn migrate_error(&self, error: SqlxMigrateError) -> MigrateError {
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        let (SqlxMigrateError::Execute(cause) | SqlxMigrateError::ExecuteMigration(cause, _)) = &error else {
            return MigrateError::Run(error);
        };
        let state = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if state.is_some_and(|state| state == INSUFFICIENT_PRIVILEGE) {
            return MigrateError::Forbidden { role: self.options.get_username().to_owned() };
        }
        MigrateError::Run(error)
    }
}

/// A database that is ahead of this release is none of its business.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.set_ignore_missing(true);
    migrator
}
