//! Who is at the other end of a connection, and until when.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::protocol::Close;
use crate::auth::{Authenticator, Bearer, Credential, Denied, Invalid, Viewer};
use crate::graphql::Refusal;
use crate::http::Rates;

/// What has become of who the client is.
pub enum Turn {
    /// Let in: the connection is to be acknowledged.
    Admitted,
    /// Goes on by what a ping brought.
    Refreshed,
    /// Not any more, or not at all: why, as operations are told, and how the connection ends.
    Out(Option<Invalid>, Close),
}

/// A client's credential, and the one that it has sent to be looked at.
pub struct Identity {
    authenticator: Authenticator,
    rates: Arc<Rates>,
    address: IpAddr,
    credential: Option<Held>,
    /// At most one is looked at at a time: until then nothing more is read.
    checking: Option<Checking>,
}

struct Held {
    credential: Arc<Credential>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

struct Checking {
    refreshes: bool,
    answer: BoxFuture<'static, Result<Arc<Credential>, Denied>>,
}

impl Identity {
    /// `credential`: what the upgrade brought.
    pub fn new(
        authenticator: Authenticator,
        rates: Arc<Rates>,
        address: IpAddr,
        credential: Option<Arc<Credential>>,
    ) -> Self {
        Self { authenticator, rates, address, credential: credential.map(Held::new), checking: None }
    }

    /// Whether one more operation may begin now.
    pub fn may_begin(&self) -> Result<(), Refusal> {
        self.rates.of_address(self.address)?;
        self.credential.as_ref().map_or(Ok(()), |held| self.rates.of_credential(&held.credential))
    }

    /// Whose operations these are; only of a connection that is acknowledged.
    pub fn viewer(&self) -> Option<&Viewer> {
        self.credential.as_ref().map(|held| &held.credential.viewer)
    }

    /// Has what `connection_init` brought looked at; without any, what the upgrade brought holds.
    pub fn initialise(&mut self, bearer: Option<Bearer>) {
        let upgrade = self.credential.as_ref().map(|held| Arc::clone(&held.credential));
        let authenticator = self.authenticator.clone();
        let answer = Box::pin(async move {
            match (bearer, upgrade) {
                (None, Some(credential)) => Ok(credential),
                (bearer, _) => authenticator.authenticate(bearer.as_ref().map(Bearer::expose)).await,
            }
        });
        self.checking = Some(Checking { refreshes: false, answer });
    }

    /// Has what a ping brought looked at.
    pub fn refresh(&mut self, bearer: Bearer) {
        let authenticator = self.authenticator.clone();
        let answer = Box::pin(async move { authenticator.authenticate(Some(bearer.expose())).await });
        self.checking = Some(Checking { refreshes: true, answer });
    }

    /// Whether messages have to wait for an answer.
    pub fn is_refreshing(&self) -> bool {
        self.checking.as_ref().is_some_and(|checking| checking.refreshes)
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        if let Some(checking) = &mut self.checking
            && let Poll::Ready(answer) = checking.answer.as_mut().poll(context)
        {
            let refreshes = checking.refreshes;
            self.checking = None;
            return Poll::Ready(self.answered(answer, refreshes));
        }
        if let Some(held) = &mut self.credential
            && held.ended.as_mut().poll(context).is_ready()
        {
            let why = held.credential.why();
            self.credential = None;
            let close = why.map_or_else(Close::forbidden, |why| Close::forbidden_because(&why));
            return Poll::Ready(Turn::Out(why, close));
        }
        Poll::Pending
    }

    fn answered(&mut self, answer: Result<Arc<Credential>, Denied>, refreshes: bool) -> Turn {
        match answer {
            Ok(credential) => {
                if refreshes
                    && let Some(held) = &self.credential
                    && !credential.continues(&held.credential)
                {
                    return Turn::Out(None, Close::forbidden_because(&"another subject or access"));
                }
                self.credential = Some(Held::new(credential));
                if refreshes { Turn::Refreshed } else { Turn::Admitted }
            }
            Err(Denied::Database(_) | Denied::NoKeys) => Turn::Out(None, Close::try_again_later()),
            Err(Denied::Invalid(invalid)) if refreshes => Turn::Out(Some(invalid), Close::forbidden_because(&invalid)),
            // PROTOCOL.md's words for a connection that is not admitted
            Err(Denied::Missing | Denied::Invalid(_)) => Turn::Out(None, Close::forbidden()),
        }
    }
}

impl Held {
    fn new(credential: Arc<Credential>) -> Self {
        Self { ended: Box::pin(credential.ended()), credential }
    }
}
