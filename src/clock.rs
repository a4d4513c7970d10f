//! The time of day, from a clock that tests can set.
//!
//! Nothing else asks for it (`clippy.toml` holds that). Durations and deadlines are tokio's, which tests can pause.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use parking_lot::Mutex;

/// PostgreSQL keeps microseconds: a time that went through the database equals itself.
const SUBSECOND_DIGITS: u16 = 6;

/// Where the time comes from; clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Set(Arc<Mutex<DateTime<Utc>>>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until its hand is moved.
    pub fn fixed(at: DateTime<Utc>) -> (Self, ClockHand) {
        let time = Arc::new(Mutex::new(at));
        (Self(Source::Set(Arc::clone(&time))), ClockHand(time))
    }

    /// The time now, in whole microseconds.
    pub fn now(&self) -> DateTime<Utc> {
        let now = match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
            Source::System => Utc::now(),
            Source::Set(time) => *time.lock(),
        };
        now.trunc_subsecs(SUBSECOND_DIGITS)
    }
}

/// Moves a clock made by [`Clock::fixed`].
#[derive(Debug, Clone)]
pub struct ClockHand(Arc<Mutex<DateTime<Utc>>>);

impl ClockHand {
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock() += by;
    }

    pub fn set(&self, at: DateTime<Utc>) {
        *self.0.lock() = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_by_its_hand() {
        let noon = DateTime::from_timestamp(1_762_977_600, 123_456_789).unwrap();
        let (clock, hand) = Clock::fixed(noon);
        let copy = clock.clone();
        assert_eq!(clock.now(), DateTime::from_timestamp(1_762_977_600, 123_456_000).unwrap());
        hand.advance(TimeDelta::hours(1));
        assert_eq!(copy.now() - TimeDelta::hours(1), noon.trunc_subsecs(6));
        hand.set(DateTime::UNIX_EPOCH);
        assert_eq!(copy.now(), DateTime::UNIX_EPOCH);
    }

    #[test]
    fn the_system_clock_shows_whole_microseconds() {
        assert_eq!(Clock::system().now().timestamp_subsec_nanos() % 1000, 0);
    }
}
