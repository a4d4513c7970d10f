//! The schema is installed by an ordinary role; the service and a direct writer work with the grants of `docs/grants.sql`.

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::support::roles::Tenancy;
use crate::support::{Service, eventually};
use incident_manager::config::DatabaseUrl;

const DENIED: &str = "42501";

async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The SQLSTATE with which a statement is refused.
async fn refused(connection: &mut PgConnection, sql: &str) -> String {
    let error = connection.execute(AssertSqlSafe(sql.to_owned())).await.expect_err(sql);
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).expect("an error of the server").into_owned()
}

#[tokio::test]
async fn the_service_does_all_it_does_with_the_documented_grants() {
    let tenancy = Tenancy::installed().await;
    let service = Service::start(&DatabaseUrl::from(tenancy.url("service"))).await;
    let mut updates = service.subscribe("subscription { incidentUpdates { updateType actor } }").await;
    let mut alerts = service.subscribe("subscription { alerts { title incident { title } } }").await;
    let created = service
        .data(
            "mutation { createIncident(input: { title: \"t\", severity: P2, source: \"s\", labels: { a: \"b\" },
                assignedTo: \"x\", fingerprint: \"f\", affectedResources: [\"r\"], metadata: { n: 1 } }) { id } }",
            json!({}),
        )
        .await;
    let id = json!({ "id": created["createIncident"]["id"] });
    for mutation in [
        "updateIncident(id: $id, input: { title: \"u\", description: \"d\", severity: P1, incidentType: COST,
            affectedResources: [], labels: {}, metadata: {} }) { id }",
        "acknowledgeIncident(id: $id) { id }",
        "assignIncident(id: $id, assignee: \"y\") { id }",
        "transitionIncident(id: $id, to: REMEDIATING) { id }",
        "addComment(incidentId: $id, body: \"b\") { author }",
        "resolveIncident(id: $id, resolution: \"r\", rootCause: \"c\") { id }",
    ] {
        service.data(&format!("mutation($id: UUID!) {{ {mutation} }}"), id.clone()).await;
    }
    let submit = "mutation($firing: Boolean!) { submitAlert(input: { source: \"s\", title: \"a\", severity: P3,
        externalId: \"e\", firing: $firing }) { status alert { id } incident { id } } }";
    let submitted = service.data(submit, json!({ "firing": true })).await;
    assert_eq!(submitted["submitAlert"]["status"], "CREATED");
    let submitted = service.data(submit, json!({ "firing": false })).await;
    assert_eq!(submitted["submitAlert"]["status"], "RESOLVED");
    let found = service
        .data(
            "query($id: UUID!) {
                incident(id: $id) { title comments { totalCount nodes { body } } alerts { totalCount } }
                incidents(orderBy: SEVERITY_THEN_CREATED_AT) { totalCount nodes { id } }
                alerts(firing: true) { totalCount nodes { incident { state } } } }",
            id,
        )
        .await;
    assert_eq!(found["incident"]["comments"]["nodes"][0]["body"], "b");
    assert_eq!((&found["incidents"]["totalCount"], &found["alerts"]["totalCount"]), (&json!(2), &json!(0)));
    let heard = ["CREATED", "UPDATED", "STATE_CHANGED", "ASSIGNED", "STATE_CHANGED", "COMMENT_ADDED", "RESOLVED"];
    for expected in heard {
        assert_eq!(updates.next("incidentUpdates").await, json!({ "updateType": expected, "actor": "anonymous" }));
    }
    assert_eq!(alerts.next("alerts").await, json!({ "title": "a", "incident": { "title": "a" } }));
    service.stop().await;
    // what its background does, it may
    let mut connection = tenancy.connect("service").await;
    run(&mut connection, "select * from incident_manager.sequence_events(20000, true)").await;
    run(&mut connection, "select * from incident_manager.event_maintain('7 days', 10000000)").await;
    run(&mut connection, "select incident_manager.event_writers()").await;
}

#[tokio::test]
async fn the_services_maintenance_makes_and_drops_partitions_that_it_does_not_own() {
    let tenancy = Tenancy::installed().await;
    let mut service = tenancy.connect("service").await;
    // past the end of the first partition; the second is made on the way
    for _ in 0..2 {
        tenancy
            .database()
            .execute(
                "insert into incident_manager.incident (title, severity, source)
                 select 't', 'P3', 's' from generate_series(1, 60000)",
            )
            .await;
        run(&mut service, "select * from incident_manager.sequence_events(100000)").await;
        run(&mut service, "select * from incident_manager.event_maintain('7 days', 10000000)").await;
    }
    let dropped: Option<String> =
        sqlx::query_scalar("select dropped from incident_manager.event_maintain('7 days', 1)")
            .fetch_one(&mut service)
            .await
            .unwrap();
    assert_eq!(dropped.as_deref(), Some("event_log_1"));
}

#[tokio::test]
async fn the_service_cannot_write_what_the_database_decides() {
    let tenancy = Tenancy::installed().await;
    let mut service = tenancy.connect("service").await;
    for sql in [
        "insert into incident_manager.alert (source, title, severity) values ('s', 't', 'P3')",
        "update incident_manager.incident set version = 7",
        "insert into incident_manager.event_log (pos) values (1)",
        "delete from incident_manager.incident",
        "truncate incident_manager.event_log",
        "select setval('incident_manager.event_doorbell', 0)",
        "select incident_manager.purge_closed_incidents(now())",
        "create table incident_manager.mine (n integer)",
    ] {
        assert_eq!(refused(&mut service, sql).await, DENIED, "{sql}");
    }
}

#[tokio::test]
async fn a_direct_writer_writes_what_it_may_and_all_of_it_is_heard() {
    let tenancy = Tenancy::installed().await;
    let mut writer = tenancy.connect("writer").await;
    run(
        &mut writer,
        "insert into incident_manager.incident (title, severity, source) values ('t', 'P2', 's');
         update incident_manager.incident set state = 'TRIAGED', title = 'u', fingerprint = 'f' where source = 's';
         insert into incident_manager.comment (incident_id, body) select id, 'b' from incident_manager.incident;
         insert into incident_manager.alert (source, title, severity, external_id) values ('s', 'a', 'P3', 'e');
         insert into incident_manager.alert (source, title, severity, external_id, firing) values ('s', 'a', 'P3', 'e', false);
         insert into incident_manager.alert (id, source, title, severity) values (gen_random_uuid(), 's', 'c', 'P3')
           on conflict (id) do nothing",
    )
    .await;
    let mut service = tenancy.connect("service").await;
    run(&mut service, "select * from incident_manager.sequence_events()").await;
    let log: Vec<(String, Option<String>, String, String)> =
        sqlx::query_as("select kind, update_type, actor, db_user from incident_manager.event_log order by pos")
            .fetch_all(&mut service)
            .await
            .unwrap();
    let kinds: Vec<_> = log.iter().map(|(kind, change, ..)| change.as_deref().unwrap_or(kind)).collect();
    let expected =
        ["CREATED", "STATE_CHANGED", "COMMENT_ADDED", "CREATED", "alert", "RESOLVED", "alert", "CREATED", "alert"];
    assert_eq!(kinds, expected);
    let role = tenancy.role("writer");
    assert!(log.iter().all(|(.., actor, user)| *actor == role && *user == role), "{log:?}");
}

#[tokio::test]
async fn a_direct_writer_can_do_nothing_else() {
    let tenancy = Tenancy::installed().await;
    let mut writer = tenancy.connect("writer").await;
    run(&mut writer, "insert into incident_manager.incident (title, severity, source) values ('t', 'P2', 's')").await;
    for sql in [
        "insert into incident_manager.event_outbox (slot) values (0)",
        "insert into incident_manager.event_log (pos) values (1)",
        "insert into incident_manager.event_batch (n) values (9)",
        "insert into incident_manager.timeline (pos) values (1)",
        "select count(*) from incident_manager.event_log",
        "update incident_manager.incident set version = 7",
        "update incident_manager.incident set source = 'x'",
        "update incident_manager.incident set closed_at = now()",
        "update incident_manager.incident set opened_by_alert = true",
        "insert into incident_manager.incident (title, severity, source, state) values ('t', 'P2', 's', 'TRIAGED')",
        "insert into incident_manager.incident (title, severity, source, opened_by_alert) values ('t', 'P2', 's', true)",
        "insert into incident_manager.alert (source, title, severity, incident_id) values ('s', 't', 'P3', null)",
        "insert into incident_manager.alert (source, title, severity, status) values ('s', 't', 'P3', 'IGNORED')",
        "insert into incident_manager.alert (source, title, severity, received_at) values ('s', 't', 'P3', now())",
        "update incident_manager.alert set firing = false",
        "update incident_manager.comment set body = 'x'",
        "delete from incident_manager.incident",
        "delete from incident_manager.alert",
        "truncate incident_manager.comment",
        "alter table incident_manager.incident disable trigger all",
        "set session_replication_role = replica",
        "select * from incident_manager.sequence_events()",
        "select * from incident_manager.event_maintain()",
        "select * from incident_manager.submit_alerts('[]')",
        "select incident_manager.purge_closed_incidents(now())",
        "select incident_manager.event_add_partition(1, 1)",
        "select setval('incident_manager.event_slot', 1)",
        "create function incident_manager.mine() returns integer language sql return 1",
    ] {
        assert_eq!(refused(&mut writer, sql).await, DENIED, "{sql}");
    }
}

#[tokio::test]
async fn what_a_writer_puts_in_its_search_path_changes_nothing() {
    let tenancy = Tenancy::installed().await;
    let (database, role) = (tenancy.database(), tenancy.role("writer"));
    database.execute(&format!("create schema evil authorization {role}")).await;
    let mut writer = tenancy.connect("writer").await;
    run(
        &mut writer,
        "create function evil.length(text) returns integer language sql immutable return 1;
         create function evil.octet_length(text) returns integer language sql immutable return 1;
         create function evil.current_setting(text, boolean) returns text language sql return 'somebody else';
         create function evil.clock_timestamp() returns timestamptz language sql return '2000-01-01'::timestamptz;
         create function evil.same(text, text) returns boolean language sql immutable return true;
         create operator evil.= (leftarg = text, rightarg = text, function = evil.same);
         create operator evil.<> (leftarg = text, rightarg = text, function = evil.same);
         create table evil.incident (id uuid); create table evil.alert (id uuid); create table evil.event_outbox (n integer);
         create temp table event_outbox (n integer); create temp table incident (id uuid);
         set search_path = evil, pg_temp, pg_catalog, public; set row_security = off",
    )
    .await;
    run(
        &mut writer,
        "insert into incident_manager.incident (title, severity, source) values ('t', 'P2', 's');
         update incident_manager.incident set title = 'u';
         insert into incident_manager.comment (incident_id, body) select id, 'b' from incident_manager.incident;
         insert into incident_manager.alert (source, title, severity, external_id) values ('s', 'a', 'P3', 'e');
         insert into incident_manager.alert (source, title, severity, external_id, firing) values ('s', 'a', 'P3', 'e', false)",
    )
    .await;
    let too_long =
        "insert into incident_manager.incident (title, severity, source) values (repeat('x', 501), 'P2', 's')";
    assert_eq!(refused(&mut writer, too_long).await, "23514");
    assert_eq!(refused(&mut writer, "update incident_manager.incident set state = 'CLOSED'").await, "23514");
    let outbox: String = database
        .scalar(
            "select string_agg(coalesce(update_type, kind), ' ' order by seq) from incident_manager.event_outbox
             where at > '2001-01-01' and actor = db_user",
        )
        .await;
    assert_eq!(outbox, "CREATED UPDATED COMMENT_ADDED CREATED alert RESOLVED alert");
}

#[tokio::test]
async fn what_row_security_hides_from_a_writer_its_triggers_see() {
    let tenancy = Tenancy::installed().await;
    let mut owner = tenancy.connect("owner").await;
    run(
        &mut owner,
        "alter table incident_manager.incident enable row level security;
         alter table incident_manager.alert enable row level security;
         create policy inserted on incident_manager.incident for insert with check (true);
         create policy inserted on incident_manager.alert for insert with check (true);
         insert into incident_manager.incident (title, severity, source, fingerprint) values ('t', 'P2', 's', 'f')",
    )
    .await;
    let mut writer = tenancy.connect("writer").await;
    let visible: i64 =
        sqlx::query_scalar("select count(id) from incident_manager.incident").fetch_one(&mut writer).await.unwrap();
    assert_eq!(visible, 0);
    let id: Uuid = tenancy.database().scalar("select id from incident_manager.incident").await;
    run(
        &mut writer,
        &format!(
            "insert into incident_manager.comment (incident_id, body) values ('{id}', 'b');
             insert into incident_manager.alert (source, title, severity, fingerprint) values ('s', 'a', 'P3', 'f')"
        ),
    )
    .await;
    let joined: i64 = tenancy
        .database()
        .scalar(&format!(
            "select count(*) from incident_manager.event_outbox where incident_id = '{id}' and kind <> 'incident'"
        ))
        .await;
    assert_eq!(joined, 2);
}

#[tokio::test]
async fn the_owner_purges_closed_incidents_and_the_log_stays() {
    let tenancy = Tenancy::installed().await;
    let mut owner = tenancy.connect("owner").await;
    let mut service = tenancy.connect("service").await;
    run(
        &mut owner,
        "insert into incident_manager.alert (source, title, severity, external_id) values ('s', 'closed', 'P3', 'e');
         insert into incident_manager.alert (source, title, severity, external_id, firing) values ('s', 'closed', 'P3', 'e', false);
         insert into incident_manager.comment (incident_id, body) select id, 'b' from incident_manager.incident;
         update incident_manager.incident set state = 'CLOSED';
         insert into incident_manager.alert (source, title, severity) values ('s', 'open', 'P3');
         insert into incident_manager.comment (incident_id, body)
           select id, 'b' from incident_manager.incident where title = 'open'",
    )
    .await;
    run(&mut service, "select * from incident_manager.sequence_events()").await;
    let logged: i64 = tenancy.database().scalar("select count(*) from incident_manager.event_log").await;
    assert_eq!(logged, 9);
    let purged = "select incident_manager.purge_closed_incidents(now() - interval '1 hour')";
    assert_eq!(tenancy.database().scalar::<i64>(purged).await, 0, "too young");
    let purged: i64 = sqlx::query_scalar("select incident_manager.purge_closed_incidents('infinity')")
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert_eq!(purged, 1);
    let left = "select (select count(*) from incident_manager.incident), (select count(*) from incident_manager.alert),
                       (select count(*) from incident_manager.comment), (select count(*) from incident_manager.timeline),
                       (select count(*) from incident_manager.event_log)";
    let left: (i64, i64, i64, i64, i64) = sqlx::query_as(left).fetch_one(tenancy.database().pool()).await.unwrap();
    assert_eq!(left, (1, 1, 1, 2, 9), "of the open one: incident, alert, comment, timeline; and all of the log");
    assert_eq!(refused(&mut owner, "delete from incident_manager.alert").await, "0A000", "the purge opens no door");
}

#[tokio::test]
async fn who_does_not_own_the_tables_purges_nothing_whatever_it_says() {
    let tenancy = Tenancy::installed().await;
    let role = tenancy.role("writer");
    let mut owner = tenancy.connect("owner").await;
    // as far as a careless owner may go
    run(
        &mut owner,
        &format!(
            "grant select, delete on all tables in schema incident_manager to {role};
             grant execute on function incident_manager.purge_closed_incidents(timestamptz, integer) to {role};
             grant update on incident_manager.incident to {role};
             insert into incident_manager.incident (title, severity, source) values ('t', 'P2', 's');
             update incident_manager.incident set state = 'RESOLVED';
             update incident_manager.incident set state = 'CLOSED'"
        ),
    )
    .await;
    let mut writer = tenancy.connect("writer").await;
    assert_eq!(refused(&mut writer, "select incident_manager.purge_closed_incidents('infinity')").await, "0A000");
    let mut transaction = writer.begin().await.unwrap();
    run(&mut transaction, "select set_config('incident_manager.purge', pg_current_xact_id()::text, true)").await;
    assert_eq!(refused(&mut transaction, "delete from incident_manager.incident").await, "0A000");
    transaction.rollback().await.unwrap();
    // nor does the owner, of what is not closed, or by a word that was meant for another transaction
    run(&mut owner, "insert into incident_manager.incident (title, severity, source) values ('t', 'P2', 's')").await;
    let mut transaction = owner.begin().await.unwrap();
    run(&mut transaction, "select set_config('incident_manager.purge', pg_current_xact_id()::text, false)").await;
    assert_eq!(
        refused(&mut transaction, "delete from incident_manager.incident where state <> 'CLOSED'").await,
        "0A000"
    );
    transaction.rollback().await.unwrap();
    run(&mut owner, "select set_config('incident_manager.purge', pg_current_xact_id()::text, false)").await;
    assert_eq!(refused(&mut owner, "delete from incident_manager.incident where state = 'CLOSED'").await, "0A000");
}

#[tokio::test]
async fn a_service_that_may_not_migrate_waits_until_somebody_has() {
    let tenancy = Tenancy::new().await;
    let service = Service::start_with(&DatabaseUrl::from(tenancy.url("service")), &[]).await;
    eventually("the service answers", || async { service.status("/health/live").await == 200 }).await;
    let answer = service.http().get(service.url("/health/ready")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["reason"], "the database's schema is not up to date");
    assert_eq!(
        service.error("{ incidents { totalCount } }", json!({})).await["extensions"]["code"],
        "DATABASE_UNAVAILABLE"
    );
    tenancy.install().await;
    service.ready().await;
    service.data("{ incidents { totalCount } }", json!({})).await;
    service.stop().await;
}
