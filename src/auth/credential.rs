//! What was verified, for as long as it is good.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Denied, Digest, Invalid, Viewer};
use crate::domain::{ApiKeyId, Timestamp};

/// A token or an API key that lets in, until it ends.
#[derive(Debug)]
pub struct Credential {
    pub viewer: Viewer,
    /// Of what was presented; `None` of whom nobody has asked.
    digest: Option<Digest>,
    /// By what it can end before its time.
    pub(super) origin: Origin,
    /// From then on it is good no more: the viewer's expiry, and the leeway.
    until: Option<Timestamp>,
    ended: CancellationToken,
    why: OnceLock<Invalid>,
    used: AtomicBool,
}

/// Where a credential comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody was asked.
    Anonymous,
    /// A key of the settings signed it.
    Token,
    /// A key that was published signed it; the digest names that.
    PublishedKey(Digest),
    ApiKey(ApiKeyId),
}

impl Credential {
    pub(super) fn new(viewer: Viewer, origin: Origin, until: Option<Timestamp>) -> Self {
        Self {
            viewer,
            digest: None,
            origin,
            until,
            ended: CancellationToken::new(),
            why: OnceLock::new(),
            used: AtomicBool::new(true),
        }
    }

    /// Whoever asks while authentication is off.
    pub(super) fn anonymous() -> Self {
        Self::new(Viewer::anonymous(), Origin::Anonymous, None)
    }

    /// The same, as what was presented under this digest.
    pub(super) fn presented_as(self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self }
    }

    /// The digest of what was presented; `None` of whom nobody has asked.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether it is still good.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Denied> {
        if self.until.is_some_and(|until| until <= now) {
            self.end(self.expired());
        }
        self.why().map_or(Ok(()), |why| Err(why.into()))
    }

    fn expired(&self) -> Invalid {
        match self.origin {
            Origin::ApiKey(_) => Invalid::ExpiredApiKey,
            _ => Invalid::Expired,
        }
    }

    /// It is good no more; whoever waits for [`Self::ended`] is told.
    pub(super) fn end(&self, why: Invalid) {
        // the first reason stays
        let _ = self.why.set(why);
        self.ended.cancel();
    }

    /// Why it has ended, if it has.
    pub fn why(&self) -> Option<Invalid> {
        self.why.get().copied()
    }

    /// Waits until it is good no more.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }

    /// Whether this one may go on where another one was: the same subject, with the same access.
    pub fn continues(&self, other: &Self) -> bool {
        self.viewer.subject == other.viewer.subject && self.viewer.access == other.viewer.access
    }

    pub(super) fn note_use(&self) {
        // a store that changes nothing would still take the cache line from other threads
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was last asked.
    pub(super) fn take_use(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_credential_ends_once_and_says_why() {
        let now = Timestamp::UNIX_EPOCH;
        let credential = Credential::new(Viewer::anonymous(), Origin::Token, Some(now + TimeDelta::seconds(1)));
        let mut ended = Box::pin(credential.ended());
        credential.check(now).unwrap();
        assert!((&mut ended).now_or_never().is_none());
        assert!(matches!(credential.check(now + TimeDelta::seconds(1)), Err(Denied::Invalid(Invalid::Expired))));
        assert!(ended.now_or_never().is_some());
        credential.end(Invalid::Revoked);
        assert_eq!(credential.why(), Some(Invalid::Expired));
    }

    #[test]
    fn use_is_noted_until_it_is_taken() {
        let credential = Credential::anonymous();
        assert!(credential.take_use(), "it was made to be used");
        assert!(!credential.take_use());
        credential.note_use();
        credential.note_use();
        assert!(credential.take_use() && !credential.take_use());
    }
}
