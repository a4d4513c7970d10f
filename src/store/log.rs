//! The event log: calling its sequencer and its maintenance, and reading it.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tracing::error;

use super::document::Document;
use super::event_row::EventRow;
use super::{Lease, Store, StoreError};
use crate::domain::{Change, Cursor, Epoch, EpochId, Epochs, Event, Position, StreamPosition, Timestamp};
use crate::telemetry::metric;
use sqlx::postgres::types::PgInterval;

/// Most events that one call of the sequencer moves; a backlog takes several calls.
const MAX_SEQUENCED: i32 = 20_000;

/// What a call of the sequencer did.
#[derive(Debug, Clone, Copy)]
pub struct Sequenced {
    /// `None`: another session was sequencing, and this call did nothing.
    pub head: Option<Position>,
    /// Events that it moved to the log.
    pub moved: u64,
    /// More wait than one call moves.
    pub more: bool,
    /// Whether writers ring the doorbell.
    pub bell_on: bool,
}

/// What a call of the maintenance did.
#[derive(Debug, Clone, Copy)]
pub struct Maintenance {
    /// A partition could not be dropped because readers held it for too long.
    pub overdue: bool,
}

/// How long the log is kept; whichever is reached first.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub age: Duration,
    pub events: u64,
}

/// What a log is: its ends and its epochs.
#[derive(Debug, Clone)]
pub struct LogState {
    /// The newest position; of the newest epoch.
    pub head: Cursor,
    /// Before the oldest event that the log holds: who is further back has lost some.
    pub oldest: Position,
    pub epochs: Epochs,
}

impl LogState {
    /// The oldest cursor that can be resumed from. When its position was given out the log no longer says.
    pub fn oldest_cursor(&self) -> Cursor {
        Cursor { epoch: self.head.epoch, position: self.oldest, logged_at: Cursor::UNKNOWN_TIME }
    }
}

/// Some events from the log, in order.
#[derive(Debug)]
pub struct LogPage {
    /// The newest. `None`: the log holds nothing after the position, and says nothing of its epoch.
    pub epoch: Option<EpochId>,
    pub events: Vec<Arc<Event>>,
    /// There may be more after these.
    pub more: bool,
}

impl Store {
    /// Moves what is visible from the outbox to the log; `ring` sets the doorbell, where it is given.
    pub async fn sequence_events(&self, ring: Option<bool>) -> Result<Sequenced, StoreError> {
        let mut lease = self.log_lease().await?;
        let row = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query!(
                        r#"SELECT locked AS "locked!", head, moved AS "moved!", more AS "more!",
                                  (SELECT last_value = 1 FROM incident_manager.event_doorbell) AS "bell_on!"
                           FROM incident_manager.sequence_events($1, $2)"#,
                        MAX_SEQUENCED,
                        ring
                    )
                    .fetch_one(connection),
                )
            })
            .await?;
        Ok(Sequenced {
            head: row.head.filter(|_| row.locked).map(Position),
            moved: u64::try_from(row.moved).unwrap_or_default(),
            more: row.more,
            bell_on: row.bell_on,
        })
    }

    /// Makes partitions ahead, changes the outbox's slot, drops what retention does not keep: at most one step of each.
    pub async fn maintain_log(&self, retention: Retention) -> Result<Maintenance, StoreError> {
        let keep = PgInterval {
            months: 0,
            days: 0,
            microseconds: i64::try_from(retention.age.as_micros()).unwrap_or(i64::MAX),
        };
        let keep_events = i64::try_from(retention.events).unwrap_or(i64::MAX);
        let mut lease = self.log_lease().await?;
        let row = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query!(
                        r#"SELECT overdue AS "overdue!" FROM incident_manager.event_maintain($1, $2)"#,
                        keep,
                        keep_events
                    )
                    .fetch_one(connection),
                )
            })
            .await?;
        Ok(Maintenance { overdue: row.overdue })
    }

    /// Where the log begins and ends, and its epochs.
    pub async fn log_state(&self) -> Result<LogState, StoreError> {
        let mut lease = self.log_lease().await?;
        log_state(&mut lease).await
    }

    /// The newest position of the log, and the oldest that can be resumed from.
    pub async fn stream_position(&self) -> Result<StreamPosition, StoreError> {
        let mut lease = self.lease().await?;
        let row = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query!(
                        r#"SELECT e.id, b.last_pos,
                                  (SELECT l.logged_at FROM incident_manager.event_log l WHERE l.pos = b.last_pos)
                                      AS "logged_at?",
                                  (SELECT l.pos FROM incident_manager.event_log l ORDER BY l.pos LIMIT 1) AS "oldest?"
                           FROM (SELECT last_pos, epoch FROM incident_manager.event_batch ORDER BY n DESC LIMIT 1) b
                           JOIN incident_manager.event_epoch e USING (epoch)"#
                    )
                    .fetch_one(connection),
                )
            })
            .await?;
        let epoch = EpochId(row.id);
        let logged_at = row.logged_at.unwrap_or(Cursor::UNKNOWN_TIME);
        let newest = Cursor { epoch, position: Position(row.last_pos), logged_at };
        let oldest = match row.oldest {
            Some(pos) => Cursor { epoch, position: Position(pos - 1), logged_at: Cursor::UNKNOWN_TIME },
            None => newest,
        };
        Ok(StreamPosition { newest, oldest })
    }

    /// When a position was given out; `None` where the log does not hold it.
    pub async fn logged_at(&self, position: Position) -> Result<Option<Timestamp>, StoreError> {
        let mut lease = self.log_lease().await?;
        Ok(lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_scalar!("SELECT logged_at FROM incident_manager.event_log WHERE pos = $1", position.0)
                        .fetch_optional(connection),
                )
            })
            .await?)
    }

    /// Transactions that may have written to the outbox and have not ended.
    pub async fn outbox_writers(&self) -> Result<Vec<String>, StoreError> {
        let mut lease = self.log_lease().await?;
        Ok(lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_scalar!(r#"SELECT incident_manager.event_writers() AS "writers!""#)
                        .fetch_one(connection),
                )
            })
            .await?)
    }

    /// Up to `limit` events after `position`. A row that cannot be read, which the tables' limits are to prevent, is looked
    /// for and passed by alone: it stops nobody from reading on.
    pub async fn log_page(&self, after: Position, limit: u32) -> Result<LogPage, StoreError> {
        let mut limit = limit;
        loop {
            match self.readable_page(after, limit).await {
                Err(error) if error.is_of_reading() && limit > 1 => limit /= 2,
                Err(error) if error.is_of_reading() => return self.unreadable_event(after, &error).await,
                page => return page,
            }
        }
    }

    /// The one event after `position`, of which no more can be read than that it is there.
    async fn unreadable_event(&self, after: Position, error: &StoreError) -> Result<LogPage, StoreError> {
        let mut lease = self.log_lease().await?;
        let row = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query!(
                        r#"SELECT e.id AS epoch_id, l.pos, l.logged_at, l.at
                           FROM (SELECT epoch FROM incident_manager.event_batch ORDER BY n DESC LIMIT 1) b
                           JOIN incident_manager.event_epoch e USING (epoch)
                           CROSS JOIN LATERAL (SELECT * FROM incident_manager.event_log
                                               WHERE pos > $1 ORDER BY pos LIMIT 1) l"#,
                        after.0
                    )
                    .fetch_optional(connection),
                )
            })
            .await?;
        let Some(row) = row else { return Ok(LogPage { epoch: None, events: Vec::new(), more: true }) };
        counter!(metric::UNREADABLE_EVENTS).increment(1);
        error!(position = row.pos, error = error as &dyn std::error::Error, "an event cannot be read; it is passed by");
        let event = Event {
            epoch: EpochId(row.epoch_id),
            position: Position(row.pos),
            logged_at: row.logged_at,
            at: row.at,
            actor: String::new(),
            change: Change::Unreadable,
        };
        Ok(LogPage { epoch: Some(event.epoch), events: vec![Arc::new(event)], more: true })
    }

    async fn readable_page(&self, after: Position, limit: u32) -> Result<LogPage, StoreError> {
        let mut lease = self.log_lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_as!(
                        EventRow,
                        r#"SELECT e.id AS epoch_id, l.pos, l.logged_at, l.at, l.kind, l.update_type, l.incident_id,
                                  l.alert_id, l.source, l.severity, l.old_severity, l.state, l.old_state, l.actor,
                                  l.changed, l.title, coalesce(l.description, t.body) AS description,
                                  l.labels AS "labels: Document",
                                  l.fingerprint, l.incident_type, l.assigned_to, l.affected_resources,
                                  l.metadata AS "metadata: Document",
                                  l.resolution, l.root_cause, l.created_at, l.updated_at, l.acknowledged_at,
                                  l.resolved_at, l.closed_at, l.version, l.external_id, l.alert_type,
                                  l.annotations AS "annotations: Document",
                                  l.affected_services, l.runbook_url, l.firing, l.received_at, l.deduplicated
                           FROM (SELECT epoch FROM incident_manager.event_batch ORDER BY n DESC LIMIT 1) b
                           JOIN incident_manager.event_epoch e USING (epoch)
                           CROSS JOIN LATERAL (SELECT * FROM incident_manager.event_log
                                               WHERE pos > $1 ORDER BY pos LIMIT $2) l
                           LEFT JOIN incident_manager.event_text t
                             ON l.description IS NULL AND t.object_id = coalesce(l.alert_id, l.incident_id)
                            AND t.version = coalesce(l.description_version, 0)
                           ORDER BY l.pos"#,
                        after.0,
                        i64::from(limit)
                    )
                    .fetch_all(connection),
                )
            })
            .await?;
        let more = rows.len() >= limit as usize;
        let epoch = rows.first().map(|row| EpochId(row.epoch_id));
        let events = rows.into_iter().map(|row| Event::try_from(row).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(LogPage { epoch, events, more })
    }
}

/// Of one moment: one statement.
pub(super) async fn log_state(lease: &mut Lease) -> Result<LogState, StoreError> {
    let row = lease
        .within(|connection| {
            Box::pin(
                sqlx::query!(
                    r#"SELECT b.last_pos, e.id,
                              (SELECT l.logged_at FROM incident_manager.event_log l WHERE l.pos = b.last_pos)
                                  AS "logged_at?",
                              (SELECT l.pos FROM incident_manager.event_log l ORDER BY l.pos LIMIT 1) AS "first_pos?",
                              (SELECT array_agg(known.id ORDER BY known.epoch) FROM incident_manager.event_epoch known)
                                  AS "epochs!",
                              (SELECT array_agg(known.first_pos ORDER BY known.epoch)
                               FROM incident_manager.event_epoch known) AS "epoch_positions!"
                       FROM (SELECT last_pos, epoch FROM incident_manager.event_batch ORDER BY n DESC LIMIT 1) b
                       JOIN incident_manager.event_epoch e USING (epoch)"#
                )
                .fetch_one(connection),
            )
        })
        .await?;
    let last = Position(row.last_pos);
    let epochs = row.epochs.into_iter().zip(row.epoch_positions);
    Ok(LogState {
        head: Cursor {
            epoch: EpochId(row.id),
            position: last,
            logged_at: row.logged_at.unwrap_or(Cursor::UNKNOWN_TIME),
        },
        oldest: row.first_pos.map_or(last, |first| Position(first - 1)),
        epochs: Epochs(epochs.map(|(id, first)| Epoch { id: EpochId(id), first: Position(first) }).collect()),
    })
}
