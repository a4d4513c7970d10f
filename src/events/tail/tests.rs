use uuid::Uuid;

use super::*;
use crate::domain::{Alert, AlertId, Change, Epoch, EpochId, IncidentKind, Severity, Timestamp};

const EPOCH: EpochId = EpochId(Uuid::from_u128(1));
const NEXT: EpochId = EpochId(Uuid::from_u128(2));
const ALL: StretchBounds = StretchBounds { scan: usize::MAX, matches: usize::MAX };

fn event(position: i64) -> Arc<Event> {
    let alert = Alert {
        id: AlertId(Uuid::nil()),
        external_id: None,
        source: "source".to_owned(),
        title: "title".to_owned(),
        description: String::new(),
        severity: Severity::P3,
        kind: IncidentKind::Unknown,
        labels: serde_json::Map::new(),
        annotations: serde_json::Map::new(),
        affected_services: Vec::new(),
        runbook_url: None,
        firing: true,
        received_at: Timestamp::UNIX_EPOCH,
        deduplicated: false,
        incident_id: None,
    };
    Arc::new(Event {
        epoch: EPOCH,
        position: Position(position),
        logged_at: at(position),
        at: Timestamp::UNIX_EPOCH,
        actor: "somebody".to_owned(),
        change: Change::Alert(Arc::new(alert)),
    })
}

fn at(position: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(position).unwrap()
}

fn cursor(epoch: EpochId, position: i64) -> Cursor {
    Cursor { epoch, position: Position(position), logged_at: at(position) }
}

fn epochs(firsts: &[(EpochId, i64)]) -> Epochs {
    Epochs(firsts.iter().map(|(id, first)| Epoch { id: *id, first: Position(*first) }).collect())
}

/// Holds at most so many events, from the one after `begin` on.
fn tail(begin: i64, events: std::ops::RangeInclusive<i64>, bound: usize) -> Tail {
    let mut tail = Tail::default();
    tail.begin(cursor(EPOCH, begin), epochs(&[(EPOCH, 1)]));
    tail.append(&events.map(event).collect::<Vec<_>>(), TailBounds { events: bound, bytes: usize::MAX });
    tail
}

fn place(tail: &Tail, position: i64) -> Place {
    Place { position: Position(position), numbering: tail.numbering() }
}

/// The positions of a stretch, and where it ends.
fn stretch(tail: &Tail, from: Place, end: Option<i64>, bounds: StretchBounds) -> Option<(Vec<i64>, i64)> {
    match tail.stretch(from, end.map(Position), |event| event.position.0 % 2 == 0, bounds) {
        FromTail::Here(stretch) => {
            Some((stretch.events.iter().map(|event| event.position.0).collect(), stretch.upto.position.0))
        }
        _ => None,
    }
}

#[test]
fn a_stretch_is_what_is_wanted_after_a_place_as_far_as_it_looked() {
    let tail = tail(5, 6..=15, 100);
    let from = place(&tail, 6);
    assert_eq!(stretch(&tail, from, None, ALL), Some((vec![8, 10, 12, 14], 15)));
    assert_eq!(stretch(&tail, from, Some(11), ALL), Some((vec![8, 10], 11)));
    assert_eq!(stretch(&tail, from, None, StretchBounds { matches: 2, ..ALL }), Some((vec![8, 10], 10)));
    assert_eq!(stretch(&tail, from, None, StretchBounds { scan: 3, ..ALL }), Some((vec![8], 9)));
    assert_eq!(stretch(&tail, place(&tail, 14), None, ALL), Some((vec![], 15)));
    assert!(matches!(tail.stretch(place(&tail, 15), None, |_| true, ALL), FromTail::NotYet));
}

#[test]
fn what_is_before_the_tail_is_told() {
    let held = tail(0, 1..=4, 3);
    assert_eq!(stretch(&held, place(&held, 1), None, ALL), Some((vec![2, 4], 4)));
    assert!(
        matches!(held.stretch(place(&held, 0), None, |_| true, ALL), FromTail::Below(end) if end.cursor.position.0 == 4)
    );
    let mut bytes = Tail::default();
    bytes.begin(cursor(EPOCH, 0), epochs(&[(EPOCH, 1)]));
    bytes
        .append(&(1..=3).map(event).collect::<Vec<_>>(), TailBounds { events: usize::MAX, bytes: event(1).size() * 2 });
    assert!(matches!(bytes.stretch(place(&bytes, 0), None, |_| true, ALL), FromTail::Below(_)));
    assert!(matches!(bytes.stretch(place(&bytes, 1), None, |_| true, ALL), FromTail::Here(_)));
}

#[test]
fn who_saw_positions_that_were_given_out_anew_is_told_and_nobody_else() {
    let mut tail = tail(0, 1..=5, 100);
    let (saw_3, saw_5) = (place(&tail, 3), place(&tail, 5));
    tail.rewind(Position(4), cursor(NEXT, 3), epochs(&[(EPOCH, 1), (NEXT, 4)]));
    assert!(matches!(tail.stretch(saw_5, None, |_| true, ALL), FromTail::Void));
    tail.append(&(4..=6).map(event).collect::<Vec<_>>(), TailBounds { events: 100, bytes: usize::MAX });
    assert!(
        matches!(tail.stretch(saw_5, None, |_| true, ALL), FromTail::Void),
        "the new 6 is not what came after the old 5"
    );
    assert_eq!(stretch(&tail, saw_3, None, ALL), Some((vec![4, 6], 6)));
    let carried = tail.carry(saw_3, tail.numbering()).unwrap();
    tail.rewind(Position(7), cursor(NEXT, 6), epochs(&[(EPOCH, 1), (NEXT, 4)]));
    assert!(tail.carry(carried, tail.numbering()).is_some(), "one that lost nothing disturbs nobody");
}

#[test]
fn a_rewind_to_before_the_tail_begins_it_anew() {
    let mut held = tail(0, 1..=9, 3);
    held.rewind(Position(3), cursor(NEXT, 2), epochs(&[(EPOCH, 1), (NEXT, 3)]));
    assert!(matches!(held.stretch(place(&held, 1), None, |_| true, ALL), FromTail::Below(_)));
    held.append(&[event(3)], TailBounds { events: 3, bytes: usize::MAX });
    assert_eq!(stretch(&held, place(&held, 2), None, ALL), Some((vec![], 3)));
}

#[test]
fn a_cursor_holds_up_to_the_next_epochs_first_position() {
    let mut tail = tail(0, 1..=5, 100);
    tail.rewind(Position(4), cursor(NEXT, 3), epochs(&[(EPOCH, 1), (NEXT, 4)]));
    tail.append(&(4..=6).map(event).collect::<Vec<_>>(), TailBounds { events: 100, bytes: usize::MAX });
    assert!(matches!(tail.locate(cursor(EPOCH, 3)), Some(Located::At(_))));
    assert!(matches!(tail.locate(cursor(EPOCH, 4)), Some(Located::Void)));
    assert!(matches!(tail.locate(cursor(EPOCH, 9)), Some(Located::Void)));
    assert!(matches!(tail.locate(cursor(NEXT, 6)), Some(Located::At(_))));
    assert!(matches!(tail.locate(cursor(NEXT, 7)), Some(Located::Ahead(_))));
    assert!(matches!(tail.locate(cursor(EpochId(Uuid::nil()), 1)), Some(Located::UnknownEpoch)));
    let unstamped = Cursor { logged_at: Timestamp::UNIX_EPOCH, ..cursor(NEXT, 5) };
    assert!(matches!(tail.locate(unstamped), Some(Located::At(_))));
    let rewritten = Cursor { logged_at: at(99), ..cursor(NEXT, 5) };
    assert!(matches!(tail.locate(rewritten), Some(Located::Void)));
    assert!(Tail::default().locate(cursor(EPOCH, 0)).is_none());
}
