//! Finds an installed PostgreSQL.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;

/// The oldest major version that the schema runs on.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// Where installers put servers that are not in the path: `<parent>/<prefix>*<suffix>`.
const PLACES: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),                          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                                   // the PostgreSQL project's RPMs
    ("/usr/lib", "postgresql", "bin"),                           // SUSE
    ("/usr/lib64", "postgresql-", "bin"),                        // Gentoo
    ("/usr/libexec", "postgresql", ""),                          // Alpine
    ("/opt/homebrew/opt", "postgresql@", "bin"),                 // Homebrew, Apple silicon
    ("/usr/local/opt", "postgresql@", "bin"),                    // Homebrew, Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),    // Homebrew, Linux
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"), // Postgres.app
    ("/opt/local/lib", "postgresql", "bin"),                     // MacPorts
    ("/Library/PostgreSQL", "", "bin"),                          // EDB, macOS
    ("/opt/PostgreSQL", "", "bin"),                              // EDB, Linux
];

/// Package managers, and how each installs a server.
const INSTALLERS: &[(&str, &str)] = &[
    ("/usr/bin/apt-get", "run `apt-get install postgresql`"),
    ("/usr/bin/dnf", "run `dnf install postgresql-server`"),
    ("/usr/bin/yum", "run `yum install postgresql-server`"),
    ("/usr/bin/zypper", "run `zypper install postgresql-server`"),
    ("/usr/bin/pacman", "run `pacman -S postgresql`"),
    ("/sbin/apk", "run `apk add postgresql`"),
    ("/opt/homebrew/bin/brew", "run `brew install postgresql@17`"),
    ("/usr/local/bin/brew", "run `brew install postgresql@17`"),
];

/// The programs of one installed PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

impl Binaries {
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Finds the PostgreSQL for a data directory: of the major version that made it, or for a new one the first of
/// the path's, `pg_config`'s and the newest of the usual places.
///
/// `only` is looked at instead of all those where it is given.
pub(super) fn find(
    only: Option<&Path>,
    search_path: Option<&OsStr>,
    existing: Option<(&Path, u32)>,
) -> Result<Binaries, EmbeddedError> {
    let installed = match only {
        Some(dir) => vec![inspect(dir).ok_or_else(|| EmbeddedError::IncompleteBinaries { path: dir.to_owned() })?],
        None => installed(search_path),
    };
    choose(installed, existing)
}

fn choose(installed: Vec<Binaries>, existing: Option<(&Path, u32)>) -> Result<Binaries, EmbeddedError> {
    if installed.is_empty() {
        return Err(EmbeddedError::NoBinaries { hint: install_hint() });
    }
    let found = installed.iter().map(|it| format!("PostgreSQL {}", it.major)).collect::<Vec<_>>().join(", ");
    let wanted = |major: u32| existing.map_or(major >= OLDEST_MAJOR, |(_, wanted)| major == wanted);
    installed.into_iter().find(|it| wanted(it.major)).ok_or_else(|| match existing {
        Some((path, wanted)) => EmbeddedError::OtherMajor { path: path.to_owned(), wanted, found },
        None => EmbeddedError::OldBinaries { found, hint: install_hint() },
    })
}

/// All installed servers, in order of preference.
fn installed(search_path: Option<&OsStr>) -> Vec<Binaries> {
    let in_path = search_path.into_iter().flat_map(std::env::split_paths);
    let mut servers: Vec<Binaries> = Vec::new();
    let mut add = |found: Option<Binaries>| {
        if let Some(found) = found
            && !servers.contains(&found)
        {
            servers.push(found);
        }
    };
    for dir in in_path.chain(pg_config_dir()) {
        add(inspect(&dir));
    }
    let mut elsewhere: Vec<_> = PLACES.iter().flat_map(expand).filter_map(|dir| inspect(&dir)).collect();
    elsewhere.sort_by_key(|it| std::cmp::Reverse(it.major));
    for found in elsewhere {
        add(Some(found));
    }
    servers
}

fn pg_config_dir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}

fn expand((parent, prefix, suffix): &(&str, &str, &str)) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(suffix))
        .collect()
}

/// The server in `dir`, if a whole one is there; links are followed, so that one server has one name.
fn inspect(dir: &Path) -> Option<Binaries> {
    let whole = |dir: &Path| dir.join("postgres").is_file() && dir.join("initdb").is_file();
    if !dir.is_absolute() || !whole(dir) {
        return None;
    }
    let real = dir.join("postgres").canonicalize().ok()?;
    let dir = real.parent().filter(|real| whole(real)).unwrap_or(dir).to_owned();
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    Some(Binaries { dir, major: parse_major(&String::from_utf8_lossy(&output.stdout))? })
}

/// The 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; also of `15beta2`, `15devel`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn install_hint() -> &'static str {
    INSTALLERS
        .iter()
        .find(|(program, _)| Path::new(program).exists())
        .map_or("install PostgreSQL 14 or later, and put its `bin` in the path", |(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(major: u32) -> Binaries {
        Binaries { dir: PathBuf::from(format!("/pg/{major}/bin")), major }
    }

    #[test]
    fn versions_are_read_from_what_servers_print() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta2"), Some(18));
        assert_eq!(parse_major("postgres (EnterpriseDB) 15.2"), None);
    }

    #[test]
    fn a_new_directory_takes_the_first_that_is_new_enough() {
        assert_eq!(choose(vec![server(13), server(15), server(17)], None).unwrap(), server(15));
    }

    #[test]
    fn an_existing_directory_takes_its_own_version() {
        let data = Path::new("/data");
        assert_eq!(choose(vec![server(17), server(15)], Some((data, 15))).unwrap(), server(15));
        let error = choose(vec![server(17), server(16)], Some((data, 15))).unwrap_err().to_string();
        assert!(error.contains("install PostgreSQL 15"), "{error}");
        assert!(error.contains("PostgreSQL 17, PostgreSQL 16"), "{error}");
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        assert!(matches!(choose(vec![], None), Err(EmbeddedError::NoBinaries { .. })));
        let error = choose(vec![server(12)], None).unwrap_err().to_string();
        assert!(error.contains("only PostgreSQL 12"), "{error}");
    }
}
