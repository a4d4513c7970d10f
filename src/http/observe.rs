//! Counts requests by what was asked and answered.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use metrics::counter;

use crate::telemetry::metric;

/// The label of requests to no route, so that their paths, which anybody can make up, make no series of their own.
const NO_ROUTE: &str = "none";

/// Middleware over every route.
pub async fn count(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE.to_owned(), |path| path.as_str().to_owned());
    let method = known_method(request.method());
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    counter!(metric::REQUESTS, "route" => route, "method" => method, "status" => status).increment(1);
    response
}

/// A method's name, if it is one that anybody should use: clients can make names up.
fn known_method(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
