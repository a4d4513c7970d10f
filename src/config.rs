//! Settings: the only place that reads flags and environment variables.
//!
//! Every setting is a flag and an environment variable; `--help` and the README's table document all of them.

mod api_key;
mod auth;
mod health;
mod network;
mod parse;
mod query;
mod rates;
mod watch;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

pub use self::api_key::{ApiKeyCommand, ApiKeyCreateConfig, ApiKeyListConfig, ApiKeyRevokeConfig};
pub use self::auth::{AuthConfig, AuthMode, Secret};
pub use self::health::HealthConfig;
pub use self::network::{NetworkConfig, TlsConfig};
pub use self::parse::{Command, Stop, from_process, parse, settings_table};
pub use self::query::{Introspection, QueryConfig};
pub use self::rates::RatesConfig;
pub use self::watch::{ColorChoice, WatchConfig};

/// Loopback alone: nobody else's business until somebody says so.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// What `--listen` is, to each subcommand that has it.
const LISTEN_HELP: &str = "Address and port to listen on; beyond loopback only with --auth, required or off";

/// What is logged to stderr, and how.
#[derive(Debug, Clone, Args)]
pub struct LogConfig {
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,sqlx=debug`
    #[arg(long, env = "INCIDENT_MANAGER_LOG", default_value = "info", value_parser = log_filter, value_name = "FILTER")]
    pub log: String,

    /// Form of the log's lines
    #[arg(long, env = "INCIDENT_MANAGER_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,
}

impl LogConfig {
    /// Whether lines of text are coloured: at a terminal only.
    pub fn log_colour(&self) -> bool {
        std::io::stderr().is_terminal()
    }
}

/// Form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object a line, for programs
    Json,
}

/// Where the data is: an existing PostgreSQL, or one of our own.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// The PostgreSQL to stand beside, as a URL; absent: an embedded one under --data-dir
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = DatabaseUrl::from_str)]
    pub database_url: Option<DatabaseUrl>,

    /// Directory of the embedded PostgreSQL [default: ./data, as root /var/lib/incident-manager]
    #[arg(long, env = "INCIDENT_MANAGER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Connections to the database: three for the event log, the others for requests; the listener has one more of its own
    #[arg(long, env = "INCIDENT_MANAGER_DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub database_connections: u32,

    /// Longest time that one SQL statement may take
    #[arg(long, env = "INCIDENT_MANAGER_STATEMENT_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub statement_timeout: Duration,

    /// Longest wait for a row that another transaction holds; then CONFLICT
    #[arg(long, env = "INCIDENT_MANAGER_LOCK_TIMEOUT", default_value = "2s", value_parser = duration)]
    pub lock_timeout: Duration,
}

/// Settings of `migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateConfig {
    #[command(flatten)]
    pub database: DatabaseConfig,

    #[command(flatten)]
    pub log: LogConfig,
}

/// A database URL; its `Debug` shows no password.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL with its password, for the driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<url::Url>() {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => Ok(Self(text.to_owned())),
            Ok(_) => Err("must begin with postgres:// or postgresql://".to_owned()),
            Err(error) => Err(format!("is no URL: {error}")),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// Settings of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeConfig {
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Where to listen; `health` asks there.
    #[arg(long, env = "INCIDENT_MANAGER_LISTEN", default_value = DEFAULT_LISTEN, value_name = "ADDR:PORT", help = LISTEN_HELP)]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub auth: AuthConfig,

    #[command(flatten)]
    pub network: NetworkConfig,

    /// Make up lifelike incidents and alerts; only with the embedded database
    #[arg(long, env = "INCIDENT_MANAGER_DEMO")]
    pub demo: bool,

    #[command(flatten)]
    pub events: EventsConfig,

    #[command(flatten)]
    pub connections: ConnectionsConfig,

    #[command(flatten)]
    pub rates: RatesConfig,

    #[command(flatten)]
    pub session: SessionConfig,

    /// Largest body of a request, in bytes
    #[arg(long, env = "INCIDENT_MANAGER_MAX_BODY_BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1024..=1 << 30))]
    pub max_body_bytes: u64,

    #[command(flatten)]
    pub query: QueryConfig,

    /// Alerts that may wait to be stored; more are refused with `RATE_LIMIT_EXCEEDED`
    #[arg(long, env = "INCIDENT_MANAGER_MAX_WAITING_ALERTS", default_value_t = 100_000, value_parser = waiting_alerts)]
    pub max_waiting_alerts: usize,

    #[command(flatten)]
    pub drain: DrainConfig,

    /// Threads that serve clients, beside the one of the event log [default: as many as the machine has processors]
    #[arg(long, env = "INCIDENT_MANAGER_WORKER_THREADS", value_parser = at_least_one, value_name = "COUNT")]
    pub worker_threads: Option<usize>,

    #[command(flatten)]
    pub log: LogConfig,
}

impl ServeConfig {
    /// Whether callers have to say who they are: unless it was said, where the database is a real one.
    pub fn auth_mode(&self) -> AuthMode {
        let embedded = self.database.database_url.is_none();
        self.auth.auth.unwrap_or(if embedded { AuthMode::Off } else { AuthMode::Required })
    }

    /// Whether other machines can reach the service.
    pub fn is_open_to_network(&self) -> bool {
        !self.listen.ip().to_canonical().is_loopback()
    }
}

/// Settings of the event log and of what is held of it in memory.
#[derive(Debug, Clone, Args)]
pub struct EventsConfig {
    /// Interval of HEARTBEAT while nothing else is sent
    #[arg(long, env = "INCIDENT_MANAGER_HEARTBEAT_INTERVAL", default_value = "15s", value_parser = duration)]
    pub heartbeat_interval: Duration,

    /// How long the event log is kept; whichever of age and count is reached first
    #[arg(long, env = "INCIDENT_MANAGER_RETENTION_AGE", default_value = "7d", value_parser = duration)]
    pub retention_age: Duration,

    /// How many events the log keeps; whichever of age and count is reached first
    #[arg(long, env = "INCIDENT_MANAGER_RETENTION_EVENTS", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub retention_events: u64,

    /// Events of the log's tail that are held in memory
    #[arg(long, env = "INCIDENT_MANAGER_TAIL_EVENTS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(16..=100_000_000))]
    pub tail_events: u64,

    /// Bytes of the log's tail that are held in memory
    #[arg(long, env = "INCIDENT_MANAGER_TAIL_BYTES", default_value_t = 128 << 20, value_parser = clap::value_parser!(u64).range(65_536..))]
    pub tail_bytes: u64,

    /// Results that one distinct subscription keeps for its subscribers
    #[arg(long, env = "INCIDENT_MANAGER_FEED_EVENTS", default_value_t = 4096, value_parser = at_least_one)]
    pub feed_events: usize,

    /// Bytes of results that one distinct subscription keeps for its subscribers
    #[arg(long, env = "INCIDENT_MANAGER_FEED_BYTES", default_value_t = 1 << 20, value_parser = at_least_one)]
    pub feed_bytes: usize,

    /// Bytes of results that are held for subscribers who catch up, of all subscriptions together
    #[arg(long, env = "INCIDENT_MANAGER_REPLAY_BYTES", default_value_t = 64 << 20, value_parser = at_least_one)]
    pub replay_bytes: usize,
}

/// Bounds of what clients may hold open, and of their patience with us and ours with them.
#[derive(Debug, Clone, Args)]
pub struct ConnectionsConfig {
    /// WebSocket connections and event streams that may be open; one more is refused with status 503
    #[arg(long, env = "INCIDENT_MANAGER_MAX_CONNECTIONS", default_value_t = 16_384, value_parser = at_least_one)]
    pub max_connections: usize,

    /// The same of one client address, of an IPv6 network of 64 bits; refused with status 429 [default: no limit]
    #[arg(long, env = "INCIDENT_MANAGER_MAX_CONNECTIONS_PER_ADDRESS", value_parser = at_least_one, value_name = "COUNT")]
    pub max_connections_per_address: Option<usize>,

    /// The same of one credential; refused with status 429, or closed with 1013
    #[arg(long, env = "INCIDENT_MANAGER_MAX_CONNECTIONS_PER_CREDENTIAL", default_value_t = 4096, value_parser = at_least_one)]
    pub max_connections_per_credential: usize,

    /// Subscriptions that one credential may have open, on all its connections
    #[arg(long, env = "INCIDENT_MANAGER_MAX_SUBSCRIPTIONS_PER_CREDENTIAL", default_value_t = 16_384, value_parser = at_least_one)]
    pub max_subscriptions_per_credential: usize,

    /// The same of one client address, of an IPv6 network of 64 bits [default: no limit]
    #[arg(long, env = "INCIDENT_MANAGER_MAX_SUBSCRIPTIONS_PER_ADDRESS", value_parser = at_least_one, value_name = "COUNT")]
    pub max_subscriptions_per_address: Option<usize>,

    /// How long a client may take for the handshake of TLS, for a request's head, and for its body; an idle connection is closed after as long
    #[arg(long, env = "INCIDENT_MANAGER_READ_TIMEOUT", default_value = "75s", value_parser = duration)]
    pub read_timeout: Duration,

    /// How long a client may read nothing of what is sent to it
    #[arg(long, env = "INCIDENT_MANAGER_WRITE_TIMEOUT", default_value = "1m", value_parser = duration)]
    pub write_timeout: Duration,
}

/// How a shutdown goes.
#[derive(Debug, Clone, Args)]
pub struct DrainConfig {
    /// How long a shutdown goes on taking connections while it is not ready any more, for load balancers to see [default: not at all]
    #[arg(long, env = "INCIDENT_MANAGER_DRAIN_DELAY", value_parser = duration, value_name = "DURATION")]
    pub drain_delay: Option<Duration>,

    /// Over how long a shutdown closes connections, so that not all clients come back at once
    #[arg(long, env = "INCIDENT_MANAGER_DRAIN_SPREAD", default_value = "5s", value_parser = duration)]
    pub drain_spread: Duration,

    /// How long a shutdown waits after that for requests that are under way
    #[arg(long, env = "INCIDENT_MANAGER_DRAIN_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub drain_timeout: Duration,
}

/// Settings of a WebSocket's session.
#[derive(Debug, Clone, Args)]
pub struct SessionConfig {
    /// How long a client may take to send `connection_init`
    #[arg(long, env = "INCIDENT_MANAGER_INIT_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub init_timeout: Duration,

    /// Between two pings of a client; one from which nothing came in between is gone
    #[arg(long, env = "INCIDENT_MANAGER_PING_INTERVAL", default_value = "25s", value_parser = duration)]
    pub ping_interval: Duration,

    /// Operations that one connection may have open
    #[arg(long, env = "INCIDENT_MANAGER_MAX_OPERATIONS", default_value_t = 100, value_parser = at_least_one)]
    pub max_operations: usize,

    /// Largest message of a client, in bytes
    #[arg(long, env = "INCIDENT_MANAGER_MAX_MESSAGE_BYTES", default_value_t = 256 << 10, value_parser = at_least_one)]
    pub max_message_bytes: usize,

    /// Messages of a client that are read in a second, and at once after a pause; the rest waits in the network
    #[arg(long, env = "INCIDENT_MANAGER_MAX_MESSAGES_PER_SECOND", default_value = "200", value_name = "COUNT")]
    pub max_messages_per_second: NonZeroU32,

    /// Events that one subscription is sent in a second, and at once after a pause; more wait in the event log [default: no limit]
    #[arg(long, env = "INCIDENT_MANAGER_MAX_EVENTS_PER_SECOND_PER_SUBSCRIPTION", value_name = "COUNT")]
    pub max_events_per_second_per_subscription: Option<NonZeroU32>,

    /// Bytes of results that are queued for a client, of an event stream too, before it has to read some
    #[arg(long, env = "INCIDENT_MANAGER_MAX_QUEUED_BYTES", default_value_t = 32 << 10, value_parser = at_least_one)]
    pub max_queued_bytes: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("must be a whole number".to_owned()),
    }
}

/// What one request may bring must fit, and what a semaphore can count.
fn waiting_alerts(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1000..=1_000_000_000) => Ok(number),
        _ => Err("must be a whole number from 1000 to 1000000000".to_owned()),
    }
}

/// Parses `250ms`, `15s`, `7d`; zero is refused, because no setting of ours means anything by it.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("must be more than zero".to_owned());
    }
    Ok(duration)
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
