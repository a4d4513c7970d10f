//! Why somebody does not get in.

use std::sync::Arc;

use crate::store::StoreError;

/// Why a client does not get in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Denied {
    /// Nothing was presented.
    #[error("a bearer token or an API key is needed")]
    Missing,
    /// What was presented does not let in.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The database that knows the API keys did not answer.
    #[error(transparent)]
    Database(Arc<StoreError>),
    /// The keys of tokens have not been fetched since the start.
    #[error("the keys that tokens are signed by cannot be had yet")]
    NoKeys,
}

/// What is wrong with what was presented. Nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("this is neither a token nor an API key")]
    Malformed,
    #[error("tokens are not taken here, API keys alone")]
    NoTokens,
    #[error("the token is signed by an algorithm that is not taken")]
    Algorithm,
    #[error("the token has a header that is not understood")]
    Header,
    #[error("the token is signed by an unknown key")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is not for this service")]
    Audience,
    #[error("the token's issuer is not trusted")]
    Issuer,
    #[error("the token's claims cannot be read")]
    Claims,
    #[error("the token has no time of expiry")]
    NoExpiry,
    #[error("the token has no subject of 1 to 200 characters")]
    Subject,
    #[error("the token's sources are no list of texts")]
    Sources,
    #[error("the key that the token is signed by is no longer published")]
    Withdrawn,
    #[error("the API key is unknown")]
    UnknownApiKey,
    #[error("the API key has expired")]
    ExpiredApiKey,
    #[error("the API key has been revoked")]
    Revoked,
}
