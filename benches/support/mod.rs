//! What benches with a load of its own process share: a server under test, what it costs.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use incident_manager::config::{self, DatabaseUrl, parse};
use incident_manager::store::Store;
use tempfile::TempDir;

/// Ticks of /proc's times in a second, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// A directory that the database's user can pass through, as root too.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o711)).tempdir().unwrap()
}

pub fn store(url: &DatabaseUrl) -> Store {
    let Ok(config::Command::Serve(config)) = parse(["serve".into()], |_| None) else { unreachable!("defaults") };
    Store::new(url.expose(), &config.database).unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
pub fn float(count: usize) -> f64 {
    count as f64
}

/// A server under test, in a process of its own.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    pub async fn ours(database: &DatabaseUrl) -> Self {
        let address = free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_incident-manager"));
        command.args(["serve", "--listen", &address.to_string(), "--log", "warn", "--auth", "off"]);
        Self::start("ours", address, command.env("DATABASE_URL", database.expose())).await
    }

    /// Starts a command, and waits until what listens at the address is ready.
    pub async fn start(name: &'static str, address: SocketAddr, command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        // what makes of a client of HTTP one of HTTPS, which the program does for itself
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = Self { name, address, child };
        let ready = format!("http://{address}/health/ready");
        while !reqwest::get(&ready).await.is_ok_and(|response| response.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    /// CPU time that the process has taken, in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // after the name, which may have blanks: state is the first, utime and stime the 12th and 13th
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / TICKS_PER_SECOND
    }

    /// Resident memory.
    pub fn kilobytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of loopback that nobody listens at.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
