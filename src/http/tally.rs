//! How many of something somebody has open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use parking_lot::Mutex;

use crate::graphql::Refusal;

/// What each may have open, and has. Of those who have nothing open, nothing is kept.
pub struct Tally<K> {
    max: usize,
    /// Whose limit it is: `an address`.
    whose: &'static str,
    /// Of what: `connections`.
    what: &'static str,
    open: Mutex<HashMap<K, usize>>,
}

impl<K: Eq + Hash + Copy> Tally<K> {
    pub fn new(max: usize, whose: &'static str, what: &'static str) -> Self {
        Self { max, whose, what, open: Mutex::default() }
    }

    /// Counts so many more, all of them or none.
    pub fn add(&self, key: K, count: usize) -> Result<(), Refusal> {
        if count == 0 {
            return Ok(());
        }
        let mut open = self.open.lock();
        let now = open.get(&key).copied().unwrap_or_default() + count;
        if now > self.max {
            let message = format!("{} may have no more {} open than {}", self.whose, self.what, self.max);
            return Err(Refusal::beyond(self.max, message));
        }
        open.insert(key, now);
        Ok(())
    }

    /// Counts so many of those that were counted no more.
    pub fn remove(&self, key: K, count: usize) {
        if let Entry::Occupied(mut open) = self.open.lock().entry(key) {
            *open.get_mut() -= count;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }

    #[cfg(test)]
    pub fn keys(&self) -> usize {
        self.open.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_what_is_left_is_refused_whole() {
        let tally = Tally::new(3, "a test", "things");
        tally.add(1, 2).unwrap();
        let refused = tally.add(1, 2).unwrap_err();
        assert_eq!((&*refused.message, refused.limit), ("a test may have no more things open than 3", Some(3)));
        tally.add(1, 1).unwrap();
        tally.add(2, 3).unwrap();
        assert!(tally.add(1, 1).is_err() && tally.add(1, 0).is_ok());
        tally.remove(1, 1);
        tally.add(1, 1).unwrap();
        tally.remove(1, 3);
        assert_eq!(tally.keys(), 1, "nothing is kept of who has nothing");
    }
}
