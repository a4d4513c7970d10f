//! Taking alerts in, and reading them.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::document::{Document, object};
use super::incidents::{parse, push_scope};
use super::nested::{Asked, sources_of};
use super::{Store, StoreError, Work, milliseconds};
use crate::domain::{
    Alert, AlertFilter, AlertId, AlertStatus, IncidentId, NestedPage, NewAlert, Page, PageRequest, Scope, Seek,
    SubmittedAlert, Timestamp,
};

/// A row of `alert`: every field of the contract.
#[derive(sqlx::FromRow)]
struct AlertRow {
    /// Of the lists that were asked for, which one, from 1.
    list: i64,
    id: Uuid,
    external_id: Option<String>,
    source: String,
    title: String,
    /// Null where it is not asked for; as others that may be long.
    description: Option<String>,
    severity: String,
    alert_type: String,
    labels: Option<Document>,
    annotations: Option<Document>,
    affected_services: Option<Vec<String>>,
    runbook_url: Option<String>,
    firing: bool,
    received_at: Timestamp,
    deduplicated: bool,
    incident_id: Option<Uuid>,
}

impl TryFrom<AlertRow> for Alert {
    type Error = StoreError;

    fn try_from(row: AlertRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: AlertId(row.id),
            external_id: row.external_id,
            source: row.source,
            title: row.title,
            description: row.description.unwrap_or_default(),
            severity: parse("severity", &row.severity)?,
            kind: parse("alert_type", &row.alert_type)?,
            labels: object(row.labels, "labels", row.id),
            annotations: object(row.annotations, "annotations", row.id),
            affected_services: row.affected_services.unwrap_or_default(),
            runbook_url: row.runbook_url,
            firing: row.firing,
            received_at: row.received_at,
            deduplicated: row.deduplicated,
            incident_id: row.incident_id.map(IncidentId),
        })
    }
}

/// One element of the array that `submit_alerts` takes; its names are the columns'.
#[derive(Serialize)]
struct AlertInput<'a> {
    id: Uuid,
    external_id: Option<&'a str>,
    source: &'a str,
    title: &'a str,
    description: &'a str,
    severity: &'static str,
    alert_type: &'static str,
    labels: &'a std::collections::BTreeMap<String, String>,
    annotations: &'a std::collections::BTreeMap<String, String>,
    affected_services: &'a [String],
    runbook_url: Option<&'a str>,
    firing: bool,
    fingerprint: Option<&'a str>,
}

impl<'a> AlertInput<'a> {
    fn new(alert: &'a NewAlert) -> Self {
        Self {
            id: Uuid::now_v7(),
            external_id: alert.external_id.as_deref(),
            source: &alert.source,
            title: &alert.title,
            description: &alert.description,
            severity: alert.severity.as_str(),
            alert_type: alert.kind.as_str(),
            labels: &alert.labels,
            annotations: &alert.annotations,
            affected_services: &alert.affected_services,
            runbook_url: alert.runbook_url.as_deref(),
            firing: alert.firing,
            fingerprint: alert.fingerprint.as_deref(),
        }
    }
}

impl Store {
    /// Takes alerts in, in their order and in one transaction: stores each and decides what becomes of it. `patience` is
    /// how long it waits at most for what another transaction holds, where that is less than the setting.
    pub(super) async fn submit_alerts(
        &self,
        actor: &str,
        alerts: impl Iterator<Item = &NewAlert>,
        patience: Option<Duration>,
    ) -> Result<Vec<SubmittedAlert>, StoreError> {
        let input = alerts.map(AlertInput::new).collect();
        let lock_timeout = patience.map(|patience| patience.min(self.settings.lock_timeout));
        let rows = self.write(actor, &Submit { input, lock_timeout }).await?;
        rows.into_iter()
            .map(|row| {
                Ok(SubmittedAlert {
                    alert_id: AlertId(row.alert_id),
                    incident_id: row.incident_id.map(IncidentId),
                    status: parse::<AlertStatus>("status", &row.status)?,
                })
            })
            .collect()
    }

    /// One alert, if it is inside the scope.
    pub async fn alert(&self, scope: &Scope, id: AlertId) -> Result<Option<Alert>, StoreError> {
        let mut lease = self.lease().await?;
        let row = lease
            .within(|connection| {
                Box::pin(
                    sqlx::query_as!(
                        AlertRow,
                        r#"SELECT 1::bigint AS "list!", id, external_id, source, title, description, severity, alert_type,
                                  labels AS "labels: Document", annotations AS "annotations: Document",
                                  affected_services, runbook_url, firing, received_at, deduplicated, incident_id
                           FROM incident_manager.alert WHERE id = $1"#,
                        id.0
                    )
                    .fetch_optional(connection),
                )
            })
            .await?;
        row.filter(|row| scope.contains(&row.source)).map(Alert::try_from).transpose()
    }

    /// One page of the alerts that a filter matches, of those inside the scope, newest first.
    pub async fn alerts(
        &self,
        scope: &Scope,
        filter: &AlertFilter,
        page: PageRequest,
    ) -> Result<Page<Alert>, StoreError> {
        let mut query = alerts_query(scope, filter, page);
        let mut lease = self.lease().await?;
        let rows: Vec<AlertRow> =
            lease.within(|connection| Box::pin(query.build_query_as().fetch_all(connection))).await?;
        let found = rows.into_iter().map(Alert::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_search(page, found))
    }

    /// Pages of incidents' alerts, newest first, in one statement. An incident may have alerts of other sources, by a merge:
    /// those outside the scope are left out.
    pub async fn alert_pages(
        &self,
        scope: &Scope,
        pages: &[NestedPage],
    ) -> Result<HashMap<NestedPage, Page<Alert>>, StoreError> {
        let asked = &Asked::of(pages);
        let sources = &sources_of(scope);
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query_as!(
                        AlertRow,
                        r#"SELECT k.list AS "list!", a.id, a.external_id, a.source, a.title,
                                  CASE WHEN $6 THEN a.description END AS description, a.severity, a.alert_type,
                                  CASE WHEN $6 THEN a.labels END AS "labels: Document",
                                  CASE WHEN $6 THEN a.annotations END AS "annotations: Document",
                                  CASE WHEN $6 THEN a.affected_services END AS affected_services,
                                  a.runbook_url, a.firing, a.received_at, a.deduplicated, a.incident_id
                           FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[])
                                WITH ORDINALITY k(incident_id, at, id, list)
                           CROSS JOIN LATERAL (
                             SELECT * FROM incident_manager.alert a
                             WHERE a.incident_id = k.incident_id AND (a.received_at, a.id) <
                                   (coalesce(k.at, 'infinity'), coalesce(k.id, '00000000-0000-0000-0000-000000000000'))
                               AND ($5::text[] IS NULL OR a.source = ANY($5))
                             ORDER BY a.received_at DESC, a.id DESC LIMIT $4) a"#,
                        &asked.incidents,
                        &asked.at as &[Option<Timestamp>],
                        &asked.ids as &[Option<Uuid>],
                        asked.limit,
                        sources.as_deref(),
                        asked.whole,
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        let rows: Vec<(i64, Alert)> =
            rows.into_iter().map(|row| Ok((row.list, Alert::try_from(row)?))).collect::<Result<_, StoreError>>()?;
        Ok(asked.pages(rows, |a, b| (b.received_at, b.id).cmp(&(a.received_at, a.id))))
    }

    /// How many alerts incidents have, of those inside the scope; incidents that have none are left out.
    pub async fn alert_counts(
        &self,
        scope: &Scope,
        incidents: &[IncidentId],
    ) -> Result<HashMap<IncidentId, i64>, StoreError> {
        let sources = sources_of(scope);
        let ids: Vec<Uuid> = incidents.iter().map(|id| id.0).collect();
        let mut lease = self.lease().await?;
        let rows = lease
            .within(|connection| {
                Box::pin(async move {
                    sqlx::query!(
                        r#"SELECT incident_id AS "incident_id!", count(*) AS "count!" FROM incident_manager.alert
                           WHERE incident_id = ANY($1) AND ($2::text[] IS NULL OR source = ANY($2))
                           GROUP BY incident_id"#,
                        &ids,
                        sources.as_deref(),
                    )
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        Ok(rows.into_iter().map(|row| (IncidentId(row.incident_id), row.count)).collect())
    }

    /// How many alerts a filter matches, of those inside the scope.
    pub async fn count_alerts(&self, scope: &Scope, filter: &AlertFilter) -> Result<i64, StoreError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM incident_manager.alert WHERE true");
        push_scope(&mut query, scope);
        push_filter(&mut query, filter);
        let mut lease = self.lease().await?;
        Ok(lease.within(|connection| Box::pin(query.build_query_scalar().fetch_one(connection))).await?)
    }
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &AlertFilter) {
    if let Some(sources) = &filter.sources {
        query.push(" AND source = ANY(").push_bind(sources.clone()).push(")");
    }
    if let Some(incident) = filter.incident_id {
        query.push(" AND incident_id = ").push_bind(incident.0);
    }
    if let Some(firing) = filter.firing {
        query.push(if firing { " AND firing" } else { " AND NOT firing" });
    }
}

fn alerts_query(scope: &Scope, filter: &AlertFilter, page: PageRequest) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT 1::bigint AS list, id, external_id, source, title, description, severity, alert_type, labels, annotations,
                affected_services, runbook_url, firing, received_at, deduplicated, incident_id
         FROM incident_manager.alert WHERE true",
    );
    push_scope(&mut query, scope);
    push_filter(&mut query, filter);
    let (key, compare, direction) = match page.seek {
        Seek::Forward(key) => (key, " < (", " DESC"),
        Seek::Backward(key) => (key, " > (", " ASC"),
    };
    if let Some(key) = key {
        query.push(" AND (received_at, id)").push(compare);
        query.push_bind(key.at).push(", ").push_bind(key.id).push(")");
    }
    query.push(" ORDER BY received_at").push(direction).push(", id").push(direction);
    query.push(" LIMIT ").push_bind(i64::from(page.size) + 1);
    query
}

struct SubmittedRow {
    alert_id: Uuid,
    incident_id: Option<Uuid>,
    status: String,
}

struct Submit<'a> {
    input: Vec<AlertInput<'a>>,
    /// For this transaction alone.
    lock_timeout: Option<Duration>,
}

impl Work for Submit<'_> {
    type Output = Vec<SubmittedRow>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Vec<SubmittedRow>, sqlx::Error> {
        if let Some(lock_timeout) = self.lock_timeout {
            sqlx::query!("SELECT set_config('lock_timeout', $1, true)", milliseconds(lock_timeout))
                .fetch_one(&mut *connection)
                .await?;
        }
        sqlx::query_as!(
            SubmittedRow,
            r#"SELECT alert_id AS "alert_id!", incident_id, status AS "status!"
               FROM incident_manager.submit_alerts($1) ORDER BY ordinal"#,
            sqlx::types::Json(&self.input) as _
        )
        .fetch_all(connection)
        .await
    }
}
