//! How a connection ends.

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;

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
    /// By the client, with a close frame, which has been answered.
    Closed,
    /// By the client without one, or by its network.
    Gone,
}

/// Tells what the client did wrong from a connection that broke.
pub fn end_of(error: &Error) -> End {
    let (code, reason) = match error {
        Error::Capacity(_) => (code::MESSAGE_TOO_BIG, "Message too big"),
        Error::Utf8(_) => (code::INVALID_PAYLOAD, "Invalid UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return End::Gone,
        Error::Protocol(_) => (code::PROTOCOL_ERROR, "Protocol error"),
        _ => return End::Gone,
    };
    End::Close(Close { code, reason: reason.to_owned() })
}
