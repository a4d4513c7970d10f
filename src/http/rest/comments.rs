//! Comments of incidents.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{Body, Parameters, PathId};
use super::incidents::DEFAULT_PAGE;
use super::link::links;
use super::representation::{Comment, Comments, PageInfo};
use crate::auth::Caller;
use crate::domain::Permission::{IncidentsRead, IncidentsWrite};
use crate::domain::{self, ListTag, NestedPage, NewComment, Page};
use crate::graphql::NotFound;
use crate::http::AppState;
use crate::http::problem::Problem;

/// Which page of an incident's comments.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CommentPage {
    /// Items of a page; 20 where it is not given.
    #[param(minimum = 1, maximum = 100)]
    first: Option<i32>,
    /// A cursor of this list.
    after: Option<String>,
}

/// What somebody has to say.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddCommentInput {
    #[schema(min_length = 1, max_length = 65536)]
    body: String,
}

/// Lists the comments of an incident
///
/// Oldest first.
#[utoipa::path(get, path = "/v1/incidents/{id}/comments", tag = "comments", operation_id = "listComments",
    params(PathId, CommentPage),
    security(("bearer" = ["incidents.read"])),
    responses(
        (status = 200, description = "A page", body = Comments, headers(("Link" = String, description = "The page after this one, where there is one"))),
        Problem,
    ))]
pub async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    PathId(id): PathId,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let scope = caller.viewer().access.require(IncidentsRead)?;
    let CommentPage { first, after } = parameters.take()?;
    parameters.end()?;
    let asked = NestedPage::from_args(id, ListTag::Comments, DEFAULT_PAGE, first, after.as_deref())?;
    let page = state.store.comment_pages(&[asked]).await?.remove(&asked).unwrap_or_else(|| asked.found(Vec::new()));
    // who has comments is there, if not inside every scope
    let certain = !page.items.is_empty() && scope.sources().is_none();
    if !certain && state.store.incident(scope, id).await?.is_none() {
        return Err(NotFound { kind: "incident", id: id.0 }.into());
    }
    let page_info = PageInfo::of(&page, |comment: &domain::Comment| comment.key().encode());
    let link = links(&uri, asked.size, &page_info, false);
    let Page { items, .. } = page;
    let comments = items.into_iter().map(Comment::from).collect();
    Ok((AppendHeaders(link), Json(Comments { comments, page_info })).into_response())
}

/// Adds a comment to an incident
///
/// Also to a closed one.
#[utoipa::path(post, path = "/v1/incidents/{id}/comments", tag = "comments", operation_id = "addComment",
    params(PathId),
    request_body = AddCommentInput,
    security(("bearer" = ["incidents.write"])),
    responses(
        (status = 201, description = "The comment as it was made", body = Comment),
        Problem,
    ))]
pub async fn add(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    parameters: Parameters,
    body: Body,
) -> Result<Response, Problem> {
    let scope = caller.viewer().access.require(IncidentsWrite)?;
    parameters.end()?;
    let AddCommentInput { body } = body.read()?;
    let new = NewComment { incident_id: id, body }.check()?;
    let added = state.store.add_comment(&caller.viewer().subject, scope, &new).await?;
    let comment = added.ok_or(NotFound { kind: "incident", id: id.0 })?;
    Ok((StatusCode::CREATED, Json(Comment::from(comment))).into_response())
}
