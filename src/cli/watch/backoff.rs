//! How long to wait before the next attempt: exponential, with full jitter, so that clients that lost the same
//! service do not come back to it in the same instant.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Ceiling of the first wait.
const FIRST: Duration = Duration::from_millis(500);

/// Ceiling of every wait.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A wait between nothing and a ceiling that doubles with every failure.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let ceiling = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        rng.random_range(Duration::ZERO..=ceiling)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_over_after_success() {
        let mut longest = [Duration::ZERO; 40];
        for seed in 0..500 {
            let (mut backoff, mut rng) = (Backoff::default(), StdRng::seed_from_u64(seed));
            for longest in &mut longest {
                *longest = (*longest).max(backoff.next(&mut rng));
            }
            backoff.reset();
            assert!(backoff.next(&mut rng) <= FIRST);
        }
        for (attempt, longest) in (0..).zip(&longest) {
            let ceiling = (FIRST * 2_u32.pow(attempt.min(20))).min(LONGEST);
            assert!(*longest <= ceiling, "{attempt}: {longest:?}");
            assert!(*longest >= ceiling.mul_f64(0.9), "{attempt}: {longest:?}");
        }
    }
}
