//! Who asks, and what that one may do: from a bearer token or an API key to a [`Viewer`].
//!
//! The [`Authenticator`] is asked by whatever a client speaks. What it has verified it keeps for a while, as a
//! [`Credential`] that ends when the token expires or the key is revoked; connections hold it, and end with it.

mod api_key;
mod authenticator;
mod bearer;
mod caller;
mod claims;
mod credential;
mod denied;
mod jwks;
mod key;
mod lookup;
mod rate;
mod sweep;
mod token;
mod viewer;

pub use api_key::ApiKeySecret;
pub use authenticator::Authenticator;
pub use bearer::Bearer;
pub use caller::{Caller, network};
pub use credential::Credential;
pub use denied::{Denied, Invalid};
pub use key::KeyError;
pub use rate::{Rates, TooFast};
pub use viewer::Viewer;

/// SHA-256.
pub type Digest = [u8; 32];

fn digest(bytes: &[u8]) -> Digest {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut digest = Digest::default();
    digest.copy_from_slice(hash.as_ref());
    digest
}
