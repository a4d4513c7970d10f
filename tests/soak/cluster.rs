//! PostgreSQL servers of our own, to be stopped, started, copied and promoted.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::free_address;
use crate::waiting::eventually;

const SUPERUSER: &str = "postgres";

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, standbys get all that there is.
    Fast,
    /// As after a crash: the next start recovers.
    Immediate,
}

/// A data directory and the server that runs on it, on loopback and on a Unix socket. Stopped when dropped.
pub struct Cluster {
    directory: TempDir,
    pub address: std::net::SocketAddr,
    password: String,
    server: Mutex<Option<Child>>,
    databases: AtomicUsize,
}

/// A program of PostgreSQL, of the newest version that is installed.
pub fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// A command as whom PostgreSQL may run: as root that is user postgres.
pub fn as_server_user(program: impl AsRef<Path>) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program.as_ref());
        command
    } else {
        Command::new(program.as_ref())
    };
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

async fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Cluster {
    /// A new one.
    pub async fn start() -> Arc<Self> {
        let cluster = Self::directory(uuid::Uuid::new_v4().simple().to_string());
        let password_file = cluster.directory.path().join("password");
        std::fs::write(&password_file, &cluster.password).unwrap();
        own(&password_file).await;
        run(as_server_user(program("initdb"))
            .args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync", "--username", SUPERUSER])
            .arg("--pgdata")
            .arg(cluster.data())
            .arg("--pwfile")
            .arg(password_file))
        .await;
        cluster.bring_up().await;
        Arc::new(cluster)
    }

    /// A standby that follows the server at this address, which is `primary` or leads there.
    pub async fn standby(primary: &Self, at: std::net::SocketAddr) -> Arc<Self> {
        let cluster = Self::directory(primary.password.clone());
        let from = format!("postgres://{SUPERUSER}:{}@{at}/postgres?application_name=standby", primary.password);
        run(as_server_user(program("pg_basebackup"))
            .args(["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync", "--dbname", &from])
            .arg("--pgdata")
            .arg(cluster.data()))
        .await;
        cluster.bring_up().await;
        Arc::new(cluster)
    }

    fn directory(password: String) -> Self {
        // the server's user must be able to pass through it, as root too
        let mut builder = tempfile::Builder::new();
        builder.prefix("incident-manager-soak.").permissions(std::fs::Permissions::from_mode(0o711));
        let directory = builder.tempdir_in("/tmp").unwrap();
        if geteuid().is_root() {
            let given = std::process::Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap();
            assert!(given.success());
        }
        let (server, databases) = (Mutex::new(None), AtomicUsize::new(0));
        Self { directory, address: free_address(), password, server, databases }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the server, and waits until it takes connections.
    pub async fn bring_up(&self) {
        let mut server = self.server.lock().await;
        assert!(server.is_none(), "it runs");
        let log =
            std::fs::File::options().create(true).append(true).open(self.directory.path().join("server.log")).unwrap();
        let sockets = self.directory.path().display().to_string();
        let settings = [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=300",
            "max_prepared_transactions=20",
            "max_locks_per_transaction=256",
            "shared_buffers=128MB",
            "wal_keep_size=512MB",
            "jit=off",
            "timezone=UTC",
        ];
        let child = as_server_user(program("postgres"))
            .arg("-D")
            .arg(self.data())
            .args(["-c", &format!("port={}", self.address.port()), "-c", &format!("unix_socket_directories={sockets}")])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .stderr(log)
            .spawn()
            .unwrap();
        *server = Some(child);
        drop(server);
        eventually("the server takes connections", || async {
            PgConnection::connect(&self.url("postgres")).await.is_ok()
        })
        .await;
    }

    /// Stops the server, and waits for its end.
    pub async fn take_down(&self, how: Stop) {
        let mut child = self.server.lock().await.take().expect("it runs");
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        kill_process(pid(&child), signal).unwrap();
        child.wait().await.unwrap();
    }

    /// Makes a standby the primary, and waits until it is.
    pub async fn promote(&self) {
        let mut session = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let promoted: bool = sqlx::query_scalar("select pg_promote()").fetch_one(&mut session).await.unwrap();
        assert!(promoted);
    }

    pub fn url(&self, database: &str) -> String {
        self.url_by(self.address, database)
    }

    /// By way of another address, which leads here.
    pub fn url_by(&self, address: std::net::SocketAddr, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@{address}/{database}?sslmode=disable", self.password)
    }

    /// By the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        let directory = self.directory.path().display().to_string().replace('/', "%2F");
        let port = self.address.port();
        format!("postgres://{SUPERUSER}:{}@{directory}:{port}/{database}?sslmode=disable", self.password)
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    /// Runs a statement as the superuser, in its own database.
    pub async fn execute(&self, sql: String) {
        let mut session = PgConnection::connect(&self.url("postgres")).await.unwrap();
        session.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// A new database with our schema.
    pub async fn database(self: &Arc<Self>) -> Database {
        let database = self.empty_database().await;
        sqlx::migrate!().run(&database.pool).await.unwrap();
        database
    }

    /// A new database with nothing in it.
    pub async fn empty_database(self: &Arc<Self>) -> Database {
        let name = self.next_name();
        self.execute(format!("create database {name}")).await;
        self.existing(name)
    }

    /// A name that no database has.
    pub fn next_name(&self) -> String {
        format!("soak_{}", self.databases.fetch_add(1, Ordering::Relaxed))
    }

    pub fn existing(self: &Arc<Self>, name: String) -> Database {
        let pool = PgPoolOptions::new().max_connections(8).connect_lazy(&self.url(&name)).unwrap();
        Database { cluster: Arc::clone(self), name, pool }
    }
}

async fn own(path: &Path) {
    if geteuid().is_root() {
        run(Command::new("chown").arg("postgres").arg(path)).await;
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id().expect("it runs")).unwrap()).unwrap()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(child) = self.server.get_mut().take() {
            let pid = pid(&child);
            // nothing in there is worth a checkpoint
            let _ = kill_process(pid, Signal::QUIT);
            // its files go only when it has
            while rustix::process::test_kill_process(pid).is_ok() && !ended(pid) {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// Whether a child of ours has ended and only waits to be asked for its status.
fn ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|fields| fields.trim_start().starts_with('Z'))
}

/// A database of a cluster.
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
    pub pool: PgPool,
}

impl Database {
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    pub async fn execute(&self, sql: impl Into<String>) {
        let sql = sql.into();
        self.pool.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The one value that a statement returns.
    pub async fn value<T>(&self, sql: impl Into<String>) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let sql = sql.into();
        let value = sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&self.pool).await;
        value.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}
