//! How fast requests and alerts may come: token buckets, for each credential and for each client address.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::time::{MissedTickBehavior, interval};

use super::{Caller, Credential, Digest, network};
use crate::config::RatesConfig;
use crate::domain::limits;

/// Between two looks for buckets that are full again, and so need not be kept.
const SWEEP: Duration = Duration::from_secs(10);

/// More than may come at a time; none of it was taken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{whose} may send {per_second} {what} a second")]
pub struct TooFast {
    whose: &'static str,
    what: &'static str,
    per_second: NonZeroU32,
    /// After so long there may be as many as were asked for.
    pub wait: Duration,
}

/// The buckets.
pub struct Rates {
    requests: Rate,
    alerts: Rate,
}

impl Rates {
    pub fn new(config: &RatesConfig) -> Self {
        let one = NonZeroU32::MIN;
        // all that a request may bring is admissible, however slow the rate
        let array = u32::try_from(limits::ALERTS).ok().and_then(NonZeroU32::new).unwrap_or(one);
        let rate = |what, of_credential, of_address: Option<_>, least| Rate {
            of_credential: Buckets::new("a credential", what, of_credential, least),
            of_address: of_address.map(|per_second| Buckets::new("an address", what, per_second, least)),
        };
        Self {
            requests: rate("requests", config.max_requests_per_second, config.max_requests_per_second_per_address, one),
            alerts: rate("alerts", config.max_alerts_per_second, config.max_alerts_per_second_per_address, array),
        }
    }

    /// One request, or operation on a WebSocket, from an address.
    pub fn request_from(&self, address: IpAddr) -> Result<(), TooFast> {
        self.requests.from(address, 1)
    }

    /// One request, or operation on a WebSocket, by a credential.
    pub fn request_by(&self, credential: &Credential) -> Result<(), TooFast> {
        self.requests.by(credential, 1)
    }

    /// So many alerts, all of them or none. What a credential may not send is not counted of its address, where others are.
    pub fn alerts(&self, caller: &Caller, count: usize) -> Result<(), TooFast> {
        self.alerts.by(&caller.credential, count)?;
        self.alerts.from(caller.address, count)
    }

    /// Keeps the buckets from becoming ever more.
    pub async fn sweep(&self) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.requests.sweep();
            self.alerts.sweep();
        }
    }
}

/// The rate of one thing.
struct Rate {
    of_credential: Buckets<Digest>,
    of_address: Option<Buckets<IpAddr>>,
}

impl Rate {
    /// There is no bucket for whom nobody has asked.
    fn by(&self, credential: &Credential, count: usize) -> Result<(), TooFast> {
        credential.digest().map_or(Ok(()), |digest| self.of_credential.take(digest, count))
    }

    fn from(&self, address: IpAddr, count: usize) -> Result<(), TooFast> {
        self.of_address.as_ref().map_or(Ok(()), |buckets| buckets.take(&network(address), count))
    }

    fn sweep(&self) {
        self.of_credential.sweep();
        if let Some(buckets) = &self.of_address {
            buckets.sweep();
        }
    }
}

struct Buckets<K: Hash + Eq + Clone> {
    whose: &'static str,
    what: &'static str,
    per_second: NonZeroU32,
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// A second's worth at once after a pause, and `least` of them in any case.
    fn new(whose: &'static str, what: &'static str, per_second: NonZeroU32, least: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(per_second.max(least));
        Self { whose, what, per_second, limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Takes so many, all of them or none; never more than there may be at once.
    fn take(&self, key: &K, count: usize) -> Result<(), TooFast> {
        let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        let Ok(taken) = self.limiter.check_key_n(key, count) else { unreachable!("{count} {} at once", self.what) };
        taken.map_err(|not_until| TooFast {
            whose: self.whose,
            what: self.what,
            per_second: self.per_second,
            wait: not_until.wait_time_from(self.clock.now()),
        })
    }

    fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rates(per_second: u32) -> Rates {
        let per_second = NonZeroU32::new(per_second).unwrap();
        Rates::new(&RatesConfig {
            max_requests_per_second: per_second,
            max_requests_per_second_per_address: Some(per_second),
            max_alerts_per_second: per_second,
            max_alerts_per_second_per_address: Some(per_second),
        })
    }

    fn caller(number: u8, address: &str) -> Caller {
        let credential = Arc::new(Credential::anonymous().presented_as([number; 32]));
        Caller { credential, address: address.parse().unwrap() }
    }

    #[test]
    fn an_address_has_a_bucket_of_its_own_and_is_told_when_to_come_back() {
        let rates = rates(1);
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        rates.request_from(one).unwrap();
        let refused = rates.request_from("::ffff:192.0.2.1".parse().unwrap()).unwrap_err();
        assert_eq!(refused.to_string(), "an address may send 1 requests a second");
        assert!(!refused.wait.is_zero() && refused.wait <= Duration::from_secs(1));
        rates.request_from(other).unwrap();
    }

    #[test]
    fn a_whole_array_is_admissible_at_once_and_what_is_too_much_takes_nothing() {
        let rates = rates(1);
        let caller = caller(1, "192.0.2.1");
        rates.alerts(&caller, limits::ALERTS - 1).unwrap();
        let refused = rates.alerts(&caller, 2).unwrap_err();
        assert!(!refused.wait.is_zero() && refused.wait <= Duration::from_secs(1), "{refused:?}");
        rates.alerts(&caller, 1).expect("the two that were refused have taken nothing");
        assert!(rates.alerts(&caller, limits::ALERTS).unwrap_err().wait > Duration::from_mins(15));
    }

    #[test]
    fn what_one_credential_may_not_send_is_not_taken_from_others_at_its_address() {
        let rates = rates(1000);
        let (busy, calm) = (caller(1, "192.0.2.1"), caller(2, "192.0.2.1"));
        rates.alerts(&busy, 400).unwrap();
        assert!(rates.alerts(&busy, 1000).is_err());
        rates.alerts(&calm, 500).unwrap();
        let refused = rates.alerts(&calm, 500).unwrap_err();
        assert_eq!(refused.to_string(), "an address may send 1000 alerts a second");
    }
}
