//! A private PostgreSQL: the database of those who name none, and of tests that stop and start theirs.
//!
//! It runs installed binaries on a data directory of its own, as a child of this process, and holds somebody's data:
//! writes are flushed, and a `kill -9` of either process or a power cut loses nothing. A server that a killed process
//! left is stopped and started anew; one that ends by itself is started again, with backoff. Only this user may
//! connect (as root: root, and the unprivileged user as which the server then runs), over a Unix socket, where the
//! kernel says who it is. No TCP port is opened.

mod account;
mod binaries;
mod cluster;
mod error;
mod layout;
mod occupant;
mod pidfile;
mod server;
mod settings;
mod supervisor;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Pid, geteuid};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::cluster::Cluster;
pub use self::error::EmbeddedError;
use self::error::file;
use self::pidfile::PidFile;
use self::supervisor::{Request, Supervisor};
use crate::config::DatabaseUrl;

/// Connections of the service where the caller does not say.
const DEFAULT_CONNECTIONS: u32 = 100;

/// Where data live if nothing is said: `./data`; as root a directory that the server's user can reach.
pub fn default_data_dir() -> PathBuf {
    PathBuf::from(if geteuid().is_root() { "/var/lib/incident-manager" } else { "data" })
}

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Options {
    data_dir: PathBuf,
    connections: u32,
    durable: bool,
    binaries: Option<PathBuf>,
    search_path: Option<OsString>,
}

impl Options {
    /// A durable server on this data directory, which is made if need be.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            connections: DEFAULT_CONNECTIONS,
            durable: true,
            binaries: None,
            // Where programs are found, rather than a setting.
            search_path: std::env::var_os("PATH"),
        }
    }

    /// A server to be thrown away, faster, whose data a power cut may spoil: it flushes nothing. It also allows
    /// prepared transactions. As root, `data_dir` must be in a directory that all users may pass through.
    pub fn for_tests(data_dir: impl Into<PathBuf>) -> Self {
        Self { durable: false, ..Self::new(data_dir) }
    }

    /// How many connections the service holds; the server allows some more for others.
    #[must_use]
    pub fn connections(self, connections: u32) -> Self {
        Self { connections, ..self }
    }

    /// Takes the binaries in this directory instead of searching.
    #[must_use]
    pub fn binaries(self, dir: impl Into<PathBuf>) -> Self {
        Self { binaries: Some(dir.into()), ..self }
    }
}

/// Whether the server takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Up { pid: i32 },
    Down,
}

/// How a server is ended; committed data survive each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Sessions are ended, and a checkpoint is written.
    Fast,
    /// Everything is dropped; the next start recovers.
    Immediate,
    /// As a crash: `kill -9`.
    Kill,
}

/// A running PostgreSQL of ours. Dropped without [`stop`](Self::stop), it is told to shut down, and not waited for.
#[derive(Debug)]
pub struct Embedded {
    socket_dir: PathBuf,
    status: watch::Receiver<Status>,
    requests: mpsc::Sender<Request>,
    supervisor: JoinHandle<()>,
}

/// Starts the server of a data directory, and returns once it takes connections.
pub async fn start(options: Options) -> Result<Embedded, EmbeddedError> {
    let durable = options.durable;
    let cluster = Arc::new(blocking(move || Cluster::open(&options)).await?);
    let server = supervisor::first_start(&cluster, durable).await?;
    tracing::info!(
        pid = server.pid(), data_dir = %cluster.layout.root.display(), user = %cluster.accounts.owner().name,
        "PostgreSQL runs"
    );
    let socket_dir = cluster.socket_dir.clone();
    let (status_sender, status) = watch::channel(Status::Down);
    let (requests, receiver) = mpsc::channel(1);
    let supervisor = Supervisor::new(cluster, durable, server, status_sender, receiver);
    let supervisor = tokio::spawn(supervisor.run());
    Ok(Embedded { socket_dir, status, requests, supervisor })
}

/// The database of a server that another process runs on this data directory.
pub fn join(data_dir: &Path) -> Result<DatabaseUrl, EmbeddedError> {
    let path = std::path::absolute(data_dir).map_err(file("resolve", data_dir))?;
    let cluster = path.join("postgres");
    let cluster = cluster.canonicalize().unwrap_or(cluster);
    let found = PidFile::read(&cluster).map_err(file("read the lock file in", &cluster))?;
    let Some(found) = found else { return Err(EmbeddedError::NotRunning { path }) };
    let runs = Pid::from_raw(found.pid).is_some_and(|pid| occupant::is_server_of(pid, &cluster));
    match found {
        _ if !runs => Err(EmbeddedError::NotRunning { path }),
        PidFile { ready: true, socket_dir: Some(dir), port: Some(port), .. } => {
            Ok(settings::url(settings::ROLE, settings::DATABASE, &dir, port).into())
        }
        _ => Err(EmbeddedError::NotReady { path }),
    }
}

impl Embedded {
    /// The service's database, as the role that owns it and is no superuser.
    pub fn url(&self) -> DatabaseUrl {
        settings::url(settings::ROLE, settings::DATABASE, &self.socket_dir, settings::PORT).into()
    }

    /// The same database as a superuser, for what administrators and tests do.
    pub fn superuser_url(&self) -> DatabaseUrl {
        settings::url(settings::SUPERUSER, settings::DATABASE, &self.socket_dir, settings::PORT).into()
    }

    /// Whether the server takes connections, now and at every change. While it is down it is being started again,
    /// unless [`take_down`](Self::take_down) was asked for.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Ends the server until [`bring_up`](Self::bring_up).
    pub async fn take_down(&self, how: Shutdown) -> Result<(), EmbeddedError> {
        self.ask(|reply| Request::TakeDown(how, reply)).await
    }

    /// Starts the server after [`take_down`](Self::take_down), and returns once it takes connections.
    pub async fn bring_up(&self) -> Result<(), EmbeddedError> {
        self.ask(Request::BringUp).await
    }

    /// Shuts the server down, and waits until it has ended.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let stopped = self.ask(Request::Stop).await;
        self.supervisor.await.map_err(|_| EmbeddedError::SupervisorGone)?;
        stopped
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), EmbeddedError>>) -> Request,
    ) -> Result<(), EmbeddedError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| EmbeddedError::SupervisorGone)?;
        answer.await.map_err(|_| EmbeddedError::SupervisorGone)?
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EmbeddedError> + Send + 'static,
) -> Result<T, EmbeddedError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(EmbeddedError::SupervisorGone),
        },
    }
}
