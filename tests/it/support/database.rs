//! A database for one test, in the server that `script/test` starts.

use incident_manager::config::DatabaseUrl;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};
use std::str::FromStr as _;

/// Names the server; `script/test` sets it.
const SERVER: &str = "INCIDENT_MANAGER_TEST_SERVER";

/// A migrated database that is dropped with this value, also when the test panics.
pub struct TestDatabase {
    name: String,
    url: String,
    pool: PgPool,
}

/// The server's URL, of a superuser.
pub fn server_url() -> String {
    std::env::var(SERVER).unwrap_or_else(|_| panic!("{SERVER} names no server: run the tests by script/test"))
}

/// The same server, another database.
pub fn url_of(database: &str) -> String {
    let mut url = url::Url::parse(&server_url()).expect("the test server's URL");
    url.set_path(database);
    url.to_string()
}

pub async fn connect(url: &str) -> PgConnection {
    PgConnectOptions::from_str(url).unwrap().connect().await.unwrap()
}

impl TestDatabase {
    /// A database with our schema.
    pub async fn new() -> Self {
        let database = Self::empty().await;
        sqlx::migrate!().run(&database.pool).await.expect("migrations run");
        database
    }

    /// A database with nothing in it.
    pub async fn empty() -> Self {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut server = connect(&server_url()).await;
        server.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        server.close().await.unwrap();
        Self::existing(name)
    }

    /// One that the test has made; dropped like the others.
    pub fn existing(name: String) -> Self {
        let url = url_of(&name);
        let pool = PgPoolOptions::new().max_connections(40).connect_lazy(&url).unwrap();
        Self { name, url, pool }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn database_url(&self) -> DatabaseUrl {
        DatabaseUrl::from(self.url.clone())
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection of its own, for one writer.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }

    /// Runs SQL text as it is; any number of statements.
    pub async fn execute(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Runs SQL text that is to be refused, and says with which SQLSTATE and constraint.
    pub async fn refused(&self, sql: &str) -> (String, String) {
        let error = self.pool.execute(AssertSqlSafe(sql.to_owned())).await.expect_err(sql);
        let error = error.into_database_error().expect("an error of the server");
        (error.code().unwrap_or_default().into_owned(), error.constraint().unwrap_or_default().to_owned())
    }

    /// How many rows one of our tables has.
    pub async fn count(&self, table: &str) -> i64 {
        self.scalar(&format!("select count(*) from incident_manager.{table}")).await
    }

    /// How many incidents, alerts, comments and events to come there are.
    pub async fn stored(&self) -> i64 {
        let mut rows = 0;
        for table in ["incident", "alert", "comment", "event_outbox"] {
            rows += self.count(table).await;
        }
        rows
    }

    /// The one value that a statement returns.
    pub async fn scalar<T>(&self, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // the test's runtime may be about to end: drop it on one of its own
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { connect(&server_url()).await.execute(drop).await.map(|_| ()) })
            });
        });
    }
}
