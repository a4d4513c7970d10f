//! Who is at the other end of a connection, and until when.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::protocol::Close;
use crate::auth::{Authenticator, Bearer, Caller, Credential, Denied, Rates, TooFast};
use crate::graphql::Refusal;
use crate::http::authenticate;
use crate::http::holding::Holding;

/// What has become of who the client is.
pub enum Turn {
    /// Let in: the connection is to be acknowledged.
    Admitted,
    /// Goes on by what a ping brought.
    Refreshed,
    /// Not any more, or not at all: why, as operations are told, and how the connection ends.
    Out(Option<Refusal>, Close),
}

/// A client's credential, and the one that it has sent to be looked at.
pub struct Identity {
    authenticator: Authenticator,
    rates: Arc<Rates>,
    holding: Holding,
    /// Comes when the credential is good no more.
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// At most one is looked at at a time: until then nothing more is read.
    checking: Option<Checking>,
}

struct Checking {
    refreshes: bool,
    answer: BoxFuture<'static, Result<Arc<Credential>, Denied>>,
}

impl Identity {
    /// `holding`: by the credential that the upgrade brought, if it did.
    pub fn new(authenticator: Authenticator, rates: Arc<Rates>, holding: Holding) -> Self {
        let ended = holding.credential().map(|credential| Box::pin(credential.ended()));
        Self { authenticator, rates, holding, ended, checking: None }
    }

    /// Whether one more operation may begin now.
    pub fn may_begin(&self) -> Result<(), TooFast> {
        self.rates.request_from(self.holding.address())?;
        self.holding.credential().map_or(Ok(()), |credential| self.rates.request_by(credential))
    }

    /// What the client holds.
    pub fn holding(&mut self) -> &mut Holding {
        &mut self.holding
    }

    /// Whose operations these are; only of a connection that is acknowledged.
    pub fn caller(&self) -> Option<Caller> {
        self.holding.caller()
    }

    /// Has what `connection_init` brought looked at; without any, what the upgrade brought holds.
    pub fn initialise(&mut self, bearer: Option<Bearer>) {
        let upgrade = self.holding.credential().cloned();
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
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(context).is_ready()
        {
            self.ended = None;
            let why = self.holding.credential().and_then(|credential| credential.why());
            let close = why.map_or_else(Close::forbidden, |why| Close::forbidden_because(&why));
            return Poll::Ready(Turn::Out(why.map(authenticate::ended), close));
        }
        Poll::Pending
    }

    fn answered(&mut self, answer: Result<Arc<Credential>, Denied>, refreshes: bool) -> Turn {
        match answer {
            Ok(credential) => {
                if refreshes
                    && let Some(held) = self.holding.credential()
                    && !credential.continues(held)
                {
                    return Turn::Out(None, Close::forbidden_because(&"another subject or access"));
                }
                let ended = Box::pin(credential.ended());
                if let Err(refusal) = self.holding.pass_to(credential) {
                    let close = Close::try_again_later_because(&refusal.message);
                    return Turn::Out(Some(refusal), close);
                }
                self.ended = Some(ended);
                if refreshes { Turn::Refreshed } else { Turn::Admitted }
            }
            Err(Denied::Database(_) | Denied::NoKeys) => Turn::Out(None, Close::try_again_later()),
            Err(Denied::Invalid(invalid)) if refreshes => {
                Turn::Out(Some(authenticate::ended(invalid)), Close::forbidden_because(&invalid))
            }
            // PROTOCOL.md's words for a connection that is not admitted
            Err(Denied::Missing | Denied::Invalid(_)) => Turn::Out(None, Close::forbidden()),
        }
    }
}
