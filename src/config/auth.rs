//! Settings of authentication.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use url::Url;

use super::duration;

/// Whether callers have to say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// Nobody is asked; the actor of every change is `anonymous`
    Off,
    /// A bearer token or an API key is needed
    Required,
}

/// Who may come in, and by which tokens.
#[derive(Debug, Clone, Args)]
pub struct AuthConfig {
    /// Whether callers need a token or an API key [default: required, with the embedded database off]; given explicitly, `off` also allows addresses beyond loopback
    #[arg(long, env = "INCIDENT_MANAGER_AUTH", value_enum)]
    pub auth: Option<AuthMode>,

    /// Secret of tokens that are signed by HS256, at least 32 bytes
    #[arg(long, env = "INCIDENT_MANAGER_JWT_HS256_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = hs256_secret)]
    pub jwt_hs256_secret: Option<Secret>,

    /// Files with a public key each, as PEM, of tokens that are signed by RS256, ES256 or `EdDSA`
    #[arg(long, env = "INCIDENT_MANAGER_JWT_KEY_FILES", value_delimiter = ',', value_name = "FILE")]
    pub jwt_key_files: Vec<PathBuf>,

    /// Where the public keys of tokens are published, as a JSON Web Key Set
    #[arg(long, env = "INCIDENT_MANAGER_JWT_JWKS_URL", value_name = "URL", value_parser = jwks_url)]
    pub jwt_jwks_url: Option<Url>,

    /// How often the published keys are fetched; a token with an unknown key has them fetched at once
    #[arg(long, env = "INCIDENT_MANAGER_JWT_JWKS_INTERVAL", default_value = "5m", value_parser = duration)]
    pub jwt_jwks_interval: Duration,

    /// Names of this service, of which a token's `aud` has to have one; without any, tokens with an `aud` are refused
    #[arg(long, env = "INCIDENT_MANAGER_JWT_AUDIENCES", value_delimiter = ',', value_name = "NAME")]
    pub jwt_audiences: Vec<String>,

    /// Who may have issued a token, by its `iss` [default: anyone with the key]
    #[arg(long, env = "INCIDENT_MANAGER_JWT_ISSUERS", value_delimiter = ',', value_name = "NAME")]
    pub jwt_issuers: Vec<String>,

    /// By how much the clocks of those who issue tokens may be off
    #[arg(long, env = "INCIDENT_MANAGER_JWT_LEEWAY", default_value = "2s", value_parser = leeway)]
    pub jwt_leeway: Duration,

    /// The claim that names who a token is for
    #[arg(long, env = "INCIDENT_MANAGER_JWT_SUBJECT_CLAIM", default_value = "sub", value_name = "CLAIM", value_parser = claim)]
    pub jwt_subject_claim: String,

    /// The claim with permissions: a list, or a text with spaces between them; dots lead into objects, as in `a.b`
    #[arg(long, env = "INCIDENT_MANAGER_JWT_PERMISSIONS_CLAIM", default_value = "permissions", value_name = "CLAIM", value_parser = claim)]
    pub jwt_permissions_claim: String,

    /// The claim with roles, likewise
    #[arg(long, env = "INCIDENT_MANAGER_JWT_ROLES_CLAIM", default_value = "roles", value_name = "CLAIM", value_parser = claim)]
    pub jwt_roles_claim: String,

    /// The claim with the sources that a token is limited to: a list, or one; absent, there is no limit
    #[arg(long, env = "INCIDENT_MANAGER_JWT_SOURCES_CLAIM", default_value = "sources", value_name = "CLAIM", value_parser = claim)]
    pub jwt_sources_claim: String,
}

impl AuthConfig {
    /// Whether there is a way to check tokens; API keys need none.
    pub fn takes_tokens(&self) -> bool {
        self.jwt_hs256_secret.is_some() || !self.jwt_key_files.is_empty() || self.jwt_jwks_url.is_some()
    }
}

/// What nobody may see; its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for who has to use it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// RFC 7518, section 3.2: a key is at least as long as the hash.
const HS256_SECRET_BYTES: usize = 32;

fn hs256_secret(text: &str) -> Result<Secret, String> {
    if text.len() < HS256_SECRET_BYTES {
        return Err(format!("must have at least {HS256_SECRET_BYTES} bytes"));
    }
    text.parse()
}

fn jwks_url(text: &str) -> Result<Url, String> {
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(url),
        Ok(_) => Err("must begin with https:// or http://".to_owned()),
        Err(error) => Err(format!("is no URL: {error}")),
    }
}

/// Unlike other durations, none at all means something.
fn leeway(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

fn claim(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}
