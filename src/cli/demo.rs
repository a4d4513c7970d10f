//! The demo: lifelike incidents and alerts, made through the ordinary mutations of the running service.

mod director;
mod story;

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::director::{Director, Request};

/// The pace while somebody is likely to look.
const LIVELY: Duration = Duration::from_secs(1);

/// How long somebody is likely to look.
const LIVELY_FOR: Duration = Duration::from_mins(10);

/// The pace after that: a demo that is left running should not fill a disk.
const CALM: Duration = Duration::from_secs(5);

/// Before the first change, and between attempts to reach a service that is away.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("the service does not answer")]
    Send(#[source] reqwest::Error),
    #[error("the service is not ready: {0}")]
    NotReady(String),
    #[error("the service refused a step: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Response {
    data: Option<Value>,
    #[serde(default)]
    errors: Vec<Value>,
}

/// Makes up traffic until `stop`; `graphql` is the service's own endpoint. The same seed tells the same stories.
pub async fn run(graphql: String, seed: u64, stop: CancellationToken) {
    // Without a proxy: what is made up stays on this machine.
    let client = match reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build() {
        Ok(client) => client,
        Err(error) => return warn!(%error, "there will be no demo traffic: no HTTP client"),
    };
    info!(seed, "making up demo traffic, labelled demo=true");
    let _ = stop.run_until_cancelled(play(&client, &graphql, seed)).await;
}

async fn play(client: &reqwest::Client, graphql: &str, seed: u64) {
    let (mut director, mut rng) = (Director::default(), StdRng::seed_from_u64(seed));
    match answer(client, graphql, &Director::leftovers()).await {
        Ok(data) => director.end_leftovers(&data),
        Err(error) => debug!(error = %super::with_causes(&error), "what an earlier demo left stays open"),
    }
    let begun = Instant::now();
    loop {
        let request = director.next(&mut rng);
        match answer(client, graphql, &request).await {
            Ok(data) => director.answered(Some(&data)),
            Err(error) => {
                debug!(error = %super::with_causes(&error), "a step of the demo failed");
                director.answered(None);
            }
        }
        sleep(if begun.elapsed() < LIVELY_FOR { LIVELY } else { CALM }).await;
    }
}

/// The data of an answer; waits for a service that is away.
async fn answer(client: &reqwest::Client, graphql: &str, request: &Request) -> Result<Value, DemoError> {
    loop {
        match send(client, graphql, request).await {
            Err(error @ (DemoError::Send(_) | DemoError::NotReady(_))) => {
                debug!(error = %super::with_causes(&error), "the demo waits");
                sleep(RETRY_INTERVAL).await;
            }
            answered => return answered,
        }
    }
}

async fn send(client: &reqwest::Client, graphql: &str, request: &Request) -> Result<Value, DemoError> {
    let body = json!({ "query": request.document, "variables": request.variables });
    let response = client.post(graphql).json(&body).send().await.map_err(DemoError::Send)?;
    let status = response.status();
    let text = response.text().await.map_err(DemoError::Send)?;
    let Ok(response) = serde_json::from_str::<Response>(&text) else {
        return Err(if status.is_server_error() {
            DemoError::NotReady(status.to_string())
        } else {
            DemoError::Refused(status.to_string())
        });
    };
    let Some(error) = response.errors.first() else { return Ok(response.data.unwrap_or_default()) };
    let message = error["message"].as_str().unwrap_or_default().to_owned();
    if status.is_server_error() || error["extensions"]["code"] == "DATABASE_UNAVAILABLE" {
        return Err(DemoError::NotReady(message));
    }
    Err(DemoError::Refused(message))
}
