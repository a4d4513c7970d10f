//! The data directory: what is in it, whose it is, and who uses it.
//!
//! | entry | what | whose, when started as root |
//! |---|---|---|
//! | `postgres/` | the cluster | the server's user |
//! | `run/` | the socket; only its owner may enter | the server's user |
//! | `log/` | the server's log files | the server's user |
//! | `*.conf` | settings, written anew at every start | root |
//! | `startup.log` | what the server says before its log files are open | root |
//! | `lock` | held by the process that uses the directory | root |
//!
//! The directory itself is ours, so that nobody can put a link where we write.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::account::{Account, Accounts, name_of};
use super::error::{EmbeddedError, file};

/// The longest directory of a socket: macOS allows paths of 103 bytes, Linux of 107, of which PostgreSQL's name for the
/// lock beside the socket takes 20.
const SOCKET_DIR_BYTES: usize = 83;
/// Where a socket goes whose data directory lies too deep.
const SHORT_DIR: &str = "/tmp";
/// How many names are tried there, should somebody have taken them.
const SHORT_DIR_TRIES: u32 = 16;
/// Files of the server's log that are kept; each has at most 10 MB.
const KEPT_LOGS: usize = 8;

/// The paths within a data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn cluster(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn startup_log(&self) -> PathBuf {
        self.root.join("startup.log")
    }

    pub fn conf(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Opens a data directory, or makes one, and checks that it is safe to use.
    pub fn open(dir: &Path) -> Result<Self, EmbeddedError> {
        let as_root = geteuid().is_root();
        let dir = std::path::absolute(dir).map_err(file("resolve", dir))?;
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(file("create", parent))?;
        }
        // The server's user must be able to pass through a directory of root's.
        create_dir(&dir, if as_root { 0o711 } else { 0o700 })?;
        let root = dir.canonicalize().map_err(file("resolve", &dir))?;
        if root.join("PG_VERSION").exists() {
            return Err(EmbeddedError::ForeignCluster { path: root });
        }
        let meta = fs::metadata(&root).map_err(file("look at", &root))?;
        if meta.uid() != geteuid().as_raw() {
            return Err(EmbeddedError::ForeignOwner { path: root, owner: name_of(meta.uid()) });
        }
        if meta.mode() & (if as_root { 0o022 } else { 0o002 }) != 0 {
            return Err(EmbeddedError::WritableByOthers { path: root });
        }
        if root.to_str().is_none() {
            return Err(EmbeddedError::PathNotUtf8 { path: root });
        }
        Ok(Self { root })
    }

    /// Claims the directory for this process, for as long as the file is open.
    pub fn lock(&self) -> Result<File, EmbeddedError> {
        let path = self.root.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(file("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _unread = lock.read_to_string(&mut pid);
                let holder = match pid.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(EmbeddedError::InUse { path: self.root.clone(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(file("lock", path)(error)),
        }
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(file("write", path))?;
        Ok(lock)
    }

    /// The user that an existing cluster belongs to, and the major version that made it.
    pub fn existing(&self) -> Result<Option<(u32, u32)>, EmbeddedError> {
        let cluster = self.cluster();
        let version = match fs::read_to_string(cluster.join("PG_VERSION")) {
            Ok(version) => version,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let empty = fs::read_dir(&cluster).map_or(true, |mut entries| entries.next().is_none());
                return if empty { Ok(None) } else { Err(EmbeddedError::NotACluster { path: cluster }) };
            }
            Err(error) => return Err(file("read the version in", cluster)(error)),
        };
        let owner = fs::metadata(&cluster).map_err(file("look at", &cluster))?.uid();
        match version.trim().parse() {
            Ok(major) => Ok(Some((owner, major))),
            Err(_) => Err(EmbeddedError::NotACluster { path: cluster }),
        }
    }

    /// Checks that the server's user can reach the directory, and makes those within that are its own.
    pub fn prepare(&self, accounts: &Accounts) -> Result<(), EmbeddedError> {
        if let Some(user) = &accounts.server {
            let mut ancestors: Vec<&Path> = self.root.ancestors().collect();
            ancestors.reverse();
            if let Some(path) = accounts.unreachable(&ancestors)? {
                return Err(EmbeddedError::Unreachable { path: path.to_owned(), user: user.name.clone() });
            }
        }
        owned_dir(&self.log_dir(), accounts)?;
        owned_dir(&self.run_dir(), accounts)
    }

    /// Where the socket goes: within the data directory, or if that lies too deep for a socket's path in a short
    /// directory that is as private.
    pub fn socket_dir(&self, accounts: &Accounts) -> Result<PathBuf, EmbeddedError> {
        let run = self.run_dir();
        if run.as_os_str().len() <= SOCKET_DIR_BYTES {
            return Ok(run);
        }
        let meta = fs::metadata(&self.root).map_err(file("look at", &self.root))?;
        let name = format!("{SHORT_DIR}/incident-manager-{:x}-{:x}", meta.dev(), meta.ino());
        for attempt in 0..SHORT_DIR_TRIES {
            let dir = PathBuf::from(if attempt == 0 { name.clone() } else { format!("{name}-{attempt}") });
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => give(&dir, accounts)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(file("create", dir)(error)),
            }
            if is_private(&dir, accounts.owner()) {
                return Ok(dir);
            }
        }
        Err(EmbeddedError::NoSocketDir { path: PathBuf::from(name) })
    }

    /// Removes sockets that no server listens on any more; the caller has made sure of that.
    pub fn clear_sockets(socket_dir: &Path) {
        remove_matching(socket_dir, ".s.PGSQL.");
    }

    /// Removes clusters that were not made to their end.
    pub fn clear_unfinished(&self) {
        remove_matching(&self.root, super::cluster::UNFINISHED_PREFIX);
    }

    /// Removes the oldest log files; their names sort by time.
    pub fn prune_logs(&self) {
        let mut logs = self.logs();
        logs.truncate(logs.len().saturating_sub(KEPT_LOGS));
        for log in logs {
            if let Err(error) = fs::remove_file(&log) {
                tracing::warn!(%error, path = %log.display(), "cannot remove an old log file of PostgreSQL");
            }
        }
    }

    /// The server's log files, oldest first.
    pub fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.log_dir()).into_iter().flatten().flatten();
        let is_log = |name: &OsString| {
            let name = name.as_encoded_bytes();
            name.starts_with(b"postgresql-") && name.ends_with(b".log")
        };
        let mut logs: Vec<_> = entries.filter(|it| is_log(&it.file_name())).map(|entry| entry.path()).collect();
        logs.sort();
        logs
    }

    /// Writes a file that the server's user may read.
    pub fn write_conf(&self, name: &str, text: &str) -> Result<(), EmbeddedError> {
        let path = self.conf(name);
        let written = fs::write(&path, text).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)));
        written.map_err(file("write", path))
    }
}

/// Makes a directory that the server's user alone may enter.
pub(super) fn owned_dir(dir: &Path, accounts: &Accounts) -> Result<(), EmbeddedError> {
    create_dir(dir, 0o700)?;
    give(dir, accounts)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(file("set the mode of", dir))
}

/// Makes a directory of exactly this mode, whatever the umask; one that exists stays as it is.
fn create_dir(dir: &Path, mode: u32) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(file("set the mode of", dir)),
        Err(_) if dir.is_dir() => Ok(()),
        Err(error) => Err(file("create", dir)(error)),
    }
}

/// Gives a directory to the server's user, where that is not us.
fn give(dir: &Path, accounts: &Accounts) -> Result<(), EmbeddedError> {
    match &accounts.server {
        Some(user) => chown(dir, Some(user.uid), Some(user.gid)).map_err(file("change the owner of", dir)),
        None => Ok(()),
    }
}

fn is_private(dir: &Path, owner: &Account) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == owner.uid && meta.mode() & 0o7777 == 0o700)
}

fn remove_matching(dir: &Path, prefix: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let Err(error) = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) } {
            tracing::warn!(%error, path = %path.display(), "cannot remove what an earlier start left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let layout = Layout::open(&root).unwrap();
        (dir, layout)
    }

    #[test]
    fn the_newest_logs_are_kept() {
        let (_dir, layout) = layout();
        fs::create_dir(layout.log_dir()).unwrap();
        let name = |number| layout.log_dir().join(format!("postgresql-20260101-0000{number:02}.log"));
        for number in 0..20 {
            fs::write(name(number), "").unwrap();
        }
        fs::write(layout.log_dir().join("notes.txt"), "").unwrap();
        layout.prune_logs();
        assert_eq!(layout.logs(), (12..20).map(name).collect::<Vec<_>>());
        assert!(layout.log_dir().join("notes.txt").exists());
    }

    #[test]
    fn one_process_at_a_time_has_the_directory() {
        let (_dir, layout) = layout();
        let lock = layout.lock().unwrap();
        let refused = layout.lock().unwrap_err();
        assert!(
            matches!(refused, EmbeddedError::InUse { holder, .. } if holder.ends_with(&std::process::id().to_string()))
        );
        drop(lock);
        layout.lock().unwrap();
    }

    #[test]
    fn a_directory_that_all_can_write_to_is_refused() {
        let (_dir, layout) = layout();
        fs::set_permissions(&layout.root, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Layout::open(&layout.root), Err(EmbeddedError::WritableByOthers { .. })));
    }

    #[test]
    fn an_existing_cluster_is_told_from_a_strangers_files() {
        let (_dir, layout) = layout();
        assert_eq!(layout.existing().unwrap(), None);
        fs::create_dir(layout.cluster()).unwrap();
        assert_eq!(layout.existing().unwrap(), None, "an empty directory is as good as none");
        fs::write(layout.cluster().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(layout.existing().unwrap(), Some((geteuid().as_raw(), 15)));
        fs::remove_file(layout.cluster().join("PG_VERSION")).unwrap();
        fs::write(layout.cluster().join("notes.txt"), "").unwrap();
        assert!(matches!(layout.existing(), Err(EmbeddedError::NotACluster { .. })));
    }
}
