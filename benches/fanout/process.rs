//! The processes of the bench: what they are, what they cost.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use incident_manager::config::{self, DatabaseUrl, parse};
use incident_manager::store::Store;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

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

pub fn now_micros() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "compared with another process's clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs_f64() * 1e6
}

/// A server under test, in a process of its own.
pub struct Server {
    pub name: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub async fn ours(database: &DatabaseUrl) -> Self {
        let address = free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_incident-manager"));
        command.args(["serve", "--listen", &address.to_string(), "--log", "warn"]);
        Self::start("ours", address, command.env("DATABASE_URL", database.expose())).await
    }

    pub async fn stock(database: &DatabaseUrl) -> Self {
        let address = free();
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self::start("stock", address, command.args(["stock", &address.to_string(), database.expose()])).await
    }

    async fn start(name: &'static str, address: SocketAddr, command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let server = Self { name, child, address };
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

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The clients, in a process of their own.
pub struct Load {
    /// From the first connection to the last subscription.
    pub ready_in: Duration,
    _child: tokio::process::Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Load {
    pub async fn start(server: &Server, clients: usize, query: &str, events: usize) -> Self {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["load", &server.address.to_string(), &clients.to_string(), &events.to_string(), query])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut load = Self { ready_in: Duration::ZERO, _child: child, commands, answers };
        load.ready_in = Duration::from_micros(load.answer("ready ").await.parse().unwrap());
        load
    }

    /// Waits until every client has so many events; when the last had each, in microseconds since 1970.
    pub async fn wait(&mut self, events: usize) -> Vec<f64> {
        self.commands.write_all(format!("wait {events}\n").as_bytes()).await.unwrap();
        let times = self.answer("done ").await;
        times.split(',').map(|time| time.parse().unwrap()).collect()
    }

    async fn answer(&mut self, expected: &str) -> String {
        let line = self.answers.next_line().await.unwrap().expect("the load is there");
        line.strip_prefix(expected).unwrap_or_else(|| panic!("the load says: {line}")).to_owned()
    }
}
