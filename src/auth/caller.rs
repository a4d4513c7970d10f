//! Who asks, and from where.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::{Credential, Viewer};

/// The bits of an IPv6 address that name a client's network; the others it chooses by itself.
const NETWORK_MASK: u128 = !0 << 64;

/// Who asks, and from where: of both there are limits.
#[derive(Debug, Clone)]
pub struct Caller {
    pub credential: Arc<Credential>,
    pub address: IpAddr,
}

impl Caller {
    pub fn viewer(&self) -> &Viewer {
        &self.credential.viewer
    }
}

/// What counts as one address.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & NETWORK_MASK)),
        address @ IpAddr::V4(_) => address,
    }
}
