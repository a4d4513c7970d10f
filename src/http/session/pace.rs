//! How fast a client's messages are read.

use std::time::Duration;

use tokio::time::Instant;

/// What a client may save up by sending nothing: as much as it may send at once after that.
const SAVED_UP: Duration = Duration::from_secs(1);

/// So many messages a second, and so many at once after a pause.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// When the next message would be read if messages came evenly; in the past, of a client that has been quiet.
    next: Instant,
}

impl Pace {
    pub fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), next: now }
    }

    /// A message has been read. Until when no other is to be, if it was too soon for one.
    pub fn read(&mut self, now: Instant) -> Option<Instant> {
        self.next = self.next.max(now) + self.interval;
        let due = self.next + self.interval;
        (due > now + SAVED_UP).then(|| due - SAVED_UP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many messages are read before a wait, and how long that is.
    fn burst(pace: &mut Pace, now: Instant) -> (u32, Duration) {
        for read in 1.. {
            if let Some(until) = pace.read(now) {
                return (read, until - now);
            }
        }
        unreachable!("a pace without end")
    }

    #[test]
    fn a_second_s_messages_are_read_at_once_and_then_evenly() {
        let begun = Instant::now();
        for per_second in [1, 4, 200] {
            let mut pace = Pace::new(per_second, begun);
            let interval = Duration::from_secs(1) / per_second;
            assert_eq!(burst(&mut pace, begun), (per_second, interval), "{per_second}");
            for later in 1..10 {
                assert_eq!(burst(&mut pace, begun + interval * later), (1, interval), "{per_second}");
            }
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_second() {
        let begun = Instant::now();
        let mut pace = Pace::new(10, begun);
        burst(&mut pace, begun);
        let later = begun + Duration::from_millis(500);
        assert_eq!(burst(&mut pace, later).0, 5);
        assert_eq!(burst(&mut pace, later + Duration::from_hours(1)).0, 10);
    }
}
