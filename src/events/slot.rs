//! The slot of one event through which a subscription's resolver gets what happens, one execution at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;

use crate::domain::{Cursor, Event, Interest};

/// What a subscription's resolver gets.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// An event that is asked for.
    Event(Arc<Event>),
    /// Nothing of that has happened up to this cursor.
    Heartbeat(Cursor),
}

impl Delivery {
    /// The cursor of a subscriber that has got this and all before it.
    pub fn cursor(&self) -> Cursor {
        match self {
            Self::Event(event) => event.cursor(),
            Self::Heartbeat(cursor) => *cursor,
        }
    }
}

/// Rides in a request's data: the resolver finds it there, says what it wants, and returns the slot as its stream.
#[derive(Debug, Clone, Default)]
pub struct EventSlot(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    interest: Mutex<Option<Interest>>,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    delivery: Option<Delivery>,
    waker: Option<Waker>,
}

/// A subscription has one root field (GraphQL specification, section 5.2.3.1).
#[derive(Debug, thiserror::Error)]
#[error("a subscription has one root field")]
pub struct SecondRootField;

impl EventSlot {
    /// Called by the resolver, once: what it filters for, under which scope.
    pub fn open(&self, interest: Interest) -> Result<Deliveries, SecondRootField> {
        let mut wanted = self.0.interest.lock();
        if wanted.is_some() {
            return Err(SecondRootField);
        }
        *wanted = Some(interest);
        Ok(Deliveries(Arc::clone(&self.0)))
    }

    /// What the resolver has asked for, once it has.
    pub fn interest(&self) -> Option<Interest> {
        self.0.interest.lock().clone()
    }

    /// Hands the next delivery over. The stream polls its source only when the waker that it left is woken.
    pub fn put(&self, delivery: Delivery) {
        let waker = {
            let mut slot = self.0.slot.lock();
            slot.delivery = Some(delivery);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the last delivery has been taken by the resolver's stream.
    pub fn is_taken(&self) -> bool {
        self.0.slot.lock().delivery.is_none()
    }
}

/// The stream that a resolver returns: it never ends by itself.
pub struct Deliveries(Arc<Shared>);

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut slot = self.0.slot.lock();
        if let Some(delivery) = slot.delivery.take() {
            return Poll::Ready(Some(delivery));
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
