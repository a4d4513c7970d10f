//! Whether the process lives, whether it should get requests, and what it counts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::RwLock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::AppState;
use crate::events::Hub;

/// The log is read at least once a second: for so long it may have gone unread before the service is not up to date.
const STALE: Duration = Duration::from_secs(3);

/// What keeps the database from being used, in words.
pub struct Obstacle(RwLock<&'static str>);

impl Obstacle {
    pub fn new(words: &'static str) -> Self {
        Self(RwLock::new(words))
    }

    pub fn set(&self, words: &'static str) {
        *self.0.write() = words;
    }
}

/// What has to be so for requests to be taken.
pub struct Readiness {
    migrated: CancellationToken,
    obstacle: Arc<Obstacle>,
    stopping: CancellationToken,
    hub: Arc<Hub>,
}

impl Readiness {
    /// `obstacle` tells why `migrated` has not been cancelled.
    pub fn new(
        migrated: CancellationToken,
        obstacle: Arc<Obstacle>,
        stopping: CancellationToken,
        hub: Arc<Hub>,
    ) -> Self {
        Self { migrated, obstacle, stopping, hub }
    }

    /// Why not; `None` when it is.
    fn missing(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            Some("shutting down")
        } else if !self.migrated.is_cancelled() {
            Some(*self.obstacle.0.read())
        } else if self.hub.head().is_none() {
            Some("the event log has not been read yet")
        } else if !self.hub.confirmed_within(STALE) {
            Some("the event log cannot be read")
        } else {
            None
        }
    }
}

/// The process answers.
pub async fn live() -> Json<serde_json::Value> {
    Json(json!({ "status": "live" }))
}

/// Migrated, listening, caught up.
pub async fn ready(State(state): State<AppState>) -> Response {
    match state.readiness.missing() {
        None => Json(json!({ "status": "ready" })).into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reason": reason }))).into_response()
        }
    }
}

/// Prometheus' text format.
pub async fn metrics(State(state): State<AppState>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}
