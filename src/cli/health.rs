//! `health`: asks the service on this machine whether it is ready. For a container's health check, whose image has no other
//! program to ask with.

use std::net::SocketAddr;

use serde::Deserialize;

use super::banner::reachable;
use crate::config::HealthConfig;

#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("cannot make an HTTP client")]
    MakeClient(#[source] reqwest::Error),
    #[error("{address} does not answer")]
    Ask { address: SocketAddr, source: reqwest::Error },
    #[error("what answers on {address} is not this service")]
    ReadAnswer { address: SocketAddr, source: reqwest::Error },
    #[error("not ready: {0}")]
    NotReady(String),
}

/// What `GET /health/ready` answers.
#[derive(Deserialize)]
struct Answer {
    status: String,
    reason: Option<String>,
}

/// Succeeds where the service says that it is ready.
pub async fn run(config: HealthConfig) -> Result<(), HealthError> {
    let address = reachable(config.listen);
    let scheme = if config.tls_cert.is_some() { "https" } else { "http" };
    // It is this machine that is asked, and it is told nothing: without a proxy, and whatever name its certificate has.
    let client =
        reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true).timeout(config.timeout).build();
    let client = client.map_err(HealthError::MakeClient)?;
    let response = client.get(format!("{scheme}://{address}/health/ready")).send().await;
    let response = response.map_err(|source| HealthError::Ask { address, source })?;
    let ready = response.status().is_success();
    let answer: Answer = response.json().await.map_err(|source| HealthError::ReadAnswer { address, source })?;
    if ready { Ok(()) } else { Err(HealthError::NotReady(answer.reason.unwrap_or(answer.status))) }
}
