//! Keys that are published as a JSON Web Key Set: fetched now and then, and when a token names one that is not known.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use parking_lot::RwLock;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};
use url::Url;

use super::Digest;
use super::key::{Key, KeyError, Parties};
use crate::telemetry::metric;

/// The longest that a fetch may take; a token with an unknown key waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two fetches, however many tokens name unknown keys: anybody can make such a token.
const PAUSE: Duration = Duration::from_secs(5);
/// Until the next attempt, while there has been none that succeeded.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// A set is a few kilobytes.
const MAX_SET_BYTES: usize = 1 << 20;
/// From `https` nothing leads to anything else.
const MAX_REDIRECTS: usize = 3;

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer")]
    Send(#[source] reqwest::Error),
    #[error("the answer has status {0}")]
    Status(StatusCode),
    #[error("the answer breaks off")]
    Read(#[source] reqwest::Error),
    #[error("the answer is longer than {MAX_SET_BYTES} bytes")]
    TooLong,
    #[error("the answer is no JSON Web Key Set")]
    Parse,
    #[error("the set has no key of RSA, P-256 or Ed25519 for signatures")]
    Empty,
}

/// The keys that are published at an address.
pub(super) struct Jwks {
    url: Url,
    every: Duration,
    parties: Parties,
    client: Client,
    keys: RwLock<Arc<[Key]>>,
    /// When they were last asked for; held while they are.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl Jwks {
    pub(super) fn new(url: Url, every: Duration, parties: Parties) -> Result<Self, KeyError> {
        let client = Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(Policy::limited(MAX_REDIRECTS))
            .https_only(url.scheme() == "https")
            .build()
            .map_err(KeyError::MakeClient)?;
        let keys = RwLock::new(Arc::new([]) as Arc<[Key]>);
        Ok(Self { url, every, parties, client, keys, asked: tokio::sync::Mutex::default() })
    }

    pub(super) fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read())
    }

    pub(super) fn has(&self, key: &Digest) -> bool {
        self.keys.read().iter().any(|published| published.thumbprint.as_ref() == Some(key))
    }

    /// Fetches the set from time to time.
    pub(super) async fn run(self: Arc<Self>) {
        let mut retry = interval(FIRST_RETRY);
        while self.keys().is_empty() {
            retry.tick().await;
            self.fetch(&mut *self.asked.lock().await).await;
        }
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tick.tick().await;
            self.fetch(&mut *self.asked.lock().await).await;
        }
    }

    /// Fetches the set for a token whose key is not in `seen`; not where it is another one by now, or was asked for just
    /// now. Whoever comes meanwhile waits for the same answer.
    pub(super) async fn look_again(&self, seen: &Arc<[Key]>) {
        let mut asked = self.asked.lock().await;
        let newer = !Arc::ptr_eq(seen, &self.keys());
        if !newer && asked.is_none_or(|asked| asked.elapsed() >= PAUSE) {
            self.fetch(&mut asked).await;
        }
    }

    /// What was fetched before stays, if this fails.
    async fn fetch(&self, asked: &mut Option<Instant>) {
        *asked = Some(Instant::now());
        let fetched = self.ask().await;
        gauge!(metric::JWKS_REACHABLE).set(i32::from(fetched.is_ok()));
        match fetched {
            Ok(keys) => {
                let news = keys.len() != self.keys().len()
                    || keys.iter().filter_map(|key| key.thumbprint.as_ref()).any(|key| !self.has(key));
                if news {
                    let names: Vec<_> = keys.iter().filter_map(|key| key.name.as_deref()).collect();
                    info!(count = keys.len(), ?names, "tokens are checked by newly published keys");
                    *self.keys.write() = keys.into();
                }
            }
            Err(error) => {
                let kept = self.keys().len();
                let error = &error as &dyn std::error::Error;
                warn!(error, kept, "cannot fetch the keys of tokens; going on with those that there are");
            }
        }
        // counted from its end, a slow answer does not use up the pause
        *asked = Some(Instant::now());
    }

    async fn ask(&self) -> Result<Vec<Key>, FetchError> {
        let answered = self.client.get(self.url.clone()).send().await;
        // the address may have a password in it
        let response = answered.map_err(|error| FetchError::Send(error.without_url()))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let set = body(response).await?;
        let keys = Key::of_set(&set, &self.parties).ok_or(FetchError::Parse)?;
        if keys.is_empty() { Err(FetchError::Empty) } else { Ok(keys) }
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut set = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::Read(error.without_url()))? {
        if set.len() + chunk.len() > MAX_SET_BYTES {
            return Err(FetchError::TooLong);
        }
        set.extend_from_slice(&chunk);
    }
    Ok(set)
}
