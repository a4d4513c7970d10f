//! Executes what is in a feed's inbox, in order; a task that lives as long as there is something.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::Response;
use futures::FutureExt as _;
use futures::future::try_join_all;
use tokio::time::sleep;
use tracing::error;

use super::execution::{Broken, Execution};
use super::feed::{Feed, Frame};
use super::payload::result_json;
use crate::events::{Delivery, Item};
use crate::graphql::Code;

/// Items that are taken from the inbox at a time.
const BATCH: usize = 64;
/// Waits between attempts while the database is away, each of which has waited for the database itself; then the feed ends.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// A result; a HEARTBEAT's with its tick.
type Executed = (Frame, Option<u64>);

/// Why a feed ends.
enum Failure {
    /// A selection failed because the database is away.
    Unavailable(Box<Response>),
    /// A panic, or an execution that cannot be opened or ends.
    Defect,
}

impl From<Broken> for Failure {
    fn from(_: Broken) -> Self {
        Self::Defect
    }
}

pub async fn run(feed: Arc<Feed>) {
    let mut executions = feed.take_executions();
    let mut tick = feed.state.lock().beat.as_ref().map_or(0, |beat| beat.tick);
    let mut only_beats = true;
    loop {
        let items = feed.inbox().take(BATCH);
        only_beats &= items.iter().all(|item| matches!(item, Item::Delivery(Delivery::Heartbeat(_))));
        if items.is_empty() {
            // where nothing else happens an open execution would take far more memory than it saves time
            if only_beats {
                executions.clear();
            }
            match feed.rest(executions) {
                Ok(()) => return,
                Err(again) => executions = again,
            }
            continue;
        }
        let mut deliveries = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Delivery(delivery) => deliveries.push(delivery),
                Item::Overflow(position) => {
                    if !deliver(&feed, &mut executions, &mut deliveries, &mut tick).await {
                        return;
                    }
                    feed.overflow(position);
                }
                Item::Rewind(rewound_to) => {
                    if !deliver(&feed, &mut executions, &mut deliveries, &mut tick).await {
                        return;
                    }
                    feed.rewind(rewound_to);
                }
            }
        }
        if !deliver(&feed, &mut executions, &mut deliveries, &mut tick).await {
            return;
        }
    }
}

/// Executes and publishes. False: the feed has failed.
async fn deliver(
    feed: &Arc<Feed>,
    executions: &mut Vec<Execution>,
    deliveries: &mut Vec<Delivery>,
    tick: &mut u64,
) -> bool {
    let mut pauses = RETRY_PAUSES.into_iter();
    while !deliveries.is_empty() {
        // short steps where a selection waits, so that a slow one delivers as it goes
        let waits = executions.first().is_none_or(|execution| execution.awaited);
        let step = deliveries.len().min(if waits { feed.limits().side_by_side } else { BATCH });
        let executed = AssertUnwindSafe(execute(feed, executions, &deliveries[..step], tick)).catch_unwind().await;
        let failure = match executed {
            Ok(Ok(results)) => {
                feed.publish(results);
                deliveries.drain(..step);
                continue;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Defect,
        };
        // what was cut in a run is of no more use
        executions.clear();
        let errors = match failure {
            Failure::Unavailable(response) => match pauses.next() {
                Some(pause) => {
                    sleep(pause).await;
                    continue;
                }
                None => response.errors,
            },
            Failure::Defect => {
                error!("a subscription's execution failed; its subscribers are told");
                let Some(live) = feed.live() else { return false };
                live.gateway().refusal(Code::InternalServerError, "internal server error").errors
            }
        };
        feed.fail(&errors);
        return false;
    }
    true
}

/// Runs deliveries in order. Where the selection waits for something, several side by side, each on an execution of its own.
async fn execute(
    feed: &Arc<Feed>,
    executions: &mut Vec<Execution>,
    deliveries: &[Delivery],
    tick: &mut u64,
) -> Result<Vec<Executed>, Failure> {
    if executions.is_empty() {
        executions.push(open(feed).await?);
    }
    while executions[0].awaited && executions.len() < deliveries.len().min(feed.limits().side_by_side) {
        executions.push(open(feed).await?);
    }
    let lanes = if executions[0].awaited { executions.len().min(deliveries.len()) } else { 1 };
    let live = feed.live().ok_or(Failure::Defect)?;
    let _turn = if executions[0].awaited {
        let lanes = u32::try_from(lanes).map_err(|_| Failure::Defect)?;
        Some(live.waiting.acquire_many(lanes).await.map_err(|_| Failure::Defect)?)
    } else {
        None
    };
    let running = executions[..lanes].iter_mut().enumerate().map(|(lane, execution)| async move {
        let mut responses = Vec::with_capacity(deliveries.len() / lanes + 1);
        for delivery in deliveries.iter().skip(lane).step_by(lanes) {
            responses.push(execution.run(delivery.clone()).await?);
        }
        Ok::<_, Broken>(responses.into_iter())
    });
    let mut responses = try_join_all(running).await?;
    let mut results = Vec::with_capacity(deliveries.len());
    for (at, delivery) in deliveries.iter().enumerate() {
        let response = responses[at % lanes].next().ok_or(Failure::Defect)?;
        if is_unavailable(&response) {
            return Err(Failure::Unavailable(Box::new(response)));
        }
        let beat = matches!(delivery, Delivery::Heartbeat(_)).then(|| {
            *tick += 1;
            *tick
        });
        let cursor = delivery.cursor();
        results.push((Frame { cursor, payload: result_json(&response, cursor) }, beat));
    }
    Ok(results)
}

async fn open(feed: &Arc<Feed>) -> Result<Execution, Failure> {
    let live = feed.live().ok_or(Failure::Defect)?;
    let opened = Execution::open(live.gateway(), feed.key().request(), feed.key().access()).await;
    opened.map(|(execution, _)| execution).map_err(|_| Failure::Defect)
}

fn is_unavailable(response: &Response) -> bool {
    let code = async_graphql::Value::from(Code::DatabaseUnavailable.as_str());
    response.errors.iter().any(|error| {
        error.extensions.as_ref().and_then(|extensions| extensions.get("code")).is_some_and(|found| *found == code)
    })
}
