//! GraphQL over WebSocket, by the library's service: each subscription is executed by itself and reads the hub by position.

use async_graphql_axum::{GraphQLProtocol, GraphQLWebSocket};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::AppState;
use super::problem::Problem;
use crate::graphql::Code;

/// The subprotocol's name; `graphql-ws` is that of an older protocol, which is not served.
const SUBPROTOCOL: &str = "graphql-transport-ws";

pub async fn upgrade(State(state): State<AppState>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let offered = parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let ours = offered
        .filter_map(|offer| offer.to_str().ok())
        .flat_map(|offer| offer.split(','))
        .any(|offer| offer.trim() == SUBPROTOCOL);
    if !ours {
        let detail = format!("the WebSocket subprotocol {SUBPROTOCOL} must be offered");
        return Problem::new(StatusCode::BAD_REQUEST, Code::BadUserInput, detail).into_response();
    }
    // the library would take the first that it knows, and it knows the older one
    parts.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let protocol = match GraphQLProtocol::from_request_parts(&mut parts, &()).await {
        Ok(protocol) => protocol,
        Err(status) => return Problem::new(status, Code::BadUserInput, "no subprotocol").into_response(),
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            return Problem::new(rejection.status(), Code::BadUserInput, rejection.body_text()).into_response();
        }
    };
    let AppState { gateway, lifecycle, .. } = state;
    upgrade.protocols([SUBPROTOCOL]).on_upgrade(async move |socket| {
        let soft = lifecycle.soft().clone();
        lifecycle.spawn_connection("websocket", async move {
            soft.run_until_cancelled(GraphQLWebSocket::new(socket, gateway, protocol).serve()).await;
        });
    })
}
