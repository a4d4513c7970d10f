//! How fast requests may come: a token bucket for each credential, and one for each client address.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::time::{MissedTickBehavior, interval};

use super::admission::network;
use crate::auth::{Credential, Digest};
use crate::config::RatesConfig;
use crate::graphql::{Code, Refusal};

/// Between two looks for buckets that are full again, and so need not be kept.
const SWEEP: Duration = Duration::from_secs(10);

/// The buckets. A request takes from them, and so does an operation on a WebSocket.
pub struct Rates {
    of_credential: Buckets<Digest>,
    of_address: Option<Buckets<IpAddr>>,
}

impl Rates {
    pub fn new(config: &RatesConfig) -> Self {
        Self {
            of_credential: Buckets::new(config.max_requests_per_second),
            of_address: config.max_requests_per_second_per_address.map(Buckets::new),
        }
    }

    /// Takes from the bucket of an address.
    pub fn of_address(&self, address: IpAddr) -> Result<(), Refusal> {
        self.of_address.as_ref().map_or(Ok(()), |buckets| buckets.take(&network(address), "an address"))
    }

    /// Takes from the bucket of a credential; there is none for whom nobody has asked.
    pub fn of_credential(&self, credential: &Credential) -> Result<(), Refusal> {
        credential.digest().map_or(Ok(()), |digest| self.of_credential.take(digest, "a credential"))
    }

    /// Keeps the buckets from becoming ever more.
    pub async fn sweep(&self) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.of_credential.limiter.retain_recent();
            self.of_credential.limiter.shrink_to_fit();
            if let Some(buckets) = &self.of_address {
                buckets.limiter.retain_recent();
                buckets.limiter.shrink_to_fit();
            }
        }
    }
}

struct Buckets<K: Hash + Eq + Clone> {
    per_second: NonZeroU32,
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// A second's worth at once after a pause.
    fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, limiter: RateLimiter::keyed(Quota::per_second(per_second)), clock: DefaultClock::default() }
    }

    fn take(&self, key: &K, whose: &str) -> Result<(), Refusal> {
        self.limiter.check_key(key).map_err(|not_until| {
            let message = format!("{whose} may send {} requests a second", self.per_second);
            let retry_after = Some(not_until.wait_time_from(self.clock.now()));
            Refusal { retry_after, ..Refusal::new(Code::RateLimitExceeded, message) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_second: u32) -> Rates {
        let per_second = NonZeroU32::new(per_second).unwrap();
        Rates::new(&RatesConfig {
            max_requests_per_second: per_second,
            max_requests_per_second_per_address: Some(per_second),
        })
    }

    #[test]
    fn an_address_has_a_bucket_of_its_own_and_is_told_when_to_come_back() {
        let rates = rates(1);
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        rates.of_address(one).unwrap();
        let refused = rates.of_address("::ffff:192.0.2.1".parse().unwrap()).unwrap_err();
        assert_eq!(refused.code, Code::RateLimitExceeded);
        assert!(refused.retry_after.is_some_and(|after| !after.is_zero() && after <= Duration::from_secs(1)));
        rates.of_address(other).unwrap();
    }
}
