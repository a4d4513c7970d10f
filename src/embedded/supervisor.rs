//! Keeps the server running: starts it again when it ends by itself, and carries out what its owner asks for.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::cluster::Cluster;
use super::error::EmbeddedError;
use super::server::{Change, Server};
use super::{Shutdown, Status};

/// Waits between attempts to start a server that ended by itself; doubled after each.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A server that has run for so long is sound: the next attempt is quick again.
const SOUND_AFTER: Duration = Duration::from_mins(1);
/// How often old log files are removed.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);

type Reply = oneshot::Sender<Result<(), EmbeddedError>>;

/// What the owner may ask for.
pub(super) enum Request {
    /// Ends the server for good.
    Stop(Reply),
    /// Ends the server until it is wanted again.
    TakeDown(Shutdown, Reply),
    /// Starts the server again; answered once it takes connections.
    BringUp(Reply),
}

pub(super) struct Supervisor {
    cluster: Arc<Cluster>,
    durable: bool,
    server: Option<Server>,
    /// When to start a server that is down; never, if the owner took it down.
    start_at: Option<Instant>,
    ready_since: Option<Instant>,
    backoff: Duration,
    waiting: Vec<Reply>,
    status: watch::Sender<Status>,
    requests: mpsc::Receiver<Request>,
    prune: Interval,
}

enum Event {
    Request(Option<Request>),
    Change(Result<Change, EmbeddedError>),
    StartDue,
    PruneDue,
}

/// Starts a server and waits until it takes connections.
pub(super) async fn first_start(cluster: &Arc<Cluster>, durable: bool) -> Result<Server, EmbeddedError> {
    let mut server = spawn(cluster, durable).await?;
    match server.change().await? {
        Change::Ready => Ok(server),
        Change::Exited(status) => Err(ended(cluster, status)),
    }
}

async fn spawn(cluster: &Arc<Cluster>, durable: bool) -> Result<Server, EmbeddedError> {
    let evicted = Arc::clone(cluster);
    super::blocking(move || evicted.evict()).await?;
    Server::spawn(cluster, durable)
}

fn ended(cluster: &Cluster, status: ExitStatus) -> EmbeddedError {
    EmbeddedError::EndedAtStart { status, output: cluster.last_words(), log: cluster.layout.log_dir() }
}

impl Supervisor {
    pub fn new(
        cluster: Arc<Cluster>,
        durable: bool,
        server: Server,
        status: watch::Sender<Status>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        let mut prune = interval(PRUNE_INTERVAL);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        status.send_replace(Status::Up { pid: server.pid() });
        Self {
            cluster,
            durable,
            server: Some(server),
            start_at: None,
            ready_since: Some(Instant::now()),
            backoff: FIRST_BACKOFF,
            waiting: Vec::new(),
            status,
            requests,
            prune,
        }
    }

    /// Watches over the server until it is stopped for good, or its owner is gone.
    pub async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Request(Some(Request::Stop(reply))) => {
                    let _gone = reply.send(self.take_down(Shutdown::Fast).await);
                    return;
                }
                Event::Request(Some(Request::TakeDown(how, reply))) => {
                    let _gone = reply.send(self.take_down(how).await);
                }
                Event::Request(Some(Request::BringUp(reply))) => self.bring_up(reply),
                Event::Request(None) => {
                    if let Err(error) = self.take_down(Shutdown::Fast).await {
                        tracing::error!(%error, "cannot stop PostgreSQL");
                    }
                    return;
                }
                Event::Change(Ok(Change::Ready)) => self.on_ready(),
                Event::Change(Ok(Change::Exited(status))) => self.on_exit(status),
                Event::Change(Err(error)) => {
                    tracing::error!(%error, "cannot watch PostgreSQL; starting it anew");
                    self.server = None;
                    self.start_later();
                }
                Event::StartDue => self.start().await,
                Event::PruneDue => self.cluster.layout.prune_logs(),
            }
        }
    }

    async fn next(&mut self) -> Event {
        let start_at = self.start_at.unwrap_or_else(Instant::now);
        tokio::select! {
            request = self.requests.recv() => Event::Request(request),
            Some(change) = change(&mut self.server) => Event::Change(change),
            () = sleep_until(start_at), if self.start_at.is_some() => Event::StartDue,
            _ = self.prune.tick() => Event::PruneDue,
        }
    }

    async fn start(&mut self) {
        self.start_at = None;
        match spawn(&self.cluster, self.durable).await {
            Ok(server) => self.server = Some(server),
            Err(error) => {
                tracing::error!(%error, "cannot start PostgreSQL");
                self.start_later();
            }
        }
    }

    fn start_later(&mut self) {
        if self.ready_since.take().is_some_and(|since| since.elapsed() >= SOUND_AFTER) {
            self.backoff = FIRST_BACKOFF;
        }
        self.start_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }

    fn on_ready(&mut self) {
        let Some(server) = &self.server else { return };
        tracing::info!(pid = server.pid(), "PostgreSQL is back");
        self.status.send_replace(Status::Up { pid: server.pid() });
        self.ready_since = Some(Instant::now());
        for reply in self.waiting.drain(..) {
            let _gone = reply.send(Ok(()));
        }
    }

    fn on_exit(&mut self, status: ExitStatus) {
        self.server = None;
        self.status.send_replace(Status::Down);
        if self.ready_since.is_some() {
            let log = self.cluster.layout.log_dir();
            tracing::error!(%status, log = %log.display(), wait = ?self.backoff, "PostgreSQL has ended; starting it anew");
        } else {
            tracing::error!(error = %ended(&self.cluster, status), wait = ?self.backoff, "PostgreSQL does not start");
        }
        self.start_later();
    }

    fn bring_up(&mut self, reply: Reply) {
        if matches!(*self.status.borrow(), Status::Up { .. }) {
            let _gone = reply.send(Ok(()));
            return;
        }
        self.waiting.push(reply);
        if self.server.is_none() {
            self.start_at = Some(Instant::now());
        }
    }

    async fn take_down(&mut self, how: Shutdown) -> Result<(), EmbeddedError> {
        self.start_at = None;
        self.ready_since = None;
        self.waiting.clear();
        self.status.send_replace(Status::Down);
        match self.server.take() {
            Some(server) => server.stop(how).await,
            None => Ok(()),
        }
    }
}

/// The next change of a server that there is; for none, nothing.
async fn change(server: &mut Option<Server>) -> Option<Result<Change, EmbeddedError>> {
    match server {
        Some(server) => Some(server.change().await),
        None => None,
    }
}
