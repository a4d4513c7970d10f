//! The processes of the bench: the server that ours is compared with, and the clients.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use incident_manager::config::DatabaseUrl;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::support::{Server, free};

pub fn now_micros() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "compared with another process's clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs_f64() * 1e6
}

/// The library's own WebSocket, on the same schema and events.
pub async fn stock(database: &DatabaseUrl) -> Server {
    let address = free();
    let mut command = Command::new(std::env::current_exe().unwrap());
    Server::start("stock", address, command.args(["stock", &address.to_string(), database.expose()])).await
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
