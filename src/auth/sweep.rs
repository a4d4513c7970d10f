//! Ends what has expired or was revoked, on this replica or another, whoever still holds it; and notes which API keys are
//! in use. One look for all of them, however many connections there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::authenticator::Required;
use super::credential::{Credential, Origin};
use super::{Denied, Invalid};
use crate::domain::ApiKeyId;

/// Between two looks: a connection ends so long after its credential, and as long as the database takes to answer.
const INTERVAL: Duration = Duration::from_secs(1);
/// A key's use is written down at most so often.
const NOTED_EVERY: Duration = Duration::from_mins(1);

pub(super) async fn run(required: Arc<Required>) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted = HashMap::new();
    let mut failing = false;
    loop {
        tick.tick().await;
        let held = required.held();
        end_expired(&required, &held);
        let looked = match end_revoked(&required, &held).await {
            Ok(()) => note_use(&required, &held, &mut noted).await,
            failed => failed,
        };
        match looked {
            Err(Denied::Database(error)) if !failing => {
                let error = &*error as &dyn std::error::Error;
                warn!(error, "cannot look for API keys that were revoked; those that are in use go on meanwhile");
                failing = true;
            }
            Ok(()) if failing => {
                info!("API keys that were revoked are looked for again");
                failing = false;
            }
            _ => {}
        }
        if held.iter().any(|credential| credential.why().is_some()) {
            required.forget_ended();
        }
    }
}

fn end_expired(required: &Required, held: &[Arc<Credential>]) {
    let now = required.clock.now();
    for credential in held {
        // it ends itself where it is over
        let _ = credential.check(now);
        if let Origin::PublishedKey(key) = &credential.origin
            && required.tokens.as_ref().is_some_and(|tokens| !tokens.publishes(key))
        {
            credential.end(Invalid::Withdrawn);
        }
    }
}

fn keys(held: &[Arc<Credential>]) -> impl Iterator<Item = (ApiKeyId, &Arc<Credential>)> {
    held.iter().filter_map(|credential| match credential.origin {
        Origin::ApiKey(key) => Some((key, credential)),
        _ => None,
    })
}

async fn end_revoked(required: &Required, held: &[Arc<Credential>]) -> Result<(), Denied> {
    let asked: Vec<_> = keys(held).map(|(key, _)| key).collect::<HashSet<_>>().into_iter().collect();
    if asked.is_empty() {
        return Ok(());
    }
    let revoked = required.store.revoked_api_keys(&asked).await.map_err(|error| Denied::Database(Arc::new(error)))?;
    for (key, credential) in keys(held) {
        if revoked.contains(&key) {
            credential.end(Invalid::Revoked);
        }
    }
    Ok(())
}

async fn note_use(
    required: &Required,
    held: &[Arc<Credential>],
    noted: &mut HashMap<ApiKeyId, Instant>,
) -> Result<(), Denied> {
    let now = Instant::now();
    noted.retain(|_, at| now.duration_since(*at) < NOTED_EVERY);
    let used: HashSet<_> = keys(held)
        .filter(|(key, credential)| !noted.contains_key(key) && credential.take_use())
        .map(|(key, _)| key)
        .collect();
    if used.is_empty() {
        return Ok(());
    }
    let used: Vec<_> = used.into_iter().collect();
    required.store.note_use_of_api_keys(&used).await.map_err(|error| Denied::Database(Arc::new(error)))?;
    noted.extend(used.into_iter().map(|key| (key, now)));
    Ok(())
}
