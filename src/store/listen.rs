//! Notifications, on a connection of their own.

use std::time::Duration;

use sqlx::postgres::PgListener;
use uuid::Uuid;

use super::{Sessions, Store, StoreError, milliseconds};

/// Rung by writers' triggers.
const DOORBELL: &str = "incident_manager_doorbell";
/// Rung by the sequencer; the payload is the log's head.
const HEAD: &str = "incident_manager_head";
/// Rung by ourselves, to see whether notifications come through.
const PROBE: &str = "incident_manager_probe";
/// The longest wait for an answer on this connection. The driver sets no keep-alive, so this is what finds a peer that
/// is gone without a word.
const DEADLINE: Duration = Duration::from_secs(2);

/// By this the server's administrator, and another replica, tell a session that LISTENs from the others.
const LISTENER: &str = "incident-manager listener";
/// How long a listener may take nothing of what its backend has for it. A backend that waits for longer, because its process
/// is stopped, holds on to the server's queue of notifications, which once full fails every commit that notifies.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A connection that LISTENs.
pub struct Notifications {
    listener: PgListener,
    /// The backend by which it LISTENs.
    backend: i32,
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
    /// Connects and LISTENs. `None`: a pooler lends sessions out, so that nobody would hear, or somebody else.
    pub async fn notifications(&self) -> Result<Option<Notifications>, StoreError> {
        if self.sessions().await? != Sessions::Own {
            return Ok(None);
        }
        let pool = self.settings.pool(1).connect_lazy_with(self.options.clone().application_name(LISTENER));
        let listen = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            // over TCP the server itself ends a backend that is stuck; over a Unix socket this means nothing to it
            let backend = sqlx::query_scalar!(
                r#"SELECT pg_backend_pid() AS "pid!" FROM set_config('tcp_user_timeout', $1, false)"#,
                milliseconds(STUCK_AFTER)
            )
            .fetch_one(&mut listener)
            .await?;
            listener.listen_all([DOORBELL, HEAD, PROBE]).await?;
            Ok::<_, sqlx::Error>(Some(Notifications { listener, backend }))
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

    /// Ends the backends of other replicas' listeners that are stuck, so that the server's queue of notifications goes on;
    /// how many. Only those of our own role: of others' we may not see what they wait for, nor end them.
    pub async fn end_stuck_listeners(&self) -> Result<i64, StoreError> {
        let mut lease = self.log_lease().await?;
        Ok(lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_scalar!(
                        r#"SELECT count(pg_terminate_backend(pid)) AS "ended!" FROM pg_stat_activity
                           WHERE application_name = $1 AND datname = current_database() AND usename = current_user
                             AND wait_event = 'ClientWrite' AND xact_start < clock_timestamp() - make_interval(secs => $2)
                             AND pg_notification_queue_usage() > 0"#,
                        LISTENER,
                        STUCK_AFTER.as_secs_f64()
                    )
                    .fetch_one(connection),
                )
            })
            .await?)
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

    /// Asks the server for a sign of life on this very connection. False: the session that answers is not the one that
    /// LISTENs; there is a pooler in between that lends sessions out.
    pub async fn has_own_session(&mut self) -> Result<bool, StoreError> {
        within(async {
            let backend =
                sqlx::query_scalar!(r#"SELECT pg_backend_pid() AS "pid!""#).fetch_one(&mut self.listener).await?;
            Ok(backend == self.backend)
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
