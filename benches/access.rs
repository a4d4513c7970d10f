//! What it costs to ask who comes, what it costs a feed that its subscribers come by different tokens, and what it costs others
//! that somebody tries keys.
//!
//! `cargo bench --bench access`. The first figures are of this process alone; for the others it starts a PostgreSQL of its own and
//! the binary on it, as a process of its own, and measures in turns within one run, so that a noisy machine is noisy for all.

#[expect(dead_code, reason = "another bench needs the rest")]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use incident_manager::auth::{ApiKeySecret, Authenticator};
use incident_manager::clock::Clock;
use incident_manager::config::{self, AuthMode, DatabaseUrl, ServeConfig};
use incident_manager::domain::{Access, NewApiKey};
use incident_manager::embedded::{self, Options};
use incident_manager::lifecycle::Lifecycle;
use incident_manager::store::Store;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use support::{Server, float, free, scratch};

const SECRET: &str = "a secret of the bench, long enough for HS256";
/// Of a credential that is known.
const CALLS: u32 = 1_000_000;
const WRONG: usize = 10_000;
const SUBSCRIBERS: usize = 1_000;
const EVENTS: usize = 500;
const ROUNDS: usize = 5;
/// Requests a second beside an honest client's, and the connections that they come by: the answer to a wrong key waits for a
/// statement that it shares with others.
const BESIDE: u32 = 10_000;
const BESIDE_CONNECTIONS: u32 = 400;
/// Of the honest client, a second.
const HONEST: u32 = 200;
const TRYING: Duration = Duration::from_secs(5);

fn token(subject: &str) -> String {
    let exp = Clock::system().now().timestamp() + 3600;
    let claims = json!({ "sub": subject, "exp": exp, "roles": ["viewer"], "sources": ["bench"] });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn settings(flags: &[&str]) -> ServeConfig {
    let arguments = ["serve", "--auth", "required", "--jwt-hs256-secret", SECRET].iter().chain(flags).map(Into::into);
    match config::parse(arguments, |_| None) {
        Ok(config::Command::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

#[tokio::main]
async fn main() {
    let dir = scratch();
    let postgres = embedded::start(Options::new(dir.path()).connections(60)).await.unwrap();
    let database = postgres.url();
    let server = start(&database).await;
    asking(&database).await;
    sharing(&database, &server).await;
    trying(&server).await;
    drop(server);
    postgres.stop().await.unwrap();
}

/// What one request pays for being asked.
async fn asking(database: &DatabaseUrl) {
    let config = settings(&[]);
    let (store, clock) = (Store::new(database.expose(), &config.database).unwrap(), Clock::system());
    let lifecycle = Lifecycle::new();
    let authenticator = Authenticator::start(AuthMode::Required, &config.auth, &store, &clock, &lifecycle).unwrap();
    let key = ApiKeySecret::generate().unwrap();
    let new = NewApiKey { name: "bench".to_owned(), access: Access::all(), expires_at: None };
    store.create_api_key("bench", &new, key.prefix(), &key.hash()).await.unwrap();

    println!("Asking who comes, µs a request:");
    let (jwt, key) = (token("mei"), key.expose().to_owned());
    for (what, presented) in [("a token that is known", &jwt), ("an API key that is known", &key)] {
        authenticator.authenticate(Some(presented)).await.unwrap();
        let begun = Instant::now();
        for _ in 0..CALLS {
            let credential = authenticator.authenticate(Some(presented)).await.unwrap();
            // as each request gets it
            std::hint::black_box(credential.viewer.clone());
        }
        println!("  {what}: {:.3}", begun.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS));
    }
    let tokens: Vec<String> = (0..1_000).map(|number| token(&number.to_string())).collect();
    let begun = Instant::now();
    for token in &tokens {
        authenticator.authenticate(Some(token)).await.unwrap();
    }
    println!("  a token that is new, HS256: {:.3}", begun.elapsed().as_secs_f64() * 1e6 / 1e3);

    let wrong: Vec<String> = (0..WRONG).map(|number| format!("im_{number:012x}{}", &key[15..])).collect();
    let begun = Instant::now();
    let refused = join_all(wrong.iter().map(|wrong| authenticator.authenticate(Some(wrong)))).await;
    assert!(refused.iter().all(Result::is_err));
    let all = begun.elapsed();
    println!("  {WRONG} wrong API keys at once, all of them in {:.0} ms", all.as_secs_f64() * 1e3);
    lifecycle.shutdown(Duration::from_secs(1)).await.unwrap();
    store.close().await;
}

/// The service's CPU for each delivery, by one token and by as many as there are subscribers.
async fn sharing(database: &DatabaseUrl, server: &Server) {
    println!(
        "\n{SUBSCRIBERS} subscribers of one subscription, {EVENTS} events at once, µs of the service's CPU a delivery:"
    );
    let one = vec![token("mei"); SUBSCRIBERS];
    let many: Vec<String> = (0..SUBSCRIBERS).map(|number| token(&format!("user {number}"))).collect();
    let mut costs = [Vec::new(), Vec::new()];
    let mut database = PgConnection::connect(database.expose()).await.unwrap();
    for _ in 0..ROUNDS {
        for (tokens, costs) in [&one, &many].into_iter().zip(&mut costs) {
            costs.push(round(server, &mut database, tokens).await);
        }
    }
    let median = |costs: &mut Vec<f64>| {
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    };
    let [one, many] = costs.each_mut().map(median);
    println!("  one token: {one:.3}\n  {SUBSCRIBERS} tokens: {many:.3}, {:.2} times that", many / one);
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The binary, which asks everybody.
async fn start(database: &DatabaseUrl) -> Server {
    let address = free();
    let mut command = Command::new(env!("CARGO_BIN_EXE_incident-manager"));
    command.args(["serve", "--auth", "required", "--listen", &address.to_string(), "--log", "warn"]);
    command.env("DATABASE_URL", database.expose()).env("INCIDENT_MANAGER_JWT_HS256_SECRET", SECRET);
    Server::start("ours", address, &mut command).await
}

/// One burst to fresh subscribers, a token each.
async fn round(server: &Server, database: &mut PgConnection, tokens: &[String]) -> f64 {
    let mut sockets = join_all(tokens.iter().map(|token| subscribe(server, token))).await;
    let before = server.cpu();
    let insert = format!(
        "insert into incident_manager.incident (title, severity, source)
         select 'Bench', 'P3', 'bench' from generate_series(1, {EVENTS})"
    );
    database.execute(sqlx::AssertSqlSafe(insert)).await.unwrap();
    join_all(sockets.iter_mut().map(take_all)).await;
    (server.cpu() - before) * 1e6 / float(tokens.len() * EVENTS)
}

async fn subscribe(server: &Server, token: &str) -> Socket {
    let mut request = format!("ws://{}/graphql/ws", server.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    let init = json!({ "type": "connection_init", "payload": { "token": token } });
    let query = "subscription { newIncidents { id title severity source createdAt } }";
    let subscribe = json!({ "id": "1", "type": "subscribe", "payload": { "query": query } });
    for message in [init, subscribe, json!({ "type": "ping" }), json!({ "type": "ping" })] {
        let waits = message["type"] != "subscribe";
        socket.send(Message::text(message.to_string())).await.unwrap();
        if waits {
            let answer = socket.next().await.unwrap().unwrap().into_text().unwrap();
            assert!(answer.contains("connection_ack") || answer.contains("pong"), "{answer}");
        }
    }
    socket
}

async fn take_all(socket: &mut Socket) {
    let mut taken = 0;
    while taken < EVENTS {
        let message = socket.next().await.expect("the connection is open").unwrap();
        taken += usize::from(message.to_text().is_ok_and(|text| text.contains(r#""type":"next""#)));
    }
}

/// What comes beside an honest client's requests.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    /// Keys that there are not, each another one.
    WrongKeys,
    /// What may come: by tokens that are known.
    Tokens,
}

/// What there was of it.
#[derive(Default)]
struct Tried {
    /// Of the honest client, in seconds.
    waits: Vec<f64>,
    answered: usize,
    /// The service's, in seconds.
    cpu: f64,
    /// Until all were answered, in seconds.
    took: f64,
}

/// An honest client's waits, and the service's CPU, while somebody tries keys.
async fn trying(server: &Server) {
    println!("\n{HONEST} requests a second of one client, and {BESIDE} others a second beside them:");
    let kinds = [Beside::Nothing, Beside::WrongKeys, Beside::Tokens];
    let mut tried = [Tried::default(), Tried::default(), Tried::default()];
    for round in 0..ROUNDS {
        for (kind, tried) in kinds.into_iter().zip(&mut tried) {
            let (begun, before) = (Instant::now(), server.cpu());
            let beside = (0..BESIDE_CONNECTIONS).map(|number| insist(server, kind, round, number));
            let (waits, answered) = tokio::join!(ask(server), join_all(beside));
            tried.cpu += server.cpu() - before;
            tried.took += begun.elapsed().as_secs_f64();
            tried.waits.extend(waits);
            tried.answered += answered.iter().sum::<usize>();
        }
    }
    let [alone, wrong, known] = &mut tried;
    alone.waits.sort_by(f64::total_cmp);
    println!("  alone: {}, {:.0} % of a processor", waits(&alone.waits), alone.cpu / alone.took * 1e2);
    for (what, tried) in [("wrong API keys", wrong), ("known tokens", known)] {
        tried.waits.sort_by(f64::total_cmp);
        println!(
            "  beside {:.0} {what} a second: {}, {:.2} times the p99; {:.1} µs of the service's CPU each",
            float(tried.answered) / tried.took,
            waits(&tried.waits),
            percentile(&tried.waits, 99) / percentile(&alone.waits, 99),
            (tried.cpu - alone.cpu) * 1e6 / float(tried.answered)
        );
    }
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn waits(sorted: &[f64]) -> String {
    format!("p50 {:.2} ms, p99 {:.2} ms", percentile(sorted, 50) * 1e3, percentile(sorted, 99) * 1e3)
}

/// Asks evenly; how long each answer took, from when it was to be asked for.
async fn ask(server: &Server) -> Vec<f64> {
    let (mut http, token) = (Http::connect(server).await, token("honest"));
    let begun = tokio::time::Instant::now();
    let mut waits = Vec::new();
    for number in 0..HONEST * u32::try_from(TRYING.as_secs()).unwrap() {
        let at = begun + Duration::from_secs(1) / HONEST * number;
        tokio::time::sleep_until(at).await;
        assert_eq!(http.status(&token).await, 200);
        waits.push(at.elapsed().as_secs_f64());
    }
    waits
}

/// One connection's part of what comes beside, evenly; how many were answered.
async fn insist(server: &Server, kind: Beside, round: usize, connection: u32) -> usize {
    if kind == Beside::Nothing {
        return 0;
    }
    // fewer a second than one credential may send
    let known = token(&format!("beside {}", connection % 10));
    let mut http = Http::connect(server).await;
    let every = Duration::from_secs(1) * BESIDE_CONNECTIONS / BESIDE;
    let begun = tokio::time::Instant::now() + every * connection / BESIDE_CONNECTIONS;
    let mut answered = 0;
    for number in 0_u32.. {
        let at = begun + every * number;
        if at > begun + TRYING {
            break;
        }
        tokio::time::sleep_until(at).await;
        match kind {
            Beside::WrongKeys => {
                let key = format!("im_{round:02x}{connection:04x}{number:06x}{:064x}", 0);
                assert_eq!(http.status(&key).await, 401);
            }
            _ => assert_eq!(http.status(&known).await, 200),
        }
        answered += 1;
    }
    answered
}

/// As little of a client as there can be: it shares the machine with the service.
struct Http(BufReader<TcpStream>);

impl Http {
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// The status with which the bearer of a credential is answered.
    async fn status(&mut self, bearer: &str) -> u16 {
        let request = format!(
            "GET /graphql?query=%7Bviewer%7Bsubject%7D%7D HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {bearer}\r\n\r\n"
        );
        self.0.get_mut().write_all(request.as_bytes()).await.unwrap();
        let (mut status, mut length) = (None, 0);
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).await.unwrap() > 0, "the service has closed");
            if status.is_none() {
                status = line.split(' ').nth(1).map(|status| status.parse().unwrap());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        status.expect("an answer begins with its status")
    }
}
