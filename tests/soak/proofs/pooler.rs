//! PgBouncer between the service and its database.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, as_server_user};
use crate::replica::{self, Replica};
use crate::scene::{Scene, Setting};
use crate::waiting::eventually;
use crate::{Outcome, Stage, free_address};

const NOT_INSTALLED: Outcome = Outcome::NotHere("PgBouncer is not installed (apt-get install pgbouncer)");

/// A pooler in front of a cluster, for as long as this value lives.
struct Pooler {
    address: SocketAddr,
    _process: Child,
    _directory: TempDir,
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    directories.map(|directory| directory.join("pgbouncer")).find(|program| program.exists())
}

/// Whether it keeps prepared statements for clients that share sessions.
async fn keeps_prepared_statements(program: &PathBuf) -> bool {
    const FIRST: (u32, u32) = (1, 21);
    let output = Command::new(program).arg("--version").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(1).expect("PgBouncer 1.2.3");
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= FIRST
}

impl Pooler {
    async fn start(program: &PathBuf, cluster: &Cluster, mode: &str, settings: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("incident-manager-pooler.")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .unwrap();
        let (users, configuration) = (directory.path().join("users"), directory.path().join("pgbouncer.ini"));
        std::fs::write(&users, format!("\"postgres\" \"{}\"\n", cluster.password())).unwrap();
        let address = free_address();
        let (host, port) = (cluster.address.ip(), cluster.address.port());
        std::fs::write(
            &configuration,
            format!(
                "[databases]\n* = host={host} port={port}\n\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
                 unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n\
                 default_pool_size = 60\nignore_startup_parameters = extra_float_digits\n{settings}\n",
                address.ip(),
                address.port(),
                users.display()
            ),
        )
        .unwrap();
        let process = as_server_user(program)
            .arg("--quiet")
            .arg(configuration)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually("the pooler listens", || async { tokio::net::TcpStream::connect(address).await.is_ok() }).await;
        Self { address, _process: process, _directory: directory }
    }
}

pub async fn pgbouncer_by_sessions(stage: &Stage) -> Outcome {
    let Some(program) = program() else { return NOT_INSTALLED };
    let pooler = Pooler::start(&program, &stage.cluster, "session", "").await;
    let database = stage.cluster.database().await;
    let url = stage.cluster.url_by(pooler.address, &database.name);
    let scene = Scene::of(database, url, Setting::default()).await;
    for _ in 0..stage.scale(2, 10) {
        scene.goes_on().await;
    }
    for replica in &scene.replicas {
        eventually("notifications come through", || async { replica.metric("incident_manager_listening").await == 1 })
            .await;
    }
    scene.settle().await.into()
}

pub async fn pgbouncer_by_transactions(stage: &Stage) -> Outcome {
    let Some(program) = program() else { return NOT_INSTALLED };
    let database = stage.cluster.database().await;
    if !keeps_prepared_statements(&program).await {
        let pooler = Pooler::start(&program, &stage.cluster, "transaction", "").await;
        let url = stage.cluster.url_by(pooler.address, &database.name);
        let direct = database.url();
        let scene = Scene::of(database, direct, Setting { replicas: 1, ..Setting::default() }).await;
        let refused = Replica::spawn(replica::program(), &url, &[]);
        eventually("it says why it does not serve", || async {
            refused
                .readiness()
                .await
                .is_some_and(|(status, text)| status == 503 && text.contains("prepared statements"))
        })
        .await;
        scene.goes_on().await;
        assert_eq!(refused.readiness().await.unwrap().0, 503);
        let note = "it keeps no prepared statements: refused at the start, with the reason".to_owned();
        return Outcome::Shown { counts: scene.settle().await, note };
    }
    let pooler = Pooler::start(&program, &stage.cluster, "transaction", "max_prepared_statements = 500").await;
    let url = stage.cluster.url_by(pooler.address, &database.name);
    let scene = Scene::of(database, url, Setting::default()).await;
    for _ in 0..stage.scale(2, 10) {
        scene.goes_on().await;
    }
    for replica in &scene.replicas {
        assert!(replica.metric("incident_manager_listening").await == 0, "nobody can listen there: it polls");
    }
    Outcome::Shown { counts: scene.settle().await, note: "it keeps prepared statements: served by polling".to_owned() }
}
