//! The subcommands.

pub mod api_key;
pub mod banner;
pub mod demo;
pub mod health;
pub mod migrate;
pub mod serve;
pub mod watch;

use std::error::Error;
use std::io::{self, Write};

use crate::config::{Command, DatabaseConfig, DatabaseUrl};
use crate::embedded::{self, EmbeddedError};
use crate::server;

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("cannot start the runtime")]
    StartRuntime(#[source] io::Error),
    #[error("cannot write to the standard output")]
    WriteOutput(#[source] io::Error),
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
    #[error(transparent)]
    Migrate(#[from] migrate::MigrateError),
    #[error(transparent)]
    Watch(#[from] watch::WatchError),
    #[error(transparent)]
    Health(#[from] health::HealthError),
    #[error(transparent)]
    ApiKey(#[from] api_key::ApiKeyError),
}

impl CliError {
    /// Whether what a setting names is at fault, which is known only once it is used.
    pub fn is_of_setting(&self) -> bool {
        use server::ServerError::{Auth, Tls};
        matches!(self, Self::Serve(serve::ServeError::Run(Tls(_) | Auth(_))))
    }
}

/// Sockets that become ready to run at a time, fewer than the tasks that run before the next are looked for: however many
/// come or go at once, they wait in the system and not in front of everything else.
const SOCKETS_AT_A_TIME: usize = 16;
/// Tasks that a thread runs before it looks for one that another thread has woken, as the log's does.
const OTHERS_TURN: u32 = 8;

/// Does what the command says, to its end.
pub fn run(command: Command) -> Result<(), CliError> {
    // for every client of ours; refused, there is one already
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match command {
        Command::Serve(config) => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.max_io_events_per_tick(SOCKETS_AT_A_TIME).global_queue_interval(OTHERS_TURN);
            if let Some(threads) = config.worker_threads {
                runtime.worker_threads(threads);
            }
            on(runtime, serve::run(*config))?;
        }
        Command::Migrate(config) => on(tokio::runtime::Builder::new_current_thread(), migrate::run(config))?,
        Command::Watch(config) => on(tokio::runtime::Builder::new_current_thread(), watch::run(*config))?,
        Command::Health(config) => on(tokio::runtime::Builder::new_current_thread(), health::run(config))?,
        Command::ApiKey(command) => on(tokio::runtime::Builder::new_current_thread(), api_key::run(command))?,
        Command::Schema => return print(&server::sdl()).map_err(CliError::WriteOutput),
    }
    Ok(())
}

fn on<E: Into<CliError>>(
    mut runtime: tokio::runtime::Builder,
    work: impl Future<Output = Result<(), E>>,
) -> Result<(), CliError> {
    let runtime = runtime.enable_all().build().map_err(CliError::StartRuntime)?;
    let done = runtime.block_on(work).map_err(Into::into);
    // What was left behind must not hold the process up.
    runtime.shutdown_background();
    done
}

/// The database that is named, or the embedded one of a service that is running.
fn database_url(config: &DatabaseConfig) -> Result<DatabaseUrl, EmbeddedError> {
    match &config.database_url {
        Some(url) => Ok(url.clone()),
        None => embedded::join(&config.data_dir.clone().unwrap_or_else(embedded::default_data_dir)),
    }
}

/// Writes to the standard output; a reader that has enough is no error.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Says what went wrong, in one line on stderr. Nobody has to read it.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "incident-manager: {}", line.replace(['\n', '\r'], " "));
}

/// An error with its causes in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some libraries repeat the cause in their own words.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
