//! JSON Web Tokens: signature, parties, times, claims.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, decode, decode_header};

use super::claims::{Claims, Reading};
use super::credential::{Credential, Origin};
use super::jwks::Jwks;
use super::key::{Key, KeyError, Parties};
use super::{Denied, Digest, Invalid};
use crate::config::AuthConfig;
use crate::domain::Timestamp;

/// Longer tokens are not looked at.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Checks tokens.
pub(super) struct Tokens {
    configured: Vec<Key>,
    published: Option<Arc<Jwks>>,
    reading: Reading,
}

impl Tokens {
    /// Reads the keys of the settings. `None`: they name none.
    pub(super) fn new(config: &AuthConfig) -> Result<Option<Self>, KeyError> {
        if !config.takes_tokens() {
            return Ok(None);
        }
        let parties = Parties::new(config);
        let configured = Key::configured(config, &parties)?;
        let published = match &config.jwt_jwks_url {
            Some(url) => Some(Arc::new(Jwks::new(url.clone(), config.jwt_jwks_interval, parties)?)),
            None => None,
        };
        Ok(Some(Self { configured, published, reading: Reading::new(config) }))
    }

    pub(super) fn published(&self) -> Option<&Arc<Jwks>> {
        self.published.as_ref()
    }

    /// Whether a published key is still published.
    pub(super) fn publishes(&self, key: &Digest) -> bool {
        self.published.as_ref().is_some_and(|published| published.has(key))
    }

    /// Who a token lets in.
    pub(super) async fn verify(&self, token: &str, now: Timestamp) -> Result<Credential, Denied> {
        let header = header_of(token)?;
        if let Some(verified) = self.by(&self.configured, token, &header, now)? {
            return Ok(verified);
        }
        let Some(published) = &self.published else { return Err(self.unverified(&[], &header).into()) };
        let keys = published.keys();
        if let Some(verified) = self.by(&keys, token, &header, now)? {
            return Ok(verified);
        }
        // it may be signed by a key that was published since
        let named = header.kid.as_deref();
        let known = named.is_some() && keys.iter().any(|key| key.name.as_deref() == named);
        if !known {
            published.look_again(&keys).await;
            let keys = published.keys();
            if let Some(verified) = self.by(&keys, token, &header, now)? {
                return Ok(verified);
            }
        }
        let keys = published.keys();
        if keys.is_empty() && !self.configured.iter().any(|key| key.algorithm == header.alg) {
            return Err(Denied::NoKeys);
        }
        Err(self.unverified(&keys, &header).into())
    }

    /// Tries the keys that fit. `None`: none of them has signed the token.
    fn by(&self, keys: &[Key], token: &str, header: &Header, now: Timestamp) -> Result<Option<Credential>, Invalid> {
        for key in keys.iter().filter(|key| key.fits(header.alg, header.kid.as_deref())) {
            let claims = match decode::<Claims>(token, &key.decoding, &key.validation) {
                Ok(data) => data.claims,
                Err(error) => match error.kind() {
                    ErrorKind::InvalidAudience => return Err(Invalid::Audience),
                    ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => return Err(Invalid::Audience),
                    ErrorKind::InvalidIssuer | ErrorKind::MissingRequiredClaim(_) => return Err(Invalid::Issuer),
                    ErrorKind::Json(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidClaimFormat(_) => {
                        return Err(Invalid::Claims);
                    }
                    _ => continue,
                },
            };
            let (viewer, until) = self.reading.read(&claims, now)?;
            let origin = key.thumbprint.map_or(Origin::Token, Origin::PublishedKey);
            return Ok(Some(Credential::new(viewer, origin, Some(until))));
        }
        Ok(None)
    }

    /// Why no key has signed a token.
    fn unverified(&self, published: &[Key], header: &Header) -> Invalid {
        let mut keys = self.configured.iter().chain(published).filter(|key| key.algorithm == header.alg).peekable();
        if keys.peek().is_none() {
            Invalid::Algorithm
        } else if keys.any(|key| key.fits(header.alg, header.kid.as_deref())) {
            Invalid::Signature
        } else {
            Invalid::UnknownKey
        }
    }
}

/// Whether this has the form of a token: three parts.
pub(super) fn has_form(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn header_of(token: &str) -> Result<Header, Invalid> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Invalid::Malformed);
    }
    // an algorithm that the library does not know, as `none` is, makes no header
    let header = decode_header(token).map_err(|error| match error.kind() {
        ErrorKind::Json(_) | ErrorKind::InvalidAlgorithmName => Invalid::Algorithm,
        _ => Invalid::Malformed,
    })?;
    // RFC 7515, section 4.1.11: what has to be understood and is not makes a token invalid
    if header.crit.is_some() { Err(Invalid::Header) } else { Ok(header) }
}
