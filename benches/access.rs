//! What it costs to ask who comes, and what it costs a feed that its subscribers come by different tokens.
//!
//! `cargo bench --bench access`. The first figure is of this process alone; for the second it starts a PostgreSQL of its own and
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
