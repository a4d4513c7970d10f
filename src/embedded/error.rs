//! What can keep the embedded PostgreSQL from running; every message says what to do about it.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("no PostgreSQL is installed here ({hint}), and no --database-url names a running one")]
    NoBinaries { hint: &'static str },

    #[error("{} has no PostgreSQL server: it needs `postgres` and `initdb`", path.display())]
    IncompleteBinaries { path: PathBuf },

    #[error("only {found} is installed here, and PostgreSQL {oldest} or later is needed ({hint})", oldest = super::binaries::OLDEST_MAJOR)]
    OldBinaries { found: String, hint: &'static str },

    #[error(
        "{} was made by PostgreSQL {wanted}, but {found} is installed here: install PostgreSQL {wanted}, or give a new \
         --data-dir and move the data over with pg_dump and psql",
        path.display()
    )]
    OtherMajor { path: PathBuf, wanted: u32, found: String },

    #[error("{} is in use by {holder}: stop it first, or give this one a --data-dir of its own", path.display())]
    InUse { path: PathBuf, holder: String },

    #[error("{} is a PostgreSQL data directory itself: give a --data-dir of its own, or --database-url of its server", path.display())]
    ForeignCluster { path: PathBuf },

    #[error("{} is not empty, and no PostgreSQL data directory either: move it away, or give another --data-dir", path.display())]
    NotACluster { path: PathBuf },

    #[error("{} belongs to user {owner}: run as that user, or give another --data-dir", path.display())]
    ForeignOwner { path: PathBuf, owner: String },

    #[error(
        "{} belongs to root, as whom PostgreSQL does not run: run `chown -R {user} {}`",
        path.display(),
        path.display()
    )]
    RootOwned { path: PathBuf, user: String },

    #[error(
        "others can write to {}, which is not safe for what runs there: run `chmod go-w` on it, or give another --data-dir",
        path.display()
    )]
    WritableByOthers { path: PathBuf },

    #[error(
        "PostgreSQL does not run as root, and user {user}, as which it would run, cannot enter {}: give a --data-dir that \
         all may reach, such as /var/lib/incident-manager, or run `chmod o+x` on it",
        path.display()
    )]
    Unreachable { path: PathBuf, user: String },

    #[error(
        "PostgreSQL does not run as root, and there is no user `incident-manager` or `postgres` as which it could: run as \
         an ordinary user, or create one with `useradd --system --shell /usr/sbin/nologin incident-manager`"
    )]
    NoServerUser,

    #[error("the user of id {uid} has no name, which PostgreSQL needs: add it to /etc/passwd, or run as another user")]
    NamelessUser { uid: u32 },

    #[error("{} is not UTF-8, which PostgreSQL's settings need: give another --data-dir", path.display())]
    PathNotUtf8 { path: PathBuf },

    #[error("no private directory for PostgreSQL's socket: {} and its like belong to others; give a shorter --data-dir", path.display())]
    NoSocketDir { path: PathBuf },

    #[error("no embedded PostgreSQL runs in {}: start `incident-manager serve` first, or give --database-url", path.display())]
    NotRunning { path: PathBuf },

    #[error("the embedded PostgreSQL in {} is still starting: try again in a moment", path.display())]
    NotReady { path: PathBuf },

    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },

    #[error("cannot run {}", program.display())]
    RunProgram { program: PathBuf, source: io::Error },

    #[error("{program} failed ({status}): {output}")]
    ProgramFailed { program: &'static str, status: ExitStatus, output: String },

    #[error("PostgreSQL ended while it started ({status}): {output} (its log: {})", log.display())]
    EndedAtStart { status: ExitStatus, output: String, log: PathBuf },

    #[error("cannot signal PostgreSQL, process {pid}")]
    Signal { pid: i32, source: io::Error },

    #[error("PostgreSQL, process {pid}, does not end, even killed")]
    Immortal { pid: i32 },

    #[error("cannot wait for PostgreSQL")]
    Wait { source: io::Error },

    #[error("the task that watches over PostgreSQL has ended")]
    SupervisorGone,
}

/// Attaches to an I/O error what was done to which file.
pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.into();
    move |source| EmbeddedError::File { action, path, source }
}
