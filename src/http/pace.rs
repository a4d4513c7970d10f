//! How fast something may go: how fast a client's messages are read, and how fast a subscription's events are sent.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// What a pause saves up: as much as there may be at once after it.
const SAVED_UP: Duration = Duration::from_secs(1);
/// How often in a second who is held back goes on, at most: each time costs a read or a write of its own, and of who is far
/// behind perhaps a stretch of the log.
const TURNS_PER_SECOND: u32 = 4;

/// So many a second, and so many at once after a pause.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    interval: Duration,
    /// How long who has had too many is held back.
    turn: Duration,
}

impl Rate {
    pub fn per_second(count: NonZeroU32) -> Self {
        // beyond a thousand million a second there is nothing to be measured
        let interval = (Duration::from_secs(1) / count.get()).max(Duration::from_nanos(1));
        Self { interval, turn: interval.max(SAVED_UP / TURNS_PER_SECOND) }
    }
}

/// How far somebody has come who goes at a [`Rate`].
#[derive(Debug)]
pub struct Pace {
    /// When the next would come if they came evenly; in the past, after a pause.
    next: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { next: now }
    }

    /// So many have come.
    pub fn count(&mut self, rate: Rate, count: u32, now: Instant) {
        self.next = self.next.max(now) + rate.interval * count;
    }

    /// How many may come now, one at least; else until when none may.
    pub fn due(&self, rate: Rate, now: Instant) -> Result<u32, Instant> {
        let left = SAVED_UP.saturating_sub(self.next.saturating_duration_since(now));
        match left.as_nanos() / rate.interval.as_nanos() {
            0 => Err(self.next + rate.turn - SAVED_UP),
            due => Ok(u32::try_from(due).unwrap_or(u32::MAX)),
        }
    }
}

/// Wakes a task that waits until something is due. Takes next to no memory before it is first set.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Has the task woken then, at the latest; whoever still waits when it is woken sets it again.
    pub fn set(&mut self, at: Instant, context: &mut Context<'_>) {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.is_elapsed() || at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        if sleep.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32) -> Rate {
        Rate::per_second(NonZeroU32::new(per_second).unwrap())
    }

    /// How many come before a wait, and how long that is.
    fn burst(pace: &mut Pace, rate: Rate, now: Instant) -> (u32, Duration) {
        let mut burst = 0;
        loop {
            match pace.due(rate, now) {
                Ok(due) => {
                    // some at a time, and one by one
                    let count = due.div_ceil(2);
                    pace.count(rate, count, now);
                    burst += count;
                }
                Err(until) => return (burst, until - now),
            }
        }
    }

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_evenly_four_times_a_second_at_most() {
        let begun = Instant::now();
        for (per_second, at_a_time) in [(1, 1), (4, 1), (20, 5), (200, 50), (5000, 1250)] {
            let (mut pace, rate) = (Pace::new(begun), rate(per_second));
            let wait = Duration::from_secs(1) / per_second * at_a_time;
            assert_eq!(burst(&mut pace, rate, begun), (per_second, wait), "{per_second}");
            for later in 1..10 {
                assert_eq!(burst(&mut pace, rate, begun + wait * later), (at_a_time, wait), "{per_second}");
            }
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_second() {
        let begun = Instant::now();
        let (mut pace, rate) = (Pace::new(begun), rate(10));
        burst(&mut pace, rate, begun);
        let later = begun + Duration::from_millis(500);
        assert_eq!(burst(&mut pace, rate, later).0, 5);
        assert_eq!(burst(&mut pace, rate, later + Duration::from_hours(1)).0, 10);
    }

    #[test]
    fn in_the_long_run_as_many_come_as_may() {
        let (begun, rate) = (Instant::now(), rate(7));
        let mut pace = Pace::new(begun);
        let (mut now, mut all) = (begun, 0);
        while now < begun + Duration::from_mins(10) {
            let (came, wait) = burst(&mut pace, rate, now);
            all += came;
            now += wait;
        }
        assert!((7 * 600..=7 * 601).contains(&all), "{all}");
    }

    #[test]
    fn the_highest_rates_are_none() {
        let begun = Instant::now();
        let (mut pace, rate) = (Pace::new(begun), rate(u32::MAX));
        assert_eq!(pace.due(rate, begun), Ok(1_000_000_000));
        pace.count(rate, 1_000_000_000, begun);
        assert!(pace.due(rate, begun).is_err_and(|until| until - begun < Duration::from_secs(1)));
    }
}
