//! The description of these routes, for people and programs.

use std::sync::LazyLock;

use axum::http::{HeaderName, header};
use utoipa::OpenApi;

use super::{alerts, comments, incidents};
use crate::domain::IncidentOrder;
use crate::http::problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Incident Manager",
        description = "Incidents and alerts in PostgreSQL, live on every screen. GraphQL at /graphql has the same and more: \
                       subscriptions, playbooks, relations, the timeline.",
    ),
    paths(
        alerts::submit,
        incidents::list,
        incidents::create,
        incidents::get,
        incidents::update,
        incidents::acknowledge,
        incidents::transition,
        incidents::resolve,
        incidents::assign,
        comments::list,
        comments::add,
    ),
    // a parameter and a problem bring no schema along
    components(schemas(IncidentOrder, problem::Body)),
    tags(
        (name = "alerts", description = "What sources send"),
        (name = "incidents", description = "What somebody has to respond to"),
        (name = "comments", description = "What was said of an incident"),
    )
)]
struct Description;

/// The OpenAPI 3.1 document.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| match Description::openapi().to_pretty_json() {
        Ok(document) => document,
        Err(error) => unreachable!("a description is JSON: {error}"),
    });
    &DOCUMENT
}

/// `GET /openapi.json`
pub async fn serve() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "application/json")], document())
}
