//! Turns: of those who catch up, few take from blocks at a time, however many there are.
//!
//! A herd that comes back would otherwise be ready to run all at once, and those who are live, like all else that this process
//! does, would wait behind the whole of it.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A subscriber's turn: in the order in which they ask, each as long as its socket takes what it gets.
#[derive(Default)]
pub enum Turn {
    #[default]
    None,
    Waiting(BoxFuture<'static, Option<OwnedSemaphorePermit>>),
    Held(#[expect(dead_code, reason = "held to be dropped")] OwnedSemaphorePermit),
}

impl Turn {
    /// Ready with the turn, which is then held.
    pub fn poll(&mut self, turns: &Arc<Semaphore>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::Held(_) => return Poll::Ready(()),
                Self::Waiting(acquired) => {
                    // the semaphore is never closed
                    *self = ready!(acquired.as_mut().poll(context)).map_or(Self::None, Self::Held);
                }
                Self::None => {
                    let turns = Arc::clone(turns);
                    *self = Self::Waiting(Box::pin(async move { turns.acquire_owned().await.ok() }));
                }
            }
        }
    }

    /// Gives back what is held; who waits goes on waiting.
    pub fn end(&mut self) {
        if matches!(self, Self::Held(_)) {
            *self = Self::None;
        }
    }
}
