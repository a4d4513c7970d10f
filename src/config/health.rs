//! Settings of `health`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::network::TLS_CERT_HELP;
use super::{DEFAULT_LISTEN, LISTEN_HELP, duration};

/// Settings of `health`.
#[derive(Debug, Clone, Args)]
pub struct HealthConfig {
    /// Where the service listens: the setting that `serve` was given.
    #[arg(long, env = "INCIDENT_MANAGER_LISTEN", default_value = DEFAULT_LISTEN, value_name = "ADDR:PORT", help = LISTEN_HELP)]
    pub listen: SocketAddr,

    /// Where the service speaks TLS: the setting that `serve` was given.
    #[arg(long, env = "INCIDENT_MANAGER_TLS_CERT", value_name = "FILE", help = TLS_CERT_HELP)]
    pub tls_cert: Option<PathBuf>,

    /// How long the service may take to answer
    #[arg(long, env = "INCIDENT_MANAGER_HEALTH_TIMEOUT", default_value = "3s", value_parser = duration)]
    pub timeout: Duration,
}
