//! What a change costs the one who writes it, and how soon a subscriber sees it.
//!
//! `cargo bench --bench write_cost`, with `-- --quick` for a shorter run. It starts a PostgreSQL of its own that flushes
//! every commit, and the binary, as a process of its own, on it; the load comes from this process. What is compared is
//! measured in turns within one run, so that a noisy machine is noisy for all; figures of different runs compare badly.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use incident_manager::embedded::{self, Embedded, Options};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, SqlSafeStr};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

/// Concurrent writers, each on a connection of its own.
const WRITERS: usize = 32;
/// The connections of three variants' writers, of the service, and some.
const CONNECTIONS: u32 = 150;
/// At the beginning of a measurement: plans are made, the doorbell is turned off.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between two inserts of which the latency is measured, so that each meets a quiet service.
const SPACING: Duration = Duration::from_millis(20);
/// What `commit_delay` adds to a flush in the second comparison.
const SLOW_FLUSH_MICROSECONDS: u32 = 2_000;
/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_mins(2);

const INSERT: &str = "insert into incident_manager.incident (title, severity, source) values ($1, $2, $3) returning id";

/// What a run does; `--quick` does less of everything.
struct Plan {
    rounds: usize,
    round: Duration,
    window: Duration,
    windows: usize,
    inserts: usize,
}

impl Plan {
    fn from_arguments() -> Self {
        if std::env::args().any(|argument| argument == "--quick") {
            Self { rounds: 2, round: Duration::from_secs(2), window: Duration::from_secs(3), windows: 4, inserts: 100 }
        } else {
            Self { rounds: 3, round: Duration::from_secs(5), window: Duration::from_secs(10), windows: 6, inserts: 500 }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::from_arguments();
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    // as root the server runs as another user, who must be able to pass through
    let dir = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o711)).tempdir_in("/tmp").unwrap();
    let server = embedded::start(Options::new(dir.path()).connections(CONNECTIONS)).await.unwrap();
    let databases = Databases::make(&server).await;
    println!("{}", databases.about().await);
    let service = Service::start(&databases.url("ours")).await;

    latency(&databases, &service, plan.inserts).await;
    let mut ours = Variant::new("with our triggers, a replica following", &databases, "ours").await;
    ours.written = plan.inserts as u64;
    let mut untriggered = Variant::new("without event triggers", &databases, "untriggered").await;
    let mut naive = Variant::new("with a notification of its own in each", &databases, "naive").await;
    let _listener = databases.listener("naive").await;
    println!("\nSingle-row commits/s of {WRITERS} writers: {} rounds of {:?} each, in turns", plan.rounds, plan.round);
    throughput(&plan, &databases, &service, [&mut untriggered, &mut ours, &mut naive]).await;
    println!(
        "\nThe same where a flush of the log takes {SLOW_FLUSH_MICROSECONDS} µs longer, as on a disk across a network"
    );
    databases.slow_flush().await;
    throughput(&plan, &databases, &service, [&mut untriggered, &mut ours, &mut naive]).await;
    databases.fast_flush().await;
    held_snapshot(&plan, &databases, &service, &mut ours).await;

    drop(service);
    server.stop().await.unwrap();
}

/// Commits per second of each variant, in turns.
async fn throughput(plan: &Plan, databases: &Databases, service: &Service, variants: [&mut Variant; 3]) {
    let [untriggered, ours, naive] = variants;
    let mut caught_up = Vec::new();
    for _ in 0..plan.rounds {
        for variant in [&mut *untriggered, &mut *ours, &mut *naive] {
            databases.checkpoint().await;
            let rate = variant.load(plan.round, 1).await[0];
            variant.rates.push(rate);
            if variant.database == "ours" {
                caught_up.push(service.catches_up_with(variant.written).await);
            }
        }
    }
    let [untriggered, ours, naive] = [untriggered, ours, naive].map(Variant::report);
    println!("  ours / without   {:.2}   (to be at least 0.60)", ours / untriggered);
    println!("  ours / notifying {:.1}    (to be at least 5)", ours / naive);
    println!("  the replica had every event at most {:.0?} after the last commit", caught_up.iter().max().unwrap());
}

/// Whether commits get slower while another session holds a snapshot, so that nothing that died since can be removed.
async fn held_snapshot(plan: &Plan, databases: &Databases, service: &Service, ours: &mut Variant) {
    println!("\nWhile another session holds a snapshot: commits/s in {} windows of {:?}", plan.windows, plan.window);
    databases.checkpoint().await;
    let mut other = databases.connect("ours").await;
    other.execute("begin isolation level repeatable read").await.unwrap();
    other.execute("select count(*) from incident_manager.incident").await.unwrap();
    let rates = ours.load(plan.window, plan.windows).await;
    let behind = service.catches_up_with(ours.written).await;
    other.execute("rollback").await.unwrap();
    println!("  {}", rates.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join("  "));
    println!("  last / first     {:.2}   (1 is no decay)", rates[rates.len() - 1] / rates[0]);
    println!("  the replica had every event {behind:.0?} after the last commit");
}

/// From a writer to a subscriber's frame, where nothing else happens.
async fn latency(databases: &Databases, service: &Service, inserts: usize) {
    let mut writer = databases.connect("ours").await;
    let mut socket = service.subscribe("subscription { newIncidents { id title severity state source } }").await;
    let frames = RefCell::new(HashMap::new());
    let written = RefCell::new(Vec::new());
    let reading = async {
        while frames.borrow().len() < inserts {
            let message = receive(&mut socket).await;
            let id = message["payload"]["data"]["newIncidents"]["id"].as_str().map(str::to_owned);
            frames.borrow_mut().insert(id.unwrap_or_else(|| panic!("{message} is no incident")), Instant::now());
        }
    };
    let writing = async {
        for _ in 0..inserts {
            sleep(SPACING).await;
            let sent = Instant::now();
            let id = insert(&mut writer).await;
            written.borrow_mut().push((id.to_string(), sent, Instant::now()));
        }
    };
    let both = async { futures::join!(reading, writing) };
    tokio::time::timeout(PATIENCE, both).await.expect("every insert reaches the subscriber");

    println!("\nMilliseconds from an insert to the subscriber's WebSocket frame, {inserts} inserts, {SPACING:?} apart");
    let (frames, written) = (frames.into_inner(), written.into_inner());
    let since_sent = written.iter().map(|(id, sent, _)| milliseconds(frames[id], *sent)).collect();
    let since_committed = written.iter().map(|(id, _, committed)| milliseconds(frames[id], *committed)).collect();
    print_percentiles("since the insert was sent", since_sent);
    print_percentiles("since the commit was answered", since_committed);
    println!("  (p50 to be under 5, p99 under 20)");
}

/// Negative where the frame was there before the writer had its answer.
fn milliseconds(later: Instant, earlier: Instant) -> f64 {
    match later.checked_duration_since(earlier) {
        Some(passed) => passed.as_secs_f64() * 1e3,
        None => -((earlier - later).as_secs_f64() * 1e3),
    }
}

fn print_percentiles(what: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values[(values.len() * percent / 100).min(values.len() - 1)];
    println!("  {what:<30} p50 {:>6.2}   p90 {:>6.2}   p99 {:>6.2}", at(50), at(90), at(99));
}

async fn insert(connection: &mut PgConnection) -> Uuid {
    let insert = sqlx::query_scalar(INSERT).bind("Latency of a model is above its objective").bind("P2").bind("bench");
    insert.fetch_one(connection).await.unwrap()
}

/// Writers of one of the databases that are compared.
struct Variant {
    name: &'static str,
    database: &'static str,
    writers: Vec<PgConnection>,
    /// Every row that was ever committed.
    written: u64,
    rates: Vec<f64>,
}

impl Variant {
    async fn new(name: &'static str, databases: &Databases, database: &'static str) -> Self {
        let writers = join_all((0..WRITERS).map(|_| databases.connect(database))).await;
        Self { name, database, writers, written: 0, rates: Vec::new() }
    }

    /// Commits per second in each of several windows, after a warm-up.
    #[expect(clippy::cast_precision_loss, reason = "few enough to count")]
    async fn load(&mut self, window: Duration, windows: usize) -> Vec<f64> {
        let counts = vec![Cell::new(0_u64); windows];
        let begin = Instant::now() + WARM_UP;
        let written = join_all(self.writers.iter_mut().map(|writer| {
            let counts = &counts;
            async move {
                for written in 1.. {
                    insert(writer).await;
                    let since = Instant::now().saturating_duration_since(begin);
                    let into = since.as_nanos() / window.as_nanos();
                    match usize::try_from(into).ok().and_then(|into| counts.get(into)) {
                        Some(count) if !since.is_zero() => count.set(count.get() + 1),
                        Some(_) => {}
                        None => return written,
                    }
                }
                unreachable!("the last window ends")
            }
        }))
        .await;
        self.written += written.iter().sum::<u64>();
        counts.iter().map(|count| count.get() as f64 / window.as_secs_f64()).collect()
    }

    /// Prints the rounds; the median.
    fn report(&mut self) -> f64 {
        let mut rates = std::mem::take(&mut self.rates);
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        println!("  {:<40} median {median:>6.0}   least {least:>6.0}   most {most:>6.0}", self.name);
        median
    }
}

/// The server, and a database for each variant.
struct Databases {
    url: url::Url,
    superuser: PgConnectOptions,
}

impl Databases {
    /// `ours` as a migration makes it, `untriggered` the same without what makes events, `naive` with what a first
    /// attempt would have instead.
    async fn make(server: &Embedded) -> Self {
        let superuser = PgConnectOptions::from_str(server.superuser_url().expose()).unwrap();
        let databases = Self { url: server.url().expose().parse().unwrap(), superuser };
        databases.administer("create database ours owner incident_manager").await;
        let pool = PgPoolOptions::new().max_connections(1).connect(&databases.url("ours")).await.unwrap();
        sqlx::migrate!().run(&pool).await.unwrap();
        pool.close().await;

        databases.administer("create database untriggered template ours owner incident_manager").await;
        let mut connection = databases.connect("untriggered").await;
        for trigger in ["00_event_insert", "00_event_update"] {
            let drop = format!(r#"drop trigger "{trigger}" on incident_manager.incident"#);
            connection.execute(AssertSqlSafe(drop)).await.unwrap();
        }
        connection.close().await.unwrap();

        databases.administer("create database naive template untriggered owner incident_manager").await;
        let mut connection = databases.connect("naive").await;
        connection
            .execute(
                "create function notify() returns trigger language plpgsql as
                   $$ begin perform pg_notify('naive', new.id::text); return null; end $$;
                 create trigger notify after insert on incident_manager.incident for each row execute function notify()",
            )
            .await
            .unwrap();
        databases
    }

    fn url(&self, database: &str) -> String {
        let mut url = self.url.clone();
        url.set_path(database);
        url.into()
    }

    async fn connect(&self, database: &str) -> PgConnection {
        PgConnectOptions::from_str(&self.url(database)).unwrap().connect().await.unwrap()
    }

    async fn administer(&self, statement: impl SqlSafeStr + Send) {
        let mut connection = self.superuser.connect().await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Whoever flushes the log waits first, whether others commit or not: what a naive notification's lock is held for.
    async fn slow_flush(&self) {
        self.administer(AssertSqlSafe(format!("alter system set commit_delay = {SLOW_FLUSH_MICROSECONDS}"))).await;
        self.administer("alter system set commit_siblings = 0").await;
        self.administer("select pg_reload_conf()").await;
    }

    async fn fast_flush(&self) {
        self.administer("alter system reset commit_delay").await;
        self.administer("alter system reset commit_siblings").await;
        self.administer("select pg_reload_conf()").await;
    }

    /// So that none comes in the middle of a measurement.
    async fn checkpoint(&self) {
        self.administer("checkpoint").await;
    }

    /// Somebody who hears the naive notifications, as the replica hears ours.
    async fn listener(&self, database: &str) -> tokio::task::JoinHandle<()> {
        let mut listener = PgListener::connect(&self.url(database)).await.unwrap();
        listener.listen("naive").await.unwrap();
        tokio::spawn(async move { while listener.recv().await.is_ok() {} })
    }

    async fn about(&self) -> String {
        let mut connection = self.superuser.connect().await.unwrap();
        let version: String = sqlx::query_scalar("select version()").fetch_one(&mut connection).await.unwrap();
        let fsync: String = sqlx::query_scalar("show fsync").fetch_one(&mut connection).await.unwrap();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!("{version}, fsync {fsync}; server, service and load share {cores} cores")
    }
}

/// The binary, serving.
struct Service {
    address: SocketAddr,
    _process: Child,
}

impl Service {
    async fn start(database: &str) -> Self {
        // what makes of a client of HTTP one of HTTPS, which the program does for itself
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // free for as long as it takes to start
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_incident-manager"))
            .args(["serve", "--database-url", database, "--listen", &address.to_string()])
            .args(["--auth", "off", "--log", "warn"])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let service = Self { address, _process: process };
        service.until("the service is ready", async || service.get("/health/ready").await.is_some()).await;
        service
    }

    async fn get(&self, path: &str) -> Option<String> {
        let response = reqwest::get(format!("http://{}{path}", self.address)).await.ok()?;
        response.error_for_status().ok()?.text().await.ok()
    }

    async fn until(&self, what: &str, done: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !done().await {
            assert!(began.elapsed() < PATIENCE, "still not: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How long it takes until it holds every event up to this position.
    async fn catches_up_with(&self, position: u64) -> Duration {
        let began = Instant::now();
        let line = format!("incident_manager_hub_position {position}\n");
        let there = async || self.get("/metrics").await.is_some_and(|metrics| metrics.contains(&line));
        self.until("the service holds every event", there).await;
        began.elapsed()
    }

    /// A socket with one subscription that is open.
    async fn subscribe(&self, query: &str) -> Socket {
        let mut request = format!("ws://{}/graphql/ws", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let (mut socket, _) = connect_async(request).await.unwrap();
        send(&mut socket, json!({ "type": "connection_init" })).await;
        send(&mut socket, json!({ "id": "1", "type": "subscribe", "payload": { "query": query } })).await;
        assert_eq!(receive(&mut socket).await["type"], "connection_ack");
        // the stream is open when a second ping is answered
        for _ in 0..2 {
            send(&mut socket, json!({ "type": "ping" })).await;
            assert_eq!(receive(&mut socket).await["type"], "pong");
        }
        socket
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn send(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

async fn receive(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.expect("the connection is open").unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(reason) => panic!("the connection was closed: {reason:?}"),
            _ => {}
        }
    }
}
