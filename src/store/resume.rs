//! Reading from the log what a subscription asks for: the one place where a filter becomes SQL.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use metrics::counter;
use tracing::error;
use uuid::Uuid;

use super::document::Document;
use super::event_row::EventRow;
use super::log::{LogState, log_state};
use super::{Lease, Store, StoreError};
use crate::domain::{Event, Filter, Interest, Position, Scope, Severity, UpdateType};
use crate::telemetry::metric;

/// What of the log was asked for.
#[derive(Debug)]
pub struct LogMatches {
    pub events: Vec<Arc<Event>>,
    /// Up to here it has been looked at.
    pub read_to: Position,
    /// What the log was after they had been read: what it holds then it held before, and what its newest epoch has not made
    /// void was not void.
    pub log: LogState,
}

/// What is asked for as `event_matches` takes it: see the type `event_filter`.
#[derive(Debug, Clone, Default)]
struct Wanted {
    alerts: bool,
    incident_ids: Option<Vec<Uuid>>,
    sources: Option<Vec<String>>,
    update_types: Option<Vec<String>>,
    severities: Option<Vec<String>>,
    left_severities: Option<Vec<String>>,
    active_only: bool,
    raised_only: bool,
}

impl From<&Interest> for Wanted {
    fn from(Interest { filter, scope }: &Interest) -> Self {
        let seen = Self { sources: scope.sources().map(names), ..Self::default() };
        match filter {
            Filter::IncidentUpdates { incident_ids, severities, update_types, active_only } => Self {
                incident_ids: incident_ids.as_ref().map(|ids| ids.iter().map(|id| id.0).collect()),
                update_types: update_types.as_ref().map(names),
                severities: severities.as_ref().map(names),
                left_severities: severities.as_ref().map(names),
                active_only: *active_only,
                ..seen
            },
            Filter::NewIncidents { severities } => Self {
                update_types: Some(vec![UpdateType::Created.to_string()]),
                severities: severities.as_ref().map(names),
                ..seen
            },
            Filter::CriticalIncidents => Self {
                severities: Some(vec![Severity::P0.to_string(), Severity::P1.to_string()]),
                raised_only: true,
                ..seen
            },
            Filter::StateChanges { incident_id } => Self {
                incident_ids: incident_id.map(|id| vec![id.0]),
                // every change of state is one of these, and nothing else is
                update_types: Some(vec![UpdateType::StateChanged.to_string(), UpdateType::Resolved.to_string()]),
                ..seen
            },
            Filter::Alerts { sources: None } => Self { alerts: true, ..seen },
            Filter::Alerts { sources: Some(sources) } => {
                Self { alerts: true, sources: Some(within(sources, scope)), ..seen }
            }
        }
    }
}

fn names<T: Display>(set: &BTreeSet<T>) -> Vec<String> {
    set.iter().map(ToString::to_string).collect()
}

fn within(sources: &BTreeSet<String>, scope: &Scope) -> Vec<String> {
    sources.iter().filter(|source| scope.contains(source)).cloned().collect()
}

impl Store {
    /// The first events of `(after, upto]` that are asked for, at most `limit`, in order. A row that cannot be read is
    /// looked for and passed by alone.
    pub async fn log_matches(
        &self,
        interest: &Interest,
        after: Position,
        upto: Position,
        limit: usize,
    ) -> Result<LogMatches, StoreError> {
        let wanted = Wanted::from(interest);
        let mut lease = self.lease().await?;
        let mut limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let (events, read_to) = loop {
            match readable_matches(&mut lease, wanted.clone(), (after, upto), limit).await {
                Err(error) if error.is_of_reading() && limit > 1 => limit /= 2,
                Err(failed) if failed.is_of_reading() => {
                    let at = first_match(&mut lease, wanted, (after, upto)).await?;
                    counter!(metric::UNREADABLE_EVENTS).increment(1);
                    error!(position = %at, error = &failed as &dyn std::error::Error, "an event cannot be read; it is passed by");
                    break (Vec::new(), at);
                }
                Err(error) => return Err(error),
                Ok(events) => {
                    let full = events.last().filter(|_| i32::try_from(events.len()) == Ok(limit));
                    let read_to = full.map_or(upto, |last| last.position);
                    break (events, read_to);
                }
            }
        };
        Ok(LogMatches { events, read_to, log: log_state(&mut lease).await? })
    }
}

async fn readable_matches(
    lease: &mut Lease,
    wanted: Wanted,
    (after, upto): (Position, Position),
    limit: i32,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let rows = lease
        .within(|connection| {
            Box::pin(async move {
                sqlx::query_as!(
                    EventRow,
                    r#"SELECT e.id AS "epoch_id!", l.pos AS "pos!", l.logged_at AS "logged_at!", l.at AS "at!",
                              l.kind AS "kind!", l.update_type, l.incident_id, l.alert_id, l.source AS "source!",
                              l.severity AS "severity!", l.old_severity, l.state, l.old_state, l.actor AS "actor!",
                              l.changed AS "changed!", l.title AS "title!",
                              coalesce(l.description,
                                       (SELECT t.body FROM incident_manager.event_text t
                                        WHERE t.object_id = coalesce(l.alert_id, l.incident_id)
                                          AND t.version = l.description_version)) AS description,
                              l.labels AS "labels!: Document", l.fingerprint, l.incident_type, l.assigned_to,
                              l.affected_resources, l.metadata AS "metadata: Document", l.resolution, l.root_cause,
                              l.created_at, l.updated_at, l.acknowledged_at, l.resolved_at, l.closed_at, l.version,
                              l.external_id, l.alert_type, l.annotations AS "annotations: Document",
                              l.affected_services, l.runbook_url, l.firing, l.received_at, l.deduplicated
                       FROM (SELECT epoch FROM incident_manager.event_batch ORDER BY n DESC LIMIT 1) b
                       JOIN incident_manager.event_epoch e USING (epoch)
                       CROSS JOIN incident_manager.event_matches(
                         ROW($1::boolean, $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean,
                             $8::boolean)::incident_manager.event_filter, $9, $10, $11) l
                       ORDER BY l.pos"#,
                    wanted.alerts,
                    wanted.incident_ids.as_deref(),
                    wanted.sources.as_deref(),
                    wanted.update_types.as_deref(),
                    wanted.severities.as_deref(),
                    wanted.left_severities.as_deref(),
                    wanted.active_only,
                    wanted.raised_only,
                    after.0,
                    upto.0,
                    limit
                )
                .fetch_all(connection)
                .await
            })
        })
        .await?;
    rows.into_iter().map(|row| Event::try_from(row).map(Arc::new)).collect()
}

/// Where the first is that is asked for; the end, where none is.
async fn first_match(
    lease: &mut Lease,
    wanted: Wanted,
    (after, upto): (Position, Position),
) -> Result<Position, StoreError> {
    let first = lease
        .within(|connection| {
            Box::pin(async move {
                sqlx::query_scalar!(
                    r#"SELECT l.pos AS "pos!"
                       FROM incident_manager.event_matches(
                         ROW($1::boolean, $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean,
                             $8::boolean)::incident_manager.event_filter, $9, $10, 1) l"#,
                    wanted.alerts,
                    wanted.incident_ids.as_deref(),
                    wanted.sources.as_deref(),
                    wanted.update_types.as_deref(),
                    wanted.severities.as_deref(),
                    wanted.left_severities.as_deref(),
                    wanted.active_only,
                    wanted.raised_only,
                    after.0,
                    upto.0
                )
                .fetch_optional(connection)
                .await
            })
        })
        .await?;
    Ok(first.map_or(upto, Position))
}
