//! Incidents: lists of them, one, and the everyday response.

use async_graphql::MaybeUndefined;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{Body, OptionalBody, Parameters, PathId};
use super::link::links;
use super::representation::{Incident, Incidents, PageInfo};
use crate::auth::Caller;
use crate::domain::Permission::{IncidentsRead, IncidentsWrite};
use crate::domain::{
    self, Assignment, IncidentId, IncidentOrder, IncidentState, InvalidInput, ListTag, PageRequest, Resolution,
};
use crate::graphql::{CreateIncidentInput, IncidentFilter, NotFound, UpdateIncidentInput};
use crate::http::AppState;
use crate::http::problem::Problem;

/// Items of a page where neither `first` nor `last` is given.
pub const DEFAULT_PAGE: u32 = 20;

/// Which page of a list of incidents.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct IncidentPage {
    /// `CREATED_AT_DESC` where it is not given.
    order_by: Option<IncidentOrder>,
    /// Items of a page from the list's begin, or after `after`; 20 where neither this nor `last` is given.
    #[param(minimum = 1, maximum = 100)]
    first: Option<i32>,
    /// A cursor of this list, in this order.
    after: Option<String>,
    /// Items of a page from the list's end, or before `before`; not together with `first`.
    #[param(minimum = 1, maximum = 100)]
    last: Option<i32>,
    /// A cursor of this list, in this order.
    before: Option<String>,
}

/// Of which version the incident has to be for a change to be made.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ExpectedVersion {
    /// The incident's version; if it is another by now, nothing is changed and the answer is CONFLICT.
    expected_version: Option<i32>,
}

impl ExpectedVersion {
    fn of(mut parameters: Parameters) -> Result<Option<i32>, Problem> {
        let Self { expected_version } = parameters.take()?;
        parameters.end()?;
        Ok(expected_version)
    }
}

/// The state that an incident is to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransitionIncidentInput {
    to: IncidentState,
}

/// What is left out, or null, stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolveIncidentInput {
    #[schema(max_length = 65536)]
    resolution: Option<String>,
    #[schema(max_length = 65536)]
    root_cause: Option<String>,
}

/// Who is to respond; null is nobody.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignIncidentInput {
    #[serde(default)]
    #[schema(value_type = Option<String>, required, min_length = 1, max_length = 200)]
    assignee: MaybeUndefined<String>,
}

/// Nothing has to be said.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeIncidentInput {}

fn found(id: IncidentId, incident: Option<domain::Incident>) -> Result<Json<Incident>, Problem> {
    let incident = incident.ok_or(NotFound { kind: "incident", id: id.0 })?;
    Ok(Json(incident.into()))
}

/// Lists incidents
///
/// A parameter that is not given lets everything through; one that may be repeated lets through what any of its values does.
#[utoipa::path(get, path = "/v1/incidents", tag = "incidents", operation_id = "listIncidents",
    params(IncidentFilter, IncidentPage),
    security(("bearer" = ["incidents.read"])),
    responses(
        (status = 200, description = "A page", body = Incidents, headers(("Link" = String, description = "The pages after and before this one, where there are any"))),
        Problem,
    ))]
pub async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let scope = caller.viewer().access.require(IncidentsRead)?;
    let filter: IncidentFilter = parameters.take()?;
    let page: IncidentPage = parameters.take()?;
    parameters.end()?;
    let order = page.order_by.unwrap_or(IncidentOrder::CreatedAtDesc);
    let tag = ListTag::Incidents(order);
    let (forward, backward) = ((page.first, page.after.as_deref()), (page.last, page.before.as_deref()));
    let request = PageRequest::from_args(tag, DEFAULT_PAGE, forward, backward)?;
    let found = state.store.incidents(scope, &filter.check()?, order, request).await?;
    let page_info = PageInfo::of(&found, |incident| incident.key(tag).encode());
    let link = links(&uri, request.size, &page_info, true);
    let incidents = found.items.into_iter().map(Incident::from).collect();
    Ok((AppendHeaders(link), Json(Incidents { incidents, page_info })).into_response())
}

/// Reads an incident
#[utoipa::path(get, path = "/v1/incidents/{id}", tag = "incidents", operation_id = "getIncident",
    params(PathId),
    security(("bearer" = ["incidents.read"])),
    responses(
        (status = 200, description = "The incident as it now is", body = Incident),
        Problem,
    ))]
pub async fn get(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    parameters: Parameters,
) -> Result<Json<Incident>, Problem> {
    let scope = caller.viewer().access.require(IncidentsRead)?;
    parameters.end()?;
    found(id, state.store.incident(scope, id).await?)
}

/// Makes an incident
#[utoipa::path(post, path = "/v1/incidents", tag = "incidents", operation_id = "createIncident",
    request_body = CreateIncidentInput,
    security(("bearer" = ["incidents.write"])),
    responses(
        (status = 201, description = "The incident as it was made", body = Incident, headers(("Location" = String, description = "The path of the incident"))),
        Problem,
    ))]
pub async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
    body: Body,
) -> Result<Response, Problem> {
    let scope = caller.viewer().access.require(IncidentsWrite)?;
    parameters.end()?;
    let new = body.read::<CreateIncidentInput>()?.check()?;
    scope.require(&new.source)?;
    let incident = state.store.create_incident(&caller.viewer().subject, &new).await?;
    let location = [(header::LOCATION, format!("/v1/incidents/{}", incident.id))];
    Ok((StatusCode::CREATED, location, Json(Incident::from(incident))).into_response())
}

/// Changes fields of an incident
///
/// What is left out stays as it is.
#[utoipa::path(patch, path = "/v1/incidents/{id}", tag = "incidents", operation_id = "updateIncident",
    params(PathId, ExpectedVersion),
    request_body = UpdateIncidentInput,
    security(("bearer" = ["incidents.write"])),
    responses(
        (status = 200, description = "The incident as it now is", body = Incident),
        Problem,
    ))]
pub async fn update(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    parameters: Parameters,
    body: Body,
) -> Result<Json<Incident>, Problem> {
    let scope = caller.viewer().access.require(IncidentsWrite)?;
    let version = ExpectedVersion::of(parameters)?;
    let patch = body.read::<UpdateIncidentInput>()?.check()?;
    found(id, state.store.update_incident(&caller.viewer().subject, scope, id, &patch, version).await?)
}

/// Acknowledges an incident
///
/// DETECTED to TRIAGED; acknowledging twice changes nothing.
#[utoipa::path(post, path = "/v1/incidents/{id}/acknowledge", tag = "incidents", operation_id = "acknowledgeIncident",
    params(PathId),
    request_body = Option<AcknowledgeIncidentInput>,
    security(("bearer" = ["incidents.write"])),
    responses(
        (status = 200, description = "The incident as it now is", body = Incident),
        Problem,
    ))]
pub async fn acknowledge(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    parameters: Parameters,
    OptionalBody(body): OptionalBody,
) -> Result<Json<Incident>, Problem> {
    let scope = caller.viewer().access.require(IncidentsWrite)?;
    parameters.end()?;
    let AcknowledgeIncidentInput {} = body.read()?;
    found(id, state.store.acknowledge_incident(&caller.viewer().subject, scope, id).await?)
}

/// Moves an incident to a state
#[utoipa::path(post, path = "/v1/incidents/{id}/transition", tag = "incidents", operation_id = "transitionIncident",
    params(PathId, ExpectedVersion),
    request_body = TransitionIncidentInput,
    security(("bearer" = ["incidents.write"])),
    responses(
        (status = 200, description = "The incident as it now is", body = Incident),
        Problem,
    ))]
pub async fn transition(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    parameters: Parameters,
    body: Body,
) -> Result<Json<Incident>, Problem> {
    let scope = caller.viewer().access.require(IncidentsWrite)?;
    let version = ExpectedVersion::of(parameters)?;
    let TransitionIncidentInput { to } = body.read()?;
    found(id, state.store.transition_incident(&caller.viewer().subject, scope, id, to, version).await?)
}

/// Resolves an incident
#[utoipa::path(post, path = "/v1/incidents/{id}/resolve", tag = "incidents", operation_id = "resolveIncident",
    params(PathId),
    request_body = Option<ResolveIncidentInput>,
    security(("bearer" = ["incidents.write"])),
    responses(
        (status = 200, description = "The incident as it now is", body = Incident),
        Problem,
    ))]
pub async fn resolve(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    parameters: Parameters,
    OptionalBody(body): OptionalBody,
) -> Result<Json<Incident>, Problem> {
    let scope = caller.viewer().access.require(IncidentsWrite)?;
    parameters.end()?;
    let ResolveIncidentInput { resolution, root_cause } = body.read()?;
    let resolution = Resolution { resolution, root_cause }.check()?;
    found(id, state.store.resolve_incident(&caller.viewer().subject, scope, id, &resolution).await?)
}

/// Gives an incident to somebody, or to nobody
#[utoipa::path(post, path = "/v1/incidents/{id}/assign", tag = "incidents", operation_id = "assignIncident",
    params(PathId),
    request_body = AssignIncidentInput,
    security(("bearer" = ["incidents.write"])),
    responses(
        (status = 200, description = "The incident as it now is", body = Incident),
        Problem,
    ))]
pub async fn assign(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    parameters: Parameters,
    body: Body,
) -> Result<Json<Incident>, Problem> {
    let scope = caller.viewer().access.require(IncidentsWrite)?;
    parameters.end()?;
    let assignee = match body.read::<AssignIncidentInput>()?.assignee {
        MaybeUndefined::Value(assignee) => Some(assignee),
        MaybeUndefined::Null => None,
        MaybeUndefined::Undefined => {
            return Err(InvalidInput::new("assignee", "must be given; null is nobody").into());
        }
    };
    let assignment = Assignment { assignee }.check()?;
    found(id, state.store.assign_incident(&caller.viewer().subject, scope, id, &assignment).await?)
}
