//! Who tests come as: tokens, and the keys that sign them.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use incident_manager::clock::Clock;
use incident_manager::config::DatabaseUrl;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::Service;

/// With which services of the tests check tokens.
pub const SECRET: &str = "a secret of the tests, long enough for HS256";

/// Seconds since 1970.
pub fn now() -> i64 {
    Clock::system().now().timestamp()
}

/// A token by [`SECRET`], of `mei` and for an hour unless the claims say otherwise.
pub fn token(claims: Value) -> String {
    Signer::secret(SECRET).token(claims)
}

/// A token with these roles.
pub fn token_of(roles: &[&str]) -> String {
    token(json!({ "roles": roles }))
}

/// A service that asks who comes, and takes tokens by [`SECRET`]; the tests' own requests come as an administrator.
pub async fn start_required(database: &DatabaseUrl, flags: &[&str]) -> Service {
    let flags = [&["--auth", "required", "--jwt-hs256-secret", SECRET], flags].concat();
    let service = Service::start_with(database, &flags).await.bearing(&token_of(&["admin"]));
    service.ready().await;
    service
}

/// Signs tokens.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public key as PEM; empty of a secret.
    pub pem: String,
    pub name: Option<String>,
}

impl Signer {
    pub fn secret(secret: &str) -> Self {
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, key, pem: String::new(), name: None }
    }

    pub fn rs256() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der = pair.as_der().unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap();
        Self { algorithm: Algorithm::RS256, key, pem: pem("PUBLIC KEY", public.as_ref()), name: None }
    }

    pub fn es256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let key = EncodingKey::from_ec_der(private.as_ref());
        Self { algorithm: Algorithm::ES256, key, pem: pem("PUBLIC KEY", public.as_ref()), name: None }
    }

    pub fn eddsa() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let key = EncodingKey::from_ed_der(private.as_ref());
        Self { algorithm: Algorithm::EdDSA, key, pem: pem("PUBLIC KEY", public.as_ref()), name: None }
    }

    /// The same key under a name.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    pub fn token(&self, mut claims: Value) -> String {
        let object = claims.as_object_mut().expect("claims are an object");
        object.entry("sub").or_insert_with(|| "mei".into());
        object.entry("exp").or_insert_with(|| (now() + 3600).into());
        let header = Header { kid: self.name.clone(), ..Header::new(self.algorithm) };
        encode(&header, &claims, &self.key).unwrap()
    }

    /// The public key as it is published.
    pub fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        if let Some(name) = &self.name {
            jwk["kid"] = json!(name);
        }
        jwk
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
