//! One WebSocket connection: reads messages, pulls results while the socket takes them, and keeps the time.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_graphql::Request;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::end::{End, end_of};
use super::identity::{Identity, Turn};
use super::operation::{Operation, Running};
use super::protocol::{self, Action, Close, OperationId, Protocol};
use super::websocket::WebSocket;
use crate::config::SessionConfig;
use crate::graphql::{OperationType, Refusal, is_request_error};
use crate::http::pace::{Alarm, Pace, Rate};
use crate::http::paced::Paced;
use crate::live::{Frame, Live, errors_json, response_json};

/// Results that one operation may queue before the others of its connection get their turn. In a burst this is what is
/// queued for each client, and the allocator keeps that much.
const TURN: usize = 32;
/// Bytes of answers that may wait for a client, beside results, before no more of its messages are read.
const MAX_WAITING_ANSWERS: usize = 4 << 10;
/// Messages that are read before results get their turn.
const READ_TURN: usize = 16;
/// Rounds of writing and reading before the other tasks of the process get their turn: what comes one by one needs two, to
/// see that there is no more; who has much to catch up with would keep a thread for milliseconds.
const ROUNDS: usize = 2;
/// How long a client may take to answer a close frame.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

pub struct Connection {
    socket: WebSocket,
    live: Arc<Live>,
    identity: Identity,
    config: SessionConfig,
    protocol: Protocol,
    operations: Vec<Operation>,
    /// Which operation is asked first; moves on, so that none starves.
    turn: usize,
    /// The client has to read before more can be written.
    blocked: bool,
    /// Of the client's messages.
    pace: Pace,
    /// Until when nothing more is read of a client that sends too fast.
    pause: Option<Pin<Box<Sleep>>>,
    /// When an operation may go on that has had too many events.
    due: Alarm,
    /// The service drains: what is under way is finished, and nothing is begun.
    draining: bool,
    heard: bool,
    timer: Pin<Box<Sleep>>,
}

impl Connection {
    pub fn new(socket: WebSocket, live: Arc<Live>, identity: Identity, config: SessionConfig) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + config.init_timeout));
        Self {
            socket,
            live,
            identity,
            config,
            protocol: Protocol::default(),
            operations: Vec::new(),
            turn: 0,
            blocked: false,
            pace: Pace::new(now),
            pause: None,
            due: Alarm::default(),
            draining: false,
            heard: false,
            timer,
        }
    }

    /// Serves until either side ends it, or the service drains and it is this connection's turn: then it ends as soon as
    /// what is executed has been answered.
    pub async fn serve(mut self, turn: impl Future<Output = ()>) {
        let end = tokio::select! {
            biased;
            end = poll_fn(|context| self.poll(context)) => end,
            () = turn => {
                self.drain();
                poll_fn(|context| self.poll(context)).await
            }
        };
        self.operations = Vec::new();
        // a client that does not take it is left
        let _ = match end {
            End::Close(close) => timeout(CLOSE_GRACE, self.socket.close(close)).await,
            End::Closed => timeout(CLOSE_GRACE, self.socket.flush()).await,
            End::Gone => return,
        };
    }

    /// Forgets the subscriptions, without a word: a client that hears of a restart subscribes anew.
    fn drain(&mut self) {
        self.draining = true;
        self.operations.retain(|operation| !operation.is_subscription());
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS {
            if let Poll::Ready(end) = self.poll_time(context) {
                return Poll::Ready(end);
            }
            if let Err(end) = self.poll_identity(context) {
                return Poll::Ready(end);
            }
            let wrote = match self.poll_write(context) {
                Ok(wrote) => wrote,
                Err(end) => return Poll::Ready(end),
            };
            if self.draining {
                let done = self.operations.is_empty() && !self.socket.wants_flush();
                return if done { Poll::Ready(End::Close(Close::restart())) } else { Poll::Pending };
            }
            let read = match self.poll_read(context) {
                Ok(read) => read,
                Err(end) => return Poll::Ready(end),
            };
            if !wrote && !read {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// The connection's one timer: for `connection_init`, then for pings.
    fn poll_time(&mut self, context: &mut Context<'_>) -> Poll<End> {
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if let Some(close) = self.protocol.init_timed_out() {
                return Poll::Ready(End::Close(close));
            }
            // one that drains reads nothing, and who has to read before it can be asked anything has the time of a write
            if !std::mem::take(&mut self.heard) && !self.draining && !self.blocked {
                return Poll::Ready(End::Close(Close::silent()));
            }
            if !self.blocked {
                let moved = self.operations.iter_mut().filter_map(|operation| match &mut operation.running {
                    Running::Subscription(subscriber) => Some((&*operation.id, subscriber.bookmark()?.encode())),
                    Running::Opening(_) | Running::Execution(_) => None,
                });
                self.socket.text(|text| protocol::ping(text, moved));
            }
            self.timer.as_mut().reset(now + self.config.ping_interval);
        }
        Poll::Pending
    }

    /// Lets the client in, or sends it away: its operations are told first.
    fn poll_identity(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        while let Poll::Ready(turn) = self.identity.poll(context) {
            match turn {
                Turn::Admitted => {
                    let cursor = self.live.cursor();
                    self.socket.text(|text| self.protocol.acknowledge(text, cursor.as_deref()));
                    self.timer.as_mut().reset(Instant::now() + self.config.ping_interval);
                }
                Turn::Refreshed => self.socket.text(protocol::pong),
                Turn::Out(why, close) => {
                    self.tell_operations(why);
                    return Err(End::Close(close));
                }
            }
        }
        Ok(())
    }

    fn tell_operations(&mut self, why: Option<Refusal>) {
        let Some(why) = why else { return };
        let errors = errors_json(&self.live.gateway().refuse(why).errors);
        for operation in std::mem::take(&mut self.operations) {
            self.socket.text(|text| protocol::error(text, &operation.id, &errors));
        }
    }

    /// Reads what there is, for one turn. True: something was read, and what it began has to be looked at.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut read = false;
        for _ in 0..READ_TURN {
            let waiting = self.config.max_queued_bytes.saturating_add(MAX_WAITING_ANSWERS);
            if self.socket.queued() >= waiting || self.identity.is_refreshing() {
                return Ok(read);
            }
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    return Ok(read);
                }
                self.pause = None;
            }
            let message = match self.socket.poll_read(context) {
                Poll::Pending => return Ok(read),
                Poll::Ready(Err(error)) => return Err(end_of(&error)),
                Poll::Ready(Ok(message)) => message,
            };
            read = true;
            self.heard = true;
            let (rate, now) = (Rate::per_second(self.config.max_messages_per_second), Instant::now());
            self.pace.count(rate, 1, now);
            self.pause = self.pace.due(rate, now).err().map(|until| Box::pin(sleep_until(until)));
            match message {
                Message::Text(text) => {
                    let action = self.protocol.text(&text);
                    self.act(action)?;
                }
                Message::Binary(_) => return Err(End::Close(Protocol::binary())),
                // answered, and nothing else of us; the last is not read from sockets
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(_) => return Err(End::Closed),
            }
        }
        Ok(read)
    }

    fn act(&mut self, action: Action) -> Result<(), End> {
        match action {
            Action::Nothing => {}
            Action::Pong => self.socket.text(protocol::pong),
            Action::Initialise(bearer) => self.identity.initialise(bearer),
            Action::Refresh(bearer) => self.identity.refresh(bearer),
            Action::Start(id, request) => self.start(id, *request),
            Action::Stop(id) => self.forget(&id),
            Action::Close(close) => return Err(End::Close(close)),
        }
        Ok(())
    }

    fn start(&mut self, id: OperationId, mut request: Request) {
        let limit = self.config.max_operations;
        if self.operations.len() >= limit {
            let message = format!("a connection may have no more operations open than {limit}");
            return self.refuse(&id, Refusal::beyond(limit, message));
        }
        if let Err(failed) = self.identity.may_begin() {
            return self.refuse(&id, Refusal::from(&failed));
        }
        // the protocol starts nothing on a connection that is not acknowledged
        let Some(caller) = self.identity.caller() else { return };
        let live = Arc::clone(&self.live);
        let running = if live.gateway().operation_type(&mut request) == Some(OperationType::Subscription) {
            if let Err(refusal) = self.identity.holding().subscribe() {
                return self.refuse(&id, refusal);
            }
            Running::Opening(Box::pin(async move { live.subscribe(request, &caller.viewer().access, None).await }))
        } else {
            Running::Execution(Box::pin(async move { live.gateway().execute(request, caller).await }))
        };
        // most have one
        self.operations.reserve_exact(1);
        self.operations.push(Operation { id, running });
    }

    /// Ends an operation that has not begun.
    fn refuse(&mut self, id: &OperationId, refusal: Refusal) {
        self.protocol.ended(id);
        let refused = self.live.gateway().refuse(refusal);
        self.socket.text(|text| protocol::error(text, id, &errors_json(&refused.errors)));
    }

    /// Ends an operation, without a word.
    fn forget(&mut self, id: &OperationId) {
        if let Some(at) = self.operations.iter().position(|operation| operation.id == *id)
            && self.operations.remove(at).is_subscription()
        {
            self.identity.holding().unsubscribe();
        }
    }

    /// Writes what there is, for one turn. True: it was written to the end, and there may be more.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        if !self.blocked {
            self.pull(context);
        }
        if !self.socket.wants_flush() {
            return Ok(false);
        }
        let queued = self.socket.queued();
        let flushed = self.socket.poll_flush(context).map_err(|_| End::Gone)?;
        // a client that reads is there, though its answers are behind what it still has to read
        self.heard |= self.blocked && self.socket.queued() < queued;
        self.blocked = flushed.is_pending();
        if self.blocked {
            self.operations.iter_mut().for_each(Operation::rest);
        }
        Ok(!self.blocked)
    }

    /// Asks every operation for what it has, as long as there is room for it.
    fn pull(&mut self, context: &mut Context<'_>) {
        let count = self.operations.len();
        let (mut ended, mut frames) = (Vec::new(), Vec::new());
        for offset in 0..count {
            let room = self.config.max_queued_bytes.saturating_sub(self.socket.queued());
            if room == 0 {
                break;
            }
            let at = (self.turn + offset) % count;
            if self.pull_one(at, room, &mut frames, context) {
                ended.push(Arc::clone(&self.operations[at].id));
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        for id in ended {
            self.forget(&id);
            self.protocol.ended(&id);
        }
    }

    /// Pulls from one operation. True: it has ended.
    fn pull_one(&mut self, at: usize, room: usize, frames: &mut Vec<Frame>, context: &mut Context<'_>) -> bool {
        let Operation { id, running } = &mut self.operations[at];
        if let Running::Opening(opening) = running {
            match opening.as_mut().poll(context) {
                Poll::Pending => return false,
                Poll::Ready(Ok(subscriber)) => *running = Running::Subscription(Paced::new(subscriber)),
                Poll::Ready(Err(refused)) => {
                    self.socket.text(|text| protocol::error(text, id, &errors_json(&refused.errors)));
                    return true;
                }
            }
        }
        match running {
            Running::Opening(_) => false,
            Running::Execution(execution) => {
                let Poll::Ready(response) = execution.as_mut().poll(context) else { return false };
                if is_request_error(&response) {
                    self.socket.text(|text| protocol::error(text, id, &errors_json(&response.errors)));
                } else {
                    self.socket.text(|text| protocol::next(text, id, &response_json(&response)));
                    self.socket.text(|text| protocol::complete(text, id));
                }
                true
            }
            Running::Subscription(subscriber) => {
                let rate = self.config.max_events_per_second_per_subscription.map(Rate::per_second);
                let taken = subscriber.poll_take(context, (TURN, room), frames, (rate, &mut self.due));
                self.socket.reserve(frames.iter().map(|frame| protocol::next_bytes(id, &frame.payload)).sum());
                for frame in frames.drain(..) {
                    self.socket.text(|text| protocol::next(text, id, &frame.payload));
                }
                match taken {
                    Poll::Pending | Poll::Ready(Ok(())) => false,
                    Poll::Ready(Err(ended)) => {
                        self.socket.text(|text| protocol::error(text, id, &ended.0));
                        true
                    }
                }
            }
        }
    }
}
