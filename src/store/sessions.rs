//! Whether connections have sessions of their own, which a pooler in between may lend out by transactions instead.

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use super::error::sql_state;
use super::{ACQUIRE_TIMEOUT, Store, StoreError};

/// What a connection's session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    /// The connection's own.
    Own,
    /// Lent out by a pooler, which knows the statements that each connection has prepared.
    Lent,
    /// Lent out by a pooler, and with it the statements that others have prepared there: nothing works reliably.
    LentWithStatements,
}

impl Store {
    /// Tries it, on connections that nothing else has used: as the transaction of one holds the session that the other had,
    /// that one gets another.
    pub async fn sessions(&self) -> Result<Sessions, StoreError> {
        let tried = tokio::time::timeout(ACQUIRE_TIMEOUT, self.are_lent()).await;
        match tried.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(true) => Ok(Sessions::Lent),
            Ok(false) => Ok(Sessions::Own),
            Err(error) if is_of_others_statements(&error) => Ok(Sessions::LentWithStatements),
            Err(error) => Err(error.into()),
        }
    }

    async fn are_lent(&self) -> Result<bool, sqlx::Error> {
        let (mut connection, mut other) = (self.options.connect().await?, self.options.connect().await?);
        let before = backend(&mut connection).await?;
        let mut holding = other.begin().await?;
        backend(&mut holding).await?;
        let meanwhile = backend(&mut connection).await?;
        holding.rollback().await?;
        connection.close().await?;
        other.close().await?;
        Ok(before != meanwhile)
    }
}

/// Which session of the server answers.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_backend_pid() AS "pid!""#).fetch_one(connection).await
}

/// A statement was not there that this connection had prepared, or one that it had not.
fn is_of_others_statements(error: &sqlx::Error) -> bool {
    const INVALID_STATEMENT_NAME: &str = "26000";
    const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    sql_state(error).is_some_and(|state| state == INVALID_STATEMENT_NAME || state == DUPLICATE_PREPARED_STATEMENT)
}
