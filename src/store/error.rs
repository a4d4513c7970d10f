//! Database errors become domain errors here, by SQLSTATE and constraint name, never by the text of a message.

use crate::domain::InvalidInput;

/// Why a statement did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused a value.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// The state machine has no such transition.
    #[error("{0}")]
    InvalidTransition(String),
    /// Somebody else's change stands against this one.
    #[error("{0}")]
    Conflict(&'static str),
    /// The database is away, not migrated yet, or did not answer in time.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// What the database holds is not what this release writes.
    #[error("cannot read column {column}: {source}")]
    Decode { column: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// Anything else: a defect of ours or a missing grant.
    #[error("the database refused a statement")]
    Unexpected(#[source] sqlx::Error),
}

impl StoreError {
    /// Whether the database is away, and may be back.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether what came from the database could not be read.
    pub(super) fn is_of_reading(&self) -> bool {
        match self {
            Self::Decode { .. } => true,
            Self::Unexpected(error) => is_row_error(error),
            _ => false,
        }
    }

    /// Whether the same unit of work may succeed when it is run again at once.
    pub(super) fn is_serialization_failure(error: &sqlx::Error) -> bool {
        const SERIALIZATION_FAILURE: &str = "40001";
        const DEADLOCK_DETECTED: &str = "40P01";
        sql_state(error).is_some_and(|state| state == SERIALIZATION_FAILURE || state == DEADLOCK_DETECTED)
    }
}

/// Errors of reading a row that came whole.
pub(super) fn is_row_error(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

/// The five characters of PostgreSQL's Appendix A, where the server sent any.
pub(super) fn sql_state(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
                _ => Self::Unexpected(error),
            };
        };
        let state = database.code().unwrap_or_default();
        let constraint = database.constraint().unwrap_or_default();
        match (&*state, constraint) {
            ("23514", "incident_state_transition" | "incident_closed_is_final") => {
                Self::InvalidTransition(database.message().to_owned())
            }
            ("23505", "incident_active_fingerprint") => {
                Self::Conflict("another active incident of this source has this fingerprint")
            }
            ("23514", constraint) => match field_of(constraint) {
                Some(field) => Self::Invalid(InvalidInput::new(field, "is refused by the database's limits")),
                None => Self::Unexpected(error),
            },
            // four-byte characters make these two columns longer than their index can hold
            ("54000", "alert_firing_external") => {
                Self::Invalid(InvalidInput::new("externalId", "is too long beside this source"))
            }
            // a character that the server's encoding or jsonb cannot hold
            ("22021" | "22P05", _) => {
                Self::Invalid(InvalidInput::new("input", "has a character that cannot be stored"))
            }
            ("40001" | "40P01", _) => Self::Conflict("another change came between; try again"),
            ("55P03", _) => Self::Conflict("another transaction holds the row; try again"),
            // undefined table, function or schema: not migrated yet; canceled: statement_timeout
            ("42P01" | "42883" | "3F000" | "3D000" | "57014", _) => Self::Unavailable(error),
            // connection exceptions, a login that is refused, insufficient resources, operator intervention; 25006 is a
            // read-only standby
            (state, _)
                if state.starts_with("08")
                    || state.starts_with("28")
                    || state.starts_with("53")
                    || state.starts_with("57P")
                    || state == "25006" =>
            {
                Self::Unavailable(error)
            }
            _ => Self::Unexpected(error),
        }
    }
}

/// The GraphQL field that a constraint is about; constraints are named `<table>_<column>_<rule>`.
fn field_of(constraint: &str) -> Option<String> {
    const TABLES: [&str; 5] = ["incident_", "alert_", "comment_", "playbook_", "api_key_"];
    let rest = TABLES.iter().find_map(|table| constraint.strip_prefix(table))?;
    let (column, _rule) = rest.rsplit_once('_')?;
    let mut field = String::with_capacity(column.len());
    let mut capital = false;
    for character in column.chars() {
        match character {
            '_' => capital = true,
            _ if capital => {
                field.extend(character.to_uppercase());
                capital = false;
            }
            _ => field.push(character),
        }
    }
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::field_of;

    #[test]
    fn a_constraint_names_its_field() {
        assert_eq!(field_of("incident_title_length").as_deref(), Some("title"));
        assert_eq!(field_of("incident_affected_resources_size").as_deref(), Some("affectedResources"));
        assert_eq!(field_of("alert_runbook_url_length").as_deref(), Some("runbookUrl"));
        assert_eq!(field_of("unknown"), None);
    }
}
