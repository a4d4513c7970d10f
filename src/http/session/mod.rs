//! GraphQL over WebSocket: graphql-transport-ws.
//!
//! [`protocol`] has the rules, without a socket; [`connection`] is the thin shell around it, reads at a [`pace`], and goes on
//! for as long as the client's [`identity`] does.

mod connection;
mod end;
mod identity;
mod operation;
mod pace;
mod protocol;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};

use super::AppState;
use super::client::ClientAddress;
use super::problem::Problem;
use crate::auth::Credential;
use crate::graphql::Code;
use connection::Connection;
use identity::Identity;
use protocol::SUBPROTOCOL;

/// PROTOCOL.md's code for a client that offers no subprotocol of ours.
const SUBPROTOCOL_NOT_ACCEPTABLE: u16 = 4406;
/// Bytes that are read from a socket at a time. The library's default would cost every idle connection 128 KiB.
const READ_BUFFER_BYTES: usize = 1 << 10;
/// Bytes that are collected before they are written; a flush writes what there is.
const WRITE_BUFFER_BYTES: usize = 8 << 10;

pub async fn upgrade(
    State(state): State<AppState>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    credential: Option<Extension<Arc<Credential>>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            return Problem::new(rejection.status(), Code::BadUserInput, rejection.body_text()).into_response();
        }
    };
    let place = match state.admission.enter(client) {
        Ok(place) => place,
        Err(refused) => return refused.into_response(),
    };
    let max_message = state.session.max_message_bytes;
    upgrade
        .protocols([Cow::Borrowed(SUBPROTOCOL)])
        .max_message_size(max_message)
        .max_frame_size(max_message)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .on_upgrade(async move |socket| {
            let AppState { live, authenticator, session, lifecycle, .. } = state;
            let hard = lifecycle.hard().clone();
            let serving = Box::pin(async move {
                if socket.protocol().is_none_or(|protocol| protocol != SUBPROTOCOL) {
                    return refuse(socket).await;
                }
                let identity = Identity::new(authenticator, credential.map(|Extension(credential)| credential));
                hard.run_until_cancelled(Connection::new(socket, live, identity, session).serve(place.turn())).await;
            });
            lifecycle.spawn_connection("websocket", serving);
        })
}

/// Says why after the upgrade: before it, a browser's script would not learn the reason.
async fn refuse(mut socket: WebSocket) {
    let reason = "Subprotocol not acceptable".into();
    let close = Message::Close(Some(CloseFrame { code: SUBPROTOCOL_NOT_ACCEPTABLE, reason }));
    // whether it arrives is the client's loss alone
    let _ = socket.send(close).await;
}
