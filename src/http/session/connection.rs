//! One WebSocket connection: reads messages, pulls results while the socket takes them, and keeps the time.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_graphql::Request;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::{Sink, Stream};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::end::{End, end_of};
use super::identity::{Identity, Turn};
use super::operation::{Operation, Running};
use super::pace::Pace;
use super::protocol::{self, Action, Close, OperationId, Protocol};
use crate::auth::Invalid;
use crate::config::SessionConfig;
use crate::graphql::{Code, OperationType, is_request_error};
use crate::http::authenticate;
use crate::live::{Frame, Live, errors_json, response_json};

/// Results that one operation may queue before the connection's others get their turn.
const TURN: usize = 64;
/// Answers that may wait for a client to read them before no more of its messages are read.
const MAX_WAITING_ANSWERS: usize = 16;
/// Messages that are read before results get their turn.
const READ_TURN: usize = 16;
/// How long a client may take to answer a close frame.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

pub struct Connection {
    socket: WebSocket,
    live: Arc<Live>,
    identity: Identity,
    config: SessionConfig,
    protocol: Protocol,
    operations: Vec<Operation>,
    /// Which operation is asked first; moves on, so that none starves.
    turn: usize,
    /// Answers that go before results.
    answers: Vec<String>,
    /// Bytes that the socket has taken since it was last flushed to the end.
    queued: usize,
    flush: Flush,
    pace: Pace,
    /// Until when nothing more is read of a client that sends too fast.
    pause: Option<Pin<Box<Sleep>>>,
    /// The service drains: what is under way is finished, and nothing is begun.
    draining: bool,
    heard: bool,
    timer: Pin<Box<Sleep>>,
    frames: Vec<Frame>,
}

/// How far what the socket has taken is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    Done,
    Wanted,
    /// The client has to read before it can end.
    Blocked,
}

impl Connection {
    pub fn new(socket: WebSocket, live: Arc<Live>, identity: Identity, config: SessionConfig) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + config.init_timeout));
        let pace = Pace::new(config.max_messages_per_second, now);
        Self {
            socket,
            live,
            identity,
            config,
            protocol: Protocol::default(),
            operations: Vec::new(),
            turn: 0,
            answers: Vec::new(),
            queued: 0,
            flush: Flush::Done,
            pace,
            pause: None,
            draining: false,
            heard: false,
            timer,
            frames: Vec::new(),
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
        self.operations.clear();
        if let End::Close(close) = end {
            // a client that does not answer is left
            let _ = timeout(CLOSE_GRACE, self.close(close)).await;
        }
    }

    async fn close(&mut self, close: Close) -> Result<(), axum::Error> {
        let frame = CloseFrame { code: close.code, reason: close.reason.into() };
        let mut message = Some(Message::Close(Some(frame)));
        poll_fn(|context| {
            ready!(Pin::new(&mut self.socket).poll_ready(context))?;
            if let Some(message) = message.take() {
                Pin::new(&mut self.socket).start_send(message)?;
            }
            Pin::new(&mut self.socket).poll_flush(context)
        })
        .await?;
        // what the client has sent is read, or its network stack would throw the close frame away with the connection
        poll_fn(|context| {
            while let Some(Ok(_)) = ready!(Pin::new(&mut self.socket).poll_next(context)) {}
            Poll::Ready(())
        })
        .await;
        Ok(())
    }

    /// Forgets the subscriptions, without a word: a client that hears of a restart subscribes anew.
    fn drain(&mut self) {
        self.draining = true;
        self.operations.retain(|operation| matches!(operation.running, Running::Execution(_)));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
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
                let done = self.operations.is_empty() && self.flush == Flush::Done;
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
    }

    /// The connection's one timer: for `connection_init`, then for pings.
    fn poll_time(&mut self, context: &mut Context<'_>) -> Poll<End> {
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if let Some(close) = self.protocol.init_timed_out() {
                return Poll::Ready(End::Close(close));
            }
            // one that drains reads nothing
            if !std::mem::take(&mut self.heard) && !self.draining {
                return Poll::Ready(End::Close(Close::silent()));
            }
            let moved = self.operations.iter_mut().filter_map(|operation| match &mut operation.running {
                Running::Subscription(subscriber) => Some((&*operation.id, subscriber.bookmark()?.encode())),
                Running::Opening(_) | Running::Execution(_) => None,
            });
            let ping = protocol::ping(moved);
            self.answers.push(ping);
            self.timer.as_mut().reset(now + self.config.ping_interval);
        }
        Poll::Pending
    }

    /// Lets the client in, or sends it away: its operations are told first.
    fn poll_identity(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        while let Poll::Ready(turn) = self.identity.poll(context) {
            match turn {
                Turn::Admitted => {
                    let acknowledgement = self.protocol.acknowledge(self.live.cursor().as_deref());
                    self.answers.push(acknowledgement);
                    self.timer.as_mut().reset(Instant::now() + self.config.ping_interval);
                }
                Turn::Refreshed => self.answers.push(protocol::pong()),
                Turn::Out(why, close) => {
                    self.tell_operations(why)?;
                    return Err(End::Close(close));
                }
            }
        }
        Ok(())
    }

    fn tell_operations(&mut self, why: Option<Invalid>) -> Result<(), End> {
        let Some(why) = why else { return Ok(()) };
        let errors = errors_json(&self.live.gateway().refuse(authenticate::ended(why)).errors);
        for operation in std::mem::take(&mut self.operations) {
            self.send(protocol::error(&operation.id, &errors))?;
        }
        Ok(())
    }

    /// Reads what there is, for one turn. True: something was read, and what it began has to be looked at.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut read = false;
        for _ in 0..READ_TURN {
            if self.answers.len() >= MAX_WAITING_ANSWERS || self.identity.is_refreshing() {
                return Ok(read);
            }
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    return Ok(read);
                }
                self.pause = None;
            }
            let message = match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Pending => return Ok(read),
                Poll::Ready(None) => return Err(End::Gone),
                Poll::Ready(Some(Err(error))) => return Err(end_of(error)),
                Poll::Ready(Some(Ok(message))) => message,
            };
            read = true;
            self.heard = true;
            self.pause = self.pace.read(Instant::now()).map(|until| Box::pin(sleep_until(until)));
            match message {
                Message::Text(text) => {
                    let action = self.protocol.text(&text);
                    self.act(action)?;
                }
                Message::Binary(_) => return Err(End::Close(Protocol::binary())),
                // the library has put its answer into the socket's buffer
                Message::Ping(_) => self.flush_next(),
                Message::Pong(_) => {}
                Message::Close(_) => return Err(End::Gone),
            }
        }
        Ok(read)
    }

    fn act(&mut self, action: Action) -> Result<(), End> {
        match action {
            Action::Nothing => {}
            Action::Pong => self.answers.push(protocol::pong()),
            Action::Initialise(bearer) => self.identity.initialise(bearer),
            Action::Refresh(bearer) => self.identity.refresh(bearer),
            Action::Start(id, request) => self.start(id, *request),
            Action::Stop(id) => self.operations.retain(|operation| operation.id != id),
            Action::Close(close) => return Err(End::Close(close)),
        }
        Ok(())
    }

    fn start(&mut self, id: OperationId, mut request: Request) {
        if self.operations.len() >= self.config.max_operations {
            let limit = self.config.max_operations;
            let message = format!("a connection may have {limit} operations open");
            let mut refused = self.live.gateway().refusal(Code::RateLimitExceeded, message);
            for error in &mut refused.errors {
                error.extensions.get_or_insert_default().set("limit", limit);
            }
            self.protocol.ended(&id);
            self.answers.push(protocol::error(&id, &errors_json(&refused.errors)));
            return;
        }
        // the protocol starts nothing on a connection that is not acknowledged
        let Some(viewer) = self.identity.viewer().cloned() else { return };
        let live = Arc::clone(&self.live);
        let running = if live.gateway().operation_type(&mut request) == Some(OperationType::Subscription) {
            Running::Opening(Box::pin(async move { live.subscribe(request, &viewer.access, None).await }))
        } else {
            Running::Execution(Box::pin(async move { live.gateway().execute(request, viewer).await }))
        };
        self.operations.push(Operation { id, running });
    }

    /// Writes what there is until the socket takes no more. True: something was written to the end.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut wrote = false;
        loop {
            if self.flush != Flush::Done {
                match Pin::new(&mut self.socket).poll_flush(context) {
                    Poll::Pending => {
                        self.flush = Flush::Blocked;
                        return Ok(wrote);
                    }
                    Poll::Ready(Err(_)) => return Err(End::Gone),
                    Poll::Ready(Ok(())) => {
                        // a client that reads is there, though its answers are behind what it still has to read
                        self.heard |= self.flush == Flush::Blocked;
                        self.flush = Flush::Done;
                        self.queued = 0;
                        wrote = true;
                    }
                }
            }
            for answer in std::mem::take(&mut self.answers) {
                self.send(answer)?;
            }
            self.pull(context)?;
            if self.queued == 0 {
                return Ok(wrote);
            }
            self.flush_next();
        }
    }

    /// Has the next turn of writing begin with a flush, if it would not anyway.
    fn flush_next(&mut self) {
        if self.flush == Flush::Done {
            self.flush = Flush::Wanted;
        }
    }

    fn send(&mut self, text: String) -> Result<(), End> {
        self.queued += text.len();
        Pin::new(&mut self.socket).start_send(Message::Text(text.into())).map_err(|_| End::Gone)
    }

    /// Asks every operation for what it has, as long as the flush has room.
    fn pull(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        let count = self.operations.len();
        let mut ended = Vec::new();
        for offset in 0..count {
            if self.queued >= self.config.max_queued_bytes {
                break;
            }
            let at = (self.turn + offset) % count;
            if self.pull_one(at, context)? {
                ended.push(Arc::clone(&self.operations[at].id));
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        for id in ended {
            self.operations.retain(|operation| operation.id != id);
            self.protocol.ended(&id);
        }
        Ok(())
    }

    /// Pulls from one operation. True: it has ended.
    fn pull_one(&mut self, at: usize, context: &mut Context<'_>) -> Result<bool, End> {
        let Operation { id, running } = &mut self.operations[at];
        let id = Arc::clone(id);
        if let Running::Opening(opening) = running {
            match opening.as_mut().poll(context) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(subscriber)) => *running = Running::Subscription(subscriber),
                Poll::Ready(Err(refused)) => {
                    self.send(protocol::error(&id, &errors_json(&refused.errors)))?;
                    return Ok(true);
                }
            }
        }
        match running {
            Running::Opening(_) => Ok(false),
            Running::Execution(execution) => {
                let Poll::Ready(response) = execution.as_mut().poll(context) else { return Ok(false) };
                if is_request_error(&response) {
                    self.send(protocol::error(&id, &errors_json(&response.errors)))?;
                } else {
                    self.send(protocol::next(&id, &response_json(&response)))?;
                    self.send(protocol::complete(&id))?;
                }
                Ok(true)
            }
            Running::Subscription(subscriber) => {
                let mut frames = std::mem::take(&mut self.frames);
                let room = self.config.max_queued_bytes.saturating_sub(self.queued);
                let taken = subscriber.poll_take(context, TURN, room, &mut frames);
                for frame in frames.drain(..) {
                    self.send(protocol::next(&id, &frame.payload))?;
                }
                self.frames = frames;
                match taken {
                    Poll::Pending | Poll::Ready(Ok(())) => Ok(false),
                    Poll::Ready(Err(ended)) => {
                        self.send(protocol::error(&id, &ended.0))?;
                        Ok(true)
                    }
                }
            }
        }
    }
}
