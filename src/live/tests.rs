//! Feeds over a hub that is filled here, without a database: what is asked for follows from the events alone.

use std::future::poll_fn;
use std::task::Poll;

use uuid::Uuid;

use super::*;
use crate::domain::{
    Access, Alert, AlertId, Change, Epoch, EpochId, Epochs, Event, IncidentKind, Position, Severity, Timestamp,
};
use crate::events::TailBounds;

const FIRST: EpochId = EpochId(Uuid::from_u128(1));
const SECOND: EpochId = EpochId(Uuid::from_u128(2));
const ALERTS: &str = "subscription { alerts { title } }";

const ROOMY: Limits = Limits {
    ring: 1000,
    ring_bytes: 1 << 20,
    inbox: 1000,
    side_by_side: 1,
    waiting: 1,
    block_events: 1000,
    block_bytes: 1 << 20,
    block_scan: 1000,
    replay_bytes: 1 << 20,
    replays: 1,
    turns: 1,
    replay_connections: 1,
};

/// An alert whose title is its position, and the epoch in which that was given out.
fn event(epoch: EpochId, position: i64) -> Arc<Event> {
    let alert = Alert {
        id: AlertId(Uuid::nil()),
        external_id: None,
        source: "source".to_owned(),
        title: format!("{}-{position}", epoch.0.as_u128()),
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
        epoch,
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

struct Fixture {
    hub: Arc<Hub>,
    live: Arc<Live>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let lifecycle = Lifecycle::new();
        let hub = Arc::new(Hub::new(TailBounds { events: 10_000, bytes: usize::MAX }));
        hub.begin(cursor(FIRST, 0), Epochs(vec![Epoch { id: FIRST, first: Position(1) }]));
        let (history, gateway) = (History::away(Arc::clone(&hub)), Gateway::away(&lifecycle));
        let live = Live::start(history, gateway, &lifecycle, limits, Duration::from_hours(1));
        Self { hub, live }
    }

    fn append(&self, epoch: EpochId, positions: std::ops::RangeInclusive<i64>) {
        self.hub.append(&positions.map(|position| event(epoch, position)).collect::<Vec<_>>());
    }

    /// The second epoch begins, and gives positions from here on out anew.
    fn rewind(&self, rewound_to: i64) {
        let epochs = [(FIRST, 1), (SECOND, rewound_to)].map(|(id, first)| Epoch { id, first: Position(first) });
        self.hub.rewind(Position(rewound_to), cursor(SECOND, rewound_to - 1), Epochs(epochs.to_vec()));
    }

    async fn subscribe(&self, after: Option<Cursor>) -> Subscriber {
        self.of(ALERTS, after).await
    }

    async fn of(&self, text: &str, after: Option<Cursor>) -> Subscriber {
        self.live.subscribe(Request::new(text), &Access::all(), after.map(|after| after.encode())).await.unwrap()
    }
}

/// Everything that a subscriber has until it has to wait for what is not there: titles, in order.
async fn drain(subscriber: &mut Subscriber, limit: usize) -> Vec<String> {
    let mut titles = Vec::new();
    let mut idle = 0;
    // tasks of this thread have had their turns
    while idle < 10 {
        let mut frames = Vec::new();
        let taken = poll_fn(|context| Poll::Ready(subscriber.poll_take(context, limit, 10_000, &mut frames))).await;
        match taken {
            Poll::Ready(Ok(())) => idle = 0,
            Poll::Ready(Err(Ended(errors))) => panic!("{}", String::from_utf8_lossy(&errors)),
            Poll::Pending => idle += 1,
        }
        titles.extend(frames.iter().map(|frame| {
            let payload: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap();
            let data = &payload["data"];
            let told = data["alerts"]["title"].as_str().or(data["incidentUpdates"]["updateType"].as_str());
            told.unwrap().to_owned()
        }));
        tokio::task::yield_now().await;
    }
    titles
}

fn titles(epoch: u32, positions: std::ops::RangeInclusive<i64>) -> Vec<String> {
    positions.map(|position| format!("{epoch}-{position}")).collect()
}

#[tokio::test]
async fn who_resumes_gets_what_was_and_then_what_comes() {
    let fixture = Fixture::new(ROOMY);
    fixture.append(FIRST, 1..=20);
    let mut resumed = fixture.subscribe(Some(cursor(FIRST, 5))).await;
    let mut live = fixture.subscribe(None).await;
    assert_eq!(drain(&mut resumed, 3).await, titles(1, 6..=20));
    assert!(Arc::ptr_eq(&resumed.feed, &live.feed), "where one begins makes no other feed of it");
    fixture.append(FIRST, 21..=25);
    assert_eq!(drain(&mut resumed, 3).await, titles(1, 21..=25));
    assert_eq!(drain(&mut live, 3).await, titles(1, 21..=25));
}

#[tokio::test]
async fn every_bound_of_a_feed_may_be_one() {
    let one = Limits {
        ring: 1,
        ring_bytes: 1,
        inbox: 1,
        block_events: 1,
        block_bytes: 1,
        block_scan: 1,
        replay_bytes: 1,
        ..ROOMY
    };
    let fixture = Fixture::new(one);
    let mut slow = fixture.subscribe(None).await;
    for tens in 0..10 {
        fixture.append(FIRST, tens * 10 + 1..=tens * 10 + 10);
        tokio::task::yield_now().await;
    }
    let mut resumed = fixture.subscribe(Some(cursor(FIRST, 50))).await;
    assert_eq!(drain(&mut slow, 1).await, titles(1, 1..=100));
    assert_eq!(drain(&mut resumed, 7).await, titles(1, 51..=100));
}

#[tokio::test]
async fn a_block_is_executed_once_whoever_asks_and_goes_with_its_feed() {
    let fixture = Fixture::new(ROOMY);
    fixture.append(FIRST, 1..=100);
    let mut herd = Vec::new();
    for number in 0..50 {
        herd.push(fixture.subscribe(Some(cursor(FIRST, number % 5))).await);
    }
    let mut waiting = Vec::new();
    for subscriber in &mut herd {
        poll_fn(|context| Poll::Ready(subscriber.poll_take(context, 1, 1, &mut waiting))).await.is_pending();
    }
    for (number, subscriber) in (0..).zip(&mut herd) {
        assert_eq!(drain(subscriber, 1000).await, titles(1, number % 5 + 1..=100));
    }
    let blocks: Vec<_> = herd[0].feed.blocks.lock().made().map(|block| block.frames.len()).collect();
    assert_eq!(blocks, [100], "they were near each other");
    let feed = Arc::downgrade(&herd[0].feed);
    assert!(fixture.live.budget.bytes() > 0);
    drop(herd);
    tokio::task::yield_now().await;
    assert!(feed.upgrade().is_none());
    assert_eq!(fixture.live.budget.bytes(), 0);
}

#[tokio::test]
async fn a_wish_that_nobody_waits_for_is_not_fulfilled() {
    let fixture = Fixture::new(ROOMY);
    fixture.append(FIRST, 1..=10);
    let keep = fixture.subscribe(None).await;
    let mut gone = fixture.subscribe(Some(cursor(FIRST, 3))).await;
    let mut frames = Vec::new();
    assert!(poll_fn(|context| Poll::Ready(gone.poll_take(context, 9, 999, &mut frames))).await.is_pending());
    drop(gone);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(keep.feed.blocks.lock().made().count(), 0);
}

#[tokio::test]
async fn those_who_replay_have_turns() {
    let fixture = Fixture::new(ROOMY);
    fixture.append(FIRST, 1..=10);
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        subscribers.push(fixture.subscribe(Some(cursor(FIRST, 0))).await);
    }
    let [first, second, third] = &mut subscribers[..] else { unreachable!("three") };
    let mut frames = Vec::new();
    poll_fn(|context| first.poll_take(context, 1, 999, &mut frames)).await.unwrap();
    for waiting in [&mut *second, &mut *third] {
        assert_eq!(drain(waiting, 9).await, [""; 0], "the turn is taken");
    }
    // who waits may rest too, and loses its place
    first.rest();
    second.rest();
    assert_eq!(drain(second, 1).await, [""; 0], "it is the third one's turn");
    assert_eq!(drain(third, 4).await, titles(1, 1..=10));
    assert_eq!(drain(second, 4).await, titles(1, 1..=10), "who has got everything gives its turn back");
    assert_eq!(drain(first, 4).await, titles(1, 2..=10));
}

#[tokio::test]
async fn who_joins_before_the_feed_has_heard_of_a_rewind_is_of_the_new_numbering() {
    let fixture = Fixture::new(ROOMY);
    let mut before = fixture.subscribe(None).await;
    fixture.append(FIRST, 1..=5);
    assert_eq!(drain(&mut before, 9).await, titles(1, 1..=5));
    let mut at_3 = fixture.subscribe(Some(cursor(FIRST, 3))).await;
    fixture.rewind(4);
    fixture.append(SECOND, 4..=6);
    // the feed's task has had no turn yet
    let mut joined = fixture.subscribe(None).await;
    assert!(joined.numbering > joined.feed.state.lock().numbering);
    fixture.append(SECOND, 7..=7);
    assert_eq!(drain(&mut joined, 9).await, titles(2, 7..=7));
    assert_eq!(drain(&mut at_3, 9).await, titles(2, 4..=7), "what it has seen is the same in both");
    let mut frames = Vec::new();
    let ended = poll_fn(|context| before.poll_take(context, 9, 999, &mut frames)).await;
    let Err(Ended(errors)) = ended else { panic!("its place is gone") };
    assert!(String::from_utf8_lossy(&errors).contains("CURSOR_EXPIRED"));
    assert!(frames.is_empty());
}

#[tokio::test]
async fn what_was_executed_of_the_old_numbering_is_not_given_to_one_of_the_new() {
    let fixture = Fixture::new(ROOMY);
    fixture.append(FIRST, 1..=9);
    let mut old = fixture.subscribe(Some(cursor(FIRST, 2))).await;
    assert_eq!(drain(&mut old, 1).await, titles(1, 3..=9));
    assert_eq!(old.feed.blocks.lock().made().count(), 1);
    let mut waiting = fixture.subscribe(Some(cursor(FIRST, 2))).await;
    fixture.rewind(5);
    fixture.append(SECOND, 5..=12);
    assert_eq!(drain(&mut waiting, 2).await, [titles(1, 3..=4), titles(2, 5..=12)].concat());
}

#[tokio::test]
async fn a_heartbeat_after_a_rewind_is_of_where_the_log_is_now() {
    const BEATS: &str = "subscription { incidentUpdates { updateType } }";
    let fixture = Fixture::new(ROOMY);
    fixture.append(FIRST, 1..=5);
    let mut subscriber = fixture.of(BEATS, Some(cursor(FIRST, 2))).await;
    assert!(drain(&mut subscriber, 9).await.is_empty());
    assert_eq!(subscriber.cursor().position, Position(5));
    let mut second = fixture.of(BEATS, Some(cursor(FIRST, 2))).await;
    fixture.rewind(4);
    for _ in 0..2 {
        drain(&mut second, 9).await;
        fixture.hub.beat(second.feed.inbox());
        assert_eq!(drain(&mut second, 9).await, ["HEARTBEAT"]);
        assert_eq!((second.cursor().position, second.cursor().epoch), (Position(3), SECOND));
    }
}

#[tokio::test]
async fn a_bookmark_is_where_everything_has_been_delivered() {
    let fixture = Fixture::new(Limits { block_scan: 3, ..ROOMY });
    fixture.append(FIRST, 1..=9);
    let mut behind = fixture.of("subscription { newIncidents { title } }", Some(cursor(FIRST, 1))).await;
    assert_eq!(behind.bookmark(), None, "it has read nothing yet");
    assert!(drain(&mut behind, 9).await.is_empty());
    assert_eq!(behind.bookmark(), Some(cursor(FIRST, 9)));
    assert_eq!(behind.bookmark(), None, "told");
    fixture.append(FIRST, 10..=11);
    assert_eq!(behind.bookmark(), Some(cursor(FIRST, 11)), "nothing of it is asked for");
    let mut alerts = fixture.subscribe(None).await;
    fixture.append(FIRST, 12..=12);
    assert_eq!(alerts.bookmark(), None, "the last has not been delivered");
    assert_eq!(drain(&mut alerts, 9).await, titles(1, 12..=12));
    assert_eq!(alerts.bookmark(), None, "its own cursor says so");
}
