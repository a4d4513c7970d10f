//! A PostgreSQL cluster that is ready for a server to start on: made if need be, locked, rid of what was left there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::account::{Accounts, name_of};
use super::binaries::{self, Binaries};
use super::error::{EmbeddedError, file};
use super::layout::{self, Layout};
use super::{Options, occupant, settings};

/// Beginning of the names of clusters that are being made.
pub(super) const UNFINISHED_PREFIX: &str = "postgres.unfinished-";

const MAIN_CONF: &str = "postgresql.conf";
const HBA_CONF: &str = "pg_hba.conf";
const IDENT_CONF: &str = "pg_ident.conf";

/// What a new cluster sorts and folds by. Bytes decide the order everywhere, so that an upgrade of the system's
/// libraries cannot spoil an index; letters beyond ASCII are known where the system has that locale.
const LOCALES: [&[&str]; 2] = [&["--locale=C", "--lc-ctype=C.UTF-8"], &["--locale=C"]];

/// Variables that would reach into a server or its programs from our caller's surroundings.
const FOREIGN_VARIABLES: [&str; 8] =
    ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGCLIENTENCODING", "PG_COLOR"];

pub(super) struct Cluster {
    pub layout: Layout,
    pub accounts: Accounts,
    pub socket_dir: PathBuf,
    binaries: Binaries,
    /// Keeps the directory ours.
    _lock: File,
}

impl Cluster {
    /// Claims and prepares a data directory; blocks, on a new one for some seconds.
    pub fn open(options: &Options) -> Result<Self, EmbeddedError> {
        let layout = Layout::open(&options.data_dir)?;
        let lock = layout.lock()?;
        let existing = layout.existing()?;
        let accounts = Accounts::resolve(existing.map(|(owner, _)| owner))?;
        let path = layout.cluster();
        if let Some((owner, _)) = existing
            && owner != accounts.owner().uid
        {
            return Err(match owner {
                0 => EmbeddedError::RootOwned { path, user: accounts.owner().name.clone() },
                _ => EmbeddedError::ForeignOwner { path, owner: name_of(owner) },
            });
        }
        layout.prepare(&accounts)?;
        let wanted = existing.map(|(_, major)| (path.as_path(), major));
        let binaries = binaries::find(options.binaries.as_deref(), options.search_path.as_deref(), wanted)?;
        let socket_dir = layout.socket_dir(&accounts)?;
        let cluster = Self { layout, accounts, socket_dir, binaries, _lock: lock };
        cluster.layout.clear_unfinished();
        if existing.is_none() {
            cluster.create()?;
        }
        cluster.configure(options)?;
        Ok(cluster)
    }

    /// Makes the way free for a server: nothing of an earlier one is left.
    pub fn evict(&self) -> Result<(), EmbeddedError> {
        occupant::evict(&self.layout.cluster())?;
        Layout::clear_sockets(&self.socket_dir);
        self.layout.prune_logs();
        Ok(())
    }

    /// The server's command; what it says before its log is open goes to the layout's start-up log.
    pub fn server_command(&self, durable: bool) -> Result<Command, EmbeddedError> {
        let path = self.layout.startup_log();
        let log = File::create(&path).map_err(file("create", &path))?;
        let log_too = log.try_clone().map_err(file("open", &path))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.layout.cluster());
        for (setting, name) in [("config_file=", MAIN_CONF), ("hba_file=", HBA_CONF), ("ident_file=", IDENT_CONF)] {
            let mut setting = OsString::from(setting);
            setting.push(self.layout.conf(name));
            command.arg("-c").arg(setting);
        }
        if durable {
            // Here no setting of the cluster's can undo it.
            command.args(["-c", "fsync=on", "-c", "full_page_writes=on"]);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        Ok(command)
    }

    /// What the server said last; for an error.
    pub fn last_words(&self) -> String {
        let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let mut text = read(&self.layout.startup_log()).unwrap_or_default();
        if text.contains("redirecting log output")
            && let Some(log) = self.layout.logs().last()
        {
            text = read(log).unwrap_or_default();
        }
        summary(&text)
    }

    /// Makes the cluster beside its place, with role and database, and moves it there: at no time is there half of one.
    fn create(&self) -> Result<(), EmbeddedError> {
        tracing::info!(
            path = %self.layout.root.display(), postgresql = self.binaries.major, user = %self.accounts.owner().name,
            "making a database"
        );
        let unfinished = self.layout.root.join(format!("{UNFINISHED_PREFIX}{}", std::process::id()));
        layout::owned_dir(&unfinished, &self.accounts)?;
        let made = self.initialize(&unfinished).and_then(|()| {
            let place = self.layout.cluster();
            fs::rename(&unfinished, &place).map_err(file("create", &place))?;
            let root = &self.layout.root;
            File::open(root).and_then(|dir| dir.sync_all()).map_err(file("write", root))
        });
        if made.is_err() {
            self.layout.clear_unfinished();
        }
        made
    }

    fn initialize(&self, dir: &Path) -> Result<(), EmbeddedError> {
        let mut last = None;
        for locale in LOCALES {
            let output = self.run(
                self.command("initdb")
                    .args(locale)
                    .args(["--encoding=UTF8", "--data-checksums", "--auth-local=peer", "--auth-host=scram-sha-256"])
                    .args(["--username", settings::SUPERUSER, "--pgdata"])
                    .arg(dir),
            )?;
            if output.status.success() {
                return self.bootstrap(dir);
            }
            let unknown_locale = String::from_utf8_lossy(&output.stderr).contains("locale");
            last = Some(output);
            if !unknown_locale {
                break;
            }
        }
        last.map_or(Ok(()), |output| Err(failed("initdb", &output)))
    }

    /// Makes role and database in single-user mode, before any server listens.
    fn bootstrap(&self, dir: &Path) -> Result<(), EmbeddedError> {
        let program = self.binaries.program("postgres");
        let mut command = self.command("postgres");
        command.args(["--single", "-c", "exit_on_error=on", "-D"]).arg(dir).arg("postgres");
        let run_error = |source| EmbeddedError::RunProgram { program: program.clone(), source };
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(run_error)?;
        if let Some(mut input) = child.stdin.take() {
            // One that has failed already does not read: its exit says why.
            let _unread = input.write_all(settings::bootstrap_sql().as_bytes());
        }
        let output = child.wait_with_output().map_err(run_error)?;
        if output.status.success() { Ok(()) } else { Err(failed("postgres --single", &output)) }
    }

    fn configure(&self, options: &Options) -> Result<(), EmbeddedError> {
        let text = |path: PathBuf| path.into_os_string().into_string();
        let not_utf8 = |path: OsString| EmbeddedError::PathNotUtf8 { path: path.into() };
        let conf = settings::postgresql_conf(
            options,
            &text(self.layout.cluster().join("postgresql.conf")).map_err(not_utf8)?,
            &text(self.socket_dir.clone()).map_err(not_utf8)?,
            &text(self.layout.log_dir()).map_err(not_utf8)?,
        );
        self.layout.write_conf(MAIN_CONF, &conf)?;
        self.layout.write_conf(HBA_CONF, settings::pg_hba_conf())?;
        self.layout.write_conf(IDENT_CONF, &settings::pg_ident_conf(&self.accounts))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        // What they print is read here.
        command.env("LC_ALL", "C");
        self.accounts.run_as_server(&mut command);
        command
    }

    fn run(&self, command: &mut Command) -> Result<Output, EmbeddedError> {
        let program = self.binaries.program("initdb");
        command.stdin(Stdio::null()).output().map_err(|source| EmbeddedError::RunProgram { program, source })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // One outside the data directory is gone with its socket; while a server still runs, it is not empty.
        if self.socket_dir != self.layout.run_dir() {
            let _in_use = fs::remove_dir(&self.socket_dir);
        }
    }
}

fn failed(program: &'static str, output: &Output) -> EmbeddedError {
    EmbeddedError::ProgramFailed {
        program,
        status: output.status,
        output: summary(&String::from_utf8_lossy(&output.stderr)),
    }
}

/// The errors in what a program of PostgreSQL printed, on one line; its last line, if none is marked as one.
fn summary(text: &str) -> String {
    let marked: Vec<&str> = text
        .lines()
        .filter(|line| ["error:", "FATAL:", "PANIC:", "ERROR:", "hint:", "HINT:"].iter().any(|it| line.contains(it)))
        .map(str::trim)
        .collect();
    if marked.is_empty() {
        return text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned();
    }
    marked[marked.len().saturating_sub(4)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn errors_are_picked_from_what_was_printed() {
        let printed =
            "LOG:  starting\nFATAL:  could not create lock file\nHINT:  Is another running?\nLOG:  shut down\n";
        assert_eq!(summary(printed), "FATAL:  could not create lock file; HINT:  Is another running?");
        assert_eq!(summary("one\ntwo\n\n"), "two");
        assert_eq!(summary(""), "it said nothing");
    }
}
