//! The stream that a subscription's resolver opens: what its filter matches, by position, and HEARTBEATs in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::hub::{Expired, Hub, Place};
use crate::domain::{Cursor, Event, Filter};
use crate::telemetry::metric;

/// Events that are taken from the hub at a time.
const BATCH: usize = 256;

/// What a subscriber gets.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// An event that the filter matches.
    Event(Arc<Event>),
    /// Nothing of that has happened up to this cursor.
    Heartbeat(Cursor),
}

/// Where the resolver of one operation gets its events from; rides in the request's data.
pub struct Source {
    hub: Arc<Hub>,
    heartbeat_interval: Duration,
    opened: AtomicBool,
}

/// A subscription has one root field (GraphQL specification, section 5.2.3.1).
#[derive(Debug, thiserror::Error)]
#[error("a subscription has one root field")]
pub struct SecondRootField;

/// Events in order; ends with [`Expired`] where they cannot go on without a gap.
pub type EventStream = futures::stream::BoxStream<'static, Result<Delivery, Expired>>;

impl Source {
    pub fn new(hub: Arc<Hub>, heartbeat_interval: Duration) -> Self {
        Self { hub, heartbeat_interval, opened: AtomicBool::new(false) }
    }

    /// Opens the operation's stream, from now on.
    pub fn open(&self, filter: Filter) -> Result<EventStream, SecondRootField> {
        if self.opened.swap(true, Ordering::Relaxed) {
            return Err(SecondRootField);
        }
        Ok(Box::pin(Reader::new(&self.hub, filter, self.heartbeat_interval).into_stream()))
    }
}

/// Reads the hub by position.
struct Reader {
    hub: Arc<Hub>,
    filter: Filter,
    head: watch::Receiver<Option<Cursor>>,
    /// `None` until the hub has begun.
    place: Option<Place>,
    /// Taken from the hub, all of it matches.
    taken: VecDeque<Arc<Event>>,
    heartbeat: Option<Heartbeat>,
    ended: bool,
    _open: Open,
}

struct Heartbeat {
    interval: Duration,
    due: Instant,
}

impl Reader {
    fn new(hub: &Arc<Hub>, filter: Filter, heartbeat_interval: Duration) -> Self {
        let heartbeat = filter
            .wants_heartbeat()
            .then(|| Heartbeat { interval: heartbeat_interval, due: Instant::now() + heartbeat_interval });
        Self {
            head: hub.watch(),
            place: hub.now(),
            hub: Arc::clone(hub),
            filter,
            taken: VecDeque::new(),
            heartbeat,
            ended: false,
            _open: Open::new(),
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<Delivery, Expired>> + Send {
        unfold(self, |mut reader| async move {
            let delivery = reader.next().await?;
            counter!(metric::DELIVERIES).increment(1);
            Some((delivery, reader))
        })
    }

    async fn next(&mut self) -> Option<Result<Delivery, Expired>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(event) = self.taken.pop_front() {
                self.postpone_heartbeat();
                return Some(Ok(Delivery::Event(event)));
            }
            match self.take() {
                Err(expired) => {
                    self.ended = true;
                    return Some(Err(expired));
                }
                Ok(true) => continue,
                Ok(false) => {}
            }
            let Some(heartbeat) = &self.heartbeat else {
                if self.head.changed().await.is_err() {
                    return None;
                }
                continue;
            };
            match timeout_at(heartbeat.due, self.head.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => {
                    let confirmed = self.hub.confirmed_within(heartbeat.interval);
                    self.postpone_heartbeat();
                    if let (true, Some(cursor)) = (confirmed, self.reached()) {
                        return Some(Ok(Delivery::Heartbeat(cursor)));
                    }
                }
            }
        }
    }

    /// Takes a batch from the hub; whether there was any.
    fn take(&mut self) -> Result<bool, Expired> {
        // marked as seen before it is read, so that what comes in between wakes the next wait
        self.head.borrow_and_update();
        if self.place.is_none() {
            self.place = self.hub.now();
        }
        let Some(place) = &mut self.place else { return Ok(false) };
        let batch = self.hub.after(place, BATCH)?;
        let Some(last) = batch.last() else { return Ok(false) };
        place.advance(last.position);
        self.taken.extend(batch.into_iter().filter(|event| self.filter.matches(event)));
        Ok(true)
    }

    /// The hub's head, if everything up to it has been looked at.
    fn reached(&self) -> Option<Cursor> {
        let head = self.hub.head()?;
        (self.place?.position() >= head.position).then_some(head)
    }

    fn postpone_heartbeat(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.due = Instant::now() + heartbeat.interval;
        }
    }
}

/// Counts a subscription as open until it is dropped.
struct Open;

impl Open {
    fn new() -> Self {
        gauge!(metric::SUBSCRIPTIONS).increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!(metric::SUBSCRIPTIONS).decrement(1);
    }
}
