//! From a request to a WebSocket (RFC 6455, section 4.2).

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::connection::{CLOSE_GRACE, Connection};
use super::identity::Identity;
use super::protocol::{Close, SUBPROTOCOL};
use super::websocket::WebSocket;
use crate::auth::Caller;
use crate::graphql::Code;
use crate::http::AppState;
use crate::http::client::ClientAddress;
use crate::http::holding::Holding;
use crate::http::problem::Problem;

/// Bytes of a client's key.
const KEY_BYTES: usize = 16;

pub async fn upgrade(
    State(state): State<AppState>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    caller: Option<Extension<Caller>>,
    mut request: Request,
) -> Response {
    let mut response = match create_response_with_body(&request, Body::empty) {
        Ok(response) if has_whole_key(request.headers()) => response,
        Ok(_) => return refuse(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key is not 16 bytes in base64"),
        Err(error @ Error::Protocol(ProtocolError::MissingSecWebSocketKey)) => {
            return refuse(StatusCode::BAD_REQUEST, error.to_string());
        }
        Err(error) => return upgrade_required(error.to_string()),
    };
    let place = match state.admission.enter(client) {
        Ok(place) => place,
        Err(refused) => return refused.into_response(),
    };
    let mut holding = Holding::new(&state.holdings, client);
    if let Some(Extension(caller)) = caller
        && let Err(refused) = holding.pass_to(caller.credential)
    {
        return Problem::from(refused).into_response();
    }
    let ours = is_offered(request.headers());
    if ours {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let upgraded = hyper::upgrade::on(&mut request);
    // in here is how the client writes the names of headers: hyper writes them so too, and there is a client (gql, for
    // Python) that finds the subprotocol by no other name than its own
    *response.extensions_mut() = std::mem::take(request.extensions_mut());
    let AppState { live, authenticator, rates, session, lifecycle, .. } = state;
    let hard = lifecycle.hard().clone();
    // boxed, because to move it is to have room for it twice
    let serving = Box::pin(async move {
        let Some(mut socket) = WebSocket::upgraded(upgraded, session.max_message_bytes).await else { return };
        if ours {
            let identity = Identity::new(authenticator, rates, holding);
            Connection::new(socket, live, identity, session).serve(place.turn()).await;
        } else {
            // after the upgrade, because before it a browser's script would not learn the reason; who does not read it
            // is left
            let _ = timeout(CLOSE_GRACE, socket.close(Close::subprotocol())).await;
        }
    });
    lifecycle.spawn_connection("websocket", async move {
        hard.run_until_cancelled(serving).await;
    });
    response
}

fn has_whole_key(headers: &HeaderMap) -> bool {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| BASE64_STANDARD.decode(key).ok());
    key.is_some_and(|key| key.len() == KEY_BYTES)
}

/// Whether a client offers the subprotocol, among whatever others.
fn is_offered(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|offers| offers.to_str().ok());
    offers.flat_map(|offers| offers.split(',')).any(|offer| offer.trim() == SUBPROTOCOL)
}

fn refuse(status: StatusCode, detail: impl Into<String>) -> Response {
    Problem::new(status, Code::BadUserInput, detail).into_response()
}

/// This is no request for a WebSocket, or for one of another version.
fn upgrade_required(detail: String) -> Response {
    let mut response = refuse(StatusCode::UPGRADE_REQUIRED, detail);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}
