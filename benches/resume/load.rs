//! The clients, in a process of their own: a herd that resumes, and some that are live.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{Server, float};

/// The niceness of those who would have machines of their own: the service goes before them, as it would there.
const ELSEWHERE: u8 = 19;

/// Clients that come back at once.
pub struct Herd;

impl Herd {
    /// Until each has got so many results, in seconds from the first connection on.
    pub async fn run(server: &Server, clients: usize, results: usize, query: &str) -> f64 {
        let arguments = ["herd", &clients.to_string(), &results.to_string(), query];
        let mut process = Process::start(server, ELSEWHERE, &arguments);
        process.answer().await
    }
}

/// Clients that are live.
pub struct Live(Process);

impl Live {
    pub async fn start(server: &Server, clients: usize, query: &str) -> Self {
        let mut process = Process::start(server, 0, &["live", &clients.to_string(), "0", query]);
        process.answer().await;
        Self(process)
    }

    /// The 99th percentile since the last report, from when a row was made to when a client had it, in milliseconds.
    pub async fn report(&mut self) -> f64 {
        self.0.commands.write_all(b"report\n").await.unwrap();
        self.0.answer().await
    }
}

struct Process {
    _child: tokio::process::Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(server: &Server, niceness: u8, arguments: &[&str]) -> Self {
        let mut child = Command::new("nice")
            .args(["-n", &niceness.to_string()])
            .arg(std::env::current_exe().unwrap())
            .args(["load", &server.address.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, commands, answers: BufReader::new(answers).lines() }
    }

    async fn answer(&mut self) -> f64 {
        let line = self.answers.next_line().await.unwrap().expect("the load is there");
        line.parse().unwrap_or_else(|_| panic!("the load says: {line}"))
    }
}

/// `load <address> herd|live <clients> <results> <query>`
pub fn run(arguments: &[String]) {
    let [address, kind, clients, results, query] = arguments else { panic!("{arguments:?}") };
    let (clients, results) = (clients.parse().unwrap(), results.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match kind.as_str() {
        "herd" => runtime.block_on(herd(address, clients, results, query)),
        _ => runtime.block_on(live(address, clients, query)),
    }
}

fn say(value: f64) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{value}").unwrap();
    output.flush().unwrap();
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn subscribe(address: &str, query: &str) -> Socket {
    let mut request = format!("ws://{address}/graphql/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    socket.send(Message::text(json!({ "type": "connection_init" }).to_string())).await.unwrap();
    let subscribe = json!({ "id": "1", "type": "subscribe", "payload": { "query": query } });
    // behind the acknowledgement
    socket.next().await.unwrap().unwrap();
    socket.send(Message::text(subscribe.to_string())).await.unwrap();
    socket
}

/// The next result's text.
async fn result(socket: &mut Socket) -> String {
    loop {
        let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("the connection ended") };
        if text.contains("\"type\":\"next\"") {
            return text.to_string();
        }
        assert!(!text.contains("\"type\":\"error\""), "{text}");
        socket.send(Message::text(json!({ "type": "pong" }).to_string())).await.unwrap();
    }
}

async fn herd(address: &str, clients: usize, results: usize, query: &str) {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (address, query) = (address.to_owned(), query.to_owned());
        tasks.spawn(async move {
            let mut socket = subscribe(&address, &query).await;
            for _ in 0..results {
                result(&mut socket).await;
            }
            // it stays until all are there
            socket
        });
    }
    let sockets = tasks.join_all().await;
    say(began.elapsed().as_secs_f64());
    drop(sockets);
}

async fn live(address: &str, clients: usize, query: &str) {
    let (told, mut latencies) = mpsc::channel(clients * 100);
    for _ in 0..clients {
        let mut socket = subscribe(address, query).await;
        let told = told.clone();
        tokio::spawn(async move {
            loop {
                let text = result(&mut socket).await;
                let message: Value = serde_json::from_str(&text).unwrap();
                let made: DateTime<Utc> =
                    message["payload"]["data"]["criticalIncidents"]["createdAt"].as_str().unwrap().parse().unwrap();
                #[expect(clippy::disallowed_methods, reason = "compared with the database's clock")]
                let latency = Utc::now() - made;
                told.send(latency.num_microseconds().unwrap()).await.unwrap();
            }
        });
    }
    // the last has been subscribed when it is acknowledged to the others
    tokio::time::sleep(Duration::from_millis(500)).await;
    say(0.0);
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut seen: Vec<i64> = Vec::new();
    loop {
        tokio::select! {
            latency = latencies.recv() => seen.extend(latency),
            command = commands.next_line() => {
                if !matches!(command, Ok(Some(_))) {
                    return;
                }
                seen.sort_unstable();
                let at = seen.len().saturating_sub(1) * 99 / 100;
                let micros = usize::try_from(seen.get(at).copied().unwrap_or_default()).unwrap_or_default();
                say(float(micros) / 1000.0);
                seen.clear();
            }
        }
    }
}
