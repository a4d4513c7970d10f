//! What is an event of the log: by which writers' changes, and with what in it.

use crate::support::TestDatabase;
use crate::support::log::{WRITER, assert_in_order, heard_of, insert, log, run, sequence_all};

/// A database with one incident, of which the log knows.
async fn with_incident() -> TestDatabase {
    let database = TestDatabase::new().await;
    insert(&mut database.connect().await, "Checkout fails").await;
    assert_eq!(heard_of(&database).await, 1);
    database
}

#[tokio::test]
async fn an_update_type_is_the_first_that_fits() {
    let database = with_incident().await;
    let changes = [
        ("title = 'b', assigned_to = 'ann'", "ASSIGNED", &["title", "assignedTo"][..]),
        ("severity = 'P0'", "UPDATED", &["severity"]),
        ("state = 'TRIAGED', assigned_to = 'bob'", "STATE_CHANGED", &["state", "acknowledgedAt", "assignedTo"]),
        ("assigned_to = null", "ASSIGNED", &["assignedTo"]),
        (
            "state = 'RESOLVED', severity = 'P1', assigned_to = 'c'",
            "RESOLVED",
            &["severity", "state", "resolvedAt", "assignedTo"],
        ),
        ("state = 'INVESTIGATING'", "STATE_CHANGED", &["state", "resolvedAt"]),
        (
            "description = 'd', incident_type = 'DATA', affected_resources = '{db}', labels = '{\"a\":\"b\"}', metadata = '{\"n\":1}'",
            "UPDATED",
            &["description", "incidentType", "affectedResources", "labels", "metadata"],
        ),
        (
            "resolution = 'r', root_cause = 'c', fingerprint = 'f'",
            "UPDATED",
            &["resolution", "rootCause", "fingerprint"],
        ),
        ("state = 'RESOLVED'", "RESOLVED", &["state", "resolvedAt"]),
        ("state = 'CLOSED'", "STATE_CHANGED", &["state", "closedAt"]),
    ];
    for (set, _, _) in changes {
        database.execute(&format!("update incident_manager.incident set {set}")).await;
    }
    sequence_all(&database).await;
    let log = log(&database).await;
    assert_eq!(log[0].update_type.as_deref(), Some("CREATED"));
    assert_eq!((&log[0].old_severity, &log[0].old_state, log[0].changed.len()), (&None, &None, 0));
    assert_eq!(log.len(), 1 + changes.len());
    for (event, (set, update_type, changed)) in log[1..].iter().zip(changes) {
        assert_eq!(event.update_type.as_deref(), Some(update_type), "{set}");
        assert_eq!(event.changed, changed, "{set}");
    }
    let before: Vec<_> =
        log[1..].iter().map(|e| (e.old_severity.as_deref().unwrap(), e.old_state.as_deref().unwrap())).collect();
    let after: Vec<_> = log.iter().map(|e| (e.severity.as_str(), e.state.as_deref().unwrap())).collect();
    assert_eq!(before, after[..after.len() - 1], "each event says what the one before left");
    assert_eq!(after.last(), Some(&("P1", "CLOSED")));
    assert_in_order(&log);
}

#[tokio::test]
async fn the_actor_is_whom_the_writer_names_else_its_role() {
    let database = TestDatabase::new().await;
    database.execute(&format!("grant usage on schema incident_manager to {WRITER}; grant insert, select on incident_manager.incident to {WRITER}")).await;
    let mut writer = database.connect().await;
    let create = "insert into incident_manager.incident (title, severity, source) values ('t', 'P3', 's')";
    run(&mut writer, create).await;
    run(&mut writer, &format!("set role {WRITER}; {create}; reset role")).await;
    run(&mut writer, &format!("set role {WRITER}; begin; set local incident_manager.actor = 'ann@example.com'; {create}; commit; reset role")).await;
    run(&mut writer, &format!("set session authorization {WRITER}; {create}; reset session authorization")).await;
    run(&mut writer, &format!("set incident_manager.actor = ''; {create}")).await;
    sequence_all(&database).await;
    let log = log(&database).await;
    let who: Vec<_> = log.iter().map(|event| (event.actor.as_str(), event.db_user.as_str())).collect();
    let owner = "postgres";
    assert_eq!(who, [(owner, owner), (WRITER, owner), ("ann@example.com", owner), (WRITER, WRITER), (owner, owner)]);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_no_event() {
    let database = with_incident().await;
    for set in [
        "title = title",
        "state = 'DETECTED'",
        "version = 7, updated_at = now(), created_at = now()",
        "description_version = 3",
    ] {
        database.execute(&format!("update incident_manager.incident set {set}")).await;
    }
    database.execute("update incident_manager.incident set title = 'never' where false").await;
    assert_eq!(heard_of(&database).await, 0);
    assert_eq!(database.scalar::<i32>("select version from incident_manager.incident").await, 1);
}

#[tokio::test]
async fn an_upsert_is_the_event_of_what_it_did() {
    let database = TestDatabase::new().await;
    let upsert =
        "insert into incident_manager.incident (title, severity, source, fingerprint) values ($t, 'P3', 's', 'f')
        on conflict (source, fingerprint) where state not in ('RESOLVED', 'CLOSED')";
    for (title, otherwise) in [
        ("'one'", "do update set title = excluded.title"),
        ("'two'", "do update set title = excluded.title"),
        ("'two'", "do update set title = excluded.title"),
        ("'three'", "do nothing"),
        ("'four'", "do update set title = excluded.title where false"),
    ] {
        database.execute(&format!("{} {otherwise}", upsert.replace("$t", title))).await;
    }
    sequence_all(&database).await;
    let log = log(&database).await;
    let told: Vec<_> = log.iter().map(|event| (event.update_type.as_deref().unwrap(), event.title.as_str())).collect();
    assert_eq!(told, [("CREATED", "one"), ("UPDATED", "two")]);
}

#[tokio::test]
async fn a_changed_key_is_refused() {
    let database = with_incident().await;
    for set in ["id = gen_random_uuid()", "source = 'elsewhere'"] {
        let refused = database.refused(&format!("update incident_manager.incident set {set}")).await;
        assert_eq!(refused, ("23514".to_owned(), "incident_source_fixed".to_owned()), "{set}");
    }
    assert_eq!(heard_of(&database).await, 0);
}

#[tokio::test]
async fn only_what_survives_its_savepoint_is_heard_of() {
    let database = with_incident().await;
    let mut writer = database.connect().await;
    // more than the 64 subtransactions that the server keeps at hand
    run(&mut writer, "begin").await;
    for n in 0..200 {
        let end = if n % 3 == 0 { "rollback to" } else { "release" };
        let change = if n % 2 == 0 {
            format!("update incident_manager.incident set title = 'title {n}'")
        } else {
            format!(
                "insert into incident_manager.comment (incident_id, body) select id, 'comment {n}' from incident_manager.incident"
            )
        };
        run(&mut writer, &format!("savepoint s; {change}; {end} savepoint s")).await;
        if n % 50 == 0 {
            assert_eq!(heard_of(&database).await, 0, "not yet committed");
        }
    }
    run(&mut writer, "commit").await;
    sequence_all(&database).await;
    let log = log(&database).await;
    assert_in_order(&log);
    assert_eq!(log.len(), 1 + (0..200).filter(|n| n % 3 != 0).count());
    let titles: Vec<_> =
        log.iter().filter(|e| e.update_type.as_deref() == Some("UPDATED")).map(|e| e.title.clone()).collect();
    let kept: Vec<_> = (0..200).filter(|n| n % 2 == 0 && n % 3 != 0).map(|n| format!("title {n}")).collect();
    assert_eq!(titles, kept);
}

#[tokio::test]
async fn a_change_that_was_rolled_back_is_never_heard_of() {
    let database = with_incident().await;
    let mut writer = database.connect().await;
    run(&mut writer, "begin; update incident_manager.incident set title = 'never'").await;
    insert(&mut writer, "never").await;
    assert_eq!(heard_of(&database).await, 0);
    run(&mut writer, "rollback; update incident_manager.incident set title = 'now'").await;
    sequence_all(&database).await;
    let titles: Vec<_> = log(&database).await.into_iter().map(|event| event.title).collect();
    assert_eq!(titles, ["Checkout fails", "now"]);
}

#[tokio::test]
async fn a_comment_brings_the_whole_incident() {
    let database = with_incident().await;
    database
        .execute(
            "update incident_manager.incident set severity = 'P0', state = 'TRIAGED', description = 'short';
             insert into incident_manager.comment (incident_id, body) select id, 'look' from incident_manager.incident",
        )
        .await;
    sequence_all(&database).await;
    let log = log(&database).await;
    let [.., update, comment] = &log[..] else { panic!("{log:?}") };
    assert_eq!((comment.kind.as_str(), comment.update_type.as_deref()), ("comment", Some("COMMENT_ADDED")));
    assert_eq!(comment.incident_id, update.incident_id);
    assert!(comment.comment_id.is_some());
    assert_eq!((&comment.severity, &comment.state, comment.version), (&update.severity, &update.state, Some(2)));
    assert_eq!((comment.title.as_str(), comment.description.as_deref()), ("Checkout fails", Some("short")));
    assert_eq!((&comment.old_severity, &comment.old_state), (&None, &None));
}

#[tokio::test]
async fn an_alert_is_one_event_after_its_incidents_and_what_becomes_of_it_is_none() {
    let database = TestDatabase::new().await;
    database
        .execute(
            "insert into incident_manager.alert (title, severity, source) values ('Disk full', 'P2', 'prometheus')",
        )
        .await;
    sequence_all(&database).await;
    let opened = log(&database).await;
    assert_eq!(opened.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), ["incident", "alert"]);
    assert_eq!(opened[0].incident_id, opened[1].incident_id);
    assert!(opened[1].alert_id.is_some());
    assert_eq!((&opened[1].update_type, opened[1].source.as_str()), (&None, "prometheus"));
    database.execute("update incident_manager.alert set firing = false").await;
    assert_eq!(heard_of(&database).await, 0);
}

#[tokio::test]
async fn another_trigger_that_writes_the_same_row_makes_a_later_event() {
    let database = TestDatabase::new().await;
    database
        .execute(
            "create function public.escalates() returns trigger language plpgsql as $$ begin
               update incident_manager.incident set severity = 'P0' where id = new.id; return null; end $$;
             create trigger a_escalates after insert or update of title on incident_manager.incident
               for each row execute function public.escalates()",
        )
        .await;
    insert(&mut database.connect().await, "first").await;
    database.execute("update incident_manager.incident set severity = 'P4'").await;
    database.execute("update incident_manager.incident set title = 'second'").await;
    sequence_all(&database).await;
    let log = log(&database).await;
    assert_in_order(&log);
    let told: Vec<_> = log.iter().map(|e| (e.title.as_str(), e.severity.as_str())).collect();
    assert_eq!(told, [("first", "P3"), ("first", "P0"), ("first", "P4"), ("second", "P4"), ("second", "P0")]);
}

#[tokio::test]
async fn a_writer_needs_rights_on_what_it_writes_alone_whatever_its_search_path() {
    let database = with_incident().await;
    // names that stand in the way, and a policy that hides all incidents from the writer's own queries
    database
        .execute(&format!(
            "create schema trap;
             create table trap.event_outbox (slot int); create table trap.incident (id uuid);
             create table trap.event_slot (last_value smallint);
             create function trap.octet_length(text) returns int language sql as 'select 1 / 0';
             create function trap.pg_notify(text, text) returns void language sql as 'select 1 / 0';
             create function trap.array_remove(text[], text) returns text[] language sql as 'select null::text[]';
             grant usage on schema trap, incident_manager to {WRITER};
             grant all on all tables in schema trap to {WRITER};
             grant insert (title, severity, source), update (title) on incident_manager.incident to {WRITER};
             grant select on incident_manager.incident to {WRITER};
             grant insert (incident_id, body) on incident_manager.comment to {WRITER};
             alter table incident_manager.incident enable row level security;
             create policy inserts on incident_manager.incident for insert with check (true);
             create policy updates on incident_manager.incident for update using (true);
             create policy sees on incident_manager.incident for select using (title <> 'hidden')"
        ))
        .await;
    let mut writer = database.connect().await;
    run(
        &mut writer,
        &format!(
            "set session authorization {WRITER}; set search_path = trap, pg_temp, pg_catalog;
             create temp table event_outbox (slot int); create temp table event_text (object_id uuid);
             insert into incident_manager.incident (title, severity, source) values ('mine', 'P3', 's');
             update incident_manager.incident set title = 'changed' where title = 'mine'"
        ),
    )
    .await;
    let id: uuid::Uuid = database.scalar("select id from incident_manager.incident where title = 'changed'").await;
    database.execute("update incident_manager.incident set title = 'hidden' where title = 'changed'").await;
    run(
        &mut writer,
        &format!(
            "insert into incident_manager.comment (incident_id, body) values ('{id}', 'of one that it does not see')"
        ),
    )
    .await;
    sequence_all(&database).await;
    let log = log(&database).await;
    let told: Vec<_> = log[1..].iter().map(|e| (e.update_type.as_deref().unwrap(), e.title.as_str())).collect();
    assert_eq!(told, [("CREATED", "mine"), ("UPDATED", "changed"), ("UPDATED", "hidden"), ("COMMENT_ADDED", "hidden")]);
    assert_in_order(&log);
}

#[tokio::test]
async fn nobody_but_the_owner_touches_the_log_or_what_leads_to_it() {
    let database = with_incident().await;
    database
        .execute(&format!(
            "grant usage on schema incident_manager to {WRITER};
             grant select, insert, update on incident_manager.incident, incident_manager.comment, incident_manager.alert to {WRITER}"
        ))
        .await;
    let tables = [
        "event_outbox",
        "event_outbox_0",
        "event_outbox_1",
        "event_log",
        "event_log_1",
        "event_batch",
        "event_epoch",
        "event_text",
        "event_partition",
        "timeline",
    ];
    let mut attempts: Vec<String> = tables
        .iter()
        .flat_map(|table| {
            ["delete from incident_manager.", "truncate incident_manager."].map(|verb| format!("{verb}{table}"))
        })
        .collect();
    attempts.extend(
        [
            "insert into incident_manager.event_outbox (slot) values (0)",
            "select setval('incident_manager.event_slot', 1)",
            "select setval('incident_manager.event_doorbell', 0)",
            "select incident_manager.sequence_events()",
            "select incident_manager.event_maintain()",
            "select incident_manager.event_add_partition(1000000, 10)",
            "select incident_manager.event_forget_texts(pg_current_snapshot())",
            "select incident_manager.purge_closed_incidents(now())",
        ]
        .map(str::to_owned),
    );
    for attempt in attempts {
        let (code, _) = database.refused(&format!("set local role {WRITER}; {attempt}")).await;
        assert_eq!(code, "42501", "{attempt}");
    }
}
