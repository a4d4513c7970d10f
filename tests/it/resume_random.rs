//! Replay, join, slow readers and rewinds, at random, where every bound is hit all the time. Each round is from a seed, which
//! is printed; `INCIDENT_MANAGER_TEST_SEED` runs one again.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_graphql::Request;
use incident_manager::auth::{Authenticator, Rates};
use incident_manager::clock::Clock;
use incident_manager::domain::{Access, Cursor, EpochId, Position};
use incident_manager::events::{self, History, LogThread};
use incident_manager::graphql::Gateway;
use incident_manager::lifecycle::Lifecycle;
use incident_manager::live::{Ended, Frame, Limits, Live, Subscriber};
use incident_manager::store::{Intake, Store};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::support::log::{last_position, run, value};
use crate::support::service::settings;
use crate::support::{PATIENCE, TestDatabase, eventually};

/// What subscribers ask for, and which rows of the log that is.
const QUERIES: [(&str, &str, &str); 7] = [
    ("newIncidents", "newIncidents { title }", "update_type = 'CREATED'"),
    ("newIncidents", "newIncidents(severities: [P0]) { title }", "update_type = 'CREATED' and severity = 'P0'"),
    (
        "incidentUpdates",
        "incidentUpdates(severities: [P1, P2]) { cursor updateType incident { title } }",
        "kind <> 'alert' and (severity in ('P1', 'P2') or old_severity in ('P1', 'P2'))",
    ),
    ("alerts", "alerts(sources: [\"s1\"]) { title }", "kind = 'alert' and source = 's1'"),
    ("alerts", "alerts { title }", "kind = 'alert'"),
    (
        "criticalIncidents",
        "criticalIncidents { title comments { totalCount } }",
        "severity in ('P0', 'P1') and (update_type = 'CREATED' or old_severity not in ('P0', 'P1'))",
    ),
    ("incidentUpdates", "incidentUpdates { updateType incident { title } }", "kind <> 'alert'"),
];
const WRITERS: u64 = 3;
const ROUNDS_OF_A_WRITER: usize = 40;
const SUBSCRIBERS: u64 = 28;

/// One of the processes that share the log.
struct Replica {
    live: Arc<Live>,
    lifecycle: Lifecycle,
    _log: LogThread,
}

impl Replica {
    async fn start(database: &TestDatabase, rng: &mut StdRng) -> Self {
        let mut config = settings(&[]);
        config.events.tail_events = rng.random_range(1..120);
        let limits = Limits {
            ring: rng.random_range(1..40),
            ring_bytes: rng.random_range(200..20_000),
            inbox: rng.random_range(1..60),
            side_by_side: rng.random_range(1..5),
            waiting: 4,
            block_events: rng.random_range(1..40),
            block_bytes: rng.random_range(100..20_000),
            block_scan: rng.random_range(1..200),
            replay_bytes: rng.random_range(300..100_000),
            replays: rng.random_range(1..4),
            turns: rng.random_range(1..4),
            replay_connections: rng.random_range(1..4),
        };
        println!("tail {}, {limits:?}", config.events.tail_events);
        let lifecycle = Lifecycle::new();
        let log = LogThread::start().unwrap();
        let store = Store::new(database.url(), &config.database).unwrap().with_log_on(log.handle().clone());
        let migrated = CancellationToken::new();
        migrated.cancel();
        let hub = events::start(&log, &store, &config.events, &lifecycle, &migrated);
        let intake = Intake::new(store.clone(), lifecycle.clone(), config.max_waiting_alerts);
        let (authenticator, rates) = (Authenticator::off(), Arc::new(Rates::new(&config.rates)));
        let gateway = Gateway::new(store.clone(), intake, authenticator, rates, Clock::system(), config.query);
        let history = History::new(store, Arc::clone(&hub));
        let live = Live::start(history, gateway, &lifecycle, limits, Duration::from_millis(30));
        eventually("the log has been read", || async { hub.head().is_some() }).await;
        Self { live, lifecycle, _log: log }
    }

    async fn subscribe(&self, query: &str, after: Option<&str>) -> Result<Subscriber, String> {
        let request = Request::new(format!("subscription {{ {query} }}"));
        self.live.subscribe(request, &Access::all(), after.map(ToOwned::to_owned)).await.map_err(|refused| {
            let code = refused.errors[0].extensions.as_ref().unwrap().get("code").unwrap();
            code.clone().into_json().unwrap().as_str().unwrap().to_owned()
        })
    }
}

async fn nap(rng: &mut StdRng, most_micros: u64) {
    let micros = rng.random_range(0..most_micros);
    if micros < most_micros / 3 {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

/// Writes some rows in one transaction: titles are never the same.
async fn write(connection: &mut PgConnection, rng: &mut StdRng) {
    let rows = if rng.random_bool(0.2) { rng.random_range(1..40) } else { 1 };
    let (severity, other) = (rng.random_range(0..5), rng.random_range(0..5));
    let sql = match rng.random_range(0..4) {
        0 => format!(
            "insert into incident_manager.alert (title, severity, source, fingerprint)
             select gen_random_uuid()::text, 'P4', 's' || n % 3, n::text from generate_series(1, {rows}) n"
        ),
        1 => format!(
            "update incident_manager.incident set title = gen_random_uuid()::text, severity = 'P{other}' where id in (
               select id from incident_manager.incident where severity = 'P{severity}' order by random() limit {rows}
               for update skip locked)"
        ),
        _ => format!(
            "insert into incident_manager.incident (title, severity, source)
             select gen_random_uuid()::text, 'P{severity}', 'test' from generate_series(1, {rows})"
        ),
    };
    run(connection, &sql).await;
}

/// Everything after a position is lost, as by a failover to a standby that had not got it yet.
async fn fail_over(database: &TestDatabase, lost: i64) -> i64 {
    let mut connection = database.connect().await;
    run(&mut connection, "begin").await;
    run(&mut connection, "select pg_advisory_xact_lock(incident_manager.event_lock_key())").await;
    let head: i64 =
        value(&mut connection, "select last_pos from incident_manager.event_batch order by n desc limit 1").await;
    let kept = (head - lost).max(0);
    run(
        &mut connection,
        &format!(
            "delete from incident_manager.event_log where pos > {kept};
             delete from incident_manager.timeline where pos > {kept};
             insert into incident_manager.event_batch (n, last_pos, snap, target, target_seq, seen_seq, covered, epoch)
               select n + 1, {kept}, snap, target, target_seq, seen_seq, covered, epoch
               from incident_manager.event_batch order by n desc limit 1;
             update incident_manager.event_epoch set timeline = '000000FF' where epoch = (select max(epoch) from incident_manager.event_epoch);
             commit"
        ),
    )
    .await;
    kept
}

/// What all tasks of a round share.
struct Round {
    database: TestDatabase,
    replicas: Vec<Replica>,
    written: AtomicBool,
    /// Up to where each failover kept the log.
    kept: Mutex<Vec<i64>>,
}

/// A client: what it has got, since it last had to begin anew.
struct Client {
    round: Arc<Round>,
    rng: StdRng,
    field: &'static str,
    query: &'static str,
    wanted: &'static str,
    begun: Position,
    /// The last cursor that it was told.
    seen: String,
    got: Vec<(Position, String)>,
    expired: usize,
}

impl Client {
    async fn subscribe(&mut self, mut anew: bool) -> Subscriber {
        let round = Arc::clone(&self.round);
        loop {
            let replica = &round.replicas[self.rng.random_range(0..round.replicas.len())];
            if anew {
                self.got.clear();
                if self.rng.random_bool(0.4) {
                    let subscriber = replica.subscribe(self.query, None).await.unwrap();
                    let seen = subscriber.cursor();
                    self.begun = seen.position;
                    self.seen = seen.encode();
                    return subscriber;
                }
                let mut connection = self.round.database.connect().await;
                let epoch = "select id from incident_manager.event_epoch order by epoch desc limit 1";
                let epoch = EpochId(value(&mut connection, epoch).await);
                let head = last_position(&self.round.database).await;
                self.begun = Position(self.rng.random_range(0..=head));
                self.seen = Cursor { epoch, position: self.begun, logged_at: Cursor::UNKNOWN_TIME }.encode();
            }
            match replica.subscribe(self.query, Some(&self.seen)).await {
                Ok(subscriber) => return subscriber,
                Err(code) => {
                    assert_eq!(code, "CURSOR_EXPIRED");
                    self.assert_may_expire();
                    anew = true;
                }
            }
        }
    }

    fn assert_may_expire(&mut self) {
        let at = Cursor::decode(&self.seen).unwrap().position.0;
        let kept = self.round.kept.lock();
        assert!(kept.iter().any(|kept| at > *kept), "{}: {at} is not lost: {kept:?}", self.query);
        self.expired += 1;
    }

    fn take(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            let payload: Value = serde_json::from_slice(&frame.payload).unwrap();
            assert_eq!(payload["extensions"]["cursor"], frame.cursor.encode());
            self.seen = frame.cursor.encode();
            let data = &payload["data"][self.field];
            if data["updateType"] == "HEARTBEAT" {
                continue;
            }
            let title = data["title"].as_str().or(data["incident"]["title"].as_str());
            self.got.push((frame.cursor.position, title.expect("a title").to_owned()));
        }
    }

    async fn expected(&self) -> Vec<(Position, String)> {
        let sql = format!(
            "select pos, title from incident_manager.event_log where pos > {} and {} order by pos",
            self.begun, self.wanted
        );
        let rows: Vec<(i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(self.round.database.pool()).await.unwrap();
        rows.into_iter().map(|(pos, title)| (Position(pos), title)).collect()
    }

    async fn watch(mut self) -> usize {
        nap(&mut self.rng, 300_000).await;
        let mut subscriber = self.subscribe(true).await;
        let mut frames = Vec::new();
        let mut patience: Option<tokio::time::Instant> = None;
        loop {
            let (limit, bytes) = (self.rng.random_range(1..20), self.rng.random_range(1..4000));
            let take = poll_fn(|context| subscriber.poll_take(context, limit, bytes, &mut frames));
            let taken = tokio::time::timeout(Duration::from_millis(self.rng.random_range(1..40)), take).await;
            self.take(&mut frames);
            // a socket that takes no more for now
            if self.rng.random() {
                subscriber.rest();
            }
            match taken {
                Ok(Err(Ended(errors))) => {
                    let errors: Value = serde_json::from_slice(&errors).unwrap();
                    assert_eq!(errors[0]["extensions"]["code"], "CURSOR_EXPIRED", "{errors}");
                    assert!(errors[0]["extensions"]["oldestCursor"].is_string(), "{errors}");
                    self.seen = subscriber.cursor().encode();
                    self.assert_may_expire();
                    subscriber = self.subscribe(true).await;
                }
                Err(_) if self.round.written.load(Ordering::Acquire) => {
                    let expected = self.expected().await;
                    if self.got == expected {
                        return self.expired;
                    }
                    let deadline = *patience.get_or_insert_with(|| tokio::time::Instant::now() + PATIENCE);
                    if tokio::time::Instant::now() > deadline {
                        let differ = self.got.iter().zip(&expected).position(|(got, expected)| got != expected);
                        panic!(
                            "{} after {}: {} of {}, differing from {differ:?}: got {:?}, expected {:?}",
                            self.query,
                            self.begun,
                            self.got.len(),
                            expected.len(),
                            differ.map(|at| &self.got[at]),
                            differ.map_or(expected.get(self.got.len()), |at| expected.get(at)),
                        );
                    }
                }
                Ok(Ok(())) | Err(_) => {}
            }
            if self.rng.random_bool(0.1)
                && let Some(cursor) = subscriber.bookmark()
            {
                self.seen = cursor.encode();
            }
            if self.rng.random_bool(0.05) {
                nap(&mut self.rng, 80_000).await;
            } else if self.rng.random_bool(0.3) {
                nap(&mut self.rng, 2_000).await;
            }
            if self.rng.random_bool(0.02) {
                drop(subscriber);
                nap(&mut self.rng, 20_000).await;
                subscriber = self.subscribe(false).await;
            }
        }
    }
}

async fn round(seed: u64, failovers: usize) {
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let database = TestDatabase::new().await;
    let mut writer = database.connect().await;
    for _ in 0..20 {
        write(&mut writer, &mut rng).await;
    }
    let replicas = vec![Replica::start(&database, &mut rng).await, Replica::start(&database, &mut rng).await];
    let round = Arc::new(Round { database, replicas, written: AtomicBool::new(false), kept: Mutex::default() });
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (round, mut rng) = (Arc::clone(&round), StdRng::seed_from_u64(seed ^ ((number + 1) << 32)));
            tokio::spawn(async move {
                let mut connection = round.database.connect().await;
                for _ in 0..ROUNDS_OF_A_WRITER {
                    write(&mut connection, &mut rng).await;
                    nap(&mut rng, 20_000).await;
                }
            })
        })
        .collect();
    let clients: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            let (field, query, wanted) = QUERIES[usize::try_from(number).unwrap() % QUERIES.len()];
            let client = Client {
                round: Arc::clone(&round),
                rng: StdRng::seed_from_u64(seed ^ ((number + 100) << 32)),
                field,
                query,
                wanted,
                begun: Position::default(),
                seen: String::new(),
                got: Vec::new(),
                expired: 0,
            };
            tokio::spawn(client.watch())
        })
        .collect();
    for _ in 0..failovers {
        nap(&mut rng, 300_000).await;
        let lost = if rng.random_bool(0.3) { 0 } else { rng.random_range(1..40) };
        // whoever learns of it at once must find it said
        round.kept.lock().push(i64::MIN);
        let kept = fail_over(&round.database, lost).await;
        *round.kept.lock().last_mut().unwrap() = kept;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let waiting = "select count(*) from incident_manager.event_outbox o, (select * from incident_manager.event_batch order by n desc limit 1) b
                   where not pg_visible_in_snapshot(o.xid, b.snap)";
    eventually("everything is logged", || async { round.database.scalar::<i64>(waiting).await == 0 }).await;
    round.written.store(true, Ordering::Release);
    let mut expired = 0;
    for client in clients {
        expired += client.await.unwrap();
    }
    println!("{} events, {expired} expired", last_position(&round.database).await);
    if failovers == 0 {
        assert_eq!(expired, 0);
    }
    for replica in &round.replicas {
        replica.lifecycle.stop();
        replica.lifecycle.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("INCIDENT_MANAGER_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..count).map(|_| rand::random::<u64>() >> 16).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_out_of_order_whatever_bound_is_reached() {
    for seed in seeds(3) {
        round(seed, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_ends_those_whose_place_is_gone_and_nobody_else() {
    for seed in seeds(3) {
        round(seed, 3).await;
    }
}
