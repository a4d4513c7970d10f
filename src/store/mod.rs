//! Every SQL statement of the service, and where database errors become domain errors.

mod alerts;
mod api_keys;
mod comments;
mod document;
mod error;
mod event_row;
mod incidents;
mod intake;
mod lease;
mod listen;
mod log;
mod migrate;
mod nested;
mod playbooks;
mod relations;
mod respond;
mod resume;
mod sessions;
mod timeline;

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio_util::context::TokioContext;

pub use api_keys::{KeyHash, Revoked, StoredApiKey};
pub use error::StoreError;
pub use intake::{Intake, IntakeError};
pub use listen::{Heard, Notifications};
pub use log::{LogPage, LogState, Maintenance, Retention, Sequenced};
pub use migrate::{MigrateError, Migrations};
pub use resume::LogMatches;
pub use sessions::Sessions;

use crate::config::DatabaseConfig;
use lease::Lease;

/// How long a request waits for a connection before the database counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A pooled connection that was idle for longer is tried before it is used, so that a restart of the server is not a
/// request's error.
const TRUSTED_IDLE: Duration = Duration::from_millis(100);
/// What the client waits beyond the server's own `statement_timeout` before it gives the connection up.
const DEADLINE_MARGIN: Duration = Duration::from_secs(2);
/// Of all connections, those that only the event log uses: for the sequencer, the reader and the maintenance.
const LOG_CONNECTIONS: u32 = 3;
/// How often a unit of work is run that fails to serialize or deadlocks.
const WRITE_ATTEMPTS: u32 = 5;

/// The database, as a pool of connections with our time-outs set.
#[derive(Debug, Clone)]
pub struct Store {
    /// For requests.
    pool: PgPool,
    /// For the event log alone: whatever requests do, it goes on.
    log_pool: PgPool,
    /// Where connections of the log are waited for; where they are used, if nowhere else.
    log_runtime: Option<Handle>,
    options: PgConnectOptions,
    settings: SessionSettings,
}

/// Time-outs of every session.
#[derive(Debug, Clone, Copy)]
struct SessionSettings {
    statement_timeout: Duration,
    lock_timeout: Duration,
    /// Whether plans are made once for a session, and go by indexes: right for statements that look up the end of a log of
    /// any size, and to plan one anew takes longer than to carry it out.
    pinned_plans: bool,
}

/// The database URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the database URL cannot be used")]
pub struct InvalidUrl(#[source] sqlx::Error);

/// How many connections requests, and subscriptions whose selection asks the database, have.
pub fn request_connections(config: &DatabaseConfig) -> u32 {
    config.database_connections.saturating_sub(LOG_CONNECTIONS).max(1)
}

impl Store {
    /// Opens no connection yet: the database may be away.
    pub fn new(url: &str, config: &DatabaseConfig) -> Result<Self, InvalidUrl> {
        let options = PgConnectOptions::from_str(url).map_err(InvalidUrl)?.application_name("incident-manager");
        let settings = SessionSettings {
            statement_timeout: config.statement_timeout,
            lock_timeout: config.lock_timeout,
            pinned_plans: false,
        };
        let pool = settings.pool(request_connections(config)).connect_lazy_with(options.clone());
        let log_pool =
            SessionSettings { pinned_plans: true, ..settings }.pool(LOG_CONNECTIONS).connect_lazy_with(options.clone());
        Ok(Self { pool, log_pool, log_runtime: None, options, settings })
    }

    /// Has the runtime of the log find out when one of its connections has something, whoever opens and uses them.
    #[must_use]
    pub fn with_log_on(self, runtime: Handle) -> Self {
        Self { log_runtime: Some(runtime), ..self }
    }

    /// A database that is away, for tests of what needs none.
    #[cfg(test)]
    pub(crate) fn away() -> Self {
        let Ok(crate::config::Command::Serve(config)) = crate::config::parse(["serve".into()], |_| None) else {
            unreachable!("the defaults are settings")
        };
        Self::new("postgres://nobody@127.0.0.1:1/nowhere", &config.database).expect("a URL")
    }

    /// Closes idle connections, and the others as they come back.
    pub async fn close(&self) {
        self.pool.close().await;
        self.log_pool.close().await;
    }

    async fn lease(&self) -> Result<Lease, StoreError> {
        Ok(Lease::new(self.pool.acquire().await?, self.deadline(), None))
    }

    /// A connection of those that the event log has for itself.
    async fn log_lease(&self) -> Result<Lease, StoreError> {
        let acquire = self.log_pool.acquire();
        let connection = match &self.log_runtime {
            Some(runtime) => TokioContext::new(acquire, runtime.clone()).await?,
            None => acquire.await?,
        };
        Ok(Lease::new(connection, self.deadline(), self.log_runtime.clone()))
    }

    fn deadline(&self) -> Duration {
        self.settings.statement_timeout + DEADLINE_MARGIN
    }

    /// Runs one unit of work in a transaction that says who acts; again, when it fails to serialize or deadlocks.
    async fn write<W: Work>(&self, actor: &str, work: &W) -> Result<W::Output, StoreError> {
        let mut attempt = 1;
        loop {
            let mut lease = self.lease().await?;
            let result = lease.within(|connection| Box::pin(transact(connection, actor, work))).await;
            match result {
                Err(error) if attempt < WRITE_ATTEMPTS && StoreError::is_serialization_failure(&error) => attempt += 1,
                result => return Ok(result?),
            }
        }
    }
}

/// What is done in one transaction; it may be run again from the start.
trait Work: Sync {
    type Output: Send;

    fn run(&self, connection: &mut PgConnection) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

async fn transact<W: Work>(connection: &mut PgConnection, actor: &str, work: &W) -> Result<W::Output, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query!("SELECT set_config('incident_manager.actor', $1, true)", actor).fetch_one(&mut *transaction).await?;
    let output = work.run(&mut transaction).await?;
    transaction.commit().await?;
    Ok(output)
}

/// As PostgreSQL's time-outs are set; 0 would be none.
fn milliseconds(duration: Duration) -> String {
    duration.as_millis().clamp(1, i32::MAX as u128).to_string()
}

impl SessionSettings {
    fn pool(self, connections: u32) -> PgPoolOptions {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < TRUSTED_IDLE {
                        return Ok(true);
                    }
                    Ok(matches!(tokio::time::timeout(ACQUIRE_TIMEOUT, connection.ping()).await, Ok(Ok(()))))
                })
            })
            .after_connect(move |connection, _| Box::pin(self.apply(connection)))
    }

    async fn apply(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "SELECT set_config('statement_timeout', $1, false) AS a, set_config('lock_timeout', $2, false) AS b,
                    set_config('idle_in_transaction_session_timeout', $3, false) AS c,
                    set_config('timezone', 'UTC', false) AS d,
                    set_config('default_transaction_isolation', 'read committed', false) AS e,
                    set_config('jit', 'off', false) AS g,
                    CASE WHEN $4 THEN set_config('plan_cache_mode', 'force_generic_plan', false)
                                   || set_config('enable_seqscan', 'off', false)
                                   || set_config('enable_bitmapscan', 'off', false) END AS f",
            milliseconds(self.statement_timeout),
            milliseconds(self.lock_timeout),
            milliseconds(self.statement_timeout + DEADLINE_MARGIN),
            self.pinned_plans,
        )
        .fetch_one(connection)
        .await?;
        Ok(())
    }
}
