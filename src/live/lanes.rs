//! Executions of one subscription: one for what follows from the event alone, several side by side where the selection waits
//! for the database.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_graphql::{Response, ServerError};
use futures::FutureExt as _;
use futures::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::error;

use super::Live;
use super::execution::{Broken, Execution};
use super::feed::{Frame, Key};
use super::payload::result_json;
use crate::events::Delivery;
use crate::graphql::Code;

/// Deliveries that are executed before others get their turn.
const STEP: usize = 64;
/// Waits between attempts while the database is away, each of which has waited for the database itself.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// Why nothing was executed.
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

/// Executions that are open, and what they may use.
pub struct Lanes<'l> {
    pub executions: Vec<Execution>,
    live: &'l Live,
    key: &'l Key,
    /// Executions at a time that wait for the database, of all who share this.
    waiting: &'l Semaphore,
    /// Executions side by side.
    most: usize,
}

impl<'l> Lanes<'l> {
    pub fn new(
        live: &'l Live,
        key: &'l Key,
        (waiting, most): (&'l Semaphore, usize),
        executions: Vec<Execution>,
    ) -> Self {
        Self { executions, live, key, waiting, most }
    }

    /// How many deliveries are worth executing at a time: few where the selection waits, so that a slow one delivers as it
    /// goes; as long as nothing is known of that, too.
    pub fn step(&self) -> usize {
        if self.executions.first().is_none_or(|execution| execution.awaited) { self.most } else { STEP }
    }

    /// Executes in order, once or, while the database is away, a few times. `Err`: what to tell those who wait.
    pub async fn run(&mut self, deliveries: &[Delivery]) -> Result<Vec<Frame>, Vec<ServerError>> {
        let mut pauses = RETRY_PAUSES.into_iter();
        loop {
            let failure = match AssertUnwindSafe(self.attempt(deliveries)).catch_unwind().await {
                Ok(Ok(frames)) => return Ok(frames),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Defect,
            };
            // what was cut in a run is of no more use
            self.executions.clear();
            match failure {
                Failure::Unavailable(response) => match pauses.next() {
                    Some(pause) => sleep(pause).await,
                    None => return Err(response.errors),
                },
                Failure::Defect => {
                    error!("a subscription's execution failed; who waits for it is told");
                    return Err(self.live.gateway.refusal(Code::InternalServerError, "internal server error").errors);
                }
            }
        }
    }

    async fn attempt(&mut self, deliveries: &[Delivery]) -> Result<Vec<Frame>, Failure> {
        if self.executions.is_empty() {
            self.open().await?;
        }
        let awaited = self.executions[0].awaited;
        while awaited && self.executions.len() < deliveries.len().min(self.most) {
            self.open().await?;
        }
        let lanes = if awaited { self.executions.len().min(deliveries.len()) } else { 1 };
        let _turn = if awaited {
            let lanes = u32::try_from(lanes).map_err(|_| Failure::Defect)?;
            Some(self.waiting.acquire_many(lanes).await.map_err(|_| Failure::Defect)?)
        } else {
            None
        };
        let running = self.executions[..lanes].iter_mut().enumerate().map(|(lane, execution)| async move {
            let mut responses = Vec::with_capacity(deliveries.len() / lanes + 1);
            for delivery in deliveries.iter().skip(lane).step_by(lanes) {
                responses.push(execution.run(delivery.clone()).await?);
            }
            Ok::<_, Broken>(responses.into_iter())
        });
        let mut responses = try_join_all(running).await?;
        let mut frames = Vec::with_capacity(deliveries.len());
        for (at, delivery) in deliveries.iter().enumerate() {
            let response = responses[at % lanes].next().ok_or(Failure::Defect)?;
            if is_unavailable(&response) {
                return Err(Failure::Unavailable(Box::new(response)));
            }
            let cursor = delivery.cursor();
            frames.push(Frame { cursor, payload: result_json(&response, cursor) });
        }
        self.live.counts.executions.increment(deliveries.len() as u64);
        Ok(frames)
    }

    async fn open(&mut self) -> Result<(), Failure> {
        let opened = Execution::open(&self.live.gateway, self.key.request(), self.key.access()).await;
        let (execution, _) = opened.map_err(|_| Failure::Defect)?;
        self.executions.push(execution);
        Ok(())
    }
}

fn is_unavailable(response: &Response) -> bool {
    let code = async_graphql::Value::from(Code::DatabaseUnavailable.as_str());
    response.errors.iter().any(|error| {
        error.extensions.as_ref().and_then(|extensions| extensions.get("code")).is_some_and(|found| *found == code)
    })
}
