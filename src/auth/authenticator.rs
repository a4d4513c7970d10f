//! From what a client presents to who it is.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::api_key::{is_hash, prefix_of};
use super::credential::{Credential, Origin};
use super::lookup::Lookups;
use super::token::{Tokens, has_form};
use super::{Denied, Digest, Invalid, KeyError, Viewer, digest, sweep};
use crate::clock::Clock;
use crate::config::{AuthConfig, AuthMode};
use crate::domain::ApiKeyId;
use crate::lifecycle::Lifecycle;
use crate::store::Store;

/// Credentials that are kept; of more, those that are used least are verified anew.
const KNOWN: usize = 16_384;
/// Refusals that are kept.
const REFUSED: usize = 16_384;
/// For how long a refusal is kept. What was wrong can become right: a signing key may be published meanwhile.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Says who presents what; clones share what they know.
#[derive(Clone)]
pub struct Authenticator(Mode);

#[derive(Clone)]
enum Mode {
    Off(Arc<Credential>),
    Required(Arc<Required>),
}

/// What is needed where everybody is asked.
pub(super) struct Required {
    pub(super) tokens: Option<Tokens>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    lookups: Lookups,
    known: Cache<Digest, Arc<Credential>>,
    refused: Cache<Digest, (Invalid, Instant)>,
    /// Every credential that anybody may hold.
    held: Mutex<Vec<Weak<Credential>>>,
}

impl Authenticator {
    /// Asks nobody.
    pub fn off() -> Self {
        Self(Mode::Off(Arc::new(Credential::anonymous())))
    }

    /// Reads the keys of tokens and starts what watches over credentials, if anybody is asked.
    pub fn start(
        mode: AuthMode,
        config: &AuthConfig,
        store: &Store,
        clock: &Clock,
        lifecycle: &Lifecycle,
    ) -> Result<Self, KeyError> {
        if mode == AuthMode::Off {
            return Ok(Self::off());
        }
        let (lookups, desk) = Lookups::new(store.clone());
        let required = Arc::new(Required {
            tokens: Tokens::new(config)?,
            store: store.clone(),
            clock: clock.clone(),
            lookups,
            known: Cache::new(KNOWN),
            refused: Cache::new(REFUSED),
            held: Mutex::default(),
        });
        // ends when nobody is left who could ask
        lifecycle.spawn("API key look-ups", desk.run());
        lifecycle.spawn_until_soft("credentials", sweep::run(Arc::clone(&required)));
        if let Some(published) = required.tokens.as_ref().and_then(Tokens::published) {
            lifecycle.spawn_until_soft("published keys", Arc::clone(published).run());
        }
        Ok(Self(Mode::Required(required)))
    }

    /// Whether nobody is asked.
    pub fn is_off(&self) -> bool {
        matches!(self.0, Mode::Off(_))
    }

    /// Who presents this. What was verified not long ago is found without asking anybody.
    pub async fn authenticate(&self, presented: Option<&str>) -> Result<Arc<Credential>, Denied> {
        match &self.0 {
            // whatever is presented may be for somebody else, such as a proxy
            Mode::Off(anonymous) => Ok(Arc::clone(anonymous)),
            Mode::Required(required) => required.authenticate(presented.ok_or(Denied::Missing)?).await,
        }
    }

    /// Ends what this process has of an API key, which was revoked.
    pub fn revoked(&self, key: ApiKeyId) {
        if let Mode::Required(required) = &self.0 {
            for credential in required.held() {
                if credential.origin == Origin::ApiKey(key) {
                    credential.end(Invalid::Revoked);
                }
            }
            required.forget_ended();
        }
    }
}

impl Required {
    async fn authenticate(&self, presented: &str) -> Result<Arc<Credential>, Denied> {
        let digest = digest(presented.as_bytes());
        if let Some(known) = self.known.get(&digest) {
            known.check(self.clock.now())?;
            known.note_use();
            return Ok(known);
        }
        if let Some((invalid, at)) = self.refused.get(&digest)
            && at.elapsed() < REFUSED_FOR
        {
            return Err(invalid.into());
        }
        match self.verify(presented, &digest).await {
            Ok(credential) => {
                let credential = Arc::new(credential.presented_as(digest));
                self.held.lock().push(Arc::downgrade(&credential));
                self.known.insert(digest, Arc::clone(&credential));
                Ok(credential)
            }
            Err(Denied::Invalid(invalid)) => {
                // time alone makes this one right, perhaps in the next second
                if invalid != Invalid::NotYetValid {
                    self.refused.insert(digest, (invalid, Instant::now()));
                }
                Err(invalid.into())
            }
            Err(denied) => Err(denied),
        }
    }

    async fn verify(&self, presented: &str, digest: &Digest) -> Result<Credential, Denied> {
        let now = self.clock.now();
        if let Some(prefix) = prefix_of(presented) {
            self.verify_key(prefix, digest).await
        } else if has_form(presented) {
            match &self.tokens {
                Some(tokens) => tokens.verify(presented, now).await,
                None => Err(Invalid::NoTokens.into()),
            }
        } else {
            Err(Invalid::Malformed.into())
        }
    }

    async fn verify_key(&self, prefix: &str, digest: &Digest) -> Result<Credential, Denied> {
        let found = self.lookups.find(prefix).await?;
        let stored = found.filter(|stored| is_hash(digest, &stored.hash)).ok_or(Invalid::UnknownApiKey)?;
        let key = stored.key;
        if key.revoked_at.is_some() {
            return Err(Invalid::Revoked.into());
        }
        let viewer = Viewer { subject: key.subject(), access: key.access, expires_at: key.expires_at };
        let credential = Credential::new(viewer, Origin::ApiKey(key.id), key.expires_at);
        credential.check(self.clock.now())?;
        Ok(credential)
    }

    /// Every credential that anybody holds.
    pub(super) fn held(&self) -> Vec<Arc<Credential>> {
        let mut all = Vec::new();
        self.held.lock().retain(|weak| match weak.upgrade() {
            Some(credential) => {
                all.push(credential);
                true
            }
            None => false,
        });
        all
    }

    /// Keeps no credential that has ended: who presents it again is told what a look at it says.
    pub(super) fn forget_ended(&self) {
        self.known.retain(|_, credential| credential.why().is_none());
    }
}
