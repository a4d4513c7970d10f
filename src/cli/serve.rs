//! `serve`: a database, a listener, the service, and with `--demo` its traffic.

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tracing::{info, warn};

use super::banner::{Banner, graphql_url};
use super::demo;
use crate::config::{AuthMode, ServeConfig};
use crate::embedded::{self, Embedded, EmbeddedError};
use crate::lifecycle::{Lifecycle, LifecycleError};
use crate::server::{self, LogThread, ServerError};
use crate::telemetry::{self, TelemetryError};

/// Connections that the system holds until they are taken; where it holds fewer, as many as it does. The usual 1,024 overflow
/// when all clients come back at once, and a connection that was dropped so is tried again after a second.
const LISTEN_QUEUE: u32 = 4096;
/// Connections of the service beside those that its requests and background work share: the listener's.
const OWN_CONNECTIONS: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    StartTelemetry(#[from] TelemetryError),
    #[error("cannot start the thread that reads the log")]
    StartLogThread(#[source] io::Error),
    #[error("cannot listen for signals")]
    ListenForSignals(#[source] io::Error),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start the embedded database")]
    StartDatabase(#[source] EmbeddedError),
    #[error("cannot stop the embedded database")]
    StopDatabase(#[source] EmbeddedError),
    #[error(transparent)]
    Run(#[from] ServerError),
    #[error(transparent)]
    Shutdown(#[from] LifecycleError),
}

/// Serves until a signal.
pub async fn run(config: ServeConfig) -> Result<(), ServeError> {
    telemetry::init_log(&config.log)?;
    let lifecycle = Lifecycle::new();
    let log = LogThread::start().map_err(ServeError::StartLogThread)?;
    lifecycle.listen_for_signals().map_err(ServeError::ListenForSignals)?;
    if config.auth_mode() == AuthMode::Off {
        if config.is_open_to_network() {
            warn!(address = %config.listen, "other machines can reach this service, and nobody is asked who they are");
        }
        if config.auth.takes_tokens() {
            warn!("nobody is asked for a token, though there are keys to check them by: --auth required asks");
        }
    }
    // Before the database is started: that an address is taken shows at once.
    let cannot_listen = |source| ServeError::Listen { address: config.listen, source };
    let listener = listen(config.listen).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let (asked, tls) = (config.auth_mode() == AuthMode::Required, config.network.tls_cert.is_some());
    info!(%address, auth = if asked { "required" } else { "off" }, tls, "listening");

    let (database, embedded) = if let Some(url) = &config.database.database_url {
        (url.clone(), None)
    } else {
        let embedded = start_database(&config).await?;
        (embedded.url(), Some(embedded))
    };
    if embedded.is_some() {
        if config.demo {
            lifecycle.spawn("demo", demo::run(graphql_url(address), rand::random(), lifecycle.draining().clone()));
        }
        let database = database.expose().to_owned();
        let banner = Banner { program: program(), address, database, demo: config.demo, secure: tls };
        // Nobody has to read it.
        let _ = io::stdout().write_all(banner.text().as_bytes());
    }
    let drain_timeout = config.drain.drain_timeout;
    let serving = server::run(config, &database, listener, lifecycle.clone(), &log);
    let served = lifecycle.hard().clone().run_until_cancelled_owned(serving).await.unwrap_or(Ok(()));
    let ended = lifecycle.shutdown(drain_timeout).await;
    let stopped = match embedded {
        Some(embedded) => embedded.stop().await.map_err(ServeError::StopDatabase),
        None => Ok(()),
    };
    // What went wrong first says most.
    served?;
    ended?;
    stopped
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // a restart need not wait for connections of the last process to be forgotten
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_QUEUE)
}

/// Starts a database of our own.
async fn start_database(config: &ServeConfig) -> Result<Embedded, ServeError> {
    let data_dir = config.database.data_dir.clone().unwrap_or_else(embedded::default_data_dir);
    let connections = config.database.database_connections + OWN_CONNECTIONS;
    let options = embedded::Options::new(data_dir).connections(connections);
    embedded::start(options).await.map_err(ServeError::StartDatabase)
}

/// How a shell in this directory finds this program.
fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "incident-manager".to_owned() };
    let here = std::env::current_dir().ok();
    match here.and_then(|here| program.strip_prefix(here).ok().map(|path| path.display().to_string())) {
        Some(relative) => format!("./{relative}"),
        None => program.display().to_string(),
    }
}
