//! Making and changing incidents. What may be is decided by the table's own rules; a change that they refuse comes back
//! as an error, and an incident that is not there as `None`.

use sqlx::PgConnection;
use uuid::Uuid;

use super::incidents::{IncidentRow, fetch};
use super::{Store, StoreError, Work};
use crate::domain::{
    Assignment, Detail, Incident, IncidentId, IncidentKind, IncidentPatch, IncidentState, NewIncident, Resolution,
    Scope, Severity,
};

/// The caller's `expectedVersion` is not the incident's.
const STALE: StoreError = StoreError::Conflict("the incident's version is not the expected one");

/// What a change of one incident came to.
enum Changed {
    To(Box<IncidentRow>),
    /// There is one, of another version.
    Stale,
    NotFound,
}

impl Changed {
    fn into_incident(self) -> Result<Option<Incident>, StoreError> {
        match self {
            Self::To(row) => Ok(Some((*row).try_into()?)),
            Self::Stale => Err(STALE),
            Self::NotFound => Ok(None),
        }
    }
}

/// Reads what an update has left; tells a stale version from an unknown id.
async fn after(connection: &mut PgConnection, id: Uuid, updated: Option<Uuid>) -> Result<Changed, sqlx::Error> {
    let row = fetch(connection, &[id], Detail::Whole).await?.pop();
    Ok(match (row, updated) {
        (Some(row), Some(_)) => Changed::To(Box::new(row)),
        (Some(_), None) => Changed::Stale,
        (None, _) => Changed::NotFound,
    })
}

impl Store {
    /// Changes an incident that is inside the scope; `None` where there is none.
    async fn change<W: Work<Output = Changed>>(
        &self,
        actor: &str,
        scope: &Scope,
        id: IncidentId,
        work: &W,
    ) -> Result<Option<Incident>, StoreError> {
        if !self.sees(scope, id).await? {
            return Ok(None);
        }
        self.write(actor, work).await?.into_incident()
    }

    /// Makes an incident.
    pub async fn create_incident(&self, actor: &str, new: &NewIncident) -> Result<Incident, StoreError> {
        self.write(actor, &Create { id: Uuid::now_v7(), new }).await?.try_into()
    }

    /// Changes fields of an incident.
    pub async fn update_incident(
        &self,
        actor: &str,
        scope: &Scope,
        id: IncidentId,
        patch: &IncidentPatch,
        expected_version: Option<i32>,
    ) -> Result<Option<Incident>, StoreError> {
        self.change(actor, scope, id, &Update { id: id.0, patch, expected_version }).await
    }

    /// DETECTED to TRIAGED; an incident that has left DETECTED stays as it is.
    pub async fn acknowledge_incident(
        &self,
        actor: &str,
        scope: &Scope,
        id: IncidentId,
    ) -> Result<Option<Incident>, StoreError> {
        self.change(actor, scope, id, &Acknowledge { id: id.0 }).await
    }

    /// Moves an incident to a state, if the state machine has that step.
    pub async fn transition_incident(
        &self,
        actor: &str,
        scope: &Scope,
        id: IncidentId,
        to: IncidentState,
        expected_version: Option<i32>,
    ) -> Result<Option<Incident>, StoreError> {
        self.change(actor, scope, id, &Transition { id: id.0, to, expected_version }).await
    }

    /// Resolves an incident; a resolution or root cause that is not given stays as it is.
    pub async fn resolve_incident(
        &self,
        actor: &str,
        scope: &Scope,
        id: IncidentId,
        resolution: &Resolution,
    ) -> Result<Option<Incident>, StoreError> {
        self.change(actor, scope, id, &Resolve { id: id.0, resolution }).await
    }

    /// Gives an incident to somebody, or to nobody.
    pub async fn assign_incident(
        &self,
        actor: &str,
        scope: &Scope,
        id: IncidentId,
        assignment: &Assignment,
    ) -> Result<Option<Incident>, StoreError> {
        self.change(actor, scope, id, &Assign { id: id.0, assignment }).await
    }
}

struct Create<'a> {
    id: Uuid,
    new: &'a NewIncident,
}

impl Work for Create<'_> {
    type Output = IncidentRow;

    async fn run(&self, connection: &mut PgConnection) -> Result<IncidentRow, sqlx::Error> {
        let new = self.new;
        sqlx::query!(
            "INSERT INTO incident_manager.incident
                (id, title, description, severity, incident_type, source, affected_resources, labels, metadata,
                 assigned_to, fingerprint)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            self.id,
            new.title,
            new.description,
            new.severity.as_str(),
            new.kind.as_str(),
            new.source,
            &new.affected_resources,
            sqlx::types::Json(&new.labels) as _,
            sqlx::types::Json(&new.metadata) as _,
            new.assigned_to,
            new.fingerprint,
        )
        .execute(&mut *connection)
        .await?;
        fetch(connection, &[self.id], Detail::Whole).await?.pop().ok_or(sqlx::Error::RowNotFound)
    }
}

struct Update<'a> {
    id: Uuid,
    patch: &'a IncidentPatch,
    expected_version: Option<i32>,
}

impl Work for Update<'_> {
    type Output = Changed;

    async fn run(&self, connection: &mut PgConnection) -> Result<Changed, sqlx::Error> {
        let patch = self.patch;
        let updated = sqlx::query_scalar!(
            "UPDATE incident_manager.incident SET
                title = coalesce($3, title), description = coalesce($4, description),
                severity = coalesce($5, severity), incident_type = coalesce($6, incident_type),
                affected_resources = coalesce($7, affected_resources), labels = coalesce($8, labels),
                metadata = coalesce($9, metadata)
             WHERE id = $1 AND ($2::int IS NULL OR version = $2) RETURNING id",
            self.id,
            self.expected_version,
            patch.title,
            patch.description,
            patch.severity.map(Severity::as_str),
            patch.kind.map(IncidentKind::as_str),
            patch.affected_resources.as_deref(),
            patch.labels.as_ref().map(sqlx::types::Json) as _,
            patch.metadata.as_ref().map(sqlx::types::Json) as _,
        )
        .fetch_optional(&mut *connection)
        .await?;
        after(connection, self.id, updated).await
    }
}

struct Acknowledge {
    id: Uuid,
}

impl Work for Acknowledge {
    type Output = Changed;

    async fn run(&self, connection: &mut PgConnection) -> Result<Changed, sqlx::Error> {
        sqlx::query!(
            "UPDATE incident_manager.incident SET state = 'TRIAGED' WHERE id = $1 AND state = 'DETECTED'",
            self.id
        )
        .execute(&mut *connection)
        .await?;
        after(connection, self.id, Some(self.id)).await
    }
}

struct Transition {
    id: Uuid,
    to: IncidentState,
    expected_version: Option<i32>,
}

impl Work for Transition {
    type Output = Changed;

    async fn run(&self, connection: &mut PgConnection) -> Result<Changed, sqlx::Error> {
        let updated = sqlx::query_scalar!(
            "UPDATE incident_manager.incident SET state = $3
             WHERE id = $1 AND ($2::int IS NULL OR version = $2) RETURNING id",
            self.id,
            self.expected_version,
            self.to.as_str(),
        )
        .fetch_optional(&mut *connection)
        .await?;
        after(connection, self.id, updated).await
    }
}

struct Resolve<'a> {
    id: Uuid,
    resolution: &'a Resolution,
}

impl Work for Resolve<'_> {
    type Output = Changed;

    async fn run(&self, connection: &mut PgConnection) -> Result<Changed, sqlx::Error> {
        let updated = sqlx::query_scalar!(
            "UPDATE incident_manager.incident
             SET state = 'RESOLVED', resolution = coalesce($2, resolution), root_cause = coalesce($3, root_cause)
             WHERE id = $1 RETURNING id",
            self.id,
            self.resolution.resolution,
            self.resolution.root_cause,
        )
        .fetch_optional(&mut *connection)
        .await?;
        after(connection, self.id, updated).await
    }
}

struct Assign<'a> {
    id: Uuid,
    assignment: &'a Assignment,
}

impl Work for Assign<'_> {
    type Output = Changed;

    async fn run(&self, connection: &mut PgConnection) -> Result<Changed, sqlx::Error> {
        let updated = sqlx::query_scalar!(
            "UPDATE incident_manager.incident SET assigned_to = $2 WHERE id = $1 RETURNING id",
            self.id,
            self.assignment.assignee,
        )
        .fetch_optional(&mut *connection)
        .await?;
        after(connection, self.id, updated).await
    }
}
