//! Requests: what it takes to ask for a page with all that hangs on it, and to take alerts in.
//!
//! `cargo bench --bench requests [-- --quick]` starts a PostgreSQL that flushes every commit, fills it, and starts our
//! service on it; the clients are a process of their own, and each asks again as soon as it is answered. `--quick` does
//! less of everything, over fewer rows.

mod data;
mod load;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use incident_manager::embedded;
use sqlx::{Connection as _, PgConnection};
use support::{Server, float};

use load::{Kind, Load};

/// The last are more than the machine has time for: each page waits for the others.
const READERS: [usize; 2] = [4, 16];
const SENDERS: usize = 64;
/// Of arrays of a thousand: enough for one to be read while others are stored.
const ARRAY_SENDERS: usize = 4;
/// Connections of the service and of this process.
const CONNECTIONS: u32 = 60;

/// What a run does.
struct Plan {
    incidents: usize,
    seconds: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|argument| argument == "load") {
        load::run(&arguments[1..]);
        return;
    }
    let plan = if arguments.iter().any(|argument| argument == "--quick") {
        Plan { incidents: 20_000, seconds: 5 }
    } else {
        Plan { incidents: 1_000_000, seconds: 30 }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(bench(&plan));
}

async fn bench(plan: &Plan) {
    let scratch = support::scratch();
    let options = embedded::Options::new(scratch.path().join("data")).connections(CONNECTIONS);
    let database = embedded::start(options).await.unwrap();
    let url = database.url();
    support::store(&url).migrate().await.unwrap();
    let mut superuser = PgConnection::connect(database.superuser_url().expose()).await.unwrap();
    println!("{}", data::about(&mut superuser).await);
    let began = Instant::now();
    let rows = data::fill(&mut superuser, plan.incidents).await;
    println!("{rows} in {:.0?}", began.elapsed());
    let server = Server::ours(&url).await;

    for readers in READERS {
        println!(
            "\nA page of 50 incidents, each with three alerts, comments, timeline, playbook, related incidents, {readers} clients"
        );
        let pages = measure(plan, &server, readers, Kind::Page).await;
        println!("  ({:.0} KB a page; p99 to be under 50 ms with 16)", pages.bytes / 1024.0);
    }

    println!("\nPOST /v1/alerts with one alert, of a thousand causes, {SENDERS} senders");
    measure(plan, &server, SENDERS, Kind::Single).await;
    println!("  (to be at least 4,000 alerts/s)");
    for (kind, what) in [(Kind::Array, "of a thousand causes"), (Kind::NewArray, "each of a cause of its own")] {
        println!("\nPOST /v1/alerts with a thousand alerts, {what}, {ARRAY_SENDERS} senders");
        let before = data::stored(&mut superuser).await;
        let figures = measure(plan, &server, ARRAY_SENDERS, kind).await;
        let stored = data::stored(&mut superuser).await - before;
        assert_eq!(stored, figures.alerts, "every alert that was answered is stored, and no other");
        let behind = data::caught_up(&mut superuser).await;
        println!("  (to be at least 15,000 alerts/s; all were in the event log {behind:.1?} later)");
    }
    drop(server);
    superuser.close().await.unwrap();
    database.stop().await.unwrap();
}

struct Figures {
    /// Of a response, on average.
    bytes: f64,
    /// In all, the warm-up included.
    alerts: usize,
}

/// Lets clients ask for a while, and prints how it went.
async fn measure(plan: &Plan, server: &Server, clients: usize, kind: Kind) -> Figures {
    let mut load = Load::start(server, clients, kind, Duration::from_secs(plan.seconds));
    load.warmed_up().await;
    let cpu = server.cpu();
    let report = load.report().await;
    let cpu = server.cpu() - cpu;
    let of_request = float(kind.alerts().max(1));
    let (what, rate) = if kind.alerts() == 0 { ("pages", 1.0) } else { ("alerts", of_request) };
    println!(
        "  {:.0} {what}/s   p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms",
        report.requests_per_second * rate,
        report.p50,
        report.p99,
        report.longest
    );
    println!(
        "  {}: {:.0} µs CPU for each of the {what}, {:.0} MB resident; load of the machine {}",
        server.name,
        cpu * 1e6 / (float(report.measured) * of_request),
        server.kilobytes() / 1024.0,
        std::fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap()
    );
    Figures { bytes: report.bytes, alerts: report.requests * kind.alerts() }
}
