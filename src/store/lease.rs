//! A pooled connection with a deadline: one that did not answer in time, or whose user went away in the middle of a
//! statement, is thrown away and not given to the next.

use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use tokio::runtime::Handle;

use super::error::is_row_error;

pub(super) struct Lease {
    connection: Option<PoolConnection<Postgres>>,
    deadline: Duration,
    /// Where the pool takes it back; here, if nowhere else.
    home: Option<Handle>,
    /// A statement has been sent and its answer not been read to the end.
    in_use: bool,
}

impl Lease {
    pub(super) fn new(connection: PoolConnection<Postgres>, deadline: Duration, home: Option<Handle>) -> Self {
        Self { connection: Some(connection), deadline, home, in_use: false }
    }

    /// Runs statements on the connection, within the deadline.
    pub(super) async fn within<'l, T>(
        &'l mut self,
        statements: impl FnOnce(&'l mut PgConnection) -> BoxFuture<'l, Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(sqlx::Error::PoolClosed);
        };
        self.in_use = true;
        let result = tokio::time::timeout(self.deadline, statements(connection)).await;
        match result {
            Ok(result) => {
                // an error that the server sent leaves the connection as good as it was
                self.in_use =
                    matches!(&result, Err(error) if error.as_database_error().is_none() && !is_row_error(error));
                result
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within the deadline").into()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // the pool takes it back by a task, which is not to wait among clients
        let _entered = self.home.as_ref().map(Handle::enter);
        if self.in_use {
            drop(connection.detach());
        } else {
            drop(connection);
        }
    }
}
