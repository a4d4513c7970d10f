//! What a client holds open: its connection, and the subscriptions on it. They are counted of its credential, and
//! subscriptions of its address too.

use std::net::IpAddr;
use std::sync::Arc;

use super::tally::Tally;
use crate::auth::{Caller, Credential, Digest, network};
use crate::config::ConnectionsConfig;
use crate::graphql::Refusal;

/// What all clients hold.
pub struct Holdings {
    connections_of_credential: Tally<Digest>,
    subscriptions_of_credential: Tally<Digest>,
    subscriptions_of_address: Option<Tally<IpAddr>>,
}

impl Holdings {
    pub fn new(config: &ConnectionsConfig) -> Arc<Self> {
        Arc::new(Self {
            connections_of_credential: Tally::new(config.max_connections_per_credential, "a credential", "connections"),
            subscriptions_of_credential: Tally::new(
                config.max_subscriptions_per_credential,
                "a credential",
                "subscriptions",
            ),
            subscriptions_of_address: config
                .max_subscriptions_per_address
                .map(|max| Tally::new(max, "an address", "subscriptions")),
        })
    }

    /// A connection and so many subscriptions more, all of them or none; of whom nobody has asked, nothing is counted.
    fn add(&self, credential: &Credential, subscriptions: usize) -> Result<(), Refusal> {
        let Some(digest) = credential.digest() else { return Ok(()) };
        self.connections_of_credential.add(*digest, 1)?;
        self.subscriptions_of_credential
            .add(*digest, subscriptions)
            .inspect_err(|_| self.connections_of_credential.remove(*digest, 1))
    }

    fn remove(&self, credential: &Credential, subscriptions: usize) {
        if let Some(digest) = credential.digest() {
            self.connections_of_credential.remove(*digest, 1);
            self.subscriptions_of_credential.remove(*digest, subscriptions);
        }
    }
}

/// What one client holds by one connection; its end lets go of all of it.
pub struct Holding {
    all: Arc<Holdings>,
    address: IpAddr,
    /// None until it is known.
    credential: Option<Arc<Credential>>,
    subscriptions: usize,
}

impl Holding {
    /// Of a client who has not said yet who it is.
    pub fn new(all: &Arc<Holdings>, address: IpAddr) -> Self {
        Self { all: Arc::clone(all), address: network(address), credential: None, subscriptions: 0 }
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Who asks by it, once that is known.
    pub fn caller(&self) -> Option<Caller> {
        self.credential.clone().map(|credential| Caller { credential, address: self.address })
    }

    pub fn credential(&self) -> Option<&Arc<Credential>> {
        self.credential.as_ref()
    }

    /// From now on everything is held by this credential; where that may not hold as much, nothing has changed.
    pub fn pass_to(&mut self, credential: Arc<Credential>) -> Result<(), Refusal> {
        let before = self.credential.as_deref().map(Credential::digest);
        if before != Some(credential.digest()) {
            self.all.add(&credential, self.subscriptions)?;
            if let Some(before) = &self.credential {
                self.all.remove(before, self.subscriptions);
            }
        }
        self.credential = Some(credential);
        Ok(())
    }

    /// One subscription more.
    pub fn subscribe(&mut self) -> Result<(), Refusal> {
        let of_credential = &self.all.subscriptions_of_credential;
        let digest = self.credential.as_ref().and_then(|credential| credential.digest());
        if let Some(digest) = digest {
            of_credential.add(*digest, 1)?;
        }
        if let Some(of_address) = &self.all.subscriptions_of_address {
            of_address.add(self.address, 1).inspect_err(|_| {
                if let Some(digest) = digest {
                    of_credential.remove(*digest, 1);
                }
            })?;
        }
        self.subscriptions += 1;
        Ok(())
    }

    /// One subscription less.
    pub fn unsubscribe(&mut self) {
        self.subscriptions -= 1;
        if let Some(digest) = self.credential.as_ref().and_then(|credential| credential.digest()) {
            self.all.subscriptions_of_credential.remove(*digest, 1);
        }
        if let Some(of_address) = &self.all.subscriptions_of_address {
            of_address.remove(self.address, 1);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(credential) = &self.credential {
            self.all.remove(credential, self.subscriptions);
        }
        if let Some(of_address) = &self.all.subscriptions_of_address {
            of_address.remove(self.address, self.subscriptions);
        }
    }
}
