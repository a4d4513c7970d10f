//! `postmaster.pid`: what a server says of itself in its data directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

const NAME: &str = "postmaster.pid";

/// A server's lock file; its lines are named in PostgreSQL's `src/include/utils/pidfile.h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    /// The postmaster; negative for a server in single-user mode.
    pub pid: i32,
    pub port: Option<u16>,
    pub socket_dir: Option<PathBuf>,
    /// Whether it takes connections.
    pub ready: bool,
}

impl PidFile {
    /// The lock file of a data directory; `None` where there is none, or one that was not written to its end.
    pub fn read(cluster: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(cluster.join(NAME)) {
            Ok(text) => Ok(Self::parse(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number).copied().unwrap_or_default();
        Some(Self {
            pid: line(0).parse().ok().filter(|pid| *pid != 0)?,
            port: line(3).parse().ok().filter(|port| *port != 0),
            socket_dir: Some(line(4)).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            ready: line(7) == "ready",
        })
    }
}

/// Puts another process id into a lock file whose own has been given to a stranger, and keeps the rest of it.
///
/// A server that starts ignores the id of its parent, which is ours. The rest names the shared memory by which it
/// finds out whether backends of a dead server still write, so the file must not simply be removed.
pub(super) fn disown(cluster: &Path, pid: i32) -> io::Result<()> {
    // The file is in a directory of another user, if we are root: no link of theirs is followed.
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut file: File = OpenOptions::new().read(true).write(true).custom_flags(nofollow).open(cluster.join(NAME))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    file.rewind()?;
    file.set_len(0)?;
    write!(file, "{pid}\n{rest}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "4711\n/data/postgres\n1795432000\n5432\n/data/run\n\n  1234567  98304\nready   \n";

    #[test]
    fn a_running_servers_file_is_read() {
        let expected =
            PidFile { pid: 4711, port: Some(5432), socket_dir: Some(PathBuf::from("/data/run")), ready: true };
        assert_eq!(PidFile::parse(RUNNING), Some(expected));
        assert!(!PidFile::parse(&RUNNING.replace("ready   ", "starting")).unwrap().ready);
    }

    #[test]
    fn a_file_that_was_cut_short_is_none() {
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("\n/data"), None);
        assert!(!PidFile::parse("4711\n/data").unwrap().ready);
    }

    #[test]
    fn disowning_changes_the_process_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), RUNNING).unwrap();
        disown(dir.path(), 99).unwrap();
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(text, RUNNING.replace("4711", "99"));
    }
}
