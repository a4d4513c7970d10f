//! The binary, serving a database in a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{TestDatabase, eventually};

pub struct Process {
    child: Child,
    pub address: SocketAddr,
    http: reqwest::Client,
}

impl Process {
    /// Starts with these flags, and waits until it is ready.
    pub async fn start(database: &TestDatabase, flags: &[&str]) -> Self {
        Self::start_in(&[("DATABASE_URL", database.url())], flags).await
    }

    /// The same with these variables, and no others.
    pub async fn start_in(variables: &[(&str, &str)], flags: &[&str]) -> Self {
        // reqwest asks for one; refused, another test has
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let auth: &[&str] = if flags.contains(&"--auth") { &[] } else { &["--auth", "off"] };
        let child = Command::new(env!("CARGO_BIN_EXE_incident-manager"))
            .args(["serve", "--listen", &address.to_string(), "--log", "warn"])
            .args(auth)
            .args(flags)
            .env_clear()
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, address, http: reqwest::Client::new() };
        eventually("the process is ready", || async { process.readiness().await == Some(200) }).await;
        process
    }

    /// The status of its readiness; `None` while it takes no connection.
    pub async fn readiness(&self) -> Option<u16> {
        let response = self.get("/health/ready").await.ok()?;
        Some(response.status().as_u16())
    }

    async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        self.http.get(format!("http://{}{path}", self.address)).send().await
    }

    /// The value of one of its metrics that has no labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let shown = self.get("/metrics").await.unwrap().text().await.unwrap();
        let line = shown.lines().find_map(|line| line.strip_prefix(&format!("incident_manager_{name} ")));
        line.unwrap_or_else(|| panic!("no {name}:\n{shown}")).parse().unwrap()
    }

    /// Its resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most of it that there ever was.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    pub async fn end(mut self) -> ExitStatus {
        let ended = std::cell::Cell::new(None);
        let child = std::cell::RefCell::new(&mut self.child);
        eventually("the process ends", || async {
            ended.set(child.borrow_mut().try_wait().unwrap());
            ended.get().is_some()
        })
        .await;
        ended.get().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
