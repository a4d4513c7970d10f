//! Reading from the log what a subscription asks for: it is what the service filters by in memory, and costs no more than what
//! is found.

use std::collections::BTreeSet;

use incident_manager::domain::{Filter, IncidentId, Interest, Position, Scope, Severity, UpdateType};
use incident_manager::store::Store;
use uuid::Uuid;

use crate::support::TestDatabase;
use crate::support::log::sequence_all;
use crate::support::service::settings;
use crate::support::statements::{Statements, say_plans};

const EVENTS: i64 = 12_000;
const LIMIT: usize = 10;

/// A log of several partitions: everything happens often in it, but nothing is P0, assigned, or of the source "rare".
const FILL: &str = "
    do $$ begin
      perform incident_manager.event_add_partition(100001, 3000);
    end $$;
    drop table incident_manager.event_log_1;
    delete from incident_manager.event_partition where from_pos = 1;
    select incident_manager.event_add_partition(1 + 3000 * n, 3000) from generate_series(0, 8) n;
    insert into incident_manager.event_log
      (pos, logged_at, seq, at, kind, update_type, incident_id, alert_id, source, severity, old_severity, state, old_state, actor,
       db_user, changed, title, description, description_version, labels, incident_type, affected_resources, metadata, created_at,
       updated_at, version, alert_type, annotations, affected_services, firing, received_at, deduplicated)
    select n, now(), n, now(), kind, case when kind <> 'alert' then type end, incident, case when kind = 'alert' then gen_random_uuid() end,
       'source-' || n % 5, 'P' || 1 + n % 4,
       case when type in ('UPDATED', 'STATE_CHANGED', 'RESOLVED') then 'P' || 1 + (n + n / 16 * (n % 97 / 96)) % 4 end,
       case when type = 'RESOLVED' then 'RESOLVED' else 'TRIAGED' end,
       case type when 'UPDATED' then 'TRIAGED' when 'STATE_CHANGED' then 'DETECTED' when 'RESOLVED' then 'TRIAGED' end,
       'somebody', 'somebody', '{}', n::text, '', 1, '{}', 'UNKNOWN', '{}', '{}', now(), now(), 1, 'UNKNOWN', '{}', '{}', true,
       now(), false
    from (select n, case when n % 3 = 0 then 'alert' when n % 11 = 0 then 'comment' else 'incident' end as kind,
                 case when n % 11 = 0 then 'COMMENT_ADDED'
                      else (array['CREATED', 'UPDATED', 'STATE_CHANGED', 'RESOLVED'])[1 + n / 4 % 4] end as type,
                 md5((n / 20)::text)::uuid as incident
          from generate_series(1, 12000) n) made;
    insert into incident_manager.event_batch (n, last_pos, snap, seen_seq, covered, epoch)
      select n + 1, 12000, snap, 12000, 27001, epoch from incident_manager.event_batch order by n desc limit 1";

fn set<T: Ord + Copy>(values: &[T]) -> BTreeSet<T> {
    values.iter().copied().collect()
}

fn updates<'a>(
    incident_ids: impl Into<Option<&'a [IncidentId]>>,
    severities: impl Into<Option<&'a [Severity]>>,
    update_types: impl Into<Option<&'a [UpdateType]>>,
    active_only: bool,
) -> Filter {
    Filter::IncidentUpdates {
        incident_ids: incident_ids.into().map(set),
        severities: severities.into().map(set),
        update_types: update_types.into().map(set),
        active_only,
    }
}

fn alerts_of(names: &[&str]) -> Filter {
    Filter::Alerts { sources: Some(names.iter().map(ToString::to_string).collect()) }
}

/// Filters of every kind, under every kind of scope; some match much, some nothing.
fn interests(incident: Uuid) -> Vec<Interest> {
    use Severity::{P0, P1, P2, P3};
    use UpdateType::{Assigned, CommentAdded, Created, Heartbeat, Resolved, Updated};
    let ids = &[IncidentId(incident), IncidentId(Uuid::nil())][..];
    let filters = [
        updates(None, None, None, false),
        updates(None, None, None, true),
        updates(ids, None, None, false),
        updates(ids, &[P1, P2][..], &[Updated, Resolved][..], true),
        updates(&[][..], None, None, false),
        updates(None, &[P0][..], None, false),
        updates(None, &[P1, P3][..], None, false),
        updates(None, &[P2][..], &[Updated, Heartbeat][..], true),
        updates(None, None, &[Assigned][..], false),
        updates(None, None, &[CommentAdded, Created][..], false),
        updates(None, None, &[Heartbeat][..], false),
        updates(None, &[][..], None, false),
        Filter::NewIncidents { severities: None },
        Filter::NewIncidents { severities: Some(set(&[P0, P2])) },
        Filter::CriticalIncidents,
        Filter::StateChanges { incident_id: None },
        Filter::StateChanges { incident_id: Some(IncidentId(incident)) },
        Filter::Alerts { sources: None },
        alerts_of(&["source-1", "source-3", "rare"]),
        alerts_of(&["rare"]),
        alerts_of(&[]),
    ];
    let scopes = [Scope::All, Scope::of(["source-1", "source-2"]), Scope::of(["rare"])];
    let mut interests = Vec::new();
    for filter in filters {
        interests.extend(scopes.iter().map(|scope| Interest { filter: filter.clone(), scope: scope.clone() }));
    }
    interests
}

/// Rows that a plan has read, as `EXPLAIN ANALYZE` counts them: those that were found, and those that were not wanted.
fn rows_read(plan: &str) -> usize {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<usize>().unwrap();
    let (mut read, mut loops) = (0, 1);
    for line in plan.lines() {
        if let Some((_, actual)) = line.split_once("(actual rows=") {
            loops = number(actual.split_once("loops=").unwrap().1);
            if line.contains("Index Scan") || line.contains("Index Only Scan") {
                read += number(actual) * loops;
            }
        } else if let Some((_, removed)) = line.split_once("Rows Removed by Filter: ") {
            read += number(removed) * loops;
        }
    }
    read
}

#[tokio::test]
async fn a_resume_by_any_filter_finds_what_it_matches_and_reads_little_more() {
    let database = TestDatabase::new().await;
    database.execute(FILL).await;
    sequence_all(&database).await;
    let incident: Uuid = database.scalar("select incident_id from incident_manager.event_log where pos = 9001").await;
    say_plans(&database).await;
    for setting in ["log_nested_statements = on", "log_analyze = on", "log_timing = off"] {
        database.execute(&format!("alter database {} set auto_explain.{setting}", database.name())).await;
    }
    let statements = Statements::of(&database).await;
    let config = settings(&[]);
    let direct = Store::new(database.url(), &config.database).unwrap();
    let store = Store::new(statements.url().expose(), &config.database).unwrap();
    let mut all = Vec::new();
    while all.len() < usize::try_from(EVENTS).unwrap() {
        all.extend(direct.log_page(Position(i64::try_from(all.len()).unwrap()), 5000).await.unwrap().events);
    }
    let (after, upto) = (Position(5), Position(EVENTS - 5));
    for interest in interests(incident) {
        let between = all.iter().filter(|event| event.position > after && event.position <= upto);
        let expected: Vec<_> = between.filter(|event| interest.matches(event)).map(|event| event.position).collect();
        for limit in [LIMIT, usize::try_from(EVENTS).unwrap()] {
            statements.take_explained();
            let found = store.log_matches(&interest, after, upto, limit).await.unwrap();
            let positions: Vec<_> = found.events.iter().map(|event| event.position).collect();
            assert_eq!(positions, expected[..expected.len().min(limit)], "{interest:?}");
            let read_to = if expected.len() >= limit { expected[limit - 1] } else { upto };
            assert_eq!(found.read_to, read_to, "{interest:?}");
            if limit > LIMIT {
                continue;
            }
            let explained = statements.take_explained();
            let query = |text: &&String| text.contains("order by found.pos") || text.contains("order by l.pos - 0");
            let plan = explained.iter().find(query).unwrap_or_else(|| panic!("{interest:?}: {explained:#?}"));
            assert!(!plan.contains("Seq Scan"), "{interest:?}: {plan}");
            // of each key at most as many as are wanted, and some that are of the key but no more: 6 types of 5 severities, and
            // changes from 5 to 5; within a scope at most what its sources have
            let few = 2 * (6 * 5 + 5 * 5) * LIMIT;
            let seen = interest
                .scope
                .sources()
                .map_or(0, |sources| all.iter().filter(|event| sources.contains(event.source())).count());
            let read = rows_read(plan);
            assert!(read <= few.max(seen), "{interest:?} reads {read} of {EVENTS} rows: {plan}");
        }
    }
}
