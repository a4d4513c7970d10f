//! Settings of what lies between the service and its clients: names, origins, proxies.

use std::net::IpAddr;
use std::path::PathBuf;

use axum::http::HeaderValue;
use clap::Args;
use ipnet::IpNet;
use url::Url;

/// What `--tls-cert` is, to each subcommand that has it.
pub const TLS_CERT_HELP: &str =
    "Certificate chain in PEM, the service's own first: it speaks TLS by itself; read again when it changes";

/// Settings of what lies between the service and its clients.
#[derive(Debug, Clone, Args)]
pub struct NetworkConfig {
    /// Host names, beside IP addresses and localhost, under which browsers may reach the service [default: none while auth is off, else any]
    #[arg(long, env = "INCIDENT_MANAGER_ALLOWED_HOSTS", value_delimiter = ',', value_name = "NAME")]
    pub allowed_hosts: Vec<String>,

    /// Origins, beside the service's own, whose pages may ask: `https://board.example`
    #[arg(long, env = "INCIDENT_MANAGER_ALLOWED_ORIGINS", value_delimiter = ',', value_parser = origin, value_name = "ORIGIN")]
    pub allowed_origins: Vec<HeaderValue>,

    /// Addresses or networks of proxies whose `X-Forwarded-For` says who a client is: `10.0.0.0/8`
    #[arg(long, env = "INCIDENT_MANAGER_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network, value_name = "NETWORK")]
    pub trusted_proxies: Vec<IpNet>,

    /// Where set, with its key, the service speaks TLS by itself
    #[arg(long, env = "INCIDENT_MANAGER_TLS_CERT", value_name = "FILE", requires = "tls_key", help = TLS_CERT_HELP)]
    pub tls_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM
    #[arg(long, env = "INCIDENT_MANAGER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl NetworkConfig {
    /// The files of TLS, where it is the service's own business.
    pub fn tls(&self) -> Option<TlsConfig> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(TlsConfig { cert, key })
    }
}

/// The files of TLS, in PEM.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// An origin as browsers write it (RFC 6454, section 6.2).
fn origin(text: &str) -> Result<HeaderValue, String> {
    let url: Option<Url> = text.parse().ok();
    let origin =
        url.filter(|url| matches!(url.scheme(), "http" | "https")).map(|url| url.origin().ascii_serialization());
    // nothing but the origin, then, whose host may be in capitals and whose port may be the scheme's own
    let is_whole = text.matches('/').count() == 2 && !text.contains(['@', '?', '#']);
    let value = origin.filter(|_| is_whole).and_then(|origin| HeaderValue::from_str(&origin).ok());
    value.ok_or_else(|| "must be http:// or https://, a host and, where it is not the usual one, a port".to_owned())
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "must be an address, or a network such as 10.0.0.0/8".to_owned())
}
