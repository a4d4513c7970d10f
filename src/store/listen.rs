//! Notifications, on a connection of their own.

use std::time::Duration;

use sqlx::postgres::PgListener;
use uuid::Uuid;

use super::{Store, StoreError};

/// Rung by writers' triggers.
const DOORBELL: &str = "incident_manager_doorbell";
/// Rung by the sequencer; the payload is the log's head.
const HEAD: &str = "incident_manager_head";
/// Rung by ourselves, to see whether notifications come through.
const PROBE: &str = "incident_manager_probe";
/// The longest wait for an answer on this connection. The driver sets no keep-alive, so this is what finds a peer that
/// is gone without a word.
const DEADLINE: Duration = Duration::from_secs(2);

/// A connection that LISTENs.
pub struct Notifications {
    listener: PgListener,
}

/// What a notification said. None is to be relied on: each only says "look".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A writer has committed something that waits for the sequencer.
    Doorbell,
    /// The log has a new head.
    Head,
    /// Our own probe came through, with this token.
    Probe(Uuid),
}

impl Store {
    /// Connects and LISTENs.
    pub async fn notifications(&self) -> Result<Notifications, StoreError> {
        let pool = self.settings.pool(1).connect_lazy_with(self.options.clone());
        let listen = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen_all([DOORBELL, HEAD, PROBE]).await?;
            Ok::<_, sqlx::Error>(Notifications { listener })
        };
        within(listen).await
    }

    /// Sends our probe by another connection than the one that LISTENs, as the writers' notifications come.
    pub async fn send_probe(&self, token: Uuid) -> Result<(), StoreError> {
        let mut lease = self.log_lease().await?;
        lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query!("SELECT pg_notify($1, $2)", PROBE, token.to_string()).fetch_one(connection).await
                })
            })
            .await?;
        Ok(())
    }
}

impl Notifications {
    /// Waits for the next notification. An error means that this connection is of no more use, and that some may have
    /// been lost. May be cancelled.
    pub async fn next(&mut self) -> Result<Heard, StoreError> {
        loop {
            // `None`: the connection broke and notifications may have been lost
            let Some(notification) = self.listener.try_recv().await? else {
                return Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed));
            };
            match notification.channel() {
                DOORBELL => return Ok(Heard::Doorbell),
                HEAD => return Ok(Heard::Head),
                PROBE => {
                    if let Ok(token) = notification.payload().parse() {
                        return Ok(Heard::Probe(token));
                    }
                }
                _ => {}
            }
        }
    }

    /// Asks the server for a sign of life on this very connection.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        within(async {
            sqlx::query!(r#"SELECT 1 AS "one!""#).fetch_one(&mut self.listener).await?;
            Ok(())
        })
        .await
    }
}

async fn within<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, statement).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::Unavailable(std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
    }
}
