//! Makes the blocks that a feed's subscribers wish for, in their order; a task that lives as long as there is a wish.
//!
//! Few are made at a time, of all feeds, and only so many of them use the database: those who catch up, however many, leave
//! both to those who are live.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::error;

use super::block::{Block, Outcome, Wanted};
use super::feed::Feed;
use super::lanes::Lanes;
use super::payload::errors_json;
use crate::domain::Position;
use crate::events::{Delivery, NotRead, Place, Stretch, StretchBounds};
use crate::graphql::{Code, Refusal};

/// Waits between attempts while the database is away, each of which has waited for the database itself.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

pub async fn fill(feed: Arc<Feed>) {
    let live = feed.live();
    let access = (&live.replay_database, live.limits.replay_connections);
    let mut lanes = Lanes::new(live, feed.key(), access, Vec::new());
    loop {
        let Some(wanted) = feed.blocks.lock().next_wanted() else { return };
        let made = AssertUnwindSafe(make(&feed, &mut lanes, &wanted)).catch_unwind().await;
        let outcome = made.unwrap_or_else(|_| {
            error!("a replay failed; who waits for it is told");
            let refusal = live.gateway.refusal(Code::InternalServerError, "internal server error");
            Outcome::Failed(errors_json(&refusal.errors))
        });
        feed.blocks.lock().close(&wanted);
        // nobody may wait any more
        let _ = wanted.done.send(outcome);
        live.budget.evict();
    }
}

async fn make(feed: &Arc<Feed>, lanes: &mut Lanes<'_>, wanted: &Wanted) -> Outcome {
    let live = feed.live();
    let end = {
        let mut blocks = feed.blocks.lock();
        // made meanwhile, for one who was below
        if let Some(block) = blocks.covering(wanted.from.position, live.hub()) {
            return Outcome::Made(block);
        }
        blocks.next_after(wanted.from.position)
    };
    match stretch(feed, wanted.from, end).await {
        Ok(stretch) => execute(feed, lanes, stretch).await,
        Err(NotRead::Expired) => Outcome::Expired,
        Err(NotRead::Store(failed)) => {
            Outcome::Failed(errors_json(&live.gateway.refuse(Refusal::from(&*failed)).errors))
        }
    }
}

/// Reads what is to be executed; again, while the database is away.
async fn stretch(feed: &Arc<Feed>, from: Place, end: Option<Position>) -> Result<Stretch, NotRead> {
    let live = feed.live();
    let bounds = StretchBounds { scan: live.limits.block_scan, matches: live.limits.block_events };
    let mut pauses = RETRY_PAUSES.into_iter();
    loop {
        match live.history.stretch(feed.inbox().interest(), from, end, bounds, &live.replay_database).await {
            Err(NotRead::Store(failed)) if failed.is_unavailable() => match pauses.next() {
                Some(pause) => sleep(pause).await,
                None => return Err(NotRead::Store(failed)),
            },
            other => return other,
        }
    }
}

/// A block ends early where its results are larger than a block should be.
async fn execute(feed: &Arc<Feed>, lanes: &mut Lanes<'_>, stretch: Stretch) -> Outcome {
    let live = feed.live();
    let Stretch { from, events, mut upto, numbering } = stretch;
    let deliveries: Vec<Delivery> = events.into_iter().map(Delivery::Event).collect();
    let Ok(_turn) = live.replays.acquire().await else { return Outcome::Expired };
    let (mut frames, mut bytes) = (Vec::with_capacity(deliveries.len()), 0);
    let mut rest = &deliveries[..];
    while !rest.is_empty() {
        let (step, later) = rest.split_at(rest.len().min(lanes.step()));
        match lanes.run(step).await {
            Ok(executed) => {
                bytes += executed.iter().map(|frame| frame.payload.len()).sum::<usize>();
                frames.extend(executed);
            }
            Err(errors) => return Outcome::Failed(errors_json(&errors)),
        }
        rest = later;
        if bytes >= live.limits.block_bytes && !rest.is_empty() {
            upto = step.last().map_or(upto, Delivery::cursor);
            break;
        }
        yield_now().await;
    }
    live.counts.blocks.increment(1);
    let block: Arc<Block> = live.budget.block(feed, (from, upto), numbering, frames);
    feed.blocks.lock().insert(Arc::clone(&block));
    Outcome::Made(block)
}
