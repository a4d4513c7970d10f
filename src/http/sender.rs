//! Senders that drop what is refused with a status of 4xx, whichever it is, and send again what gets one of 5xx.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::problem::Problem;

/// How they name themselves. Prometheus Alertmanager gives a webhook's notification up at any 4xx, 429 included, and
/// heeds no `Retry-After`; at a 5xx it tries again, later each time.
const DROPPING: [&str; 1] = ["Alertmanager/"];

/// Middleware: to such a sender a refusal for now has a status at which it comes back.
pub async fn keep(request: Request, next: Next) -> Response {
    let drops = drops(request.headers());
    let mut response = next.run(request).await;
    if drops && response.status() == StatusCode::TOO_MANY_REQUESTS {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        if let Some(problem) = response.extensions_mut().get_mut::<Problem>() {
            problem.answer_with(StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    response
}

fn drops(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    DROPPING.iter().any(|name| agent.starts_with(name))
}
