//! What has happened: from the hub's tail, and from the log where that does not reach back; and where a cursor stands in it.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep};

use super::hub::Hub;
use super::tail::{FromTail, Head, Located, Place, Stretch, StretchBounds};
use crate::domain::{Cursor, Interest, Position};
use crate::store::{LogMatches, LogState, Store, StoreError};
use crate::telemetry::metric;

/// Between two calls of the sequencer of which the first found another session at it.
const SEQUENCER_RETRY: Duration = Duration::from_millis(5);

/// Why nothing can be read from there on.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    /// The log does not reach back so far, or has given those positions out anew.
    #[error("the log cannot be read from this position on")]
    Expired,
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

impl From<StoreError> for NotRead {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// What the log is, or why nobody knows; whoever asks at the same time gets the same.
type Newest = Result<Arc<LogState>, Arc<StoreError>>;

/// Reads the log backwards from where the hub is.
pub struct History {
    store: Store,
    hub: Arc<Hub>,
    /// What the log was when it was last asked, and when that was.
    newest: Mutex<Option<(Instant, Newest)>>,
}

impl History {
    pub fn new(store: Store, hub: Arc<Hub>) -> Self {
        Self { store, hub, newest: Mutex::default() }
    }

    /// What a hub has, and no log behind it, for tests.
    #[cfg(test)]
    pub(crate) fn away(hub: Arc<Hub>) -> Self {
        Self::new(Store::away(), hub)
    }

    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What is asked for of the log after a place and, at most, up to `end`: as much as the bounds allow, and not
    /// nothing at all. Where events are gone that were not asked for in time, the stretch begins after them. `readers`: how
    /// many may read from the log at a time.
    pub async fn stretch(
        &self,
        interest: &Interest,
        from: Place,
        end: Option<Position>,
        bounds: StretchBounds,
        readers: &Semaphore,
    ) -> Result<Stretch, NotRead> {
        let mut changes = self.hub.watch();
        loop {
            changes.borrow_and_update();
            match self.hub.stretch(from, end, |event| interest.matches(event), bounds) {
                FromTail::Here(stretch) => {
                    counter!(metric::REPLAY_READS, "from" => "memory").increment(1);
                    return Ok(stretch);
                }
                FromTail::Below(head) => {
                    counter!(metric::REPLAY_READS, "from" => "log").increment(1);
                    let _turn = readers.acquire().await.map_err(|_| NotRead::Expired)?;
                    if let Some(stretch) = self.read(interest, from, end, head, bounds.matches).await? {
                        return Ok(stretch);
                    }
                }
                FromTail::NotYet => {}
                FromTail::Void => return Err(NotRead::Expired),
            }
            // the hub is about to learn of what the log has become
            changes.changed().await.map_err(|_| NotRead::Expired)?;
        }
    }

    /// The same from the log itself. `None`: it is not what the hub takes it for.
    async fn read(
        &self,
        interest: &Interest,
        from: Place,
        end: Option<Position>,
        head: Head,
        limit: usize,
    ) -> Result<Option<Stretch>, NotRead> {
        let Place { position: from, numbering } = self.hub.carry(from, head.numbering).ok_or(NotRead::Expired)?;
        let end = end.unwrap_or(head.cursor.position).min(head.cursor.position);
        let LogMatches { mut events, read_to, log } = self.store.log_matches(interest, from, end, limit).await?;
        // up to here the log is still what it is to the hub
        let Ok(void_from) = log.epochs.void_from(head.cursor.epoch) else { return Ok(None) };
        let sure = void_from.map_or(log.head.position, |void_from| log.head.position.min(Position(void_from.0 - 1)));
        let mut upto = end.min(sure);
        if upto <= from {
            return Ok(None);
        }
        if log.oldest >= upto {
            return Err(NotRead::Expired);
        }
        events.retain(|event| event.position <= upto);
        upto = upto.min(read_to);
        let upto = match events.last() {
            Some(last) if last.position == upto => last.cursor(),
            _ if upto == head.cursor.position => head.cursor,
            _ => Cursor { epoch: head.cursor.epoch, position: upto, logged_at: Cursor::UNKNOWN_TIME },
        };
        Ok(Some(Stretch { from: from.max(log.oldest), events, upto, numbering }))
    }

    /// The place from which a client goes on that has seen everything up to a cursor. Whether the log reaches back so far
    /// shows when it is read.
    pub async fn locate(&self, cursor: Cursor) -> Result<Place, NotRead> {
        let mut changes = self.hub.watch();
        let mut confirmed = false;
        loop {
            changes.borrow_and_update();
            let known = match self.hub.locate(cursor) {
                Some(Located::At(place)) => return Ok(place),
                Some(Located::Ahead(place)) if confirmed => return Ok(place),
                Some(Located::Void) => return Err(NotRead::Expired),
                Some(Located::Ahead(_)) => true,
                Some(Located::UnknownEpoch) | None => false,
            };
            if !confirmed {
                let log = self.newest().await?;
                let void_from = log.epochs.void_from(cursor.epoch).map_err(|_| NotRead::Expired)?;
                if void_from.is_some_and(|void_from| cursor.position >= void_from)
                    || cursor.position > log.head.position
                {
                    return Err(NotRead::Expired);
                }
                confirmed = true;
            }
            if !known && changes.changed().await.is_err() {
                return Err(NotRead::Expired);
            }
        }
    }

    /// The log as it is after a call of the sequencer that began after this was asked. Who asks at the same time shares it.
    pub async fn newest(&self) -> Newest {
        let asked = Instant::now();
        let mut newest = self.newest.lock().await;
        if let Some((began, log)) = &*newest
            && *began >= asked
        {
            return log.clone();
        }
        let began = Instant::now();
        let log = self.sequence_and_read().await.map(Arc::new).map_err(Arc::new);
        *newest = Some((began, log.clone()));
        log
    }

    async fn sequence_and_read(&self) -> Result<LogState, StoreError> {
        loop {
            let called = self.store.sequence_events(None).await?;
            if called.head.is_some() && !called.more {
                break;
            }
            if called.head.is_none() {
                sleep(SEQUENCER_RETRY).await;
            }
        }
        self.store.log_state().await
    }
}
