//! Who may hold a connection open: WebSocket connections and event streams are counted, in all and of each client's
//! address, and come to their end in turn when the service drains.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use metrics::gauge;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::problem::Problem;
use super::tally::Tally;
use crate::auth::network;
use crate::graphql::Refusal;
use crate::telemetry::metric;

/// Between two looks at how many connections a drain has to have ended.
const TICK: Duration = Duration::from_millis(10);
/// The longest wait between two connections that a drain ends: a few are not kept waiting as long as many.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// The connections that are open.
pub struct Admission {
    max: usize,
    open: Mutex<usize>,
    of_address: Option<Tally<IpAddr>>,
    /// A drain gives one to each connection, to that first which has waited longest; at its end there is one for everybody.
    turns: Semaphore,
}

impl Admission {
    pub fn new(max: usize, max_per_address: Option<usize>) -> Arc<Self> {
        let of_address = max_per_address.map(|max| Tally::new(max, "an address", "connections"));
        Arc::new(Self { max, open: Mutex::default(), of_address, turns: Semaphore::new(0) })
    }

    /// Admits a connection, or says why not.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Problem> {
        let address = network(address);
        let mut open = self.open.lock();
        if *open >= self.max {
            let message = format!("the service may have no more connections open than {}", self.max);
            return Err(Problem::of(StatusCode::SERVICE_UNAVAILABLE, Refusal::beyond(self.max, message)));
        }
        if let Some(of_address) = &self.of_address {
            of_address.add(address, 1)?;
        }
        *open += 1;
        drop(open);
        gauge!(metric::CONNECTIONS).increment(1);
        Ok(Admitted { admission: Arc::clone(self), address })
    }

    /// Ends the connections that are open, one after the other, over at most `spread`.
    pub async fn drain(&self, spread: Duration) {
        let count = *self.open.lock();
        let spread = spread.min(LONGEST_STEP.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
        let begun = Instant::now();
        let mut given = 0;
        while given < count {
            let due = due(count, begun.elapsed(), spread);
            self.turns.add_permits(due - given);
            given = due;
            sleep(TICK).await;
        }
        // whoever came meanwhile
        self.turns.close();
    }
}

/// How many of `count` connections are to have been ended so long after the beginning: the first at once.
fn due(count: usize, elapsed: Duration, spread: Duration) -> usize {
    let steps = elapsed.as_micros() * count as u128 / spread.as_micros().max(1);
    usize::try_from(steps).unwrap_or(usize::MAX).saturating_add(1).min(count)
}

/// A place among the open connections, free again with the end of this value.
pub struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admitted {
    /// Waits until a drain wants the end of this connection.
    pub fn turn(&self) -> impl Future<Output = ()> + Send + use<> {
        let admission = Arc::clone(&self.admission);
        async move {
            // closed: everybody's turn has come
            if let Ok(turn) = admission.turns.acquire().await {
                turn.forget();
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        *self.admission.open.lock() -= 1;
        if let Some(of_address) = &self.admission.of_address {
            of_address.remove(self.address, 1);
        }
        gauge!(metric::CONNECTIONS).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::task::JoinSet;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_has_ended() {
        let admission = Admission::new(2, None);
        let (first, _second) = (admission.enter(address("192.0.2.1")).unwrap(), admission.enter(address("192.0.2.1")));
        assert!(admission.enter(address("192.0.2.2")).is_err());
        drop(first);
        assert!(admission.enter(address("192.0.2.2")).is_ok());
    }

    #[test]
    fn what_an_address_holds_is_counted_by_itself() {
        let admission = Admission::new(100, Some(1));
        let first = admission.enter(address("192.0.2.1")).unwrap();
        assert!(admission.enter(address("::ffff:192.0.2.1")).is_err(), "the same, as a dual-stack socket shows it");
        let _other = admission.enter(address("192.0.2.2")).unwrap();
        let _network = admission.enter(address("2001:db8:0:1::1")).unwrap();
        assert!(admission.enter(address("2001:db8:0:1:ffff::2")).is_err(), "the same network");
        let _next_network = admission.enter(address("2001:db8:0:2::1")).unwrap();
        drop(first);
        let _again = admission.enter(address("192.0.2.1")).unwrap();
        assert_eq!(admission.of_address.as_ref().map(Tally::keys), Some(4));
    }

    #[test]
    fn what_was_refused_is_not_counted() {
        let admission = Admission::new(1, Some(1));
        let open = admission.enter(address("192.0.2.1")).unwrap();
        assert!(admission.enter(address("192.0.2.1")).is_err());
        assert!(admission.enter(address("192.0.2.2")).is_err());
        drop(open);
        assert_eq!((*admission.open.lock(), admission.of_address.as_ref().map(Tally::keys)), (0, Some(0)));
    }

    /// In which steps so many connections end, and that they do so in the order in which they came.
    async fn steps(count: usize, spread: Duration) -> Vec<usize> {
        let admission = Admission::new(count, None);
        let (ended, mut open) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for number in 0..count {
            let (place, ended) = (admission.enter(address("192.0.2.1")).unwrap(), Arc::clone(&ended));
            open.spawn(async move {
                place.turn().await;
                ended.lock().push((number, Instant::now()));
            });
            tokio::task::yield_now().await;
        }
        admission.drain(spread).await;
        open.join_all().await;
        let ended = ended.lock();
        assert!(ended.iter().map(|(number, _)| *number).eq(0..count), "in their order");
        ended.chunk_by(|one, next| one.1 == next.1).map(<[_]>::len).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn connections_end_in_turn_and_as_many_in_each_step() {
        let steps = steps(1_000, Duration::from_secs(1)).await;
        let (first, even, last) = (steps[0], &steps[1..100], &steps[100..]);
        assert!((first, last) == (1, &[9]) && even.iter().all(|ended| *ended == 10), "{steps:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_do_not_wait_as_long_as_many() {
        let begun = Instant::now();
        assert_eq!(steps(3, Duration::from_mins(1)).await, [1, 1, 1]);
        assert!(begun.elapsed() <= LONGEST_STEP * 3, "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(steps(0, Duration::from_mins(1)).await, [0; 0]);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_during_a_drain_ends_with_it() {
        let admission = Admission::new(3, None);
        let first = admission.enter(address("192.0.2.1")).unwrap();
        let mut turn = Box::pin(first.turn());
        assert!(turn.as_mut().now_or_never().is_none(), "nothing ends before a drain");
        admission.drain(Duration::from_secs(1)).await;
        let late = admission.enter(address("192.0.2.1")).unwrap();
        late.turn().await;
        turn.await;
    }
}
