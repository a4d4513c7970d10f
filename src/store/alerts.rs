//! Taking alerts in, and reading them.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::incidents::{json_object, parse};
use super::{Lease, Store, StoreError, Work};
use crate::domain::{
    Alert, AlertFilter, AlertId, AlertStatus, IncidentId, NewAlert, Page, PageRequest, Seek, SubmittedAlert, Timestamp,
};

/// A row of `alert`: every field of the contract.
struct AlertRow {
    id: Uuid,
    external_id: Option<String>,
    source: String,
    title: String,
    description: String,
    severity: String,
    alert_type: String,
    labels: serde_json::Value,
    annotations: serde_json::Value,
    affected_services: Vec<String>,
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
            description: row.description,
            severity: parse("severity", &row.severity)?,
            kind: parse("alert_type", &row.alert_type)?,
            labels: json_object("labels", row.labels)?,
            annotations: json_object("annotations", row.annotations)?,
            affected_services: row.affected_services,
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
    /// Takes alerts in, in their order and in one transaction: stores each and decides what becomes of it.
    pub async fn submit_alerts(&self, actor: &str, alerts: &[NewAlert]) -> Result<Vec<SubmittedAlert>, StoreError> {
        let input = alerts.iter().map(AlertInput::new).collect();
        let rows = self.write(actor, &Submit { input }).await?;
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

    /// One alert.
    pub async fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
        let mut lease = self.lease().await?;
        Ok(fetch_by_id(&mut lease, vec![id.0]).await?.remove(&id))
    }

    /// One page of the alerts that a filter matches, newest first.
    pub async fn alerts(&self, filter: &AlertFilter, page: PageRequest) -> Result<Page<Alert>, StoreError> {
        let mut query = QueryBuilder::new("SELECT id FROM incident_manager.alert WHERE true");
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
        let mut lease = self.lease().await?;
        let ids: Vec<Uuid> =
            lease.within(|connection| Box::pin(query.build_query_scalar().fetch_all(connection))).await?;
        let mut found = fetch_by_id(&mut lease, ids.clone()).await?;
        let in_order = ids.into_iter().filter_map(|id| found.remove(&AlertId(id))).collect();
        Ok(Page::from_search(page, in_order))
    }

    /// How many alerts a filter matches.
    pub async fn count_alerts(&self, filter: &AlertFilter) -> Result<i64, StoreError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM incident_manager.alert WHERE true");
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

async fn fetch_by_id(lease: &mut Lease, ids: Vec<Uuid>) -> Result<HashMap<AlertId, Alert>, StoreError> {
    let rows = lease
        .within(|connection| {
            Box::pin(async move {
                sqlx::query_as!(
                    AlertRow,
                    "SELECT id, external_id, source, title, description, severity, alert_type, labels, annotations,
                            affected_services, runbook_url, firing, received_at, deduplicated, incident_id
                     FROM incident_manager.alert WHERE id = ANY($1)",
                    &ids
                )
                .fetch_all(connection)
                .await
            })
        })
        .await?;
    rows.into_iter()
        .map(|row| {
            let alert = Alert::try_from(row)?;
            Ok((alert.id, alert))
        })
        .collect()
}

struct SubmittedRow {
    alert_id: Uuid,
    incident_id: Option<Uuid>,
    status: String,
}

struct Submit<'a> {
    input: Vec<AlertInput<'a>>,
}

impl Work for Submit<'_> {
    type Output = Vec<SubmittedRow>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Vec<SubmittedRow>, sqlx::Error> {
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
