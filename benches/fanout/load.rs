//! The load: many WebSocket clients in one process of its own, as light as can be, so that what is measured is the server.
//!
//! It reads commands from its standard input, a line each, and answers on its standard output.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What all clients count together.
struct Tally {
    clients: usize,
    ready: AtomicUsize,
    /// For each event: how many clients have it, and when the last of them got it, in microseconds since 1970.
    events: Vec<(AtomicUsize, AtomicU64)>,
    complete: AtomicUsize,
    changed: Notify,
}

fn now_micros() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "compared with another process's clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// A client's own query: `{m}` is one of fifty numbers, `{uuid}` is the client's own.
fn own(query: &str, number: usize) -> String {
    let digits = format!("{number:032x}");
    let uuid = uuid::Uuid::parse_str(&digits).unwrap().to_string();
    query.replace("{m}", &(number % 50).to_string()).replace("{uuid}", &uuid)
}

/// `load <address> <clients> <events> <query>`
pub fn run(arguments: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(load(arguments));
}

async fn load(arguments: &[String]) {
    let address: SocketAddr = arguments[0].parse().unwrap();
    let clients: usize = arguments[1].parse().unwrap();
    let events: usize = arguments[2].parse().unwrap();
    let query = arguments[3].clone();
    let tally = Arc::new(Tally {
        clients,
        ready: AtomicUsize::new(0),
        events: (0..events).map(|_| (AtomicUsize::new(0), AtomicU64::new(0))).collect(),
        complete: AtomicUsize::new(0),
        changed: Notify::new(),
    });
    let began = Instant::now();
    for number in 0..clients {
        let (tally, query) = (Arc::clone(&tally), own(&query, number));
        tokio::spawn(async move {
            if let Err(error) = client(address, number, &query, &tally).await {
                say(&format!("broken {number} {error}"));
            }
        });
    }
    wait(&tally, |tally| tally.ready.load(Ordering::Relaxed) == clients).await;
    say(&format!("ready {}", began.elapsed().as_micros()));
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(command)) = commands.next_line().await {
        let Some(expected) = command.strip_prefix("wait ") else { break };
        let expected: usize = expected.parse().unwrap();
        wait(&tally, |tally| tally.complete.load(Ordering::Relaxed) >= expected).await;
        let times: Vec<String> =
            tally.events[..expected].iter().map(|(_, last)| last.load(Ordering::Relaxed).to_string()).collect();
        say(&format!("done {}", times.join(",")));
    }
}

async fn wait(tally: &Tally, done: impl Fn(&Tally) -> bool) {
    loop {
        let changed = tally.changed.notified();
        if done(tally) {
            return;
        }
        changed.await;
    }
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").unwrap();
    output.flush().unwrap();
}

/// A masked text frame; the mask of zeros leaves the text as it is.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0xfe);
            frame.extend_from_slice(&length.expect("a client's messages are short").to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

async fn client(address: SocketAddr, number: usize, query: &str, tally: &Tally) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let upgrade = format!(
        "GET /graphql/ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let mut buffer = Vec::with_capacity(4096);
    while !buffer.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = buffer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    buffer.drain(..head);
    let query = serde_json::json!({
        "id": format!("operation-{number}"), "type": "subscribe", "payload": { "query": query },
    });
    stream.write_all(&frame(r#"{"type":"connection_init"}"#)).await?;
    let mut frames = Frames { buffer, at: 0 };
    frames.next(&mut stream).await?; // connection_ack
    stream.write_all(&frame(&query.to_string())).await?;
    for _ in 0..2 {
        // the second answer is behind the opening of the stream
        stream.write_all(&frame(r#"{"type":"ping"}"#)).await?;
        frames.next(&mut stream).await?;
    }
    if tally.ready.fetch_add(1, Ordering::Relaxed) + 1 == tally.clients {
        tally.changed.notify_waiters();
    }
    let mut seen = 0;
    loop {
        let kind = frames.next(&mut stream).await?;
        match kind {
            Kind::Next => {
                if let Some((count, last)) = tally.events.get(seen)
                    && count.fetch_add(1, Ordering::Relaxed) + 1 == tally.clients
                {
                    last.store(now_micros(), Ordering::Relaxed);
                    tally.complete.fetch_add(1, Ordering::Relaxed);
                    tally.changed.notify_waiters();
                }
                seen += 1;
            }
            Kind::Ping => stream.write_all(&frame(r#"{"type":"pong"}"#)).await?,
            Kind::Other => {}
            Kind::Error(text) => return Err(std::io::Error::other(text)),
        }
    }
}

enum Kind {
    Next,
    Ping,
    Other,
    Error(String),
}

/// Server frames, whose contents are looked at no further than their type.
struct Frames {
    buffer: Vec<u8>,
    at: usize,
}

impl Frames {
    async fn next(&mut self, stream: &mut TcpStream) -> std::io::Result<Kind> {
        loop {
            if let Some((from, to)) = self.whole() {
                self.at = to;
                let text = &self.buffer[from..to];
                let head = &text[..text.len().min(80)];
                let is = |word: &[u8]| head.windows(word.len()).any(|at| at == word);
                return Ok(if is(b"\"type\":\"next\"") {
                    Kind::Next
                } else if is(b"\"type\":\"ping\"") {
                    Kind::Ping
                } else if is(b"\"type\":\"error\"") || self.buffer[from - 2] & 0x0f == 8 {
                    Kind::Error(String::from_utf8_lossy(text).into_owned())
                } else {
                    Kind::Other
                });
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            if self.buffer.is_empty() {
                self.buffer.shrink_to(4096);
            }
            if self.buffer.capacity() - self.buffer.len() < 1024 {
                self.buffer.reserve(32 << 10);
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Where the next frame's contents are, if all of it is there.
    fn whole(&self) -> Option<(usize, usize)> {
        let rest = &self.buffer[self.at..];
        let length = usize::from(*rest.get(1)? & 0x7f);
        let (head, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(rest.get(2..10)?.try_into().ok()?)).ok()?),
            length => (2, length),
        };
        (rest.len() >= head + length).then_some((self.at + head, self.at + head + length))
    }
}
