//! How a connection ends.

use tokio_tungstenite::tungstenite;

use super::protocol::Close;

/// RFC 6455, section 7.4.1.
mod code {
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const INVALID_PAYLOAD: u16 = 1007;
    pub const MESSAGE_TOO_BIG: u16 = 1009;
}

/// How a connection ends.
pub enum End {
    /// By us, with a close frame.
    Close(Close),
    /// By the client, or its network.
    Gone,
}

/// Tells what the client did wrong from a connection that broke.
pub fn end_of(error: axum::Error) -> End {
    let error = error.into_inner();
    let (code, reason) = match error.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => (code::MESSAGE_TOO_BIG, "Message too big"),
        Some(tungstenite::Error::Utf8(_)) => (code::INVALID_PAYLOAD, "Invalid UTF-8"),
        Some(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) | None => {
            return End::Gone;
        }
        Some(tungstenite::Error::Protocol(_)) => (code::PROTOCOL_ERROR, "Protocol error"),
        Some(_) => return End::Gone,
    };
    End::Close(Close { code, reason: reason.to_owned() })
}
