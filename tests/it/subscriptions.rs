//! Every subscription, from SQL and from a mutation.

use serde_json::{Value, json};

use crate::support::{Service, TestDatabase};

const CREATE: &str = "mutation($severity: Severity!) {
    createIncident(input: { title: \"Over GraphQL\", severity: $severity, source: \"test\" }) { id version } }";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

async fn insert(database: &TestDatabase, severity: &str) -> uuid::Uuid {
    database
        .scalar(&format!(
            "insert into incident_manager.incident (title, severity, source) values ('By SQL', '{severity}', 'psql') returning id"
        ))
        .await
}

#[tokio::test]
async fn incident_updates_hear_of_sql_and_of_mutations() {
    let (database, service) = start().await;
    let mut updates = service
        .subscribe("subscription { incidentUpdates { updateType incidentId timestamp cursor actor changedFields incident { title state version } } }")
        .await;
    let id = insert(&database, "P2").await;
    let update = updates.next("incidentUpdates").await;
    assert_eq!(update["updateType"], "CREATED");
    assert_eq!(update["incidentId"], id.to_string());
    assert_eq!(update["incident"], json!({ "title": "By SQL", "state": "DETECTED", "version": 1 }));
    assert_eq!(update["actor"], "postgres");
    assert_eq!(update["changedFields"], json!([]));

    service.data("mutation($id: UUID!) { acknowledgeIncident(id: $id) { id } }", json!({ "id": id })).await;
    let update = updates.next("incidentUpdates").await;
    assert_eq!(update["updateType"], "STATE_CHANGED");
    assert_eq!(update["actor"], "anonymous");
    assert_eq!(update["changedFields"], json!(["state", "acknowledgedAt"]));
    assert_eq!(update["incident"], json!({ "title": "By SQL", "state": "TRIAGED", "version": 2 }));

    let created = service.data(CREATE, json!({ "severity": "P4" })).await;
    let update = updates.next("incidentUpdates").await;
    assert_eq!(update["incidentId"], created["createIncident"]["id"]);
    service.stop().await;
}

#[tokio::test]
async fn new_and_critical_incidents_and_state_changes_are_heard_of() {
    let (database, service) = start().await;
    let mut new = service.subscribe("subscription { newIncidents(severities: [P0, P3]) { id severity } }").await;
    let mut critical = service.subscribe("subscription { criticalIncidents { id severity version } }").await;
    let mut changes = service
        .subscribe("subscription { incidentStateChanges { incidentId oldState newState changedBy timestamp } }")
        .await;
    let quiet = insert(&database, "P3").await;
    let loud = insert(&database, "P0").await;
    assert_eq!(new.next("newIncidents").await, json!({ "id": quiet, "severity": "P3" }));
    assert_eq!(new.next("newIncidents").await, json!({ "id": loud, "severity": "P0" }));
    database.execute(&format!("update incident_manager.incident set severity = 'P1' where id = '{quiet}'")).await;
    assert_eq!(critical.next("criticalIncidents").await, json!({ "id": loud, "severity": "P0", "version": 1 }));
    assert_eq!(critical.next("criticalIncidents").await, json!({ "id": quiet, "severity": "P1", "version": 2 }));
    database.execute(&format!("update incident_manager.incident set state = 'REMEDIATING' where id = '{loud}'")).await;
    let change = changes.next("incidentStateChanges").await;
    assert_eq!(
        (&change["incidentId"], &change["oldState"], &change["newState"], &change["changedBy"]),
        (&json!(loud), &json!("DETECTED"), &json!("REMEDIATING"), &json!("postgres"))
    );
    service.stop().await;
}

#[tokio::test]
async fn a_heartbeat_moves_its_cursor_past_what_the_filter_leaves_out() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--heartbeat-interval", "200ms"]).await;
    service.ready().await;
    let mut updates = service
        .subscribe("subscription { incidentUpdates(severities: [P0]) { updateType incidentId incident { id } actor cursor changedFields } }")
        .await;
    let first = updates.next("incidentUpdates").await;
    assert_eq!(first["updateType"], "HEARTBEAT");
    assert_eq!((&first["incidentId"], &first["incident"], &first["actor"]), (&Value::Null, &Value::Null, &Value::Null));
    insert(&database, "P4").await;
    let mut last = first.clone();
    while last["cursor"] == first["cursor"] {
        last = updates.next("incidentUpdates").await;
        assert_eq!(last["updateType"], "HEARTBEAT");
    }
    service.stop().await;
}
