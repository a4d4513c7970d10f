//! The description of these routes, for people and programs.

use std::sync::LazyLock;

use axum::http::{HeaderName, header};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

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
    modifiers(&Bearer),
    // a parameter and a problem bring no schema along
    components(schemas(IncidentOrder, problem::Body)),
    tags(
        (name = "alerts", description = "What sources send"),
        (name = "incidents", description = "What somebody has to respond to"),
        (name = "comments", description = "What was said of an incident"),
    )
)]
struct Description;

/// How a credential is shown; each operation names the permission that it needs.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let description = "A token or an API key, with the permission that an operation names; where authentication is off, \
                           none is asked for.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

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
