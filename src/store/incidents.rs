//! Reading incidents.

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::document::{Document, object};
use super::nested::sources_of;
use super::{Lease, Store, StoreError};
use crate::domain::{
    Detail, Incident, IncidentFilter, IncidentId, IncidentOrder, Keyset, Page, PageRequest, Scope, Seek, Timestamp,
};

/// A row of `incident`: every scalar field of the contract.
#[derive(sqlx::FromRow)]
pub(super) struct IncidentRow {
    pub id: Uuid,
    pub title: String,
    /// Null where it is not asked for; as others that may be long.
    pub description: Option<String>,
    pub severity: String,
    pub state: String,
    pub incident_type: String,
    pub source: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub acknowledged_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub assigned_to: Option<String>,
    pub affected_resources: Option<Vec<String>>,
    pub labels: Option<Document>,
    pub metadata: Option<Document>,
    pub resolution: Option<String>,
    pub root_cause: Option<String>,
    pub fingerprint: Option<String>,
    pub version: i32,
}

impl TryFrom<IncidentRow> for Incident {
    type Error = StoreError;

    fn try_from(row: IncidentRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: IncidentId(row.id),
            title: row.title,
            description: row.description.unwrap_or_default(),
            severity: parse("severity", &row.severity)?,
            state: parse("state", &row.state)?,
            kind: parse("incident_type", &row.incident_type)?,
            source: row.source,
            created_at: row.created_at,
            updated_at: row.updated_at,
            acknowledged_at: row.acknowledged_at,
            resolved_at: row.resolved_at,
            closed_at: row.closed_at,
            assigned_to: row.assigned_to,
            affected_resources: row.affected_resources.unwrap_or_default(),
            labels: object(row.labels, "labels", row.id),
            metadata: object(row.metadata, "metadata", row.id),
            resolution: row.resolution,
            root_cause: row.root_cause,
            fingerprint: row.fingerprint,
            version: row.version,
        })
    }
}

/// Reads a name of one of our enums.
pub(super) fn parse<T>(column: &'static str, text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse().map_err(|source| StoreError::Decode { column, source: Box::new(source) })
}

/// The incidents of these ids that there are, in no order, whoever asks.
pub(super) async fn fetch(
    connection: &mut PgConnection,
    ids: &[Uuid],
    detail: Detail,
) -> Result<Vec<IncidentRow>, sqlx::Error> {
    sqlx::query_as!(
        IncidentRow,
        r#"SELECT id, title, CASE WHEN $2 THEN description END AS description, severity, state, incident_type,
                  source, created_at, updated_at, acknowledged_at, resolved_at, closed_at, assigned_to,
                  CASE WHEN $2 THEN affected_resources END AS affected_resources,
                  CASE WHEN $2 THEN labels END AS "labels: Document",
                  CASE WHEN $2 THEN metadata END AS "metadata: Document",
                  CASE WHEN $2 THEN resolution END AS resolution, CASE WHEN $2 THEN root_cause END AS root_cause,
                  fingerprint, version
           FROM incident_manager.incident WHERE id = ANY($1)"#,
        ids,
        detail.is_whole()
    )
    .fetch_all(connection)
    .await
}

impl Store {
    /// One incident.
    pub async fn incident(&self, scope: &Scope, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        Ok(self.incidents_by_id(scope, &[id]).await?.remove(&id))
    }

    /// The incidents of these ids that there are inside the scope, in one statement.
    pub async fn incidents_by_id(
        &self,
        scope: &Scope,
        ids: &[IncidentId],
    ) -> Result<HashMap<IncidentId, Incident>, StoreError> {
        let mut lease = self.lease().await?;
        let mut found = fetch_by_id(&mut lease, ids.iter().map(|id| id.0).collect(), Detail::Whole).await?;
        found.retain(|_, incident| scope.contains(&incident.source));
        Ok(found)
    }

    /// Whether there is an incident of this id inside the scope. It stays so: a source never changes.
    pub(super) async fn sees(&self, scope: &Scope, id: IncidentId) -> Result<bool, StoreError> {
        // of all sources, whoever needs it finds out
        Ok(scope.sources().is_none() || self.incident(scope, id).await?.is_some())
    }

    /// One page of the incidents that a filter matches, of those inside the scope.
    pub async fn incidents(
        &self,
        scope: &Scope,
        filter: &IncidentFilter,
        order: IncidentOrder,
        page: PageRequest,
    ) -> Result<Page<Incident>, StoreError> {
        let mut query = incidents_query(&Visible { filter, scope }, order, page);
        let mut lease = self.lease().await?;
        let rows: Vec<IncidentRow> =
            lease.within(|connection| Box::pin(query.build_query_as().fetch_all(connection))).await?;
        let found = rows.into_iter().map(Incident::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_search(page, found))
    }

    /// How many incidents a filter matches, of those inside the scope.
    pub async fn count_incidents(&self, scope: &Scope, filter: &IncidentFilter) -> Result<i64, StoreError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM incident_manager.incident WHERE true");
        push_filter(&mut query, &Visible { filter, scope });
        let mut lease = self.lease().await?;
        Ok(lease.within(|connection| Box::pin(query.build_query_scalar().fetch_one(connection))).await?)
    }
}

/// The same by their ids.
pub(super) async fn fetch_by_id(
    lease: &mut Lease,
    ids: Vec<Uuid>,
    detail: Detail,
) -> Result<HashMap<IncidentId, Incident>, StoreError> {
    let rows = lease.within(|connection| Box::pin(async move { fetch(connection, &ids, detail).await })).await?;
    rows.into_iter()
        .map(|row| {
            let incident = Incident::try_from(row)?;
            Ok((incident.id, incident))
        })
        .collect()
}

/// What a list holds.
#[derive(Clone, Copy)]
struct Visible<'a> {
    filter: &'a IncidentFilter,
    scope: &'a Scope,
}

/// Leaves out what is outside.
pub(super) fn push_scope(query: &mut QueryBuilder<Postgres>, scope: &Scope) {
    if let Some(sources) = sources_of(scope) {
        query.push(" AND source = ANY(").push_bind(sources).push(")");
    }
}

fn push_filter(query: &mut QueryBuilder<Postgres>, Visible { filter, scope }: &Visible<'_>) {
    push_scope(query, scope);
    let names = |values: Vec<&'static str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
    if let Some(ids) = &filter.ids {
        query.push(" AND id = ANY(").push_bind(ids.iter().map(|id| id.0).collect::<Vec<_>>()).push(")");
    }
    if let Some(states) = &filter.states {
        query.push(" AND state = ANY(").push_bind(names(states.iter().map(|state| state.as_str()).collect())).push(")");
    }
    if let Some(severities) = &filter.severities {
        let severities = names(severities.iter().map(|severity| severity.as_str()).collect());
        query.push(" AND severity = ANY(").push_bind(severities).push(")");
    }
    if let Some(kinds) = &filter.kinds {
        let kinds = names(kinds.iter().map(|kind| kind.as_str()).collect());
        query.push(" AND incident_type = ANY(").push_bind(kinds).push(")");
    }
    if let Some(sources) = &filter.sources {
        query.push(" AND source = ANY(").push_bind(sources.clone()).push(")");
    }
    if let Some(assignee) = &filter.assigned_to {
        query.push(" AND assigned_to = ").push_bind(assignee.clone());
    }
    // said as the partial index on active incidents says it
    let all_active = filter.states.as_ref().is_some_and(|states| states.iter().all(|state| state.is_active()));
    if filter.active_only || all_active {
        query.push(" AND state NOT IN ('RESOLVED', 'CLOSED')");
    }
    if let Some(labels) = asked_labels(filter) {
        // said as the partial index on labels says it
        query.push(" AND labels <> '{}' AND labels @> ").push_bind(sqlx::types::Json(labels.clone()));
    }
    if let Some(after) = filter.created_after {
        query.push(" AND created_at > ").push_bind(after);
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at < ").push_bind(before);
    }
}

const COLUMNS: &str = "id, title, description, severity, state, incident_type, source, created_at, updated_at, \
    acknowledged_at, resolved_at, closed_at, assigned_to, affected_resources, labels, metadata, resolution, root_cause, \
    fingerprint, version";

/// All incidents have all of no labels.
fn asked_labels(filter: &IncidentFilter) -> Option<&BTreeMap<String, String>> {
    filter.labels.as_ref().filter(|labels| !labels.is_empty())
}

/// How many incidents of a list are looked through for labels before all that have them are looked up. A label that many
/// have is found at once on the way, and to look up all of its incidents would take long; one that few have is the reverse.
const LABEL_STRETCH: i64 = 10_000;

/// How a list is gone through: from where, and which way.
#[derive(Clone, Copy)]
struct Walk {
    order: IncidentOrder,
    key: Option<Keyset>,
    backward: bool,
}

impl Walk {
    fn column(self) -> &'static str {
        if self.order == IncidentOrder::UpdatedAtDesc { "updated_at" } else { "created_at" }
    }

    fn ascending(self) -> bool {
        (self.order == IncidentOrder::CreatedAtAsc) != self.backward
    }

    fn by_severity(self) -> bool {
        self.order == IncidentOrder::SeverityThenCreatedAt
    }

    fn push_order(self, query: &mut QueryBuilder<Postgres>, limit: i64) {
        let severity = self.by_severity().then_some(self.backward);
        push_order(query, severity, self.column(), self.ascending(), limit);
    }
}

/// Looks for one row more than the page holds, in the order of the search: backward it is the list's, turned round.
fn incidents_query(visible: &Visible<'_>, order: IncidentOrder, page: PageRequest) -> QueryBuilder<Postgres> {
    let (key, backward) = match page.seek {
        Seek::Forward(key) => (key, false),
        Seek::Backward(key) => (key, true),
    };
    let (walk, limit) = (Walk { order, key, backward }, i64::from(page.size) + 1);
    let mut query = QueryBuilder::new("");
    match asked_labels(visible.filter) {
        None => push_walk(&mut query, visible, walk, limit),
        Some(labels) => push_labelled(&mut query, visible, labels, walk, limit),
    }
    query
}

/// The first of a list, along its order's index.
fn push_walk(query: &mut QueryBuilder<Postgres>, visible: &Visible<'_>, walk: Walk, limit: i64) {
    let Some(key) = walk.key.filter(|_| walk.by_severity()) else {
        push_select(query, visible);
        push_after(query, walk.column(), walk.ascending(), walk.key);
        walk.push_order(query, limit);
        return;
    };
    // what is left of the key's severity, and the severities after it: each one stretch of the index
    let severity = key.severity.as_str();
    query.push("SELECT * FROM ((");
    push_select(query, visible);
    query.push(" AND severity = ").push_bind(severity);
    push_after(query, "created_at", walk.ascending(), Some(key));
    push_order(query, None, "created_at", walk.ascending(), limit);
    query.push(") UNION ALL (");
    push_select(query, visible);
    query.push(if walk.backward { " AND severity < " } else { " AND severity > " }).push_bind(severity);
    walk.push_order(query, limit);
    query.push(")) AS found");
    walk.push_order(query, limit);
}

/// The first of a list that have these labels: among the next in order, if they suffice, else of all that have them.
fn push_labelled(
    query: &mut QueryBuilder<Postgres>,
    visible: &Visible<'_>,
    labels: &BTreeMap<String, String>,
    walk: Walk,
    limit: i64,
) {
    let any = IncidentFilter { labels: None, ..visible.filter.clone() };
    query.push("WITH near AS MATERIALIZED (SELECT * FROM (");
    push_walk(query, &Visible { filter: &any, ..*visible }, walk, LABEL_STRETCH);
    query.push(") AS stretch WHERE labels @> ").push_bind(sqlx::types::Json(labels.clone()));
    walk.push_order(query, limit);
    // planned for all of its rows, so that it does not go along the order's index too
    query.push("), far AS MATERIALIZED (SELECT * FROM (");
    push_select(query, visible);
    match walk.key.filter(|_| walk.by_severity()) {
        None => push_after(query, walk.column(), walk.ascending(), walk.key),
        Some(key) => {
            let severity = key.severity.as_str();
            query.push(if walk.backward { " AND (severity < " } else { " AND (severity > " }).push_bind(severity);
            query.push(" OR severity = ").push_bind(severity);
            push_after(query, "created_at", walk.ascending(), Some(key));
            query.push(")");
        }
    }
    query.push(" OFFSET 0) AS matching WHERE (SELECT count(*) FROM near) < ").push_bind(limit);
    walk.push_order(query, limit);
    query.push(") SELECT * FROM (SELECT * FROM near WHERE (SELECT count(*) FROM near) >= ").push_bind(limit);
    query.push(" UNION ALL SELECT * FROM far) AS found");
    walk.push_order(query, limit);
}

fn push_select(query: &mut QueryBuilder<Postgres>, filter: &Visible<'_>) {
    query.push("SELECT ").push(COLUMNS).push(" FROM incident_manager.incident WHERE true");
    push_filter(query, filter);
}

/// Continues after a key. Row comparison lets the index on the order's columns answer it.
fn push_after(query: &mut QueryBuilder<Postgres>, column: &str, ascending: bool, key: Option<Keyset>) {
    if let Some(key) = key {
        query.push(" AND (").push(column).push(", id)").push(if ascending { " > (" } else { " < (" });
        query.push_bind(key.at).push(", ").push_bind(key.id).push(")");
    }
}

/// `severity`: first by severity, and whether from P4 on.
fn push_order(query: &mut QueryBuilder<Postgres>, severity: Option<bool>, column: &str, ascending: bool, limit: i64) {
    let direction = if ascending { " ASC" } else { " DESC" };
    query.push(" ORDER BY ");
    if let Some(backward) = severity {
        query.push(if backward { "severity DESC, " } else { "severity ASC, " });
    }
    query.push(column).push(direction).push(", id").push(direction).push(" LIMIT ").push_bind(limit);
}
