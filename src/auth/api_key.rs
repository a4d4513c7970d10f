//! The form of an API key: `im_`, twelve hexadecimal digits that find it, and sixty-four that nobody else knows.

use std::fmt::{self, Write as _};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;

use super::digest;
use crate::store::KeyHash;

const MARK: &str = "im_";
const PREFIX_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
const PREFIX_DIGITS: usize = 2 * PREFIX_BYTES;
const PREFIX_LENGTH: usize = MARK.len() + PREFIX_DIGITS;
const LENGTH: usize = PREFIX_LENGTH + 1 + 2 * SECRET_BYTES;

/// A whole key, to be shown once. Its `Debug` shows what finds it alone.
pub struct ApiKeySecret(String);

impl ApiKeySecret {
    /// A new key, of 256 random bits beside its prefix.
    pub fn generate() -> Result<Self, Unspecified> {
        let mut bytes = [0; PREFIX_BYTES + SECRET_BYTES];
        rand::fill(&mut bytes)?;
        let mut text = String::with_capacity(LENGTH);
        text.push_str(MARK);
        for (at, byte) in bytes.iter().enumerate() {
            if at == PREFIX_BYTES {
                text.push('_');
            }
            // writing to a String cannot fail
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Self(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn prefix(&self) -> &str {
        &self.0[..PREFIX_LENGTH]
    }

    /// What is kept of it. Nobody finds 256 random bits by trying, so that a fast hash without salt is enough.
    pub fn hash(&self) -> KeyHash {
        digest(self.0.as_bytes())
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeySecret({}…)", self.prefix())
    }
}

/// The part that finds a key; `None` of what is no key.
pub(super) fn prefix_of(text: &str) -> Option<&str> {
    let digits = text.strip_prefix(MARK)?;
    let all = digits.bytes().enumerate().all(|(at, byte)| match at {
        PREFIX_DIGITS => byte == b'_',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    });
    (text.len() == LENGTH && all).then(|| &text[..PREFIX_LENGTH])
}

/// Whether a hash is the stored one, in a time that does not tell how much of it is.
pub(super) fn is_hash(hash: &KeyHash, stored: &[u8]) -> bool {
    verify_slices_are_equal(hash, stored).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_prefix_and_known_by_its_hash() {
        let (key, other) = (ApiKeySecret::generate().unwrap(), ApiKeySecret::generate().unwrap());
        assert_eq!(prefix_of(key.expose()), Some(key.prefix()));
        assert_eq!(key.expose().len(), LENGTH);
        assert_ne!(key.expose(), other.expose());
        assert!(is_hash(&key.hash(), &key.hash()) && !is_hash(&key.hash(), &other.hash()));
        assert!(!is_hash(&key.hash(), &key.hash()[..31]));
        assert_eq!(format!("{key:?}"), format!("ApiKeySecret({}…)", key.prefix()));
    }

    #[test]
    fn what_is_no_key_has_no_prefix() {
        let key = ApiKeySecret::generate().unwrap();
        let key = key.expose();
        for wrong in ["", "im_", "a.b.c", &key[..LENGTH - 1], &format!("{key}0"), &key.to_uppercase()] {
            assert_eq!(prefix_of(wrong), None, "{wrong}");
        }
        assert_eq!(prefix_of(&key.replace("im_", "in_")), None);
        assert_eq!(prefix_of(&format!("{}-{}", &key[..PREFIX_LENGTH], &key[PREFIX_LENGTH + 1..])), None);
        assert_eq!(prefix_of(&format!("{}ü{}", &key[..PREFIX_LENGTH - 2], &key[PREFIX_LENGTH..])), None);
    }
}
