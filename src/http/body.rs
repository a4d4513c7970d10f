//! What a request's body may take: time, and bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use tokio::time::{Sleep, sleep};

use super::AppState;
use super::problem::Problem;
use crate::graphql::Code;

/// Middleware over every route: whoever reads the body waits no longer than this allows.
pub async fn in_time(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let late = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| {
        let time = Box::pin(sleep(state.read_timeout));
        Body::from_stream(InTime { body: body.into_data_stream(), time, late: Arc::clone(&late) })
    });
    let response = next.run(request).await;
    if late.load(Ordering::Relaxed) {
        Problem::new(StatusCode::REQUEST_TIMEOUT, Code::BadUserInput, "the body took too long").into_response()
    } else {
        response
    }
}

/// Why a body was not read: with which status, and for people. `max` is the bytes that it may have.
pub fn unread(rejection: &BytesRejection, max: usize) -> (StatusCode, String) {
    let detail = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => format!("the body is larger than {max} bytes"),
        _ => rejection.body_text(),
    };
    (rejection.status(), detail)
}

struct InTime {
    body: BodyDataStream,
    time: Pin<Box<Sleep>>,
    late: Arc<AtomicBool>,
}

impl Stream for InTime {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(chunk) = Pin::new(&mut self.body).poll_next(context) {
            return Poll::Ready(chunk.map(|chunk| chunk.map_err(Into::into)));
        }
        ready!(self.time.as_mut().poll(context));
        self.late.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err("the body took too long".into())))
    }
}
