//! Clients that cost more than they should: whatever they do, the service's memory is bounded and others are unharmed. The
//! service is a process of its own, so that its memory can be told.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::raw::{HANDSHAKE, RawSocket, first, frame, text};
use crate::support::{PATIENCE, Process, Socket, TestDatabase, eventually};

/// More than the rate of messages allows that nobody sends by honest means.
const FAST: &str = "1000000";
/// So that who does not answer pings, on a slow machine, is not closed for that.
const NEVER: &str = "1h";
/// What an allocator may keep of memory that was in use, in KiB; a tenth of what each of these would take unbounded.
const ALLOWANCE: u64 = 16 << 10;

/// Somebody who subscribes, and hears of what is inserted, all the time that somebody else misbehaves.
struct Bystander {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Bystander {
    async fn start(database: &TestDatabase, address: SocketAddr) -> Self {
        let mut socket = Socket::connect(address).await;
        socket.subscribe("1", "subscription { newIncidents(severities: [P1]) { title } }", json!({})).await;
        let mut writer = database.connect().await;
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (stop, heard) = (Arc::clone(&stop), Arc::clone(&heard));
            async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let insert = "insert into incident_manager.incident (title, severity, source) values ($1, 'P1', 'bystander')";
                    sqlx::query(insert).bind(number.to_string()).execute(&mut writer).await.unwrap();
                    assert_eq!(socket.next("newIncidents").await["title"], number.to_string());
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, heard, task }
    }

    /// Hears what is inserted from now on.
    async fn hears(&self) {
        let before = self.heard.load(Ordering::Relaxed);
        eventually("somebody else hears", || async {
            self.heard.load(Ordering::Relaxed) > before + 1 || self.task.is_finished()
        })
        .await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("somebody else has heard everything");
    }
}

#[tokio::test]
async fn handshakes_that_never_end_are_given_up() {
    const SOCKETS: usize = 300;
    let database = TestDatabase::new().await;
    let process = Process::start(&database, &["--read-timeout", "1s", "--ping-interval", NEVER]).await;
    let bystander = Bystander::start(&database, process.address).await;
    let before = process.memory();
    let mut slow = JoinSet::new();
    for _ in 0..SOCKETS {
        let mut stream = TcpStream::connect(process.address).await.unwrap();
        slow.spawn(async move {
            let trickle = async {
                // a byte at a time, and never the end
                for byte in HANDSHAKE.bytes().chain("X: y\r\n".bytes().cycle()) {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    let read = timeout(std::time::Duration::from_millis(20), stream.read_u8()).await;
                    if read.is_ok_and(|read| read.is_err()) {
                        return;
                    }
                }
            };
            timeout(PATIENCE, trickle).await.expect("given up");
        });
    }
    bystander.hears().await;
    slow.join_all().await;
    bystander.hears().await;
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < ALLOWANCE, "{grown} KiB");
    bystander.stop().await;
}

#[tokio::test]
async fn a_head_or_a_message_of_any_size_takes_no_more_than_its_bound() {
    let database = TestDatabase::new().await;
    let process = Process::start(&database, &["--max-messages-per-second", FAST, "--ping-interval", NEVER]).await;
    let bystander = Bystander::start(&database, process.address).await;
    let before = process.memory();
    for _ in 0..50 {
        let mut long = RawSocket::from(TcpStream::connect(process.address).await.unwrap());
        long.send(format!("{HANDSHAKE}X: {}\r\n\r\n", "x".repeat(1 << 20)).as_bytes()).await;
        let head = long.head().await;
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        let mut socket = RawSocket::acknowledged(process.address).await;
        socket.send(&text(&" ".repeat(1 << 20))).await;
        assert_eq!(socket.close_code().await, Some(1009));
        // parts without an end
        let mut socket = RawSocket::acknowledged(process.address).await;
        socket.send(&frame(first::TEXT, b"{")).await;
        for _ in 0..300 {
            socket.send(&frame(first::CONTINUATION, &[b' '; 1000])).await;
        }
        assert_eq!(socket.close_code().await, Some(1009));
    }
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < ALLOWANCE, "{grown} KiB");
    bystander.hears().await;
    bystander.stop().await;
}

#[tokio::test]
async fn messages_without_effect_leave_nothing_behind() {
    let database = TestDatabase::new().await;
    let process = Process::start(&database, &["--max-messages-per-second", FAST, "--ping-interval", NEVER]).await;
    let bystander = Bystander::start(&database, process.address).await;
    let before = process.memory();
    let mut socket = RawSocket::acknowledged(process.address).await;
    for thousand in 0..100 {
        let completes = (0..1000).map(|one| text(&format!(r#"{{"id":"{thousand} {one}","type":"complete"}}"#)));
        socket.send(&completes.collect::<Vec<_>>().concat()).await;
    }
    socket.send(&text(r#"{"type":"ping"}"#)).await;
    assert_eq!(socket.message().await["type"], "pong");
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < ALLOWANCE, "{grown} KiB");
    bystander.hears().await;
    bystander.stop().await;
}

#[tokio::test]
async fn a_flood_of_initialisations_is_closed_each_time() {
    let database = TestDatabase::new().await;
    let process = Process::start(&database, &["--max-messages-per-second", FAST, "--ping-interval", NEVER]).await;
    let bystander = Bystander::start(&database, process.address).await;
    let before = process.memory();
    let init = text(&json!({ "type": "connection_init", "payload": { "token": "x".repeat(10_000) } }).to_string());
    let flood = init.repeat(50);
    for _ in 0..300 {
        let mut socket = RawSocket::connect(process.address).await;
        socket.send(&flood).await;
        assert_eq!(socket.close_code().await, Some(4429));
    }
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < ALLOWANCE, "{grown} KiB");
    bystander.hears().await;
    bystander.stop().await;
}

#[tokio::test]
async fn answers_that_nobody_reads_stop_the_reading() {
    const ASKED: usize = 100_000;
    let database = TestDatabase::new().await;
    let process = Process::start(&database, &["--max-messages-per-second", FAST, "--ping-interval", NEVER]).await;
    let bystander = Bystander::start(&database, process.address).await;
    let before = process.memory();
    let socket = RawSocket::acknowledged(process.address).await;
    let (read, mut write) = socket.stream.into_split();
    let written = Arc::new(AtomicUsize::new(0));
    let asking = tokio::spawn({
        let written = Arc::clone(&written);
        async move {
            for number in 0..ASKED {
                // refused, with an answer that is longer
                let ask = json!({ "id": number.to_string(), "type": "subscribe", "payload": { "query": "{ a }" } });
                write.write_all(&text(&ask.to_string())).await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
            write
        }
    });
    // somebody else hears several times in which the other gets nothing more written: the buffers between are full
    let mut last = usize::MAX;
    while last != written.load(Ordering::Relaxed) {
        last = written.load(Ordering::Relaxed);
        for _ in 0..5 {
            bystander.hears().await;
        }
    }
    let mut read = tokio::io::BufReader::new(read);
    let mut answered = HashSet::new();
    while answered.len() < ASKED {
        let mut head = [0; 4];
        timeout(PATIENCE, read.read_exact(&mut head)).await.expect("an answer in time").unwrap();
        assert_eq!(head[..2], [first::FINAL | first::TEXT, 126]);
        let mut answer = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        read.read_exact(&mut answer).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["type"], "error", "{answer}");
        assert!(answered.insert(answer["id"].as_str().unwrap().to_owned()), "twice: {answer}");
    }
    asking.await.unwrap();
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < ALLOWANCE, "{grown} KiB");
    bystander.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_costs_what_is_queued_for_it_and_is_left() {
    const SOCKETS: usize = 20;
    /// Fewer bytes than a feed keeps, and in all rounds more than the network takes for somebody.
    const EVENTS_AT_ONCE: usize = 10;
    const ROUNDS: usize = 20;
    let database = TestDatabase::new().await;
    // 64 KiB of each event are held nowhere else for long
    let flags = ["--ping-interval", NEVER, "--write-timeout", "3s", "--tail-bytes", "65536", "--feed-bytes", "1048576"];
    let process = Process::start(&database, &flags).await;
    let bystander = Bystander::start(&database, process.address).await;
    let query = "subscription { incidentUpdates(severities: [P3]) { updateType incident { description } } }";
    let long = format!(
        "insert into incident_manager.incident (title, severity, source, description)
         select 'long', 'P3', 'writer', repeat('x', 65536) from generate_series(1, {EVENTS_AT_ONCE})"
    );
    let write = async || {
        for _ in 0..ROUNDS {
            database.execute(&long).await;
            // and so everybody who can
            bystander.hears().await;
        }
    };
    // what the events themselves take is not theirs
    let mut one = RawSocket::acknowledged(process.address).await;
    one.subscribe(query).await;
    write().await;
    let before = process.memory();
    let mut sockets = vec![one];
    for _ in 1..SOCKETS {
        let mut socket = RawSocket::acknowledged(process.address).await;
        socket.subscribe(query).await;
        sockets.push(socket);
    }
    write().await;
    eventually("they are left", || async { process.metric("connections").await <= 1.0 }).await;
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < ALLOWANCE, "{grown} KiB");
    bystander.hears().await;
    bystander.stop().await;
}
