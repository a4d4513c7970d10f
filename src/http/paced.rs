//! A subscription whose events are sent no faster than they may be.

use std::task::{Context, Poll};

use metrics::counter;
use tokio::time::Instant;

use super::pace::{Alarm, Pace, Rate};
use crate::domain::Cursor;
use crate::live::{Ended, Frame, Subscriber};
use crate::telemetry::metric;

/// A subscriber, at a rate where there is one. What is too much for that waits in the log, as it does for a client that reads
/// slowly: nothing is left out, and nothing is kept for it.
pub struct Paced {
    subscriber: Subscriber,
    pace: Pace,
}

impl Paced {
    pub fn new(subscriber: Subscriber) -> Self {
        Self { subscriber, pace: Pace::new(Instant::now()) }
    }

    /// [`Subscriber::poll_take`], of no more than is due. While nothing is, the alarm has the task woken when something is.
    pub fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        (limit, bytes): (usize, usize),
        frames: &mut Vec<Frame>,
        (rate, alarm): (Option<Rate>, &mut Alarm),
    ) -> Poll<Result<(), Ended>> {
        let Some(rate) = rate else { return self.subscriber.poll_take(context, limit, bytes, frames) };
        let now = Instant::now();
        let due = match self.pace.due(rate, now) {
            Ok(due) => usize::try_from(due).unwrap_or(usize::MAX),
            Err(until) => {
                self.subscriber.rest();
                alarm.set(until, context);
                return Poll::Pending;
            }
        };
        let before = frames.len();
        let polled = self.subscriber.poll_take(context, limit.min(due), bytes, frames);
        self.pace.count(rate, u32::try_from(frames.len() - before).unwrap_or(u32::MAX), now);
        if self.pace.due(rate, now).is_err() {
            counter!(metric::HELD_BACK).increment(1);
        }
        polled
    }

    /// [`Subscriber::rest`].
    pub fn rest(&mut self) {
        self.subscriber.rest();
    }

    /// [`Subscriber::bookmark`].
    pub fn bookmark(&mut self) -> Option<Cursor> {
        self.subscriber.bookmark()
    }
}
