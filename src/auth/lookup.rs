//! Looking API keys up: those that are asked for at the same time are asked for in one statement, and there are so few of
//! these that a flood of wrong keys costs the database little and delays right ones by milliseconds.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::Denied;
use crate::store::{Store, StoredApiKey};

/// Prefixes of one statement.
const MAX_PREFIXES: usize = 1000;
/// Between two statements.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks for a key by its prefix.
#[derive(Debug, Clone)]
pub(super) struct Lookups(mpsc::Sender<Lookup>);

struct Lookup {
    prefix: String,
    answer: oneshot::Sender<Result<Option<StoredApiKey>, Denied>>,
}

/// What carries the look-ups out.
pub(super) struct Desk {
    store: Store,
    lookups: mpsc::Receiver<Lookup>,
}

impl Lookups {
    pub(super) fn new(store: Store) -> (Self, Desk) {
        let (sender, lookups) = mpsc::channel(MAX_PREFIXES);
        (Self(sender), Desk { store, lookups })
    }

    /// The key of a prefix, if there is one; revoked and expired ones too.
    pub(super) async fn find(&self, prefix: &str) -> Result<Option<StoredApiKey>, Denied> {
        let (answer, answered) = oneshot::channel();
        // closed, it is the end of the process
        let _ = self.0.send(Lookup { prefix: prefix.to_owned(), answer }).await;
        answered.await.unwrap_or(Ok(None))
    }
}

impl Desk {
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_PREFIXES);
        while self.lookups.recv_many(&mut batch, MAX_PREFIXES).await > 0 {
            // who has gone meanwhile needs no answer
            batch.retain(|lookup: &Lookup| !lookup.answer.is_closed());
            let prefixes: BTreeSet<&str> = batch.iter().map(|lookup| lookup.prefix.as_str()).collect();
            let prefixes: Vec<String> = prefixes.into_iter().map(str::to_owned).collect();
            let found = self.store.api_keys_by_prefix(&prefixes).await;
            let found = found.map_err(|error| Denied::Database(Arc::new(error)));
            let found = found.map(|keys| {
                keys.into_iter().map(|stored| (stored.key.prefix.clone(), stored)).collect::<HashMap<_, _>>()
            });
            for lookup in batch.drain(..) {
                let answer = match &found {
                    Ok(keys) => Ok(keys.get(&lookup.prefix).cloned()),
                    Err(denied) => Err(denied.clone()),
                };
                let _ = lookup.answer.send(answer);
            }
            sleep(PAUSE).await;
        }
    }
}
