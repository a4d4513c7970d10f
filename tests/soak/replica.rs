//! The service as a process of its own, to be stopped, ended and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::free_address;
use crate::waiting::eventually;

/// What every replica is started with: quick signs of life, and no longer a drain than a proof can wait for.
const FLAGS: [&str; 10] = [
    "--auth",
    "off",
    "--log",
    "error",
    "--heartbeat-interval",
    "1s",
    "--drain-spread",
    "500ms",
    "--database-connections",
    "8",
];

/// The program of this build.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_incident-manager").into()
}

/// A running service.
pub struct Replica {
    child: Child,
    pid: Pid,
    pub address: SocketAddr,
}

impl Replica {
    /// Starts it, and does not wait until it is ready.
    pub fn spawn(program: PathBuf, database_url: &str, flags: &[&str]) -> Self {
        let address = free_address();
        let child = Command::new(program)
            .args(["serve", "--listen", &address.to_string()])
            .args(FLAGS)
            .args(flags)
            .env_clear()
            .env("DATABASE_URL", database_url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        Self { child, pid, address }
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(program: PathBuf, database_url: &str, flags: &[&str]) -> Self {
        let replica = Self::spawn(program, database_url, flags);
        replica.ready().await;
        replica
    }

    pub async fn ready(&self) {
        eventually("the replica is ready", || async {
            self.readiness().await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }

    /// The status and the text of its readiness; `None` while it takes no connection.
    pub async fn readiness(&self) -> Option<(u16, String)> {
        let ask = reqwest::Client::new().get(format!("http://{}/health/ready", self.address));
        let response = ask.timeout(Duration::from_secs(5)).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// One of its metrics.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = reqwest::get(format!("http://{}/metrics", self.address)).await.unwrap().text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Resident memory.
    pub fn kilobytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn end(mut self) -> ExitStatus {
        tokio::time::timeout(crate::waiting::PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// Ends it without a word: `kill -9`.
    pub async fn kill(self) {
        self.signal(Signal::KILL);
        self.end().await;
    }
}

/// Where clients may connect to.
#[derive(Clone, Default)]
pub struct Addresses(Arc<RwLock<Vec<SocketAddr>>>);

impl Addresses {
    pub fn add(&self, address: SocketAddr) {
        self.0.write().push(address);
    }

    pub fn remove(&self, address: SocketAddr) {
        self.0.write().retain(|known| *known != address);
    }

    pub fn clear(&self) {
        self.0.write().clear();
    }

    /// The `turn`th, round and round; `None` while there is none.
    pub fn choose(&self, turn: usize) -> Option<SocketAddr> {
        let addresses = self.0.read();
        (!addresses.is_empty()).then(|| addresses[turn % addresses.len()])
    }
}
