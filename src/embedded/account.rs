//! Which operating-system user the server runs as: PostgreSQL refuses to run as root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;

use super::error::EmbeddedError;

/// Users as which the server may run when we are root, in order of preference. `nobody` is not among them: what
/// it owns, other services may reach too.
const SERVER_USERS: [&str; 2] = ["incident-manager", "postgres"];

/// A user of the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The users that take part.
#[derive(Debug, Clone)]
pub(super) struct Accounts {
    /// Who we are.
    pub own: Account,
    /// Who the server runs as, where that is somebody else.
    pub server: Option<Account>,
}

impl Accounts {
    /// Finds out who we are and as whom the server runs; `owner` is whom existing data belong to.
    pub fn resolve(owner: Option<u32>) -> Result<Self, EmbeddedError> {
        let uid = geteuid().as_raw();
        let own = account(&uid.to_string())?.ok_or(EmbeddedError::NamelessUser { uid })?;
        let server = match (uid, owner) {
            (0, Some(owner)) if owner != 0 => {
                Some(account(&owner.to_string())?.ok_or(EmbeddedError::NamelessUser { uid: owner })?)
            }
            (0, _) => Some(server_user()?),
            _ => None,
        };
        Ok(Self { own, server })
    }

    /// The user that owns what the server writes.
    pub fn owner(&self) -> &Account {
        self.server.as_ref().unwrap_or(&self.own)
    }

    /// Makes `command` run as the server's user, in a process group of its own: a Ctrl-C in the terminal is ours,
    /// and the server stops only once the service is done with it.
    pub fn run_as_server(&self, command: &mut Command) {
        if let Some(user) = &self.server {
            command.uid(user.uid).gid(user.gid);
        }
        // Not our own, which the server's user may be unable to enter.
        command.current_dir("/").process_group(0);
    }

    /// The outermost of `dirs` that the server's user cannot enter.
    pub fn unreachable<'a>(&self, dirs: &[&'a Path]) -> Result<Option<&'a Path>, EmbeddedError> {
        for dir in dirs {
            let mut test = Command::new("sh");
            test.args(["-c", "test -x \"$1\"", "sh"]).arg(dir);
            self.run_as_server(&mut test);
            let status = test.status().map_err(|source| EmbeddedError::RunProgram { program: "sh".into(), source })?;
            if !status.success() {
                return Ok(Some(dir));
            }
        }
        Ok(None)
    }
}

fn server_user() -> Result<Account, EmbeddedError> {
    for name in SERVER_USERS {
        if let Some(account) = account(name)?
            && account.uid != 0
        {
            return Ok(account);
        }
    }
    Err(EmbeddedError::NoServerUser)
}

/// The name of a user by its id; the id itself for one without a name.
pub(super) fn name_of(uid: u32) -> String {
    account(&uid.to_string()).ok().flatten().map_or_else(|| uid.to_string(), |account| account.name)
}

/// The user of this name or number; `id` also knows those that are not in `/etc/passwd`.
fn account(user: &str) -> Result<Option<Account>, EmbeddedError> {
    let ask = |what: &[&str]| -> Result<Option<String>, EmbeddedError> {
        let output = Command::new("id")
            .args(what)
            .arg(user)
            .output()
            .map_err(|source| EmbeddedError::RunProgram { program: "id".into(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        Ok(output.status.success().then_some(text).filter(|text| !text.is_empty()))
    };
    let (Some(name), Some(uid), Some(gid)) = (ask(&["-un"])?, ask(&["-u"])?, ask(&["-g"])?) else { return Ok(None) };
    let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { return Ok(None) };
    Ok(Some(Account { name, uid, gid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number() {
        let root = account("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(account("0").unwrap(), Some(root));
    }

    #[test]
    fn an_unknown_user_is_none() {
        assert_eq!(account("no-such-user-here").unwrap(), None);
    }

    #[test]
    fn the_server_never_runs_as_root() {
        for owner in [None, Some(0)] {
            match Accounts::resolve(owner) {
                Ok(accounts) => assert_ne!(accounts.owner().uid, 0),
                Err(error) => assert!(matches!(error, EmbeddedError::NoServerUser), "{error}"),
            }
        }
    }
}
