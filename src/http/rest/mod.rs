//! REST beside GraphQL: the everyday part of it, by the same input types, rules and statements, with problem details
//! (RFC 9457) for errors and an OpenAPI description made from this code.

mod alerts;
mod comments;
mod extract;
mod incidents;
mod link;
mod openapi;
mod read;
mod representation;

use axum::Router;
use axum::routing::{get, post};

pub use openapi::document;

use super::AppState;

/// The routes; all of them are in the description.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/alerts", post(alerts::submit))
        .route("/v1/incidents", get(incidents::list).post(incidents::create))
        .route("/v1/incidents/{id}", get(incidents::get).patch(incidents::update))
        .route("/v1/incidents/{id}/acknowledge", post(incidents::acknowledge))
        .route("/v1/incidents/{id}/transition", post(incidents::transition))
        .route("/v1/incidents/{id}/resolve", post(incidents::resolve))
        .route("/v1/incidents/{id}/assign", post(incidents::assign))
        .route("/v1/incidents/{id}/comments", get(comments::list).post(comments::add))
        .route("/openapi.json", get(openapi::serve))
}
