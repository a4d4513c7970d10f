//! Resuming: how fast a client gets what it has missed, and what a herd of them costs.
//!
//! `cargo bench --bench resume [-- --quick]` starts a PostgreSQL and our service; the clients are a process of their own.

mod load;
#[path = "../support/mod.rs"]
mod support;

use incident_manager::embedded;
use load::{Herd, Live};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use support::{Server, float};

/// Frames of 230 to 250 bytes.
const PLAIN: &str = "id title severity state createdAt";
/// Asks the database for each.
const LOADING: &str = "id title comments { totalCount }";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "load") {
        return load::run(&arguments[1..]);
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(bench(quick));
}

async fn bench(quick: bool) {
    let scratch = support::scratch();
    let database = embedded::start(embedded::Options::new(scratch.path().join("data"))).await.unwrap();
    let url = database.url();
    support::store(&url).migrate().await.unwrap();
    let mut writer = PgConnection::connect(url.expose()).await.unwrap();

    let many = if quick { 10_000 } else { 60_000 };
    let in_memory = Server::ours(&url).await;
    let cursor = position(&in_memory).await;
    insert(&mut writer, many).await;
    wait_for(&in_memory, many).await;
    println!("\n{many} events to one client");
    for round in 0..3 {
        let memory = Herd::run(&in_memory, 1, many, &after(PLAIN, &cursor)).await;
        let from_log = Server::ours(&url).await;
        let log = Herd::run(&from_log, 1, many, &after(PLAIN, &cursor)).await;
        println!(
            "  {round}: from memory {:.0} events/s, from the log {:.0} events/s",
            float(many) / memory,
            float(many) / log
        );
    }

    let some = many / 10;
    println!("\n{some} events to one client whose selection asks the database for each");
    let cursor = position(&in_memory).await;
    insert(&mut writer, some).await;
    wait_for(&in_memory, many + some).await;
    let seconds = Herd::run(&in_memory, 1, some, &after(LOADING, &cursor)).await;
    println!("  {:.0} events/s", float(some) / seconds);

    let (clients, behind) = (if quick { 2000 } else { 10_000 }, 600);
    println!("\n{clients} clients that return at once, and 100 that are live at 50 events/s");
    let cursor = position(&in_memory).await;
    insert(&mut writer, behind).await;
    wait_for(&in_memory, many + some + behind).await;
    let mut live = Live::start(&in_memory, 100, "subscription { criticalIncidents { createdAt } }").await;
    trickle(&mut writer, 250).await;
    let quiet = live.report().await;
    let gone = format!("subscription {{ newIncidents(severities: [P2]) {{ {PLAIN} }} }}");
    let (seconds, ()) =
        tokio::join!(Herd::run(&in_memory, clients, 0, &gone), async { trickle(&mut writer, 250).await });
    let arriving = live.report().await;
    println!("  having missed nothing, all are there after {seconds:.1} s");
    println!("  live p99: quiet {quiet:.1} ms, meanwhile {arriving:.1} ms, {:.1} times", arriving / quiet);
    let (before, cpu) = (counters(&in_memory).await, in_memory.cpu());
    let query = after(PLAIN, &cursor);
    let (seconds, ()) =
        tokio::join!(Herd::run(&in_memory, clients, behind, &query), async { trickle(&mut writer, 250).await });
    let meanwhile = live.report().await;
    let after = counters(&in_memory).await;
    println!("  {behind} events behind, all have caught up after {seconds:.1} s");
    println!("  live p99: quiet {quiet:.1} ms, meanwhile {meanwhile:.1} ms, {:.1} times", meanwhile / quiet);
    println!(
        "  reads of the log {}, of memory {}, blocks {}, executions {}",
        after[0] - before[0],
        after[1] - before[1],
        after[2] - before[2],
        after[3] - before[3]
    );
    println!(
        "  {}: {:.2} s of CPU, {:.0} MB resident",
        in_memory.name,
        in_memory.cpu() - cpu,
        in_memory.kilobytes() / 1024.0
    );
    drop((live, in_memory, writer));
    database.stop().await.unwrap();
}

fn after(selection: &str, cursor: &str) -> String {
    format!("subscription {{ newIncidents(severities: [P2], after: \"{cursor}\") {{ {selection} }} }}")
}

async fn ask(server: &Server, query: &str) -> Value {
    let url = format!("http://{}/graphql", server.address);
    let mut answer: Value =
        reqwest::Client::new().post(url).json(&json!({ "query": query })).send().await.unwrap().json().await.unwrap();
    answer["data"].take()
}

async fn position(server: &Server) -> String {
    let data = ask(server, "{ streamPosition { cursor } }").await;
    data["streamPosition"]["cursor"].as_str().unwrap().to_owned()
}

async fn insert(writer: &mut PgConnection, count: usize) {
    let sql = format!(
        "insert into incident_manager.incident (title, severity, source)
         select 'Latency of the gateway is above its objective', 'P2', 'bench' from generate_series(1, {count})"
    );
    writer.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// So many events, 50 a second, of another subscription: enough for the slowest in a hundred to be more than one.
async fn trickle(writer: &mut PgConnection, count: usize) {
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..count {
        tick.tick().await;
        let sql = "insert into incident_manager.incident (title, severity, source) values ('Now', 'P0', 'bench')";
        writer.execute(sql).await.unwrap();
    }
}

/// Waits until the service has read the log up to there.
async fn wait_for(server: &Server, position: usize) {
    while metric(server, "incident_manager_hub_position").await < float(position) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn metric(server: &Server, name: &str) -> f64 {
    let shown = reqwest::get(format!("http://{}/metrics", server.address)).await.unwrap().text().await.unwrap();
    let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

async fn counters(server: &Server) -> [f64; 4] {
    let mut values = [0.0; 4];
    let names = [
        "incident_manager_replay_reads_total{from=\"log\"}",
        "incident_manager_replay_reads_total{from=\"memory\"}",
        "incident_manager_replay_blocks_total",
        "incident_manager_executions_total",
    ];
    for (value, name) in values.iter_mut().zip(names) {
        *value = metric(server, name).await;
    }
    values
}
