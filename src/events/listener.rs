//! Reads the log into the hub, from its own position on, whenever there may be something: a notification only says
//! "look", so that one which is lost costs no more than the time to the next safety poll.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::doorbell::Doorbell;
use super::hub::Hub;
use crate::domain::{Cursor, EpochId, Position};
use crate::store::{Heard, Notifications, Store, StoreError};
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
        let mut notifications = self.store.notifications().await?;
        // only now: what is committed from here on is heard, what was before is read
        self.catch_up().await?;
        self.doorbell.wake();
        if !std::mem::take(first) {
            counter!(metric::LISTENER_RECONNECTS).increment(1);
            info!("connected for notifications again");
        }
        let hears = self.hears_itself(&mut notifications).await?;
        gauge!(metric::LISTENING).set(i32::from(hears));
        if !hears {
            warn!(
                "notifications do not come through, as behind a pooler that does not pass LISTEN on; polling instead"
            );
        }
        let mut poll = interval(if hears { SAFETY_POLL } else { BLIND_POLL });
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                notification = notifications.next() => match notification? {
                    Heard::Doorbell => self.doorbell.ring(),
                    Heard::Head => self.catch_up().await?,
                    Heard::Probe(_) => {}
                },
                _ = poll.tick() => {
                    notifications.check().await?;
                    self.catch_up().await?;
                    if !hears {
                        self.doorbell.wake();
                    }
                }
            }
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
            self.hub.begin(self.store.log_head(None).await?);
            self.hub.confirm();
            return Ok(());
        };
        loop {
            let page = self.store.log_page(head.epoch, head.position, PAGE).await?;
            let Some((epoch, rewound_to)) = page.epoch else {
                // nothing after our position: the end of the log, or of a log that is shorter than what we have read
                let log = self.store.log_head(Some(head.epoch)).await?;
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                gauge!(metric::LOG_HEAD).set(log.position.0 as f64);
                if log.epoch != head.epoch || log.position < head.position {
                    let rewound_to = log.rewound_to.unwrap_or(log.position.next());
                    head = self.rewind(log.epoch, rewound_to.min(log.position.next())).await?;
                    continue;
                }
                if log.position > head.position {
                    continue;
                }
                self.hub.confirm();
                return Ok(());
            };
            if epoch != head.epoch {
                head = self.rewind(epoch, rewound_to.unwrap_or(Position(1))).await?;
                continue;
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

    /// Goes back to where the log's numbering is still the one that we have read.
    async fn rewind(&self, epoch: EpochId, rewound_to: Position) -> Result<Cursor, StoreError> {
        let position = self.hub.kept_below(rewound_to);
        let logged_at = self.store.logged_at(position).await?.unwrap_or_default();
        let head = Cursor { epoch, position, logged_at };
        warn!(%epoch, %rewound_to, "the log has a new epoch; positions from there on were given out anew");
        self.hub.rewind(rewound_to, head);
        Ok(head)
    }
}
