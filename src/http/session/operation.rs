//! An operation of a connection.

use async_graphql::Response;
use futures::future::BoxFuture;

use super::protocol::OperationId;
use crate::http::paced::Paced;
use crate::live::Subscriber;

pub struct Operation {
    pub id: OperationId,
    pub running: Running,
}

impl Operation {
    /// The client takes nothing for now.
    pub fn rest(&mut self) {
        if let Running::Subscription(subscriber) = &mut self.running {
            subscriber.rest();
        }
    }

    pub fn is_subscription(&self) -> bool {
        matches!(self.running, Running::Opening(_) | Running::Subscription(_))
    }
}

pub enum Running {
    Opening(BoxFuture<'static, Result<Subscriber, Box<Response>>>),
    Subscription(Paced),
    Execution(BoxFuture<'static, Response>),
}
