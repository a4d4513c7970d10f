//! The clients, in a process of their own: HTTP/1.1 as bytes, so that little of the machine is theirs.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::support::Server;

/// Before anything is measured: plans are made, caches filled.
const WARM_UP: Duration = Duration::from_secs(2);
/// What alerts are about that are of few causes.
const CAUSES: u64 = 1000;

const PAGE: &str = "query($before: DateTime) { incidents(first: 50, filter: { createdBefore: $before }) { nodes {
    id title severity state source createdAt
    alerts(first: 3) { nodes { title severity firing receivedAt } }
    comments(first: 3) { nodes { author body createdAt } }
    timeline(first: 3) { nodes { updateType actor timestamp } }
    playbook { id name }
    relatedIncidents { reason score incident { id title } } } } }";

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Page,
    Single,
    Array,
    NewArray,
}

impl Kind {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Page, "page"), (Self::Single, "single"), (Self::Array, "array"), (Self::NewArray, "new-array")];

    /// In each request.
    pub fn alerts(self) -> usize {
        match self {
            Self::Page => 0,
            Self::Single => 1,
            Self::Array | Self::NewArray => 1000,
        }
    }

    fn path(self) -> &'static str {
        if self == Self::Page { "/graphql" } else { "/v1/alerts" }
    }

    /// One of them; `dice` are other numbers each time.
    fn body(self, dice: &mut impl FnMut() -> u64) -> String {
        match self {
            Self::Page => {
                // some time in the year that the incidents are of
                let second = dice() % (360 * 24 * 3600);
                let before = chrono::DateTime::from_timestamp(1_735_689_600 + second.cast_signed(), 0).unwrap();
                json!({ "query": PAGE, "variables": { "before": before.to_rfc3339() } }).to_string()
            }
            Self::Single => alert(dice() % CAUSES),
            Self::Array => array(|| dice() % CAUSES),
            Self::NewArray => array(dice),
        }
    }
}

fn array(mut cause: impl FnMut() -> u64) -> String {
    let alerts: Vec<String> = (0..1000).map(|_| alert(cause())).collect();
    format!("[{}]", alerts.join(","))
}

fn alert(cause: u64) -> String {
    let source = cause % 20;
    format!(
        r#"{{"source":"gateway-{source}","title":"Latency of a model is above its objective","severity":"P2","alertType":"PERFORMANCE","description":"p99 of 4.2 s over five minutes, the objective is 2 s","labels":{{"service":"gateway","region":"eu-{source}"}},"affectedServices":["gateway"],"fingerprint":"cause-{cause}"}}"#
    )
}

/// How it went.
#[derive(Serialize, Deserialize)]
pub struct Report {
    /// The warm-up included.
    pub requests: usize,
    pub measured: usize,
    pub requests_per_second: f64,
    /// Of a response, on average.
    pub bytes: f64,
    /// Milliseconds, as the others.
    pub p50: f64,
    pub p99: f64,
    pub longest: f64,
}

/// The process with the clients.
pub struct Load {
    _child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Load {
    pub fn start(server: &Server, clients: usize, kind: Kind, time: Duration) -> Self {
        let name = Kind::ALL.iter().find(|(other, _)| *other == kind).unwrap().1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["load", &server.address.to_string(), &clients.to_string(), name, &time.as_secs().to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, answers }
    }

    pub async fn warmed_up(&mut self) {
        let line = self.answers.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("warm"));
    }

    pub async fn report(&mut self) -> Report {
        let line = self.answers.next_line().await.unwrap().expect("the load reports");
        serde_json::from_str(&line).unwrap()
    }
}

/// The process itself.
pub fn run(arguments: &[String]) {
    let [address, clients, kind, seconds] = arguments else { panic!("{arguments:?}") };
    let address: SocketAddr = address.parse().unwrap();
    let kind = Kind::ALL.iter().find(|(_, name)| name == kind).unwrap().0;
    let (clients, seconds): (usize, u64) = (clients.parse().unwrap(), seconds.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(clients_of(address, clients, kind, Duration::from_secs(seconds)));
    println!("{}", serde_json::to_string(&report).unwrap());
}

#[expect(clippy::cast_precision_loss, reason = "few enough to count")]
async fn clients_of(address: SocketAddr, clients: usize, kind: Kind, time: Duration) -> Report {
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    // milliseconds of what was asked and answered in the time, and every response's size
    let (times, sizes) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let asking = join_all((0..clients).map(|client| {
        let (times, sizes) = (&times, &sizes);
        async move {
            let mut connection = BufReader::new(TcpStream::connect(address).await.unwrap());
            connection.get_ref().set_nodelay(true).unwrap();
            let mut dice = dice(client as u64);
            while Instant::now() < end {
                let body = kind.body(&mut dice);
                let sent = Instant::now();
                let size = exchange(&mut connection, address, kind.path(), &body).await;
                sizes.borrow_mut().push(size);
                if sent >= begin && Instant::now() < end {
                    times.borrow_mut().push(sent.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
    }));
    let saying = async {
        tokio::time::sleep_until(begin.into()).await;
        println!("warm");
    };
    futures::join!(asking, saying);
    let (mut times, sizes) = (times.into_inner(), sizes.into_inner());
    times.sort_by(f64::total_cmp);
    let at = |per_cent: usize| times[(times.len() - 1) * per_cent / 100];
    Report {
        requests: sizes.len(),
        measured: times.len(),
        requests_per_second: times.len() as f64 / time.as_secs_f64(),
        bytes: sizes.iter().sum::<usize>() as f64 / sizes.len() as f64,
        p50: at(50),
        p99: at(99),
        longest: at(100),
    }
}

/// Numbers that look like chance, and are the same in every run.
fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) >> 11
    }
}

/// Sends a request and reads its response, which must be a success; the size of its body.
async fn exchange(connection: &mut BufReader<TcpStream>, address: SocketAddr, path: &str, body: &str) -> usize {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    let (mut status, mut size, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        connection.read_line(&mut line).await.unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => size = value.parse().unwrap(),
            Some(_) => {}
            None if line == "\r\n" => break,
            None => line.clone_into(&mut status),
        }
    }
    let mut response = vec![0; size];
    connection.read_exact(&mut response).await.unwrap();
    let failed = !status.starts_with("HTTP/1.1 20")
        || response.starts_with(b"{\"errors\"")
        || response.starts_with(b"{\"data\":null");
    assert!(!failed, "{status}{}", String::from_utf8_lossy(&response));
    size
}
