//! Reads the log into the hub, from its own position on, whenever there may be something: a notification only says
//! "look", so that one which is lost costs no more than the time to the next safety poll.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::doorbell::Doorbell;
use super::hub::Hub;
use crate::domain::{Cursor, Position, UnknownEpoch};
use crate::store::{Heard, LogState, Notifications, Store, StoreError};
use crate::telemetry::metric;

/// Events that one statement reads.
const PAGE: u32 = 512;
/// How often the log is read though nothing was heard, and the notification connection asked for a sign of life.
const SAFETY_POLL: Duration = Duration::from_secs(1);
/// How often the log is read where notifications do not come through.
const BLIND_POLL: Duration = Duration::from_millis(50);
/// How long our own probe may take before notifications count as not coming through.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// Between attempts to connect; the longest is soon enough for a person who restarts a database.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

pub(super) struct Listener {
    store: Store,
    hub: Arc<Hub>,
    /// Wakes the sequencer.
    doorbell: Arc<Doorbell>,
}

impl Listener {
    pub(super) fn new(store: Store, hub: Arc<Hub>, doorbell: Arc<Doorbell>) -> Self {
        Self { store, hub, doorbell }
    }

    /// Listens for ever: after any break on a new connection, from the same position.
    pub(super) async fn run(self) {
        let mut pause = RETRY.0;
        let mut first = true;
        loop {
            let began = Instant::now();
            let Err(error) = self.listen(&mut first).await;
            gauge!(metric::LISTENING).set(0);
            if began.elapsed() > RETRY.1 {
                pause = RETRY.0;
            }
            warn!(error = &error as &dyn std::error::Error, "lost the connection for notifications; connecting anew");
            sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn listen(&self, first: &mut bool) -> Result<std::convert::Infallible, StoreError> {
        let notifications = self.store.notifications().await?;
        // only now: what is committed from here on is heard, what was before is read
        self.catch_up().await?;
        self.doorbell.wake();
        if !std::mem::take(first) {
            counter!(metric::LISTENER_RECONNECTS).increment(1);
            info!("connected for notifications again");
        }
        if let Some(mut notifications) = notifications
            && self.hears_itself(&mut notifications).await?
        {
            self.hear(notifications).await?;
        }
        warn!("notifications do not come through, as behind a pooler that does not pass LISTEN on; polling instead");
        self.poll().await
    }

    /// Looks when told to, and from time to time though not told, until this connection's session is not its own any more.
    async fn hear(&self, mut notifications: Notifications) -> Result<(), StoreError> {
        gauge!(metric::LISTENING).set(1);
        let mut poll = every(SAFETY_POLL);
        loop {
            tokio::select! {
                notification = notifications.next() => match notification? {
                    Heard::Doorbell => self.doorbell.ring(),
                    Heard::Head => self.catch_up().await?,
                    Heard::Probe(_) => {}
                },
                _ = poll.tick() => {
                    if !notifications.has_own_session().await? {
                        return Ok(());
                    }
                    self.catch_up().await?;
                }
            }
        }
    }

    /// Looks often, as nothing tells when.
    async fn poll(&self) -> Result<std::convert::Infallible, StoreError> {
        gauge!(metric::LISTENING).set(0);
        let mut poll = every(BLIND_POLL);
        loop {
            poll.tick().await;
            self.catch_up().await?;
            self.doorbell.wake();
        }
    }

    /// Whether a notification that another connection sends arrives on this one.
    async fn hears_itself(&self, notifications: &mut Notifications) -> Result<bool, StoreError> {
        let token = Uuid::new_v4();
        self.store.send_probe(token).await?;
        let arrival = async {
            loop {
                match notifications.next().await? {
                    Heard::Probe(heard) if heard == token => return Ok::<_, StoreError>(()),
                    Heard::Doorbell => self.doorbell.ring(),
                    // a caught-up head and others' probes: whatever came before our own is read after it
                    Heard::Head | Heard::Probe(_) => {}
                }
            }
        };
        let heard = match timeout(PROBE_DEADLINE, arrival).await {
            Ok(arrived) => arrived.map(|()| true)?,
            Err(_) => false,
        };
        self.catch_up().await?;
        Ok(heard)
    }

    /// Reads the log to its end.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let Some(mut head) = self.hub.head() else {
            let log = self.store.log_state().await?;
            self.hub.begin(log.head, log.epochs);
            self.hub.confirm();
            return Ok(());
        };
        loop {
            let page = self.store.log_page(head.position, PAGE).await?;
            let Some(epoch) = page.epoch else {
                // nothing after our position: the end of the log, or of a log that is shorter than what we have read
                let log = self.store.log_state().await?;
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                gauge!(metric::LOG_HEAD).set(log.head.position.0 as f64);
                if log.head.epoch != head.epoch || log.head.position < head.position {
                    head = self.rewind(head, log).await?;
                    continue;
                }
                if log.head.position > head.position {
                    continue;
                }
                self.hub.confirm();
                return Ok(());
            };
            if epoch != head.epoch {
                head = self.rewind(head, self.store.log_state().await?).await?;
                continue;
            }
            if let Some(first) = page.events.first().filter(|first| first.position > head.position.next()) {
                let before = Position(first.position.0 - 1);
                warn!(from = %head.position, to = %before, "retention has passed this process; what it has not read is gone");
                self.hub.skip(Cursor { epoch, position: before, logged_at: Cursor::UNKNOWN_TIME });
            }
            if let Some(last) = page.events.last() {
                head = last.cursor();
            }
            self.hub.append(&page.events);
            if !page.more {
                self.hub.confirm();
                return Ok(());
            }
        }
    }

    /// Goes back to where the log's numbering is still the one that we have read, as far as the log reaches back.
    async fn rewind(&self, head: Cursor, log: LogState) -> Result<Cursor, StoreError> {
        let rewound_to = match log.epochs.void_from(head.epoch) {
            Ok(Some(void_from)) => void_from.min(log.head.position.next()),
            // without an epoch that says so, as where the server's timeline cannot be seen
            Ok(None) => log.head.position.next(),
            // another log: nothing is left of ours, not even its beginning
            Err(UnknownEpoch) => Position(0),
        };
        warn!(epoch = %log.head.epoch, %rewound_to, "the log has a new epoch; positions from there on were given out anew");
        let kept = head.position.min(Position(rewound_to.0 - 1));
        let go_on = if rewound_to == Position(0) {
            log.head
        } else {
            let position = kept.max(log.oldest);
            let logged_at = self.store.logged_at(position).await?.unwrap_or(Cursor::UNKNOWN_TIME);
            Cursor { epoch: log.head.epoch, position, logged_at }
        };
        self.hub.rewind(rewound_to, go_on, log.epochs);
        Ok(go_on)
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
