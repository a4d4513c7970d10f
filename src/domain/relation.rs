//! Which incidents belong together.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::TimeDelta;

use super::incident::Incident;
use super::input::InvalidInput;
use super::wire::wire_enum;
use super::{IncidentId, Timestamp};

/// The best that are told of an incident.
const MAX_RELATED: usize = 20;
/// How many incidents before another, and how many after it, may correlate by their time.
const NEAR: usize = 32;
/// And how much before or after.
const NEAR_TIME: TimeDelta = TimeDelta::hours(1);

wire_enum! {
    /// Why an incident is related to another.
    RelationReason {
        /// somebody linked them
        Linked = "LINKED",
        /// one was merged into the other
        Merged = "MERGED",
        /// the same fingerprint, or an affected resource in common at nearly the same time
        Correlated = "CORRELATED",
    }
}

/// An incident, as another is related to it.
#[derive(Debug, Clone, PartialEq)]
pub struct RelatedIncident {
    pub incident: Arc<Incident>,
    pub reason: RelationReason,
    /// 1 where it is certain.
    pub score: f64,
}

/// An incident that another is related to, perhaps among better ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub of: IncidentId,
    pub id: IncidentId,
    pub reason: RelationReason,
    pub score: f64,
    /// When they were linked or merged.
    pub at: Option<Timestamp>,
}

/// An incident that was made at about the same time as others.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    pub id: IncidentId,
    pub created_at: Timestamp,
    pub affected_resources: Vec<String>,
}

/// What each of some incidents is related to, the best first: of the candidates, and of the neighbours those that have an
/// affected resource in common with it. The neighbours are, in any order and perhaps twice, the incidents themselves and as
/// many around each as may correlate with it.
pub fn relate(
    incidents: &[IncidentId],
    mut candidates: Vec<Candidate>,
    mut neighbours: Vec<Neighbour>,
) -> HashMap<IncidentId, Vec<Candidate>> {
    neighbours.sort_by_key(|neighbour| (neighbour.created_at, neighbour.id));
    neighbours.dedup_by_key(|neighbour| neighbour.id);
    let incidents: HashSet<_> = incidents.iter().collect();
    for (place, own) in neighbours.iter().enumerate().filter(|(_, neighbour)| incidents.contains(&neighbour.id)) {
        let (before, after) = (neighbours[..place].iter().rev().take(NEAR), neighbours[place + 1..].iter().take(NEAR));
        candidates.extend(before.chain(after).filter_map(|other| correlate(own, other)));
    }
    candidates.sort_by(|a, b| {
        let order = |one: &Candidate| (one.reason, Reverse(one.at), one.id);
        b.score.total_cmp(&a.score).then_with(|| order(a).cmp(&order(b)))
    });
    let mut related: HashMap<_, Vec<Candidate>> = HashMap::new();
    for candidate in candidates {
        let best = related.entry(candidate.of).or_default();
        if best.len() < MAX_RELATED && best.iter().all(|better| better.id != candidate.id) {
            best.push(candidate);
        }
    }
    related
}

/// The closer in time, the higher.
fn correlate(own: &Neighbour, other: &Neighbour) -> Option<Candidate> {
    let apart = (other.created_at - own.created_at).abs();
    let in_common = || own.affected_resources.iter().any(|resource| other.affected_resources.contains(resource));
    (apart <= NEAR_TIME && in_common()).then(|| Candidate {
        of: own.id,
        id: other.id,
        reason: RelationReason::Correlated,
        score: 0.7 - 0.3 * apart.as_seconds_f64() / NEAR_TIME.as_seconds_f64(),
        at: None,
    })
}

/// Two incidents, the lower id first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncidentPair {
    low: IncidentId,
    high: IncidentId,
}

impl IncidentPair {
    /// An incident is no pair with itself.
    pub fn new(a: IncidentId, b: IncidentId) -> Result<Self, InvalidInput> {
        if a == b {
            return Err(InvalidInput::new("b", "must be another incident than a"));
        }
        Ok(Self { low: a.min(b), high: a.max(b) })
    }

    pub const fn low(self) -> IncidentId {
        self.low
    }

    pub const fn high(self) -> IncidentId {
        self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn id(n: u128) -> IncidentId {
        IncidentId(Uuid::from_u128(n))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn neighbour(n: u128, seconds: i64, resources: &[&str]) -> Neighbour {
        let affected_resources = resources.iter().map(|&resource| resource.to_owned()).collect();
        Neighbour { id: id(n), created_at: at(seconds), affected_resources }
    }

    fn candidate(n: u128, reason: RelationReason, score: f64, seconds: Option<i64>) -> Candidate {
        Candidate { of: id(0), id: id(n), reason, score, at: seconds.map(at) }
    }

    fn ids(related: &[Candidate]) -> Vec<u128> {
        related.iter().map(|one| one.id.0.as_u128()).collect()
    }

    #[test]
    fn the_best_come_first_and_each_once() {
        use RelationReason::{Correlated, Linked, Merged};
        let candidates = vec![
            candidate(1, Correlated, 0.8, None),
            candidate(2, Correlated, 0.9, None),
            candidate(3, Merged, 1.0, Some(9)),
            candidate(4, Linked, 1.0, Some(1)),
            candidate(5, Linked, 1.0, Some(2)),
            candidate(2, Linked, 1.0, Some(3)),
            candidate(7, Correlated, 0.8, None),
        ];
        let related = relate(&[id(0)], candidates, Vec::new());
        assert_eq!(ids(&related[&id(0)]), [2, 5, 4, 3, 1, 7]);
        assert_eq!(related[&id(0)][0].reason, Linked);
        let many = (1..=25).map(|n| candidate(n, Linked, 1.0, Some(0))).collect();
        assert_eq!(ids(&relate(&[id(0)], many, Vec::new())[&id(0)]), (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn neighbours_correlate_by_what_is_affected_the_closer_the_better() {
        let neighbours = vec![
            neighbour(3, 7201, &["db"]),
            neighbour(1, 1800, &["lb", "db"]),
            neighbour(0, 3600, &["queue", "db"]),
            neighbour(1, 1800, &["lb", "db"]),
            neighbour(2, 3600, &["lb"]),
            neighbour(4, 7200, &["queue"]),
            neighbour(5, 3500, &[]),
        ];
        let related = relate(&[id(0), id(5)], Vec::new(), neighbours);
        assert_eq!(ids(&related[&id(0)]), [1, 4]);
        let scores: Vec<f64> = related[&id(0)].iter().map(|one| one.score).collect();
        assert!((scores[0] - 0.55).abs() < 1e-9 && (scores[1] - 0.4).abs() < 1e-9, "{scores:?}");
        assert!(!related.contains_key(&id(5)) && !related.contains_key(&id(1)), "nothing in common, and not asked for");
    }

    #[test]
    fn so_many_before_and_after_correlate() {
        let neighbours = |resources: fn(u32) -> &'static [&'static str]| {
            (0..200).map(|n: u32| neighbour(n.into(), 10 * i64::from(n), resources(n))).collect::<Vec<_>>()
        };
        let own = id(100);
        let of = |n: u32| match n {
            67 | 133 | 100 => &["db"][..],
            _ => &["lb"],
        };
        assert!(relate(&[own], Vec::new(), neighbours(of)).is_empty());
        let of = |n: u32| match n {
            68 | 132 | 100 => &["db"][..],
            _ => &["lb"],
        };
        assert_eq!(ids(&relate(&[own], Vec::new(), neighbours(of))[&own]), [68, 132]);
    }
}
