//! GraphQL over HTTP.

use std::collections::HashMap;

use async_graphql::{Request, Response as GraphqlResponse, Variables};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::AppState;
use super::accept::{self, Accept};
use super::{body, json};
use crate::auth::Caller;
use crate::graphql::{Code, OperationType, Refusal, is_request_error};

const JSON: &str = "application/json";

/// Queries and mutations.
pub async fn post(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(accept) = Accept::negotiate(&headers) else { return accept::not_acceptable() };
    let refuse = |status, message: &str| refuse(&state, accept, status, message);
    if !is_json(&headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
    }
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let (status, detail) = body::unread(&rejection, state.max_body);
            return refuse(status, &detail);
        }
    };
    match parse_body(&body) {
        Ok(request) => answer(&state, accept, caller, request).await,
        Err(refusal) => answer_refusal(&state, accept, StatusCode::BAD_REQUEST, refusal),
    }
}

/// Queries alone.
pub async fn get(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(parameters): Query<HashMap<String, String>>,
) -> Response {
    let Some(accept) = Accept::negotiate(&headers) else { return accept::not_acceptable() };
    let refuse = |status, message: &str| refuse(&state, accept, status, message);
    match parse_parameters(parameters) {
        Ok(mut request) => {
            if state.live.gateway().operation_type(&mut request) == Some(OperationType::Mutation) {
                let allow = [(header::ALLOW, HeaderValue::from_static("POST"))];
                return (allow, refuse(StatusCode::METHOD_NOT_ALLOWED, "a mutation needs POST")).into_response();
            }
            answer(&state, accept, caller, request).await
        }
        Err(refusal) => answer_refusal(&state, accept, StatusCode::BAD_REQUEST, refusal),
    }
}

fn refuse(state: &AppState, accept: Accept, status: StatusCode, message: &str) -> Response {
    answer_refusal(state, accept, status, bad_input(message))
}

fn answer_refusal(state: &AppState, accept: Accept, status: StatusCode, refusal: Refusal) -> Response {
    (status, accept.content_type(), json_of(&state.live.gateway().refuse(refusal))).into_response()
}

/// The answer to somebody who is not let in.
pub(super) fn denied(state: &AppState, headers: &HeaderMap, status: StatusCode, refusal: Refusal) -> Response {
    let Some(accept) = Accept::negotiate(headers) else { return accept::not_acceptable() };
    answer_refusal(state, accept, status, refusal)
}

fn bad_input(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadUserInput, message)
}

async fn answer(state: &AppState, accept: Accept, caller: Caller, request: Request) -> Response {
    let response = state.live.gateway().execute(request, caller).await;
    let failed = accept == Accept::GraphqlResponse && is_request_error(&response);
    let status = if failed { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    (status, accept.content_type(), json_of(&response)).into_response()
}

/// A request error has no `data`.
fn json_of(response: &GraphqlResponse) -> Vec<u8> {
    let printed = if is_request_error(response) {
        serde_json::to_vec(&serde_json::json!({ "errors": response.errors }))
    } else {
        serde_json::to_vec(response)
    };
    // values of GraphQL have no map with other keys than strings, the one thing that could fail
    printed.unwrap_or_default()
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else { return false };
    let mut parts = content_type.to_str().unwrap_or_default().split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case(JSON));
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim_end().eq_ignore_ascii_case("charset"));
    // in no other is JSON exchanged (RFC 8259, section 8.1)
    is_json && charset.is_none_or(|(_, value)| value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"))
}

/// A request object; everything else is refused, a batch too.
pub(super) fn parse_body(body: &[u8]) -> Result<Request, Refusal> {
    let serde_json::Value::Object(mut object) = json::parse(body)? else {
        return Err(bad_input("the body must be a JSON object; batches are not served"));
    };
    check_extensions(object.get("extensions"))?;
    request(object.remove("query"), object.remove("operationName"), object.remove("variables"))
}

/// Extensions are an object, if they are there; none of ours is known.
fn check_extensions(extensions: Option<&serde_json::Value>) -> Result<(), Refusal> {
    match extensions {
        None | Some(serde_json::Value::Null | serde_json::Value::Object(_)) => Ok(()),
        Some(_) => Err(bad_input("extensions must be an object or null")),
    }
}

pub(super) fn parse_parameters(mut parameters: HashMap<String, String>) -> Result<Request, Refusal> {
    let variables = match parameters.remove("variables").filter(|text| !text.is_empty()) {
        Some(text) => Some(json::parse(text.as_bytes()).map_err(|malformed| malformed.within("variables"))?),
        None => None,
    };
    if let Some(text) = parameters.remove("extensions").filter(|text| !text.is_empty()) {
        let extensions = json::parse(text.as_bytes()).map_err(|malformed| malformed.within("extensions"))?;
        check_extensions(Some(&extensions))?;
    }
    let text = |value: Option<String>| value.map(serde_json::Value::String);
    let operation_name = parameters.remove("operationName").filter(|name| !name.is_empty());
    request(text(parameters.remove("query")), text(operation_name), variables)
}

fn request(
    query: Option<serde_json::Value>,
    operation_name: Option<serde_json::Value>,
    variables: Option<serde_json::Value>,
) -> Result<Request, Refusal> {
    use serde_json::Value::{Null, Object, String};
    let Some(String(query)) = query else { return Err(bad_input("query must be a string")) };
    let mut request = Request::new(query);
    match operation_name {
        None | Some(Null) => {}
        Some(String(name)) => request = request.operation_name(name),
        Some(_) => return Err(bad_input("operationName must be a string or null")),
    }
    match variables {
        None | Some(Null) => {}
        Some(variables @ Object(_)) => request = request.variables(Variables::from_json(variables)),
        Some(_) => return Err(bad_input("variables must be an object or null")),
    }
    Ok(request)
}
