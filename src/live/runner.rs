//! Executes what is in a feed's inbox, in order; a task that lives as long as there is something.

use std::sync::Arc;

use super::feed::Feed;
use super::lanes::Lanes;
use crate::events::{Delivery, Item};

/// Items that are taken from the inbox at a time.
const BATCH: usize = 64;

pub async fn run(feed: Arc<Feed>) {
    let live = feed.live();
    let access = (&live.waiting, feed.limits().side_by_side);
    let mut lanes = Lanes::new(live, feed.key(), access, feed.take_executions());
    let mut only_beats = true;
    loop {
        let items = feed.inbox().take(BATCH);
        only_beats &= items.iter().all(|item| matches!(item, Item::Delivery(Delivery::Heartbeat(_))));
        if items.is_empty() {
            // where nothing else happens an open execution would take far more memory than it saves time
            if only_beats {
                lanes.executions.clear();
            }
            match feed.rest(std::mem::take(&mut lanes.executions)) {
                Ok(()) => return,
                Err(again) => lanes.executions = again,
            }
            continue;
        }
        let mut events = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Delivery(event @ Delivery::Event(_)) => {
                    events.push(event);
                    continue;
                }
                Item::Delivery(Delivery::Heartbeat(_)) | Item::Overflow(_) | Item::Rewind(_) => {}
            }
            if !deliver(&feed, &mut lanes, &mut events).await {
                return;
            }
            match item {
                Item::Delivery(beat) => match lanes.run(&[beat]).await {
                    Ok(frames) => frames.into_iter().for_each(|frame| feed.publish_beat(frame)),
                    Err(errors) => return feed.fail(&errors),
                },
                Item::Overflow(position) => feed.overflow(position),
                Item::Rewind(rewound_to) => feed.rewind(rewound_to),
            }
        }
        if !deliver(&feed, &mut lanes, &mut events).await {
            return;
        }
    }
}

/// Executes and publishes, step by step. False: the feed has failed.
async fn deliver(feed: &Arc<Feed>, lanes: &mut Lanes<'_>, events: &mut Vec<Delivery>) -> bool {
    while !events.is_empty() {
        let step = events.len().min(lanes.step());
        match lanes.run(&events[..step]).await {
            Ok(frames) => feed.publish(frames),
            Err(errors) => {
                feed.fail(&errors);
                return false;
            }
        }
        events.drain(..step);
    }
    true
}
