//! A database that an ordinary role has installed, and the roles that use it.

use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use uuid::Uuid;

use super::TestDatabase;
use super::database::{connect, server_url};
use super::document::administrators_sql;

const ROLES: [&str; 3] = ["owner", "service", "writer"];

/// Of every role: a server may ask for one, and its roles live for one test.
const PASSWORD: &str = "of-a-test";

/// A database of an ordinary role, and the roles that use it, as `docs/deployment.md` makes them. They go with this value.
pub struct Tenancy {
    /// Dropped before the roles are: they have grants in it.
    database: Option<TestDatabase>,
    suffix: String,
}

impl Tenancy {
    /// Nothing is installed yet.
    pub async fn new() -> Self {
        let database = TestDatabase::empty().await;
        let suffix = Uuid::new_v4().simple().to_string();
        let mut documented =
            administrators_sql().replace(" on database ops ", &format!(" on database {} ", database.name()));
        for role in ROLES {
            documented = documented.replace(&format!("incident_manager_{role}"), &format!("{role}_{suffix}"));
        }
        database.execute(&documented).await;
        for role in ROLES {
            database.execute(&format!("alter role {role}_{suffix} password '{PASSWORD}'")).await;
        }
        Self { database: Some(database), suffix }
    }

    /// Installed by its owner, with the documented grants.
    pub async fn installed() -> Self {
        let tenancy = Self::new().await;
        tenancy.install().await;
        tenancy
    }

    pub async fn install(&self) {
        let mut owner = self.connect("owner").await;
        sqlx::migrate!().run(&mut owner).await.expect("an ordinary role migrates");
        self.grant().await;
    }

    /// Grants what is documented, where the schema is installed.
    pub async fn grant(&self) {
        let grants = include_str!("../../../docs/grants.sql")
            .replace("incident_manager_service", &self.role("service"))
            .replace("incident_manager_writer", &self.role("writer"));
        self.connect("owner").await.execute(AssertSqlSafe(grants)).await.expect("the owner grants");
    }

    /// The name of the `owner`, the `service` or the `writer`.
    pub fn role(&self, role: &str) -> String {
        format!("{role}_{}", self.suffix)
    }

    pub fn database(&self) -> &TestDatabase {
        self.database.as_ref().unwrap()
    }

    pub fn url(&self, role: &str) -> String {
        let mut url = url::Url::parse(self.database().url()).unwrap();
        url.set_username(&self.role(role)).unwrap();
        url.set_password(Some(PASSWORD)).unwrap();
        url.to_string()
    }

    pub async fn connect(&self, role: &str) -> PgConnection {
        connect(&self.url(role)).await
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        drop(self.database.take());
        let drop = ROLES.map(|role| format!("drop role {role}_{};", self.suffix)).concat();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { connect(&server_url()).await.execute(AssertSqlSafe(drop)).await.map(|_| ()) })
            });
        });
    }
}
