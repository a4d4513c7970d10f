//! GraphQL over Server-Sent Events: the distinct connections mode of the graphql-sse protocol, one operation a request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_graphql::Request;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use futures::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::AppState;
use super::accept::takes_event_stream;
use super::admission::Admitted;
use super::authenticate;
use super::graphql::{is_json, parse_body, parse_parameters};
use super::holding::Holding;
use super::pace::{Alarm, Rate};
use super::paced::Paced;
use super::problem::Problem;
use crate::auth::{Caller, Credential};
use crate::graphql::{Code, OperationType};
use crate::live::{Frame, Live, response_json};

/// Results that are handed to the socket at a time.
const CHUNK_RESULTS: usize = 64;
/// HTML, section 9.2.4.
const LAST_EVENT_ID: &str = "last-event-id";

pub async fn post(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if !is_json(&headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
    }
    match body.map_err(|rejection| (rejection.status(), rejection.body_text())) {
        Ok(body) => match parse_body(&body) {
            Ok(request) => stream(state, caller, &headers, request).await,
            Err(refusal) => Problem::from(refusal).into_response(),
        },
        Err((status, detail)) => refuse(status, detail),
    }
}

/// Subscriptions and queries, as a browser's `EventSource` asks.
pub async fn get(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(parameters): Query<HashMap<String, String>>,
) -> Response {
    match parse_parameters(parameters) {
        Ok(mut request) => {
            if state.live.gateway().operation_type(&mut request) == Some(OperationType::Mutation) {
                let allow = [(header::ALLOW, HeaderValue::from_static("POST"))];
                return (allow, refuse(StatusCode::METHOD_NOT_ALLOWED, "a mutation needs POST")).into_response();
            }
            stream(state, caller, &headers, request).await
        }
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

fn refuse(status: StatusCode, detail: impl Into<String>) -> Response {
    Problem::new(status, Code::BadUserInput, detail).into_response()
}

async fn stream(state: AppState, caller: Caller, headers: &HeaderMap, mut request: Request) -> Response {
    if !takes_event_stream(headers) {
        return refuse(StatusCode::NOT_ACCEPTABLE, "responses are text/event-stream");
    }
    let place = match state.admission.enter(caller.address) {
        Ok(place) => place,
        Err(refused) => return refused.into_response(),
    };
    let mut holding = Holding::new(&state.holdings, caller.address);
    if let Err(refused) = holding.pass_to(Arc::clone(&caller.credential)) {
        return Problem::from(refused).into_response();
    }
    let live = Arc::clone(&state.live);
    let running = if live.gateway().operation_type(&mut request) == Some(OperationType::Subscription) {
        if let Err(refused) = holding.subscribe() {
            return Problem::from(refused).into_response();
        }
        // before the response begins, so that a client which has its head misses nothing
        match live.subscribe(request, &caller.viewer().access, last_seen(headers)).await {
            Ok(subscriber) => Running::Subscription(Box::new(Paced::new(subscriber))),
            // told in the stream: of another answer an EventSource would see no more than that there was one
            Err(refused) => Running::Execution(Box::pin(ready(response_json(&refused)))),
        }
    } else {
        let caller = caller.clone();
        Running::Execution(Box::pin(async move { response_json(&live.gateway().execute(request, caller).await) }))
    };
    let interval = state.session.ping_interval;
    let events = Events {
        live: state.live,
        turn: Box::pin(place.turn()),
        _place: place,
        _holding: holding,
        ended: Box::pin(caller.credential.ended()),
        credential: caller.credential,
        running,
        interval,
        max_bytes: state.session.max_queued_bytes,
        rate: state.session.max_events_per_second_per_subscription.map(Rate::per_second),
        due: Alarm::default(),
        timer: Box::pin(sleep_until(Instant::now() + interval)),
        frames: Vec::new(),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Body::from_stream(events)).into_response()
}

/// What a client that comes back has seen last: the id of an event, which is its cursor.
fn last_seen(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty())?;
    Some(String::from_utf8_lossy(id.as_bytes()).into_owned())
}

enum Running {
    Subscription(Box<Paced>),
    Execution(BoxFuture<'static, Bytes>),
    /// `complete` has been sent.
    Completed,
}

/// The body of a response.
struct Events {
    live: Arc<Live>,
    /// Comes when the service drains.
    turn: BoxFuture<'static, ()>,
    _place: Admitted,
    _holding: Holding,
    credential: Arc<Credential>,
    /// Comes when the credential is good no more.
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    running: Running,
    interval: Duration,
    /// Of results that are handed to the socket at a time.
    max_bytes: usize,
    /// Of events; none where there is no limit.
    rate: Option<Rate>,
    /// When there may be events again.
    due: Alarm,
    timer: Pin<Box<Sleep>>,
    frames: Vec<Frame>,
}

impl Events {
    /// The last events of a stream.
    fn complete(&mut self, payload: Option<&[u8]>) -> Vec<u8> {
        self.running = Running::Completed;
        let mut text = Vec::new();
        if let Some(payload) = payload {
            push_next(&mut text, None, payload);
        }
        text.extend_from_slice(b"event: complete\ndata:\n\n");
        text
    }

    /// The last events of a stream whose credential has ended.
    fn refuse(&mut self) -> Vec<u8> {
        let why = self.credential.why().map(authenticate::ended);
        let payload = why.map(|why| response_json(&self.live.gateway().refuse(why)));
        self.complete(payload.as_deref())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        match &mut self.running {
            Running::Completed => return Poll::Ready(None),
            Running::Execution(execution) => {
                if let Poll::Ready(payload) = execution.as_mut().poll(context) {
                    return Poll::Ready(Some(self.complete(Some(&payload))));
                }
            }
            Running::Subscription(subscriber) => {
                // the end of the stream alone: an EventSource comes back by itself
                if self.turn.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                if self.ended.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Some(self.refuse()));
                }
                let (most, pace) = ((CHUNK_RESULTS, self.max_bytes), (self.rate, &mut self.due));
                match subscriber.poll_take(context, most, &mut self.frames, pace) {
                    Poll::Ready(Ok(())) => {
                        // nobody tells when the client takes no more
                        subscriber.rest();
                        let mut text =
                            Vec::with_capacity(self.frames.iter().map(|frame| frame.payload.len() + 80).sum());
                        for frame in self.frames.drain(..) {
                            push_next(&mut text, Some(&frame.cursor.encode()), &frame.payload);
                        }
                        self.timer.as_mut().reset(Instant::now() + self.interval);
                        return Poll::Ready(Some(text));
                    }
                    Poll::Ready(Err(ended)) => {
                        let payload = [b"{\"errors\":", &*ended.0, b"}"].concat();
                        return Poll::Ready(Some(self.complete(Some(&payload))));
                    }
                    Poll::Pending => {}
                }
            }
        }
        std::task::ready!(self.timer.as_mut().poll(context));
        self.timer.as_mut().reset(Instant::now() + self.interval);
        Poll::Ready(Some(self.keep_alive()))
    }

    /// A comment, and a cursor where the stream has moved on without a result: an event without data is none, but its id
    /// counts.
    fn keep_alive(&mut self) -> Vec<u8> {
        let mut text = b":\n\n".to_vec();
        if let Running::Subscription(subscriber) = &mut self.running
            && let Some(cursor) = subscriber.bookmark()
        {
            text.extend_from_slice(format!("id: {}\n\n", cursor.encode()).as_bytes());
        }
        text
    }
}

impl Stream for Events {
    type Item = Result<Vec<u8>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context).map(|text| text.map(Ok))
    }
}

/// JSON has no line break, so that a payload is one line of data.
fn push_next(text: &mut Vec<u8>, id: Option<&str>, payload: &[u8]) {
    text.extend_from_slice(b"event: next\n");
    if let Some(id) = id {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(id.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(payload);
    text.extend_from_slice(b"\n\n");
}
