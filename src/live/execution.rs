//! The library's own stream of one subscription: one delivery in, one response out.

use std::future::poll_fn;
use std::task::Poll;

use async_graphql::{Request, Response};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::domain::{Access, Interest};
use crate::events::{Delivery, EventSlot};
use crate::graphql::Gateway;

/// An open execution. It belongs to a task that nobody cancels: one that was cut in a run is of no more use, because the
/// response of the cut run is still inside and would be taken for the next one's.
pub struct Execution {
    stream: BoxStream<'static, Response>,
    slot: EventSlot,
    busy: bool,
    /// A run has had to wait for something, as a `DataLoader`: several side by side are worth it.
    pub awaited: bool,
}

/// Why there is no execution.
#[derive(Debug)]
pub enum NotOpened {
    /// A request error.
    Refused(Box<Response>),
    /// The stream ended at once: the library saw no field at the root.
    NoField,
}

/// The stream ended, or an earlier run of it was cut.
#[derive(Debug)]
pub struct Broken;

impl Execution {
    /// Parses, validates and runs the resolver, which says what it filters for. A request error is `Err`.
    pub async fn open(gateway: &Gateway, request: Request, access: &Access) -> Result<(Self, Interest), NotOpened> {
        let slot = EventSlot::default();
        let mut stream = gateway.open_subscription(request, access, slot.clone());
        let interest = poll_fn(|context| match stream.poll_next_unpin(context) {
            Poll::Ready(Some(response)) => Poll::Ready(Err(NotOpened::Refused(Box::new(response)))),
            Poll::Ready(None) => Poll::Ready(Err(NotOpened::NoField)),
            Poll::Pending => slot.interest().map_or(Poll::Pending, |interest| Poll::Ready(Ok(interest))),
        })
        .await?;
        Ok((Self { stream, slot, busy: false, awaited: false }, interest))
    }

    /// The one response for this delivery.
    pub async fn run(&mut self, delivery: Delivery) -> Result<Response, Broken> {
        if std::mem::replace(&mut self.busy, true) {
            return Err(Broken);
        }
        self.slot.put(delivery);
        let (stream, awaited) = (&mut self.stream, &mut self.awaited);
        let response = poll_fn(|context| {
            let polled = stream.poll_next_unpin(context);
            *awaited |= polled.is_pending();
            polled
        })
        .await
        .ok_or(Broken)?;
        // taken, and its response is the only one inside: the stream asks for the next only after it gave this one
        if !self.slot.is_taken() {
            return Err(Broken);
        }
        self.busy = false;
        Ok(response)
    }
}
