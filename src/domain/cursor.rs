//! Cursors of the event stream, opaque to clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use uuid::Uuid;

use super::Timestamp;
use super::ids::{EpochId, Position};

/// A place in the event log: everything up to and including its position has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// In which this position was given out.
    pub epoch: EpochId,
    pub position: Position,
    /// When that position was given out, so that one given out anew is told from it.
    pub logged_at: Timestamp,
}

/// The span of the log that a stream can be resumed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPosition {
    pub newest: Cursor,
    /// Before the oldest event that the log holds. When that place was given out the log no longer says.
    pub oldest: Cursor,
}

/// A numbering of the log's positions; a new one begins when positions can no longer be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    pub id: EpochId,
    /// The first position that it gives out: what older epochs gave out from there on is void.
    pub first: Position,
}

/// The epochs that a log has had, oldest first; the last is the one that gives positions out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Epochs(pub Vec<Epoch>);

/// This log has never had that epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log has never had this epoch")]
pub struct UnknownEpoch;

impl Epochs {
    /// From where on what an epoch gave out is void. `None`: nowhere, all of it holds.
    pub fn void_from(&self, epoch: EpochId) -> Result<Option<Position>, UnknownEpoch> {
        let at = self.0.iter().position(|known| known.id == epoch).ok_or(UnknownEpoch)?;
        Ok(self.0[at + 1..].iter().map(|later| later.first).min())
    }
}

/// A text that no cursor of ours encodes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor of this stream")]
pub struct CursorError;

/// 16 bytes of epoch, 8 of position, 8 of microseconds since 1970, big-endian.
const ENCODED_BYTES: usize = 32;

impl Cursor {
    /// When a position was given out of which the log does not say it: that of position 0, and of one that it no longer holds.
    pub const UNKNOWN_TIME: Timestamp = Timestamp::UNIX_EPOCH;

    /// URL-safe Base64 (RFC 4648 section 5), without padding.
    pub fn encode(&self) -> String {
        let mut bytes = [0; ENCODED_BYTES];
        bytes[..16].copy_from_slice(self.epoch.0.as_bytes());
        bytes[16..24].copy_from_slice(&self.position.0.to_be_bytes());
        bytes[24..].copy_from_slice(&self.logged_at.timestamp_micros().to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::encode`] wrote, and nothing else.
    pub fn decode(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let (epoch, rest) = bytes.split_first_chunk::<16>().ok_or(CursorError)?;
        let (position, rest) = rest.split_first_chunk::<8>().ok_or(CursorError)?;
        let micros: [u8; 8] = rest.try_into().map_err(|_| CursorError)?;
        let position = i64::from_be_bytes(*position);
        if position < 0 {
            return Err(CursorError);
        }
        Ok(Self {
            epoch: EpochId(Uuid::from_bytes(*epoch)),
            position: Position(position),
            logged_at: DateTime::from_timestamp_micros(i64::from_be_bytes(micros)).ok_or(CursorError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(epoch: u128, position in 0..i64::MAX, micros in 0..4_102_444_800_000_000_i64) {
            let cursor = Cursor {
                epoch: EpochId(Uuid::from_u128(epoch)),
                position: Position(position),
                logged_at: DateTime::from_timestamp_micros(micros).unwrap(),
            };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn what_decodes_encodes_to_the_same(text in "[A-Za-z0-9_-]{40,46}") {
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }

    #[test]
    fn what_an_epoch_gave_out_holds_up_to_the_next_ones_first_position() {
        let [one, two, three, other] = [1, 2, 3, 4].map(|n| EpochId(Uuid::from_u128(n)));
        let epoch = |id, first| Epoch { id, first: Position(first) };
        let epochs = Epochs(vec![epoch(one, 1), epoch(two, 50), epoch(three, 40)]);
        assert_eq!(epochs.void_from(three), Ok(None));
        assert_eq!(epochs.void_from(two), Ok(Some(Position(40))));
        assert_eq!(epochs.void_from(one), Ok(Some(Position(40))), "the lowest of all later ones");
        assert_eq!(epochs.void_from(other), Err(UnknownEpoch));
    }

    #[test]
    fn a_text_of_another_length_is_no_cursor() {
        assert_eq!(Cursor::decode(""), Err(CursorError));
        assert_eq!(Cursor::decode("AAAA"), Err(CursorError));
    }
}
