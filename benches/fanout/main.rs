//! Fan-out: how much of a server one event costs, however many watch it.
//!
//! `cargo bench --bench fanout [-- --quick]` starts a PostgreSQL, our service and, on the same schema and events, a server with
//! the library's stock WebSocket; the load is a process of its own. It prints figures of both, and their ratios.

mod load;
mod process;
mod stock;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use incident_manager::embedded;
use process::{Load, stock};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use support::{Server, float};

/// Frames of 230 to 250 bytes.
const QUERY: &str = "subscription { newIncidents(severities: [P1]) { id title severity state createdAt } }";

struct Figures {
    deliveries_per_second: f64,
    cpu_micros_per_delivery: f64,
    kilobytes_after: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("load") => load::run(&arguments[1..]),
        Some("stock") => stock::run(&arguments[1..]),
        _ => {
            let quick = arguments.iter().any(|argument| argument == "--quick");
            rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(bench(quick));
        }
    }
}

async fn bench(quick: bool) {
    let scratch = support::scratch();
    let database = embedded::start(embedded::Options::new(scratch.path().join("data"))).await.unwrap();
    let url = database.url();
    let store = support::store(&url);
    store.migrate().await.unwrap();
    let mut writer = PgConnection::connect(url.expose()).await.unwrap();

    println!("\n1,000 subscribers of one subscription, events as fast as they go");
    let rounds = if quick { 1 } else { 3 };
    let (mut deliveries, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let ours = burst(&Server::ours(&url).await, &mut writer, 1000, QUERY, 2000).await;
        let stock = burst(&stock(&url).await, &mut writer, 1000, QUERY, 500).await;
        show("ours", &ours);
        show("stock", &stock);
        deliveries.push(ours.deliveries_per_second / stock.deliveries_per_second);
        cpu.push(stock.cpu_micros_per_delivery / ours.cpu_micros_per_delivery);
    }
    println!(
        "  deliveries/s, ours to stock: {}   CPU per delivery, stock to ours: {}",
        spread(&mut deliveries),
        spread(&mut cpu)
    );

    println!("\n1,000 subscribers in 50 different subscriptions, CPU per delivery to that of one subscription");
    let server = Server::ours(&url).await;
    let one = burst(&server, &mut writer, 1000, QUERY, 1000).await;
    drop(server);
    let fifty = burst(
        &Server::ours(&url).await,
        &mut writer,
        1000,
        "subscription { newIncidents(severities: [P1]) { id title{m}: title severity state createdAt } }",
        1000,
    )
    .await;
    println!("  {:.2}", fifty.cpu_micros_per_delivery / one.cpu_micros_per_delivery);

    let many = if quick { 2000 } else { 10_000 };
    println!("\n{many} subscribers of one subscription");
    let server = Server::ours(&url).await;
    let empty = server.kilobytes();
    let mut load = Load::start(&server, many, QUERY, 100).await;
    let each = (server.kilobytes() - empty) / float(many);
    println!("  connected and subscribed in {:.2} s, {each:.1} KB each", load.ready_in.as_secs_f64());
    insert(&mut writer, 100).await;
    load.wait(100).await;
    println!("  100 events: {} of {} frames arrived", many * 100, many * 100);
    drop((load, server));

    println!("\n{many} subscribers, each watching an incident of its own");
    let mut costs = Vec::new();
    for clients in [100, many] {
        costs.push(own_incident(&Server::ours(&url).await, &mut writer, clients).await);
    }
    println!("  CPU of an event for one of {many} to that for one of 100: {:.2}", costs[1] / costs[0]);

    println!("\nquiet: 1,000 subscribers, 20 events/s by SQL");
    let seconds = if quick { 3 } else { 15 };
    let ours = quiet(&Server::ours(&url).await, &mut writer, seconds).await;
    let stock = quiet(&stock(&url).await, &mut writer, seconds).await;
    println!("  server CPU, ours to stock: {:.0} %", 100.0 * ours / stock);

    drop(writer);
    database.stop().await.unwrap();
}

fn show(name: &str, figures: &Figures) {
    println!(
        "  {name:5}  {:>9.0} deliveries/s   {:.2} µs CPU each   {:.1} KB a subscriber after the burst",
        figures.deliveries_per_second, figures.cpu_micros_per_delivery, figures.kilobytes_after
    );
}

/// `min / median / max`
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.1} / {:.1} / {:.1}", values[0], values[values.len() / 2], values[values.len() - 1])
}

/// Inserts so many incidents in one statement.
async fn insert(writer: &mut PgConnection, count: usize) {
    let sql = format!(
        "insert into incident_manager.incident (title, severity, source)
         select 'Latency of the gateway is above its objective', 'P1', 'bench' from generate_series(1, {count})"
    );
    writer.execute(AssertSqlSafe(sql)).await.unwrap();
}

async fn burst(server: &Server, writer: &mut PgConnection, clients: usize, query: &str, events: usize) -> Figures {
    const WARM_UP: usize = 20;
    // what the events themselves take, in the tail of the log, is not the subscribers'
    let mut alone = Load::start(server, 1, query, events).await;
    insert(writer, events).await;
    alone.wait(events).await;
    drop(alone);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let empty = server.kilobytes();
    let mut load = Load::start(server, clients, query, WARM_UP + events).await;
    insert(writer, WARM_UP).await;
    load.wait(WARM_UP).await;
    let (cpu, began) = (server.cpu(), std::time::Instant::now());
    insert(writer, events).await;
    load.wait(WARM_UP + events).await;
    let elapsed = began.elapsed().as_secs_f64();
    let cpu = server.cpu() - cpu;
    let deliveries = float(clients * events);
    // what was a burst's is given back after a while, or it is not
    tokio::time::sleep(Duration::from_secs(1)).await;
    Figures {
        deliveries_per_second: deliveries / elapsed,
        cpu_micros_per_delivery: cpu * 1e6 / deliveries,
        kilobytes_after: (server.kilobytes() - empty) / float(clients),
    }
}

/// CPU seconds of the server for an event that concerns one of so many subscribers.
async fn own_incident(server: &Server, writer: &mut PgConnection, clients: usize) -> f64 {
    const EVENTS: usize = 2000;
    let empty = server.kilobytes();
    let query = "subscription { incidentUpdates(incidentIds: [\"{uuid}\"]) { updateType incident { id title state version } cursor } }";
    let sql = format!(
        "insert into incident_manager.incident (id, title, severity, source)
         select lpad(to_hex(n), 32, '0')::uuid, 'Watched', 'P2', 'bench' from generate_series(0, {}) n on conflict do nothing",
        clients - 1
    );
    writer.execute(AssertSqlSafe(sql)).await.unwrap();
    let load = Load::start(server, clients, query, 1).await;
    let each = (server.kilobytes() - empty) / float(clients);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = server.cpu();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = server.cpu() - idle;
    let (cpu, began) = (server.cpu(), std::time::Instant::now());
    for n in 0..EVENTS {
        let sql = format!(
            "update incident_manager.incident set title = 'Watched {n}' where id = lpad(to_hex({}), 32, '0')::uuid",
            n % 100
        );
        writer.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let spent = server.cpu() - cpu - idle * began.elapsed().as_secs_f64();
    println!("  {clients:>5}: {:.1} µs CPU an event, {each:.1} KB a subscriber", spent * 1e6 / float(EVENTS));
    drop(load);
    spent
}

/// CPU seconds that the server takes; prints from commit to the last subscriber's frame.
async fn quiet(server: &Server, writer: &mut PgConnection, seconds: usize) -> f64 {
    let events = seconds * 20;
    let mut load = Load::start(server, 1000, QUERY, events).await;
    let (cpu, mut commits) = (server.cpu(), Vec::with_capacity(events));
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..events {
        tick.tick().await;
        insert(writer, 1).await;
        commits.push(process::now_micros());
    }
    let arrivals = load.wait(events).await;
    let spent = server.cpu() - cpu;
    let mut latencies: Vec<f64> =
        arrivals.iter().zip(&commits).map(|(arrival, commit)| (arrival - commit) / 1000.0).collect();
    latencies.sort_by(f64::total_cmp);
    let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000];
    println!(
        "  {:5}  commit to last frame p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms;  {:.2} s CPU in {seconds} s",
        server.name,
        at(500),
        at(990),
        at(999),
        spent
    );
    spent
}
