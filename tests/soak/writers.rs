//! Programs that keep committing, whatever happens: by SQL in transactions of all sorts, and by mutations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::replica::Addresses;
use crate::waiting::eventually;

/// How many incidents a writer goes on changing.
const OPEN: usize = 12;
/// How long a statement may take before a writer gives its connection up, as when its server is gone without a word.
const DEADLINE: Duration = Duration::from_secs(5);
const SEVERITIES: [&str; 5] = ["P0", "P1", "P2", "P3", "P4"];

/// Some writers, until they are told to stop.
pub struct Writers {
    /// Where they connect to.
    pub url: Arc<RwLock<String>>,
    stop: Arc<AtomicBool>,
    /// Transactions whose commit was answered.
    committed: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

/// How many, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub writers: usize,
    /// The longest pause between two transactions of one.
    pub pause: Duration,
}

impl Writers {
    pub fn start(url: String, addresses: &Addresses, pace: Pace, seed: u64) -> Self {
        let url = Arc::new(RwLock::new(url));
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks: Vec<_> = (0..pace.writers)
            .map(|number| {
                let writer = Writer {
                    url: Arc::clone(&url),
                    stop: Arc::clone(&stop),
                    committed: Arc::clone(&committed),
                    rng: StdRng::seed_from_u64(seed + number as u64),
                    source: format!("writer-{number}"),
                    open: Vec::new(),
                    pause: pace.pause,
                };
                tokio::spawn(writer.run())
            })
            .collect();
        tasks.push(tokio::spawn(mutate(addresses.clone(), Arc::clone(&stop), Arc::clone(&committed), pace.pause)));
        Self { url, stop, committed, tasks }
    }

    /// Waits until they have committed so many transactions more.
    pub async fn commit(&self, more: u64) {
        let from = self.committed.load(Ordering::Relaxed);
        eventually("writers go on", || async { self.committed.load(Ordering::Relaxed) >= from + more }).await;
    }

    /// When this returns, all that they have begun is over.
    pub async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }
}

struct Writer {
    url: Arc<RwLock<String>>,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    rng: StdRng,
    source: String,
    open: Vec<Uuid>,
    pause: Duration,
}

impl Writer {
    async fn run(mut self) {
        while !self.stopped() {
            let url = self.url.read().clone();
            if let Ok(Ok(mut connection)) = timeout(DEADLINE, PgConnection::connect(&url)).await {
                while !self.stopped()
                    && *self.url.read() == url
                    && matches!(timeout(DEADLINE, self.transact(&mut connection)).await, Ok(Ok(())))
                {
                    let pause = self.pause.mul_f64(self.rng.random());
                    sleep(pause).await;
                }
            }
            // what it knows of may be lost, or not have been committed
            self.open.clear();
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One to three changes; now and then rolled back to a savepoint in between, open for a while, or rolled back whole.
    async fn transact(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin().await?;
        for _ in 0..self.rng.random_range(1..=3) {
            self.change(&mut transaction).await?;
        }
        match self.rng.random_range(0..20) {
            0 => {
                sqlx::query("savepoint here").execute(&mut *transaction).await?;
                self.change(&mut transaction).await?;
                sqlx::query("rollback to here").execute(&mut *transaction).await?;
            }
            1 => sleep(Duration::from_millis(self.rng.random_range(1..100))).await,
            2 => {
                transaction.rollback().await?;
                self.open.clear();
                return Ok(());
            }
            _ => {}
        }
        transaction.commit().await?;
        self.committed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn change(&mut self, transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
        let severity = SEVERITIES[self.rng.random_range(0..SEVERITIES.len())];
        if self.rng.random_range(0..10) == 0 {
            let alert = "insert into incident_manager.alert (source, title, severity, fingerprint) values ($1, 'An alert', $2, $3)";
            let fingerprint = self.rng.random_range(0..10).to_string();
            sqlx::query(alert).bind(&self.source).bind(severity).bind(fingerprint).execute(transaction).await?;
        } else if self.open.len() < OPEN || self.rng.random_range(0..20) == 0 {
            let make = "insert into incident_manager.incident (title, severity, source) values ('An incident', $1, $2) returning id";
            let id = sqlx::query_scalar(make).bind(severity).bind(&self.source).fetch_one(transaction).await?;
            if self.open.len() == OPEN {
                let forgotten = self.rng.random_range(0..OPEN);
                self.open.swap_remove(forgotten);
            }
            self.open.push(id);
        } else {
            let id = self.open[self.rng.random_range(0..self.open.len())];
            let number: u32 = self.rng.random();
            let change = "update incident_manager.incident set title = 'Changed ' || $2, severity = $3 where id = $1";
            sqlx::query(change).bind(id).bind(i64::from(number)).bind(severity).execute(transaction).await?;
        }
        Ok(())
    }
}

/// Writes by mutations, by whichever replica answers.
async fn mutate(addresses: Addresses, stop: Arc<AtomicBool>, committed: Arc<AtomicU64>, pause: Duration) {
    const CREATE: &str =
        "mutation { createIncident(input: { title: \"By mutation\", severity: P1, source: \"mutations\" }) { id } }";
    const RESOLVE: &str = "mutation($id: UUID!) { resolveIncident(id: $id) { id } }";
    let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
    let mut turn = 0;
    let mut open = None;
    while !stop.load(Ordering::Relaxed) {
        sleep(pause).await;
        turn += 1;
        let Some(address) = addresses.choose(turn) else { continue };
        let body = match open.take() {
            Some(id) => json!({ "query": RESOLVE, "variables": { "id": id } }),
            None => json!({ "query": CREATE }),
        };
        let Ok(response) = http.post(format!("http://{address}/graphql")).json(&body).send().await else { continue };
        let Ok(answer) = response.json::<serde_json::Value>().await else { continue };
        if answer.get("errors").is_none() {
            committed.fetch_add(1, Ordering::Relaxed);
            open = answer["data"]["createIncident"]["id"].as_str().map(str::to_owned);
        }
    }
}
