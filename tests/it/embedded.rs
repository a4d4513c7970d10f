//! The embedded PostgreSQL: what is committed stays, whatever happens to either process, and nobody else gets in.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use incident_manager::config::DatabaseUrl;
use incident_manager::embedded::{self, Embedded, EmbeddedError, Options, Shutdown, Status};
use rustix::process::{Pid, Signal, geteuid, getpgid, kill_process, test_kill_process};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use tempfile::TempDir;

/// Long enough for a slow machine to do what it is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// A directory that the server's user can pass through, as root too.
fn scratch() -> TempDir {
    tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o711)).tempdir_in("/tmp").unwrap()
}

async fn connect(url: &DatabaseUrl) -> PgConnection {
    PgConnection::connect(url.expose()).await.unwrap()
}

async fn ask(url: &DatabaseUrl, query: &'static str) -> String {
    sqlx::query(query).fetch_one(&mut connect(url).await).await.unwrap().get(0)
}

/// Commits a row, so that a later start can show that it is there.
async fn remember(url: &DatabaseUrl, text: &str) {
    let mut connection = connect(url).await;
    sqlx::query("create table if not exists memory (text text)").execute(&mut connection).await.unwrap();
    sqlx::query("insert into memory values ($1)").bind(text).execute(&mut connection).await.unwrap();
}

async fn remembered(url: &DatabaseUrl) -> String {
    ask(url, "select string_agg(text, ' ' order by text) from memory").await
}

fn pid(server: &Embedded) -> i32 {
    match *server.status().borrow() {
        Status::Up { pid } => pid,
        Status::Down => panic!("the server is down"),
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A user who has nothing to do with it.
fn nobody() -> u32 {
    let output = Command::new("id").args(["-u", "nobody"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// The process id in the cluster's lock file.
fn postmaster(dir: &Path) -> Option<i32> {
    std::fs::read_to_string(dir.join("postgres/postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// Not a test by itself: the process that runs a server, for tests that kill it.
#[tokio::test]
#[ignore = "run by other tests, as a process of its own"]
async fn owner_process() {
    let dir = std::env::var_os("TEST_DATA_DIR").expect("run by another test");
    let _server = embedded::start(Options::new(dir)).await.unwrap();
    tokio::time::sleep(PATIENCE * 10).await;
}

/// A process of its own that runs a server on this directory, once that is ready.
async fn spawn_owner(dir: &Path) -> Child {
    let owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "embedded::owner_process"])
        .env("TEST_DATA_DIR", dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("another process serves", async || embedded::join(dir).is_ok()).await;
    owner
}

#[tokio::test]
async fn a_second_start_finds_the_data_of_the_first() {
    let dir = scratch();
    let server = embedded::start(Options::new(dir.path())).await.unwrap();
    remember(&server.url(), "first").await;
    server.stop().await.unwrap();
    assert_eq!(postmaster(dir.path()), None, "a stopped server leaves no lock");

    let server = embedded::start(Options::new(dir.path())).await.unwrap();
    remember(&server.url(), "second").await;
    assert_eq!(remembered(&server.url()).await, "first second");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn somebodys_data_are_flushed_and_checked() {
    let dir = scratch();
    let server = embedded::start(Options::new(dir.path())).await.unwrap();
    let admin = server.superuser_url();
    sqlx::query("alter system set fsync = off").execute(&mut connect(&admin).await).await.unwrap();
    server.take_down(Shutdown::Fast).await.unwrap();
    server.bring_up().await.unwrap();
    for (setting, value) in [
        ("show fsync", "on"),
        ("show full_page_writes", "on"),
        ("show synchronous_commit", "on"),
        ("show data_checksums", "on"),
        ("show server_encoding", "UTF8"),
        ("show listen_addresses", ""),
    ] {
        assert_eq!(ask(&admin, setting).await, value, "{setting}");
    }
    assert_eq!(ask(&server.url(), "select rolsuper::text from pg_roles where rolname = current_user").await, "false");
    assert_eq!(ask(&server.url(), "select lower('Ä')").await, "ä");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_crashes_is_started_again_with_its_data() {
    let dir = scratch();
    let server = embedded::start(Options::new(dir.path())).await.unwrap();
    for (signal_sent, text) in [(Signal::KILL, "one"), (Signal::QUIT, "two"), (Signal::INT, "zero")] {
        remember(&server.url(), text).await;
        let (before, mut status) = (pid(&server), server.status());
        signal(before, signal_sent);
        let back = status.wait_for(|now| matches!(now, Status::Up { pid } if *pid != before));
        tokio::time::timeout(PATIENCE, back).await.expect("it comes back").unwrap();
    }
    assert_eq!(remembered(&server.url()).await, "one two zero");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_a_killed_process_left_is_taken_over() {
    let dir = scratch();
    let mut owner = spawn_owner(dir.path()).await;
    let url = embedded::join(dir.path()).unwrap();
    remember(&url, "before").await;
    let orphan = postmaster(dir.path()).unwrap();
    // A session that is still there must not hold up the next start.
    let _session = connect(&url).await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(test_kill_process(Pid::from_raw(orphan).unwrap()).is_ok(), "the server outlives its owner");

    let server = embedded::start(Options::new(dir.path())).await.unwrap();
    assert_ne!(pid(&server), orphan);
    assert_eq!(remembered(&server.url()).await, "before");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn both_processes_killed_lose_nothing() {
    let dir = scratch();
    let mut owner = spawn_owner(dir.path()).await;
    remember(&embedded::join(dir.path()).unwrap(), "before").await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    signal(postmaster(dir.path()).unwrap(), Signal::KILL);
    assert!(postmaster(dir.path()).is_some(), "a killed server leaves its lock");

    let server = embedded::start(Options::new(dir.path())).await.unwrap();
    assert_eq!(remembered(&server.url()).await, "before");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_names_another_program_is_taken_over() {
    let dir = scratch();
    let server = embedded::start(Options::new(dir.path())).await.unwrap();
    remember(&server.url(), "before").await;
    server.take_down(Shutdown::Kill).await.unwrap();
    let lock = dir.path().join("postgres/postmaster.pid");
    let text = std::fs::read_to_string(&lock).unwrap();

    // As after a restart of the machine, where the number may have been given to anybody, this user's too.
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let meta = std::fs::metadata(dir.path().join("postgres")).unwrap();
    std::os::unix::process::CommandExt::uid(&mut sleep, meta.uid());
    let mut stranger = sleep.spawn().unwrap();
    let stale = text.replacen(text.lines().next().unwrap(), &stranger.id().to_string(), 1);
    std::fs::write(&lock, stale).unwrap();

    server.bring_up().await.unwrap();
    assert_eq!(remembered(&server.url()).await, "before");
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger is left alone");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_in_use_says_by_whom() {
    let dir = scratch();
    let server = embedded::start(Options::for_tests(dir.path())).await.unwrap();
    let error = embedded::start(Options::for_tests(dir.path())).await.unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    assert_eq!(ask(&server.url(), "select 'undisturbed'").await, "undisturbed");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn others_join_a_server_that_runs_and_no_other() {
    let dir = scratch();
    assert!(matches!(embedded::join(dir.path()), Err(EmbeddedError::NotRunning { .. })));
    let server = embedded::start(Options::for_tests(dir.path())).await.unwrap();
    let joined = embedded::join(dir.path()).unwrap();
    assert_eq!(joined.expose(), server.url().expose());
    assert_eq!(ask(&joined, "select current_database()::text").await, "incident_manager");
    server.take_down(Shutdown::Kill).await.unwrap();
    assert!(matches!(embedded::join(dir.path()), Err(EmbeddedError::NotRunning { .. })));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_initialization_that_was_cut_short_is_begun_anew() {
    let dir = scratch();
    let half = dir.path().join("postgres.unfinished-4711");
    std::fs::create_dir_all(half.join("base")).unwrap();
    std::fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    let server = embedded::start(Options::for_tests(dir.path())).await.unwrap();
    assert!(!half.exists());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_version_are_left_alone() {
    let dir = scratch();
    let cluster = dir.path().join("postgres");
    std::fs::create_dir(&cluster).unwrap();
    std::fs::write(cluster.join("PG_VERSION"), "9\n").unwrap();
    if geteuid().is_root() {
        let error = embedded::start(Options::new(dir.path())).await.unwrap_err().to_string();
        assert!(error.contains("chown -R"), "{error}");
        std::os::unix::fs::chown(&cluster, Some(nobody()), None).unwrap();
    }
    let error = embedded::start(Options::new(dir.path())).await.unwrap_err().to_string();
    assert!(error.contains("was made by PostgreSQL 9"), "{error}");
    assert!(error.contains("install PostgreSQL 9"), "{error}");
    assert_eq!(std::fs::read_dir(&cluster).unwrap().count(), 1);
}

#[tokio::test]
async fn missing_binaries_are_named() {
    let dir = scratch();
    let nothing = dir.path().join("bin");
    let error = embedded::start(Options::new(dir.path()).binaries(&nothing)).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::IncompleteBinaries { path } if path == nothing));
}

#[tokio::test]
async fn somebody_elses_directory_is_left_alone() {
    let dir = scratch();
    std::fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
    let error = embedded::start(Options::new(dir.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::ForeignCluster { .. }), "{error}");

    let dir = scratch();
    std::fs::create_dir(dir.path().join("postgres")).unwrap();
    std::fs::write(dir.path().join("postgres/notes.txt"), "mine").unwrap();
    let error = embedded::start(Options::new(dir.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NotACluster { .. }), "{error}");
    assert!(dir.path().join("postgres/notes.txt").exists());
}

#[tokio::test]
async fn a_deep_directory_has_its_socket_elsewhere() {
    let dir = scratch();
    let deep = dir.path().join("a".repeat(60)).join("b".repeat(60));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::set_permissions(deep.parent().unwrap(), PermissionsExt::from_mode(0o711)).unwrap();
    std::fs::set_permissions(&deep, PermissionsExt::from_mode(0o711)).unwrap();
    let server = embedded::start(Options::for_tests(&deep)).await.unwrap();
    assert_eq!(ask(&server.url(), "select 'here'").await, "here");
    assert_eq!(embedded::join(&deep).unwrap().expose(), server.url().expose());
    let socket_dir = PathBuf::from(ask(&server.superuser_url(), "show unix_socket_directories").await.replace('"', ""));
    assert_eq!(std::fs::metadata(&socket_dir).unwrap().mode() & 0o777, 0o700);
    server.stop().await.unwrap();
    assert!(!socket_dir.exists(), "nothing is left there");
}

#[tokio::test]
async fn no_other_user_can_connect() {
    let dir = scratch();
    let server = embedded::start(Options::for_tests(dir.path())).await.unwrap();
    let socket_dir = dir.path().join("run");
    let meta = std::fs::metadata(&socket_dir).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o700);
    assert_eq!(meta.uid(), std::fs::metadata(dir.path().join("postgres")).unwrap().uid());

    let mut psql = Command::new("psql");
    psql.args(["--no-password", "-c", "select 1", server.superuser_url().expose()]).current_dir("/");
    assert!(psql.output().unwrap().status.success(), "we can");
    if geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut psql, nobody());
        let mut refused = || String::from_utf8(psql.output().unwrap().stderr).unwrap();
        let message = refused();
        assert!(message.contains("Permission denied"), "the directory is closed: {message}");
        // Were it open, the server would ask the kernel.
        std::fs::set_permissions(&socket_dir, PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::set_permissions(socket_dir.join(".s.PGSQL.5432"), PermissionsExt::from_mode(0o777)).unwrap();
        let message = refused();
        assert!(message.contains("Peer authentication failed"), "the server refuses: {message}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn root_is_not_who_the_server_runs_as() {
    let dir = scratch();
    let server = embedded::start(Options::for_tests(dir.path())).await.unwrap();
    // The server wrote this file itself.
    let user = std::fs::metadata(dir.path().join("postgres/postmaster.pid")).unwrap().uid();
    if geteuid().is_root() {
        assert_ne!(user, 0);
    } else {
        assert_eq!(user, geteuid().as_raw());
    }
    let group = getpgid(Pid::from_raw(pid(&server))).unwrap().as_raw_nonzero().get();
    assert_eq!(group, pid(&server), "a Ctrl-C in the terminal does not reach it");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_the_servers_user_cannot_reach_says_what_to_do() {
    let outer = scratch();
    std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let started = embedded::start(Options::for_tests(outer.path().join("data"))).await;
    if geteuid().is_root() {
        let error = started.unwrap_err();
        assert!(matches!(&error, EmbeddedError::Unreachable { path, .. } if path == outer.path()), "{error}");
        assert!(error.to_string().contains("/var/lib/incident-manager"), "{error}");
    } else {
        started.unwrap().stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_server_shuts_down() {
    let dir = scratch();
    let server = embedded::start(Options::for_tests(dir.path())).await.unwrap();
    let pid = Pid::from_raw(pid(&server)).unwrap();
    drop(server);
    until("the server has ended", async || test_kill_process(pid).is_err()).await;
    assert_eq!(postmaster(dir.path()), None);
}
