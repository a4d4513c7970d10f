//! GraphQL over WebSocket: graphql-transport-ws.
//!
//! [`protocol`] has the rules, without a socket; [`connection`] is the thin shell around it on a [`websocket`], which a
//! [`handshake`] makes, and goes on for as long as the client's [`identity`] does.

mod connection;
mod end;
mod handshake;
mod identity;
mod operation;
pub mod protocol;
mod websocket;

pub use handshake::upgrade;
