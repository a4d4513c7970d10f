//! The server's settings: ours around those that `initdb` found fit for the machine.

use std::fmt::Write;
use std::path::Path;

use super::Options;
use super::account::Accounts;

/// The role that owns the database and that the service connects as; it is no superuser.
pub(super) const ROLE: &str = "incident_manager";
pub(super) const DATABASE: &str = "incident_manager";
/// The role that `initdb` makes; for the administrator alone.
pub(super) const SUPERUSER: &str = "postgres";
/// Part of the socket's name; no TCP port is opened.
pub(super) const PORT: u16 = 5432;

/// Connections beside the service's own: of other subcommands, direct writers and `psql`.
const OTHER_CONNECTIONS: u32 = 40;

/// `postgresql.conf`. What `initdb` wrote is read in the middle: ours before it are defaults that an administrator may
/// change there, ours after it are fixed.
pub(super) fn postgresql_conf(options: &Options, cluster_conf: &str, socket_dir: &str, log_dir: &str) -> String {
    let connections = options.connections.saturating_add(OTHER_CONNECTIONS);
    let durable = if options.durable { "on" } else { "off" };
    let mut conf = format!(
        "# Written anew at every start. Tune the server in the file that is included below, or with ALTER SYSTEM.\n\
         jit = off\n\
         checkpoint_completion_target = 0.9\n\
         include = {cluster_conf}\n\
         cluster_name = 'incident-manager'\n\
         listen_addresses = ''\n\
         port = {PORT}\n\
         unix_socket_directories = {socket_dir}\n\
         unix_socket_permissions = 0700\n\
         max_connections = {connections}\n\
         fsync = {durable}\n\
         full_page_writes = {durable}\n\
         synchronous_commit = {durable}\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         lc_messages = 'C'\n\
         logging_collector = on\n\
         log_destination = 'stderr'\n\
         log_directory = {log_dir}\n\
         log_filename = 'postgresql-%Y%m%d-%H%M%S.log'\n\
         log_file_mode = 0600\n\
         log_rotation_age = 1d\n\
         log_rotation_size = 10MB\n\
         log_line_prefix = '%m [%p] %q%u@%d '\n\
         # A refused row is ordinary, and its text is nothing for a log.\n\
         log_error_verbosity = terse\n\
         log_min_error_statement = panic\n",
        cluster_conf = quote(cluster_conf),
        // A list of names, each of which may be quoted.
        socket_dir = quote(&format!("\"{}\"", socket_dir.replace('"', "\"\""))),
        log_dir = quote(log_dir),
    );
    if !options.durable {
        conf.push_str("max_prepared_transactions = 20\n");
    }
    conf
}

/// `pg_hba.conf`: the kernel says who is at the other end of the socket. There is no line for TCP.
pub(super) fn pg_hba_conf() -> &'static str {
    "# Written anew at every start.\nlocal all all peer map=incident_manager\n"
}

/// `pg_ident.conf`: we and the server's own user may connect; nobody else of this machine.
pub(super) fn pg_ident_conf(accounts: &Accounts) -> String {
    let mut conf = "# Written anew at every start.\n".to_owned();
    let server = accounts.server.iter();
    for user in std::iter::once(&accounts.own).chain(server) {
        for role in [ROLE, SUPERUSER] {
            conf.push_str("incident_manager \"");
            conf.push_str(&user.name);
            conf.push_str("\" ");
            conf.push_str(role);
            conf.push('\n');
        }
    }
    conf
}

/// What makes the role and its database, a statement a line, as single-user mode reads them.
pub(super) fn bootstrap_sql() -> String {
    format!(
        "create role {ROLE} login;\n\
         grant pg_monitor to {ROLE};\n\
         create database {DATABASE} owner {ROLE};\n"
    )
}

/// The URL of a role at a socket, as our driver and libpq read it.
pub(super) fn url(role: &str, database: &str, socket_dir: &Path, port: u16) -> String {
    let mut host = String::new();
    for byte in socket_dir.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            host.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(host, "%{byte:02X}");
        }
    }
    format!("postgres://{role}@{host}:{port}/{database}?sslmode=disable")
}

/// A value of `postgresql.conf`.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::super::account::Account;
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quote(r"/it's\here"), r"'/it''s\\here'");
    }

    #[test]
    fn a_url_survives_the_driver() {
        let url = url(ROLE, DATABASE, Path::new("/tmp/ä b%/run"), PORT);
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        assert_eq!(options.get_socket().unwrap(), Path::new("/tmp/ä b%/run"));
        assert_eq!((options.get_username(), options.get_database()), (ROLE, Some(DATABASE)));
    }

    #[test]
    fn only_what_tests_throw_away_is_not_durable() {
        let durable = postgresql_conf(&Options::new("/data"), "c", "s", "l");
        assert!(durable.contains("fsync = on") && durable.contains("full_page_writes = on"));
        assert!(durable.contains("listen_addresses = ''"));
        assert!(postgresql_conf(&Options::for_tests("/data"), "c", "s", "l").contains("fsync = off"));
    }

    #[test]
    fn our_user_and_the_servers_may_connect() {
        let account = |name: &str, uid| Account { name: name.to_owned(), uid, gid: uid };
        let accounts = Accounts { own: account("root", 0), server: Some(account("postgres", 101)) };
        insta::assert_snapshot!(pg_ident_conf(&accounts), @r#"
        # Written anew at every start.
        incident_manager "root" incident_manager
        incident_manager "root" postgres
        incident_manager "postgres" incident_manager
        incident_manager "postgres" postgres
        "#);
    }
}
