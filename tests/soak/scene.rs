//! A database, replicas, clients and writers; and at the end, whether everything that was committed has been heard.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::{Client, Manner, Wants};
use crate::cluster::{Cluster, Database};
use crate::ledger::Log;
use crate::replica::{self, Addresses, Replica};
use crate::waiting::{PATIENCE, eventually};
use crate::writers::{Pace, Writers};

/// What a scene begins with.
#[derive(Clone)]
pub struct Setting {
    pub replicas: usize,
    /// Clients that ask for each of [`Wants::ALL`], patient and not, for each replica.
    pub clients: usize,
    pub may_expire: bool,
    pub flags: &'static [&'static str],
    pub pace: Pace,
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            replicas: 2,
            clients: 1,
            may_expire: false,
            flags: &[],
            pace: Pace { writers: 3, pause: Duration::from_millis(30) },
            seed: 1,
        }
    }
}

pub struct Scene {
    pub database: Database,
    pub replicas: Vec<Replica>,
    pub addresses: Addresses,
    pub clients: Vec<Client>,
    pub writers: Writers,
    pace: Pace,
    seed: u64,
    /// What replicas are started with.
    pub program: PathBuf,
    pub service_url: String,
    pub flags: &'static [&'static str],
}

/// What a scene came to.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Events of everything that was committed.
    pub committed: usize,
    pub delivered: u64,
    pub lost: usize,
    pub doubled: u64,
    pub reordered: u64,
    /// Heard, though never committed.
    pub invented: usize,
    /// Times that a client was told that its cursor has expired.
    pub expired: u64,
    /// Times that clients have subscribed.
    pub subscriptions: usize,
    pub breaches: Vec<String>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { committed, delivered, lost, doubled, reordered, invented, expired, subscriptions, breaches } = self;
        write!(
            f,
            "committed {committed}, delivered {delivered}, lost {lost}, doubled {doubled}, reordered {reordered}"
        )?;
        if *invented > 0 {
            write!(f, ", invented {invented}")?;
        }
        write!(f, "; {subscriptions} subscriptions")?;
        if *expired > 0 {
            write!(f, ", {expired} expired")?;
        }
        breaches.iter().take(5).try_for_each(|breach| write!(f, "\n    {breach}"))
    }
}

impl Counts {
    pub fn are_clean(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.reordered == 0
            && self.invented == 0
            && self.breaches.is_empty()
            && self.delivered > 0
    }
}

impl Scene {
    /// On a new database of this cluster.
    pub async fn on(cluster: &Arc<Cluster>, setting: Setting) -> Self {
        let database = cluster.database().await;
        let service_url = database.url();
        Self::of(database, service_url, setting).await
    }

    /// On a database that replicas reach by a way of their own.
    pub async fn of(database: Database, service_url: String, setting: Setting) -> Self {
        let addresses = Addresses::default();
        let mut replicas = Vec::new();
        for _ in 0..setting.replicas {
            let replica = Replica::spawn(replica::program(), &service_url, setting.flags);
            addresses.add(replica.address);
            replicas.push(replica);
        }
        for replica in &replicas {
            replica.ready().await;
        }
        let mut clients = Vec::new();
        for home in 0..setting.replicas {
            for wants in Wants::ALL {
                for number in 0..setting.clients * 2 {
                    let patient = number % 2 == 0;
                    let manner = Manner { wants, patient, may_expire: setting.may_expire, home };
                    clients.push(Client::start(&addresses, manner));
                }
            }
        }
        eventually("all clients are subscribed", || async { clients.iter().all(|client| client.subscriptions() > 0) })
            .await;
        let writers = Writers::start(database.url(), &addresses, setting.pace, setting.seed);
        let scene = Self {
            database,
            replicas,
            addresses,
            clients,
            writers,
            pace: setting.pace,
            seed: setting.seed,
            program: replica::program(),
            service_url,
            flags: setting.flags,
        };
        scene.goes_on().await;
        scene
    }

    /// Waits until each client has heard so many events more, from wherever.
    pub async fn all_hear(&self, more: u64) {
        let from: Vec<_> = self.clients.iter().map(|client| client.ledger().delivered).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waiting =
                self.clients.iter().zip(&from).find(|(client, from)| client.ledger().delivered < *from + more);
            let Some((client, from)) = waiting else { return };
            let late = Instant::now() > deadline;
            assert!(!late, "{:?} hears no more than {from}: {}", client.manner, client.ledger().summary());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until writers have written some more, and every client has heard something.
    pub async fn goes_on(&self) {
        self.writers.commit(20).await;
        self.all_hear(3).await;
    }

    /// Another replica, ready to be connected to.
    pub async fn add_replica(&mut self) {
        let replica = Replica::start(self.program.clone(), &self.service_url, self.flags).await;
        self.addresses.add(replica.address);
        self.replicas.push(replica);
    }

    /// Takes a replica out of the list of those that clients know.
    pub fn take_replica(&mut self, index: usize) -> Replica {
        let replica = self.replicas.remove(index);
        self.addresses.remove(replica.address);
        replica
    }

    /// Which replica moved events last: the one that a crash would cost most.
    pub async fn sequencing(&self) -> usize {
        let mut before = Vec::new();
        for replica in &self.replicas {
            before.push(replica.metric("incident_manager_sequenced_events_total").await);
        }
        self.writers.commit(10).await;
        let mut most = (0, 0);
        for (index, replica) in self.replicas.iter().enumerate() {
            let moved = replica.metric("incident_manager_sequenced_events_total").await - before[index];
            if moved > most.1 {
                most = (index, moved);
            }
        }
        most.0
    }

    /// Other writers, in place of those that were stopped.
    pub fn write_to(&mut self, url: String) {
        self.seed += 1000;
        self.writers = Writers::start(url, &self.addresses, self.pace, self.seed);
    }

    /// Other replicas, on another database, in place of those that there are: these end without a word.
    pub async fn move_to(&mut self, service_url: String) {
        let replicas = self.replicas.len();
        while !self.replicas.is_empty() {
            self.take_replica(0).kill().await;
        }
        self.service_url = service_url;
        for _ in 0..replicas {
            self.add_replica().await;
        }
    }

    /// Stops the writers, waits until everybody has heard everything, and that what comes next is what they hear next.
    pub async fn settle(self) -> Counts {
        self.settle_on(None).await
    }

    /// The same, where what counts is in another database by now.
    pub async fn settle_on(mut self, database: Option<&Database>) -> Counts {
        self.writers.stop().await;
        settle(database.unwrap_or(&self.database), &self.clients).await
    }
}

/// Waits until all clients have heard everything that is in the database, and counts.
async fn settle(database: &Database, clients: &[Client]) -> Counts {
    eventually("everything committed is in the log", || whole_log(database)).await;
    heard(database, clients).await;
    database
        .execute(
            "insert into incident_manager.incident (title, severity, source) values ('The last', 'P0', 'the end');
             insert into incident_manager.alert (source, title, severity) values ('the end', 'The last', 'P0');",
        )
        .await;
    eventually("the last is in the log", || whole_log(database)).await;
    let logs = heard(database, clients).await;
    let mut counts = Counts::default();
    for client in clients {
        let ledger = client.ledger();
        let log = &logs[&client.manner.wants];
        let (lost, invented): (Vec<_>, Vec<_>) = (ledger.lost(log).collect(), ledger.invented(log).collect());
        for (what, events) in [("lost", &lost), ("invented", &invented)] {
            if !events.is_empty() {
                counts.breaches.push(format!("{:?}: {what} {:?}", client.manner, &events[..events.len().min(5)]));
            }
        }
        counts.lost += lost.len();
        counts.invented += invented.len();
        counts.delivered += ledger.delivered;
        counts.doubled += ledger.doubled;
        counts.reordered += ledger.reordered;
        counts.expired += ledger.expired;
        counts.subscriptions += client.subscriptions();
        counts.breaches.extend(ledger.breaches.iter().map(|breach| format!("{:?}: {breach}", client.manner)));
    }
    let committed = "select (select coalesce(sum(version), 0) from incident_manager.incident)
                          + (select count(*) from incident_manager.alert)";
    counts.committed = usize::try_from(database.value::<i64>(committed).await).unwrap();
    counts
}

/// Whether all that was committed has been moved to the log; and, where retention has dropped nothing, whether every version
/// of every incident and every alert is there, no more and no less.
async fn whole_log(database: &Database) -> bool {
    database
        .value(
            "select coalesce((select max(seq) from incident_manager.event_outbox), 0)
                    <= (select seen_seq from incident_manager.event_batch order by n desc limit 1)
                and ((select min(from_pos) from incident_manager.event_partition) > 1
                     or (select count(*) from incident_manager.alert)
                        = (select count(*) from incident_manager.event_log where kind = 'alert')
                    and not exists (
                      select from incident_manager.incident i
                      where (version, version) <> (select count(*), max(l.version) from incident_manager.event_log l
                                                   where l.incident_id = i.id and l.kind = 'incident')))",
        )
        .await
}

/// What each sort of client is to hear, once all have, or when that takes too long.
async fn heard(database: &Database, clients: &[Client]) -> HashMap<Wants, Log> {
    let deadline = Instant::now() + PATIENCE;
    let mut logs = HashMap::new();
    for wants in Wants::ALL {
        logs.insert(wants, log_of(database, wants).await);
    }
    let mut waiting: Vec<_> = clients.iter().collect();
    while !waiting.is_empty() && Instant::now() < deadline {
        waiting.retain(|client| client.ledger().lost(&logs[&client.manner.wants]).next().is_some());
        sleep(Duration::from_millis(50)).await;
    }
    logs
}

async fn log_of(database: &Database, wants: Wants) -> Log {
    let rows = sqlx::query_as(match wants {
        Wants::Changes => {
            "select pos, incident_id, version from incident_manager.event_log where kind = 'incident' order by pos"
        }
        Wants::Urgent => {
            "select pos, incident_id, version from incident_manager.event_log
             where kind = 'incident' and (severity in ('P0', 'P1') or old_severity in ('P0', 'P1')) order by pos"
        }
        Wants::Alerts => "select pos, alert_id, 1 from incident_manager.event_log where kind = 'alert' order by pos",
    })
    .fetch_all(&database.pool);
    let from = database.value("select min(from_pos) from incident_manager.event_partition");
    Log::new(from.await, rows.await.unwrap())
}
