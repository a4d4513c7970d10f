//! One run of the server: a child process, from its start to its end.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Shutdown;
use super::cluster::Cluster;
use super::error::EmbeddedError;
use super::occupant::{FAST_SHUTDOWN_TIME, QUIT_TIME, send};
use super::pidfile::PidFile;

/// How often a starting server is asked whether it is ready; it offers no way to be told.
const READY_POLL: Duration = Duration::from_millis(20);
/// How often a long start is reported: after a crash, recovery reads what was written since the last checkpoint.
const STARTING_REPORT: Duration = Duration::from_secs(10);

/// What has become of a server.
#[derive(Debug)]
pub(super) enum Change {
    Ready,
    Exited(ExitStatus),
}

/// A server that runs, or starts. Dropped, it is told to shut down, and not waited for.
pub(super) struct Server {
    child: Child,
    pid: Pid,
    cluster: std::path::PathBuf,
    ready: bool,
}

impl Server {
    /// Starts the server; the caller has made the way free.
    pub fn spawn(cluster: &Cluster, durable: bool) -> Result<Self, EmbeddedError> {
        let command = cluster.server_command(durable)?;
        let program = command.get_program().into();
        let child = Command::from(command).spawn().map_err(|source| EmbeddedError::RunProgram { program, source })?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or_else(|| EmbeddedError::Wait { source: std::io::Error::other("it has no process id") })?;
        Ok(Self { child, pid, cluster: cluster.layout.cluster(), ready: false })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until the server is ready, or if it was, until it ends. May be dropped and called again.
    pub async fn change(&mut self) -> Result<Change, EmbeddedError> {
        let mut polls = 0_u32;
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    return status.map(Change::Exited).map_err(|source| EmbeddedError::Wait { source });
                }
                () = sleep(READY_POLL), if !self.ready => {}
            }
            polls += 1;
            if polls.is_multiple_of(u32::try_from(STARTING_REPORT.as_millis() / READY_POLL.as_millis()).unwrap_or(1)) {
                tracing::info!(pid = self.pid(), "PostgreSQL is still starting, probably recovering from a crash");
            }
            let said = PidFile::read(&self.cluster).ok().flatten();
            if said.is_some_and(|it| it.ready && it.pid == self.pid()) {
                self.ready = true;
                return Ok(Change::Ready);
            }
        }
    }

    /// Ends the server and waits for that; by ever harder means, none of which loses anything.
    pub async fn stop(mut self, how: Shutdown) -> Result<(), EmbeddedError> {
        let steps = [
            (Shutdown::Fast, Signal::INT, FAST_SHUTDOWN_TIME),
            (Shutdown::Immediate, Signal::QUIT, QUIT_TIME),
            (Shutdown::Kill, Signal::KILL, QUIT_TIME),
        ];
        for (step, signal, time) in steps.into_iter().skip_while(|(step, ..)| *step != how) {
            // Once waited for, the id may be somebody else's.
            if self.child.id().is_none() {
                return Ok(());
            }
            send(self.pid, signal)?;
            match timeout(time, self.child.wait()).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(source)) => return Err(EmbeddedError::Wait { source }),
                Err(_) => tracing::warn!(pid = self.pid(), ?step, "PostgreSQL does not end; going on to harder means"),
            }
        }
        Err(EmbeddedError::Immortal { pid: self.pid() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.id().is_some()
            && let Err(error) = send(self.pid, Signal::INT)
        {
            tracing::warn!(%error, "PostgreSQL was left running");
        }
    }
}
