//! Servers that an earlier process left behind in a data directory, alive or dead.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::error::{EmbeddedError, file};
use super::pidfile::{self, PidFile};

/// A fast shutdown writes a checkpoint; beyond this it is cut short, which loses nothing either.
pub(super) const FAST_SHUTDOWN_TIME: Duration = Duration::from_secs(30);
/// How long a server that was told to drop everything has to do so.
pub(super) const QUIT_TIME: Duration = Duration::from_secs(5);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Makes a data directory free for a server of ours: stops one that runs there, ends what a dead one left, and
/// recovers from a lock file whose process id now belongs to somebody else. The caller holds the directory's lock, so
/// whatever runs there has no service above it.
pub(super) fn evict(cluster: &Path) -> Result<(), EmbeddedError> {
    // The system names a process's directory without links.
    let cluster = &cluster.canonicalize().map_err(file("resolve", cluster))?;
    if let Some(pid) = locked_by(cluster)?
        && is_server_of(pid, cluster)
    {
        tracing::warn!(pid = pid.as_raw_nonzero().get(), "a PostgreSQL was left running; stopping it to start anew");
        stop(pid)?;
    }
    // One that has ended without removing its lock still counts for a new server while its parent has not noticed.
    if let Some(pid) = locked_by(cluster)?
        && exists(pid)
    {
        tracing::warn!(pid = pid.as_raw_nonzero().get(), "a stale lock file names another process; taking it over");
        let own = rustix::process::getpid().as_raw_nonzero().get();
        pidfile::disown(cluster, own).map_err(file("write the lock file in", cluster))?;
    }
    end_orphans(cluster)
}

/// The process that the directory's lock file names.
fn locked_by(cluster: &Path) -> Result<Option<Pid>, EmbeddedError> {
    let found = PidFile::read(cluster).map_err(file("read the lock file in", cluster))?;
    // The number of a server in single-user mode is negative.
    Ok(found.and_then(|found| Pid::from_raw(found.pid.checked_abs()?)))
}

/// Stops a server that is no child of ours: fast, then at once, then by force.
fn stop(pid: Pid) -> Result<(), EmbeddedError> {
    for (signal, time) in [(Signal::INT, FAST_SHUTDOWN_TIME), (Signal::QUIT, QUIT_TIME), (Signal::KILL, QUIT_TIME)] {
        send(pid, signal)?;
        if wait_until(time, || !is_alive(pid)) {
            return Ok(());
        }
    }
    Err(EmbeddedError::Immortal { pid: pid.as_raw_nonzero().get() })
}

/// Ends backends that have outlived their postmaster; a new server refuses to start while they hold its memory.
fn end_orphans(cluster: &Path) -> Result<(), EmbeddedError> {
    for signal in [Signal::QUIT, Signal::KILL] {
        let orphans = servers_of(cluster);
        if orphans.is_empty() {
            return Ok(());
        }
        for pid in orphans {
            send(pid, signal)?;
        }
        if wait_until(QUIT_TIME, || servers_of(cluster).is_empty()) {
            return Ok(());
        }
    }
    servers_of(cluster).first().map_or(Ok(()), |pid| Err(EmbeddedError::Immortal { pid: pid.as_raw_nonzero().get() }))
}

/// Sends a signal; a process that has ended meanwhile is no error.
pub(super) fn send(pid: Pid, signal: Signal) -> Result<(), EmbeddedError> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(EmbeddedError::Signal { pid: pid.as_raw_nonzero().get(), source: error.into() }),
    }
}

/// Whether there is such a process, of whomever.
fn exists(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(Errno::SRCH))
}

/// Whether there is such a process, and it has not ended yet.
fn is_alive(pid: Pid) -> bool {
    exists(pid) && !is_zombie(pid)
}

fn wait_until(time: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    true
}

/// A process that ended, and whose parent has not noticed: in a container the parent of an orphan may never do so.
#[cfg(target_os = "linux")]
fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

#[cfg(not(target_os = "linux"))]
fn is_zombie(_: Pid) -> bool {
    false
}

/// Whether a process is a PostgreSQL server of this data directory: each of its processes works in there.
#[cfg(target_os = "linux")]
pub(super) fn is_server_of(pid: Pid, cluster: &Path) -> bool {
    let link = |name: &str| std::fs::read_link(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
    // The program's name has a suffix once an upgrade has replaced its file, and another where a script wraps it.
    let is_postgres = |exe: &Path| exe.file_name().is_some_and(|name| name.to_string_lossy().contains("postgres"));
    link("cwd").is_ok_and(|cwd| cwd == cluster) && link("exe").is_ok_and(|exe| is_postgres(&exe))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_server_of(pid: Pid, cluster: &Path) -> bool {
    let pid = pid.as_raw_nonzero().to_string();
    let Ok(output) = std::process::Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid]).output() else {
        return false;
    };
    let command = String::from_utf8_lossy(&output.stdout);
    command.contains("postgres") && command.contains(&*cluster.to_string_lossy())
}

/// All living processes of a server of this data directory.
#[cfg(target_os = "linux")]
fn servers_of(cluster: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| is_server_of(*pid, cluster))
        .collect()
}

/// Elsewhere the system does not say where a process works; there the server's own check has to do.
#[cfg(not(target_os = "linux"))]
fn servers_of(_: &Path) -> Vec<Pid> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_server_is_none() {
        let own = rustix::process::getpid();
        assert!(is_alive(own));
        assert!(!is_server_of(own, &std::env::current_dir().unwrap()));
    }

    #[test]
    fn a_child_that_ended_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        if cfg!(target_os = "linux") {
            assert!(wait_until(QUIT_TIME, || !is_alive(pid)));
        }
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }
}
