//! The composition root: everything that the service is made of, put together.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::auth::{Authenticator, KeyError, Rates};
use crate::clock::Clock;
use crate::config::{DatabaseUrl, DrainConfig, ServeConfig};
pub use crate::events::LogThread;
use crate::events::{self, History};
use crate::graphql::Gateway;
pub use crate::graphql::sdl;
use crate::http::{
    self, Admission, AppState, Guard, Holdings, Obstacle, Readiness, Sockets, Tls, TlsError, Transport, TrustedProxies,
};
use crate::lifecycle::{Lifecycle, LifecycleError};
use crate::live::{self, Live};
use crate::store::{self, Intake, InvalidUrl, MigrateError, Migrations, Sessions, Store, StoreError};
use crate::telemetry::{self, TelemetryError};

/// Between two looks at a database that cannot be used yet.
const DATABASE_POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Executions of a feed side by side, where its selection waits for the database: so many connections it may keep busy.
const SIDE_BY_SIDE: usize = 4;

/// A block of a replay: enough to share, little enough that those who are live notice nothing while it is made.
const BLOCK_EVENTS: usize = 512;
const BLOCK_BYTES: usize = 256 << 10;
/// Looking at an event takes some tens of nanoseconds.
const BLOCK_SCAN: usize = 16_384;
/// Blocks that are executed at a time.
const REPLAYS: usize = 2;
/// Of the threads that serve, as a divisor, how many may be kept busy by those who catch up: the others are for who is live.
const TURNS_OF_THREADS: usize = 2;

/// Why the service did not serve, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    DatabaseUrl(#[from] InvalidUrl),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Auth(#[from] KeyError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Shutdown(#[from] LifecycleError),
}

/// Serves until the lifecycle asks for a shutdown, then drains. The database may be away, now and later: the service answers,
/// says so, and goes on when it is back.
///
/// `log` has to be there until every task of the lifecycle has ended: some wait by its clock.
pub async fn run(
    config: ServeConfig,
    database: &DatabaseUrl,
    listener: TcpListener,
    lifecycle: Lifecycle,
    log: &LogThread,
) -> Result<(), ServerError> {
    let tls = config.network.tls().map(Tls::load).transpose()?;
    let metrics = telemetry::metrics()?;
    let clock = Clock::system();
    let store = Store::new(database.expose(), &config.database)?.with_log_on(log.handle().clone());
    let migrated = CancellationToken::new();
    let obstacle = Arc::new(Obstacle::new(SCHEMA_BEHIND));
    let hub = events::start(log, &store, &config.events, &lifecycle, &migrated);

    lifecycle.spawn("schema", {
        let (store, migrated, soft) = (store.clone(), migrated.clone(), lifecycle.soft().clone());
        let obstacle = Arc::clone(&obstacle);
        async move {
            if soft.run_until_cancelled(make_usable(&store, &obstacle)).await.is_some() {
                migrated.cancel();
            }
        }
    });
    lifecycle.spawn_until_soft("metrics", metrics.clone().upkeep());

    let intake = Intake::new(store.clone(), lifecycle.clone(), config.max_waiting_alerts);
    let authenticator = Authenticator::start(config.auth_mode(), &config.auth, &store, &clock, &lifecycle)?;
    let rates = Arc::new(Rates::new(&config.rates));
    let gateway = Gateway::new(
        store.clone(),
        intake.clone(),
        authenticator.clone(),
        Arc::clone(&rates),
        clock.clone(),
        config.query,
    );
    let requests = usize::try_from(store::request_connections(&config.database)).unwrap_or(1);
    let threads = config.worker_threads.or_else(|| available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let limits = live::Limits {
        ring: config.events.feed_events,
        ring_bytes: config.events.feed_bytes,
        inbox: config.events.feed_events,
        side_by_side: SIDE_BY_SIDE,
        waiting: requests / 2,
        block_events: BLOCK_EVENTS,
        block_bytes: BLOCK_BYTES,
        block_scan: BLOCK_SCAN,
        replay_bytes: config.events.replay_bytes,
        replays: REPLAYS,
        turns: (threads / TURNS_OF_THREADS).max(1),
        replay_connections: (requests / 4).max(1),
    };
    let history = History::new(store.clone(), Arc::clone(&hub));
    let live = Live::start(history, gateway, &lifecycle, limits, config.events.heartbeat_interval);
    let auth = config.auth_mode();
    let (bounds, network) = (config.connections, config.network);
    let sockets = Sockets::allowed(bounds.max_connections);
    let admission = Admission::new(sockets.held, bounds.max_connections_per_address);
    let holdings = Holdings::new(&bounds);
    let app = http::router(AppState {
        live,
        store: store.clone(),
        intake,
        authenticator,
        rates: Arc::clone(&rates),
        session: config.session.clone(),
        admission: Arc::clone(&admission),
        holdings,
        readiness: Arc::new(Readiness::new(migrated, obstacle, lifecycle.draining().clone(), hub)),
        metrics,
        clock,
        lifecycle: lifecycle.clone(),
        guard: Arc::new(Guard::new(auth, &network.allowed_hosts, network.allowed_origins)),
        max_body: usize::try_from(config.max_body_bytes).unwrap_or(usize::MAX),
        read_timeout: bounds.read_timeout,
    });
    lifecycle.spawn_until_soft("rates", async move { rates.sweep().await });
    let closing = CancellationToken::new();
    if let Some(tls) = &tls {
        lifecycle.spawn_until_soft("certificate", tls.clone().follow());
    }
    let proxies = TrustedProxies::new(network.trusted_proxies);
    let transport = Transport { listener, sockets, bounds, proxies, tls };
    lifecycle.spawn("http", http::serve(transport, app, lifecycle.clone(), closing.clone()));

    lifecycle.draining().cancelled().await;
    let _ = lifecycle.hard().run_until_cancelled(drain(&config.drain, &closing, &admission)).await;
    let ended = lifecycle.shutdown(config.drain.drain_timeout).await;
    store.close().await;
    Ok(ended?)
}

/// Sends clients elsewhere, a few at a time; what they have asked for goes on meanwhile, and events too.
async fn drain(config: &DrainConfig, closing: &CancellationToken, admission: &Admission) {
    if let Some(delay) = config.drain_delay {
        tokio::time::sleep(delay).await;
    }
    closing.cancel();
    admission.drain(config.drain_spread).await;
}

const SCHEMA_BEHIND: &str = "the database's schema is not up to date";
const LOSES_STATEMENTS: &str = "the pooler in front of the database loses prepared statements; let it give each connection a \
     session of its own, or keep them (PgBouncer 1.21 or later with max_prepared_statements)";

/// Why the database cannot be used yet.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot reach the database")]
    Reach(#[source] StoreError),
    #[error("{LOSES_STATEMENTS}")]
    LosesStatements,
    #[error("migrations are pending, and need a connection past the pooler; run `incident-manager migrate` with one")]
    MigrateThroughPooler,
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

impl Unusable {
    /// What anyone may know of it.
    fn told(&self) -> &'static str {
        match self {
            Self::LosesStatements => LOSES_STATEMENTS,
            Self::Reach(_) | Self::MigrateThroughPooler | Self::Migrate(_) => SCHEMA_BEHIND,
        }
    }
}

/// Looks at the database and runs what migrations are pending. Where that cannot be, waits until somebody has mended it.
async fn make_usable(store: &Store, obstacle: &Obstacle) {
    let mut pause = DATABASE_POLL.0;
    let mut said = None;
    loop {
        match look(store).await {
            Ok(()) => return,
            Err(error) => {
                let saying = error.to_string();
                if said.as_ref() != Some(&saying) {
                    error!(error = &error as &dyn std::error::Error, "the database cannot be used yet; waiting");
                    obstacle.set(error.told());
                    said = Some(saying);
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DATABASE_POLL.1);
    }
}

async fn look(store: &Store) -> Result<(), Unusable> {
    let sessions = store.sessions().await.map_err(Unusable::Reach)?;
    if sessions == Sessions::LentWithStatements {
        return Err(Unusable::LosesStatements);
    }
    match store.migrations().await.map_err(Unusable::Reach)? {
        Migrations::UpToDate => Ok(()),
        // the migrator's lock is of a session
        Migrations::Pending(_) if sessions == Sessions::Lent => Err(Unusable::MigrateThroughPooler),
        Migrations::Pending(count) => {
            info!(count, "running migrations");
            Ok(store.migrate().await?)
        }
    }
}
