//! The keys that tokens are signed by. Each has one algorithm, whatever a token's header says.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::{Digest, digest};
use crate::config::AuthConfig;

/// Keys of one set; of the others nothing is read.
const MAX_PUBLISHED_KEYS: usize = 100;

/// Why there is no key to check tokens by.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {}", path.display())]
    ReadFile { path: PathBuf, source: io::Error },
    #[error("{} is no public key of RSA, P-256 or Ed25519 in PEM", path.display())]
    ParseFile { path: PathBuf },
    #[error("cannot make an HTTP client for the published keys")]
    MakeClient(#[source] reqwest::Error),
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// Names a published key in the headers of tokens, where it has a name.
    pub(super) name: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// What is asked of a token beside the signature; the times are not, as the clock is ours.
    pub(super) validation: Arc<Validation>,
    /// Of a published key.
    pub(super) thumbprint: Option<Digest>,
}

/// Who a token has to be from and for.
#[derive(Debug, Clone)]
pub(super) struct Parties {
    audiences: Vec<String>,
    issuers: Vec<String>,
}

impl Parties {
    pub(super) fn new(config: &AuthConfig) -> Self {
        Self { audiences: config.jwt_audiences.clone(), issuers: config.jwt_issuers.clone() }
    }

    fn validation(&self, algorithm: Algorithm) -> Arc<Validation> {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut required = HashSet::new();
        // where there is none, a token that names its audience is refused
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            required.insert("aud".to_owned());
        }
        if !self.issuers.is_empty() {
            validation.set_issuer(&self.issuers);
            required.insert("iss".to_owned());
        }
        validation.required_spec_claims = required;
        Arc::new(validation)
    }
}

impl Key {
    fn new(algorithm: Algorithm, decoding: DecodingKey, parties: &Parties) -> Self {
        let validation = parties.validation(algorithm);
        Self { name: None, algorithm, decoding, validation, thumbprint: None }
    }

    /// The keys that the settings name.
    pub(super) fn configured(config: &AuthConfig, parties: &Parties) -> Result<Vec<Self>, KeyError> {
        let secret = config.jwt_hs256_secret.iter().map(|secret| {
            let decoding = DecodingKey::from_secret(secret.expose().as_bytes());
            Ok(Self::new(Algorithm::HS256, decoding, parties))
        });
        secret.chain(config.jwt_key_files.iter().map(|path| Self::of_file(path, parties))).collect()
    }

    fn of_file(path: &Path, parties: &Parties) -> Result<Self, KeyError> {
        let pem = std::fs::read(path).map_err(|source| KeyError::ReadFile { path: path.to_owned(), source })?;
        Self::of_pem(&pem, parties).ok_or_else(|| KeyError::ParseFile { path: path.to_owned() })
    }

    fn of_pem(pem: &[u8], parties: &Parties) -> Option<Self> {
        // the library would read a certificate too, and take some other part of it for its key
        let text = std::str::from_utf8(pem).ok()?;
        if text.contains("PRIVATE KEY") || !text.contains("PUBLIC KEY-----") {
            return None;
        }
        let rsa = || DecodingKey::from_rsa_pem(pem).ok().map(|key| (Algorithm::RS256, key));
        let ec = || DecodingKey::from_ec_pem(pem).ok().filter(is_p256).map(|key| (Algorithm::ES256, key));
        let ed = || DecodingKey::from_ed_pem(pem).ok().map(|key| (Algorithm::EdDSA, key));
        let (algorithm, decoding) = ed().or_else(ec).or_else(rsa)?;
        Some(Self::new(algorithm, decoding, parties))
    }

    /// Reads a JSON Web Key Set. What cannot check a token here is left out: keys for encryption, of other kinds, and
    /// secrets, which would be none once they are published. `None` where it is no set.
    pub(super) fn of_set(text: &[u8], parties: &Parties) -> Option<Vec<Self>> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).ok()?;
        Some(set.keys.into_iter().filter_map(|jwk| Self::of_jwk(jwk, parties)).take(MAX_PUBLISHED_KEYS).collect())
    }

    fn of_jwk(jwk: Value, parties: &Parties) -> Option<Self> {
        let thumbprint = digest(jwk.to_string().as_bytes());
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
            && common.key_algorithm.is_none_or(|algorithm| algorithm == named);
        let decoding = DecodingKey::from_jwk(&jwk).ok().filter(|_| signs)?;
        let name = jwk.common.key_id;
        Some(Self { name, thumbprint: Some(thumbprint), ..Self::new(algorithm, decoding, parties) })
    }

    /// Whether a token with this algorithm, that names this key, may be signed by it.
    pub(super) fn fits(&self, algorithm: Algorithm, name: Option<&str>) -> bool {
        let named = match (self.name.as_deref(), name) {
            (Some(own), Some(wanted)) => own == wanted,
            _ => true,
        };
        self.algorithm == algorithm && named
    }
}

/// An uncompressed point of a curve of 256 bits.
fn is_p256(key: &DecodingKey) -> bool {
    key.try_get_as_bytes().is_ok_and(|point| point.len() == 65 && point[0] == 4)
}
