//! What each subscription leaves out and lets through, over the socket. That something is not heard shows in what is heard
//! next: each stream is in order.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, Socket, TestDatabase};

/// No HEARTBEAT comes between.
const NO_HEARTBEAT: [&str; 2] = ["--heartbeat-interval", "1h"];

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &NO_HEARTBEAT).await;
    service.ready().await;
    (database, service)
}

async fn insert(database: &TestDatabase, severity: &str) -> Uuid {
    let values = format!("('An incident', '{severity}', 'psql')");
    database
        .scalar(&format!(
            "insert into incident_manager.incident (title, severity, source) values {values} returning id"
        ))
        .await
}

async fn update(database: &TestDatabase, id: Uuid, set: &str) {
    database.execute(&format!("update incident_manager.incident set {set} where id = '{id}'")).await;
}

/// Subscribes to updates, by these arguments, of which the incident, the kind and the version are told.
async fn updates(service: &Service, arguments: &str) -> Socket {
    let selection = "{ updateType incidentId incident { version } }";
    service.subscribe(&format!("subscription {{ incidentUpdates{arguments} {selection} }}")).await
}

async fn assert_update(socket: &mut Socket, id: Uuid, update_type: &str, version: i32) {
    let expected = json!({ "updateType": update_type, "incidentId": id, "incident": { "version": version } });
    assert_eq!(socket.next("incidentUpdates").await, expected);
}

#[tokio::test]
async fn a_severity_is_heard_of_on_its_way_in_and_out_and_not_when_passed_over() {
    let (database, service) = start().await;
    let mut p2 = updates(&service, "(severities: [P2])").await;
    let id = insert(&database, "P3").await;
    update(&database, id, "severity = 'P2'").await;
    assert_update(&mut p2, id, "UPDATED", 2).await;
    update(&database, id, "title = 'Within it'").await;
    assert_update(&mut p2, id, "UPDATED", 3).await;
    update(&database, id, "severity = 'P1'").await;
    assert_update(&mut p2, id, "UPDATED", 4).await;
    update(&database, id, "title = 'Beyond it'").await;
    update(&database, id, "severity = 'P4'").await;
    let last = insert(&database, "P2").await;
    assert_update(&mut p2, last, "CREATED", 1).await;
    service.stop().await;
}

#[tokio::test]
async fn active_only_hears_of_what_is_resolved_and_reopened_and_not_of_what_is_closed() {
    let (database, service) = start().await;
    let mut active = updates(&service, "(activeOnly: true)").await;
    let mut all = updates(&service, "(activeOnly: false)").await;
    let id = insert(&database, "P3").await;
    update(&database, id, "state = 'RESOLVED'").await;
    update(&database, id, "title = 'While it is resolved'").await;
    update(&database, id, "state = 'INVESTIGATING'").await;
    update(&database, id, "state = 'RESOLVED'").await;
    update(&database, id, "state = 'CLOSED'").await;
    let last = insert(&database, "P3").await;
    for (update_type, version) in [("CREATED", 1), ("RESOLVED", 2), ("STATE_CHANGED", 4), ("RESOLVED", 5)] {
        assert_update(&mut active, id, update_type, version).await;
    }
    assert_update(&mut active, last, "CREATED", 1).await;
    let whole =
        [("CREATED", 1), ("RESOLVED", 2), ("UPDATED", 3), ("STATE_CHANGED", 4), ("RESOLVED", 5), ("STATE_CHANGED", 6)];
    for (update_type, version) in whole {
        assert_update(&mut all, id, update_type, version).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn an_active_incident_that_a_merge_closes_leaves_the_board() {
    let (database, service) = start().await;
    let mut active = updates(&service, "(activeOnly: true)").await;
    let (target, part) = (insert(&database, "P3").await, insert(&database, "P3").await);
    assert_update(&mut active, target, "CREATED", 1).await;
    assert_update(&mut active, part, "CREATED", 1).await;
    update(&database, part, &format!("state = 'CLOSED', merged_into = '{target}'")).await;
    assert_update(&mut active, part, "STATE_CHANGED", 2).await;
    service.stop().await;
}

#[tokio::test]
async fn an_empty_list_matches_nothing_and_null_everything() {
    let (database, service) = start().await;
    let watch = |root: &'static str| service.subscribe(root);
    let mut nothing = [
        watch("subscription { incidentUpdates(incidentIds: []) { updateType } }").await,
        watch("subscription { incidentUpdates(severities: []) { updateType } }").await,
        watch("subscription { incidentUpdates(updateTypes: []) { updateType } }").await,
        watch("subscription { newIncidents(severities: []) { id } }").await,
        watch("subscription { alerts(sources: []) { source } }").await,
    ];
    let nulls = "subscription { incidentUpdates(incidentIds: null, severities: null, updateTypes: null, activeOnly: null) { incidentId } }";
    let mut all = watch(nulls).await;
    let mut new = watch("subscription { newIncidents(severities: null) { id } }").await;
    let mut changes = watch("subscription { incidentStateChanges(incidentId: null) { incidentId } }").await;
    let mut alerts = watch("subscription { alerts(sources: null) { source } }").await;

    let id = insert(&database, "P0").await;
    update(&database, id, "state = 'TRIAGED'").await;
    database
        .execute("insert into incident_manager.alert (source, title, severity) values ('probe', 'Down', 'P1')")
        .await;
    assert_eq!(all.next("incidentUpdates").await, json!({ "incidentId": id }));
    assert_eq!(new.next("newIncidents").await, json!({ "id": id }));
    assert_eq!(changes.next("incidentStateChanges").await, json!({ "incidentId": id }));
    assert_eq!(alerts.next("alerts").await, json!({ "source": "probe" }));
    // The alert was the last event, and its subscriber has it: what the others had been sent would come before the pong.
    for socket in &mut nothing {
        socket.send(json!({ "id": "1", "type": "complete" })).await;
        socket.send(json!({ "type": "ping" })).await;
        assert_eq!(socket.receive().await.unwrap()["type"], "pong");
    }
    service.stop().await;
}

#[tokio::test]
async fn incident_ids_choose_incidents() {
    let (database, service) = start().await;
    let mut all = updates(&service, "").await;
    let ids = [insert(&database, "P3").await, insert(&database, "P3").await, insert(&database, "P3").await];
    for id in ids {
        assert_update(&mut all, id, "CREATED", 1).await;
    }
    let mut socket = service.socket().await;
    let query = "subscription($ids: [UUID!]) { incidentUpdates(incidentIds: $ids) { updateType incidentId incident { version } } }";
    socket.subscribe("1", query, json!({ "ids": [ids[2], ids[0]] })).await;
    for id in ids {
        update(&database, id, "title = 'Again'").await;
    }
    update(&database, ids[0], "severity = 'P1'").await;
    assert_update(&mut socket, ids[0], "UPDATED", 2).await;
    assert_update(&mut socket, ids[2], "UPDATED", 2).await;
    assert_update(&mut socket, ids[0], "UPDATED", 3).await;
    service.stop().await;
}

#[tokio::test]
async fn an_update_is_of_the_first_type_that_fits_and_types_are_chosen_by_that() {
    let (database, service) = start().await;
    let mut all = updates(&service, "").await;
    let mut assigned = updates(&service, "(updateTypes: [ASSIGNED, COMMENT_ADDED])").await;
    let id = insert(&database, "P3").await;
    let steps = [
        ("UPDATED", "severity = 'P2'"),
        ("ASSIGNED", "assigned_to = 'ada', title = 'Hers'"),
        ("STATE_CHANGED", "assigned_to = 'bob', state = 'TRIAGED'"),
        ("RESOLVED", "assigned_to = null, state = 'RESOLVED'"),
        ("STATE_CHANGED", "state = 'CLOSED'"),
    ];
    for (_, set) in steps {
        update(&database, id, set).await;
    }
    assert_update(&mut all, id, "CREATED", 1).await;
    for ((update_type, _), version) in steps.into_iter().zip(2..) {
        assert_update(&mut all, id, update_type, version).await;
    }
    assert_update(&mut assigned, id, "ASSIGNED", 3).await;
    database
        .execute(&format!(
            "insert into incident_manager.comment (incident_id, body) values ('{id}', 'Closed, and yet')"
        ))
        .await;
    assert_update(&mut assigned, id, "COMMENT_ADDED", 6).await;
    service.stop().await;
}

#[tokio::test]
async fn types_may_leave_heartbeats_out() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--heartbeat-interval", "20ms"]).await;
    service.ready().await;
    let mut without = updates(&service, "(updateTypes: [CREATED, RESOLVED])").await;
    let mut only = service.socket().await;
    let query = "subscription { incidentUpdates(updateTypes: [HEARTBEAT]) { updateType } }";
    only.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": query } })).await;
    for _ in 0..3 {
        insert(&database, "P1").await;
        for _ in 0..3 {
            assert_eq!(only.next("incidentUpdates").await, json!({ "updateType": "HEARTBEAT" }));
        }
    }
    for _ in 0..3 {
        assert_eq!(without.next("incidentUpdates").await["updateType"], "CREATED");
    }
    service.stop().await;
}

#[tokio::test]
async fn comments_are_updates_that_leave_the_version_alone() {
    let (database, service) = start().await;
    let selection = "{ updateType actor changedFields incident { version comments { nodes { author body } } } }";
    let mut all = service.subscribe(&format!("subscription {{ incidentUpdates {selection} }}")).await;
    let id = insert(&database, "P3").await;
    assert_eq!(all.next("incidentUpdates").await["updateType"], "CREATED");
    let comment = "mutation($id: UUID!, $body: String!) { addComment(incidentId: $id, body: $body) { author body } }";
    service.data(comment, json!({ "id": id, "body": "Seen" })).await;
    let heard = all.next("incidentUpdates").await;
    assert_eq!((&heard["updateType"], &heard["changedFields"]), (&json!("COMMENT_ADDED"), &json!([])));
    assert_eq!(heard["actor"], "anonymous");
    assert_eq!(heard["incident"]["version"], 1);
    assert_eq!(heard["incident"]["comments"]["nodes"], json!([{ "author": "anonymous", "body": "Seen" }]));

    let sql =
        format!("insert into incident_manager.comment (incident_id, author, body) values ('{id}', 'ada', 'I too')");
    database.execute(&sql).await;
    let heard = all.next("incidentUpdates").await;
    assert_eq!((&heard["updateType"], &heard["actor"]), (&json!("COMMENT_ADDED"), &json!("postgres")));
    assert_eq!(heard["incident"]["comments"]["nodes"][1], json!({ "author": "ada", "body": "I too" }));
    service.stop().await;
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_heard_of() {
    let (database, service) = start().await;
    let mut all = updates(&service, "").await;
    let id = insert(&database, "P3").await;
    assert_update(&mut all, id, "CREATED", 1).await;
    update(&database, id, "title = title, updated_at = now()").await;
    update(&database, id, "title = 'Another'").await;
    assert_update(&mut all, id, "UPDATED", 2).await;
    service.stop().await;
}

#[tokio::test]
async fn state_changes_are_those_of_the_incident_asked_for() {
    let (database, service) = start().await;
    let (one, other) = (insert(&database, "P3").await, insert(&database, "P3").await);
    let mut changes = service
        .subscribe(&format!(
            "subscription {{ incidentStateChanges(incidentId: \"{one}\") {{ incidentId oldState newState changedBy }} }}"
        ))
        .await;
    update(&database, other, "state = 'TRIAGED'").await;
    update(&database, one, "title = 'No change of state'").await;
    update(&database, one, "state = 'RESOLVED'").await;
    database
        .execute(&format!(
            "begin; set local incident_manager.actor = 'ada'; update incident_manager.incident set state = 'INVESTIGATING' where id = '{one}'; commit"
        ))
        .await;
    let step = |old: &str, new: &str, by: &str| json!({ "incidentId": one, "oldState": old, "newState": new, "changedBy": by });
    assert_eq!(changes.next("incidentStateChanges").await, step("DETECTED", "RESOLVED", "postgres"));
    assert_eq!(changes.next("incidentStateChanges").await, step("RESOLVED", "INVESTIGATING", "ada"));
    service.stop().await;
}

#[tokio::test]
async fn critical_is_what_is_created_so_or_raised_to_it() {
    let (database, service) = start().await;
    let mut critical = service.subscribe("subscription { criticalIncidents { id severity version } }").await;
    let low = insert(&database, "P4").await;
    let high = insert(&database, "P1").await;
    update(&database, high, "severity = 'P0'").await;
    update(&database, high, "severity = 'P2'").await;
    update(&database, low, "severity = 'P2'").await;
    update(&database, low, "severity = 'P1'").await;
    update(&database, low, "state = 'TRIAGED'").await;
    update(&database, high, "severity = 'P0'").await;
    for (id, severity, version) in [(high, "P1", 1), (low, "P1", 3), (high, "P0", 4)] {
        let expected = json!({ "id": id, "severity": severity, "version": version });
        assert_eq!(critical.next("criticalIncidents").await, expected);
    }
    service.stop().await;
}

#[tokio::test]
async fn new_incidents_are_of_the_severities_asked_for_and_new() {
    let (database, service) = start().await;
    let mut new = service.subscribe("subscription { newIncidents(severities: [P1, P2]) { id } }").await;
    let low = insert(&database, "P3").await;
    update(&database, low, "severity = 'P1'").await;
    let wanted = insert(&database, "P2").await;
    update(&database, wanted, "severity = 'P1'").await;
    let last = insert(&database, "P1").await;
    assert_eq!(new.next("newIncidents").await, json!({ "id": wanted }));
    assert_eq!(new.next("newIncidents").await, json!({ "id": last }));
    service.stop().await;
}

const ALERT: &str = "{ id source firing deduplicated incident { id state } }";

async fn submit(service: &Service, source: &str, external_id: &str, firing: bool) -> Value {
    let query =
        format!("mutation($input: SubmitAlertInput!) {{ submitAlert(input: $input) {{ status alert {ALERT} }} }}");
    let input =
        json!({ "source": source, "title": "Down", "severity": "P2", "externalId": external_id, "firing": firing });
    service.data(&query, json!({ "input": input })).await["submitAlert"].take()
}

#[tokio::test]
async fn alerts_that_are_submitted_are_heard_of_with_what_became_of_them() {
    let (_database, service) = start().await;
    let mut alerts = service.subscribe(&format!("subscription {{ alerts {ALERT} }}")).await;
    let steps = [
        ("1", true, "CREATED", false, "DETECTED"),
        ("2", true, "DEDUPLICATED", true, "DETECTED"),
        ("1", true, "IGNORED", false, "DETECTED"),
        ("1", false, "DEDUPLICATED", false, "DETECTED"),
        ("2", false, "RESOLVED", false, "RESOLVED"),
    ];
    for (external_id, firing, status, deduplicated, state) in steps {
        let result = submit(&service, "probe", external_id, firing).await;
        assert_eq!(result["status"], status, "{external_id} {firing}");
        let heard = alerts.next("alerts").await;
        assert_eq!(heard["id"], result["alert"]["id"]);
        assert_eq!((&heard["firing"], &heard["deduplicated"]), (&json!(firing), &json!(deduplicated)));
        assert_eq!(heard["incident"]["id"], result["alert"]["incident"]["id"]);
        assert_eq!(heard["incident"]["state"], state);
    }
    let ended = submit(&service, "probe", "unknown", false).await;
    assert_eq!(ended["status"], "IGNORED");
    assert_eq!(alerts.next("alerts").await["incident"], Value::Null);
    service.stop().await;
}

#[tokio::test]
async fn alerts_that_are_inserted_are_heard_of_after_their_incident() {
    let (database, service) = start().await;
    let mut alerts = service.subscribe(&format!("subscription {{ alerts(sources: [\"probe\"]) {ALERT} }}")).await;
    let mut incidents = updates(&service, "").await;
    let insert = |source: &str, external_id: &str, firing: bool| {
        let values = format!("('{source}', 'Down', 'P1', '{external_id}', {firing})");
        format!("insert into incident_manager.alert (source, title, severity, external_id, firing) values {values}")
    };
    database.execute(&insert("another", "1", true)).await;
    let other = incidents.next("incidentUpdates").await;
    for (external_id, firing, deduplicated, incident_state) in [
        ("1", true, false, "DETECTED"),
        ("2", true, true, "DETECTED"),
        ("1", false, false, "DETECTED"),
        ("2", false, false, "RESOLVED"),
    ] {
        database.execute(&insert("probe", external_id, firing)).await;
        let heard = alerts.next("alerts").await;
        assert_eq!(heard["source"], "probe");
        assert_eq!((&heard["firing"], &heard["deduplicated"]), (&json!(firing), &json!(deduplicated)));
        assert_eq!(heard["incident"]["state"], incident_state);
    }
    let id: Uuid =
        database.scalar("select incident_id from incident_manager.alert where source = 'probe' limit 1").await;
    assert_ne!(other["incidentId"], json!(id));
    assert_update(&mut incidents, id, "CREATED", 1).await;
    assert_update(&mut incidents, id, "RESOLVED", 2).await;
    let order: Vec<String> = database
        .scalar(&format!(
            "select array_agg(coalesce(update_type, kind) order by pos) from incident_manager.event_log where source = 'probe'
             and (incident_id = '{id}' or kind = 'alert')"
        ))
        .await;
    assert_eq!(order, ["CREATED", "alert", "alert", "alert", "RESOLVED", "alert"]);
    service.stop().await;
}
