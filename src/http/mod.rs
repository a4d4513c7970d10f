//! What the service speaks: GraphQL over HTTP and WebSocket, REST, health, metrics.

mod accept;
mod admission;
mod authenticate;
mod body;
mod client;
mod graphql;
mod guard;
mod headers;
mod health;
mod holding;
mod json;
mod observe;
mod pace;
mod paced;
mod problem;
mod rest;
mod sender;
mod serve;
pub mod session;
mod socket;
mod sse;
mod tally;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tower_http::trace::TraceLayer;

pub use admission::Admission;
pub use client::TrustedProxies;
pub use guard::Guard;
pub use health::{Obstacle, Readiness};
pub use holding::Holdings;
pub use rest::document as openapi;
pub use serve::{Sockets, Transport, serve};
pub use tls::{Tls, TlsError};

use crate::auth::{Authenticator, Rates};
use crate::clock::Clock;
use crate::config::SessionConfig;
use crate::graphql::Code;
use crate::lifecycle::Lifecycle;
use crate::live::Live;
use crate::store::{Intake, Store};
use crate::telemetry::Metrics;
use problem::Problem;

/// What handlers need.
#[derive(Clone)]
pub struct AppState {
    pub live: Arc<Live>,
    pub store: Store,
    pub intake: Intake,
    pub authenticator: Authenticator,
    pub rates: Arc<Rates>,
    pub session: SessionConfig,
    pub admission: Arc<Admission>,
    pub holdings: Arc<Holdings>,
    pub readiness: Arc<Readiness>,
    pub metrics: Metrics,
    pub clock: Clock,
    pub lifecycle: Lifecycle,
    pub guard: Arc<Guard>,
    /// Bytes.
    pub max_body: usize,
    /// For a request's body.
    pub read_timeout: Duration,
}

/// All routes.
pub fn router(state: AppState) -> Router {
    let graphql = Router::new()
        .route("/graphql", get(graphql::get).post(graphql::post))
        .route_layer(from_fn_with_state(state.clone(), authenticate::for_graphql));
    let upgrade = Router::new()
        .route("/graphql/ws", get(session::upgrade))
        .route_layer(from_fn_with_state(state.clone(), authenticate::for_upgrade));
    let rest = rest::routes()
        .route("/graphql/stream", get(sse::get).post(sse::post))
        .route_layer(from_fn_with_state(state.clone(), authenticate::for_rest))
        .route_layer(from_fn(sender::keep));
    let router = Router::new()
        .merge(graphql)
        .merge(upgrade)
        .merge(rest)
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::BadUserInput, "this resource has no such method")
        })
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, Code::NotFound, "there is no such resource") })
        .layer(DefaultBodyLimit::max(state.max_body))
        .layer(from_fn_with_state(state.clone(), body::in_time));
    let router = match state.guard.cors() {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(from_fn_with_state(state.clone(), guard::check))
        .layer(from_fn_with_state(state.clone(), problem::stamp))
        .layer(from_fn(headers::add))
        .layer(from_fn(observe::count))
        // a failure is logged once, where it is handled
        .layer(TraceLayer::new_for_http().on_failure(()))
        .with_state(state)
}
