//! Every mutation's effect, and every way in which a request can be wrong.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, TestDatabase};

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

const INCIDENT: &str =
    "{ id title description severity state incidentType source createdAt updatedAt acknowledgedAt resolvedAt
    closedAt assignedTo affectedResources labels metadata resolution rootCause fingerprint version }";

/// Runs a mutation of one field that returns an incident.
async fn mutate(service: &Service, call: &str, id: &Value) -> Value {
    let query = format!("mutation($id: UUID!) {{ result: {call} {INCIDENT} }}");
    service.data(&query, json!({ "id": id })).await["result"].take()
}

async fn create(service: &Service, input: Value) -> Value {
    let query = format!("mutation($input: CreateIncidentInput!) {{ createIncident(input: $input) {INCIDENT} }}");
    service.data(&query, json!({ "input": input })).await["createIncident"].take()
}

async fn create_plain(service: &Service) -> Value {
    create(service, json!({ "title": "An incident", "severity": "P3", "source": "test" })).await["id"].take()
}

async fn read(service: &Service, id: &Value) -> Value {
    let query = format!("query($id: UUID!) {{ incident(id: $id) {INCIDENT} }}");
    service.data(&query, json!({ "id": id })).await["incident"].take()
}

/// The code, once the shape of the error has been looked at.
fn code(error: &Value) -> &str {
    let timestamp = error["extensions"]["timestamp"].as_str().unwrap_or_else(|| panic!("{error}"));
    assert!(timestamp.ends_with('Z') && timestamp.len() == "2025-11-12T20:30:45.123456Z".len(), "{error}");
    assert!(!error["message"].as_str().unwrap().is_empty(), "{error}");
    error["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test]
async fn a_new_incident_has_what_was_given_and_defaults_for_the_rest() {
    let (_database, service) = start().await;
    let given = json!({
        "title": "Latency ⏱", "description": "p99 above 2 s", "severity": "P1", "incidentType": "MODEL_DRIFT",
        "source": "probe", "affectedResources": ["gateway", "embedder"], "labels": { "team": "llm", "": "" },
        "metadata": { "p99": 2.5, "model": { "name": "m", "layers": [1, null, true] }, "count": 9_007_199_254_740_993_i64 },
        "assignedTo": "ada", "fingerprint": "latency",
    });
    let created = create(&service, given.clone()).await;
    for (field, value) in given.as_object().unwrap() {
        assert_eq!(created[field], *value, "{field}");
    }
    assert_eq!((&created["state"], &created["version"]), (&json!("DETECTED"), &json!(1)));
    assert_eq!(read(&service, &created["id"]).await, created);

    let plain = create(&service, json!({ "title": "t", "severity": "P4", "source": "s" })).await;
    assert_eq!((&plain["description"], &plain["incidentType"]), (&json!(""), &json!("UNKNOWN")));
    assert_eq!(
        (&plain["affectedResources"], &plain["labels"], &plain["metadata"]),
        (&json!([]), &json!({}), &json!({}))
    );
    for field in ["acknowledgedAt", "resolvedAt", "closedAt", "assignedTo", "resolution", "rootCause", "fingerprint"] {
        assert_eq!(plain[field], Value::Null, "{field}");
    }
    let nulls = json!({ "title": "t", "severity": "P4", "source": "s", "description": null, "incidentType": null,
        "affectedResources": null, "labels": null, "metadata": null, "assignedTo": null, "fingerprint": null });
    let nulled = create(&service, nulls).await;
    assert_eq!((&nulled["description"], &nulled["incidentType"]), (&json!(""), &json!("UNKNOWN")));
    service.stop().await;
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_nothing_else() {
    let (_database, service) = start().await;
    let input =
        json!({ "title": "Before", "description": "d", "severity": "P3", "source": "s", "labels": { "a": "b" } });
    let before = create(&service, input).await;
    let query = format!(
        "mutation($id: UUID!, $input: UpdateIncidentInput!) {{ updateIncident(id: $id, input: $input, expectedVersion: 1) {INCIDENT} }}"
    );
    let input = json!({ "title": "After", "labels": {}, "metadata": { "k": [1] }, "affectedResources": ["x"],
        "incidentType": "COST", "severity": "P2" });
    let after = service.data(&query, json!({ "id": before["id"], "input": input })).await["updateIncident"].take();
    for (field, value) in input.as_object().unwrap() {
        assert_eq!(after[field], *value, "{field}");
    }
    for field in ["description", "source", "state", "createdAt", "assignedTo"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(after["version"], 2);
    assert!(after["updatedAt"].as_str() > before["updatedAt"].as_str());

    let same = mutate(&service, "updateIncident(id: $id, input: {})", &before["id"]).await;
    assert_eq!(same, after, "an empty update is no change");
    service.stop().await;
}

#[tokio::test]
async fn an_incident_goes_through_its_life() {
    let (_database, service) = start().await;
    let id = create_plain(&service).await;
    let step = async |call: &str| mutate(&service, call, &id).await;
    let acknowledged = step("acknowledgeIncident(id: $id)").await;
    assert_eq!((&acknowledged["state"], &acknowledged["version"]), (&json!("TRIAGED"), &json!(2)));
    assert!(acknowledged["acknowledgedAt"].is_string());
    assert_eq!(step("acknowledgeIncident(id: $id)").await, acknowledged, "twice changes nothing");

    let assigned = step("assignIncident(id: $id, assignee: \"ada\")").await;
    assert_eq!((&assigned["assignedTo"], &assigned["version"]), (&json!("ada"), &json!(3)));
    assert_eq!(step("assignIncident(id: $id)").await["assignedTo"], Value::Null);

    let forward = step("transitionIncident(id: $id, to: REMEDIATING, expectedVersion: 4)").await;
    assert_eq!(
        (&forward["state"], &forward["acknowledgedAt"]),
        (&json!("REMEDIATING"), &acknowledged["acknowledgedAt"])
    );
    assert_eq!(step("transitionIncident(id: $id, to: REMEDIATING)").await, forward, "the state it has is none");

    let resolved = step("resolveIncident(id: $id, resolution: \"restarted\", rootCause: \"a leak\")").await;
    assert_eq!((&resolved["state"], &resolved["resolution"]), (&json!("RESOLVED"), &json!("restarted")));
    assert_eq!(resolved["rootCause"], "a leak");
    assert!(resolved["resolvedAt"].is_string());

    let reopened = step("transitionIncident(id: $id, to: INVESTIGATING)").await;
    assert_eq!((&reopened["resolvedAt"], &reopened["resolution"]), (&Value::Null, &json!("restarted")));
    let resolved = step("resolveIncident(id: $id, resolution: \"again\")").await;
    assert_eq!((&resolved["resolution"], &resolved["rootCause"]), (&json!("again"), &json!("a leak")));
    let closed = step("transitionIncident(id: $id, to: CLOSED)").await;
    assert_eq!((&closed["state"], &closed["resolvedAt"]), (&json!("CLOSED"), &resolved["resolvedAt"]));
    assert!(closed["closedAt"].is_string());
    assert_eq!(closed["version"], 9);
    assert_eq!(read(&service, &id).await, closed);
    service.stop().await;
}

#[tokio::test]
async fn a_step_that_the_state_machine_has_not_is_refused() {
    let (_database, service) = start().await;
    let id = create_plain(&service).await;
    let refused = async |call: &str| {
        let before = read(&service, &id).await;
        let error = service.error(&format!("mutation {{ {call} {{ id }} }}"), json!({})).await;
        assert_eq!(code(&error), "INVALID_STATE_TRANSITION", "{call}: {error}");
        assert_eq!(read(&service, &id).await, before, "{call}");
    };
    let to = |state: &str| format!("transitionIncident(id: {id}, to: {state})");
    refused(&to("CLOSED")).await;
    mutate(&service, "transitionIncident(id: $id, to: INVESTIGATING)", &id).await;
    refused(&to("DETECTED")).await;
    refused(&to("TRIAGED")).await;
    mutate(&service, "resolveIncident(id: $id)", &id).await;
    refused(&to("REMEDIATING")).await;
    mutate(&service, "transitionIncident(id: $id, to: CLOSED)", &id).await;
    refused(&to("INVESTIGATING")).await;
    refused(&format!("updateIncident(id: {id}, input: {{ title: \"Late\" }})")).await;
    refused(&format!("assignIncident(id: {id}, assignee: \"ada\")")).await;
    refused(&format!("resolveIncident(id: {id})")).await;
    let comment = service
        .data("mutation($id: UUID!) { addComment(incidentId: $id, body: \"Late\") { body } }", json!({ "id": id }));
    assert_eq!(comment.await["addComment"]["body"], "Late");
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_by_mutations_and_null_to_queries() {
    let (database, service) = start().await;
    let nobody = Uuid::nil();
    for call in [
        "updateIncident(id: $id, input: { title: \"t\" }) { id }",
        "updateIncident(id: $id, input: { title: \"t\" }, expectedVersion: 1) { id }",
        "acknowledgeIncident(id: $id) { id }",
        "transitionIncident(id: $id, to: RESOLVED) { id }",
        "resolveIncident(id: $id) { id }",
        "assignIncident(id: $id, assignee: \"ada\") { id }",
        "addComment(incidentId: $id, body: \"Hello\") { id }",
    ] {
        let error = service.error(&format!("mutation($id: UUID!) {{ {call} }}"), json!({ "id": nobody })).await;
        assert_eq!(code(&error), "NOT_FOUND", "{call}: {error}");
    }
    assert_eq!(database.count("comment").await, 0);
    let both =
        "query($id: UUID!) { incident(id: $id) { id } alert(id: $id) { id } alerts(incidentId: $id) { totalCount } }";
    let data = service.data(both, json!({ "id": nobody })).await;
    assert_eq!(data, json!({ "incident": null, "alert": null, "alerts": { "totalCount": 0 } }));
    service.stop().await;
}

#[tokio::test]
async fn what_stands_against_another_change_is_a_conflict() {
    let (database, service) = start().await;
    let id = create_plain(&service).await;
    mutate(&service, "updateIncident(id: $id, input: { title: \"Mine\" }, expectedVersion: 1)", &id).await;
    for call in [
        "updateIncident(id: $id, input: { title: \"Yours\" }, expectedVersion: 1) { id }",
        "updateIncident(id: $id, input: {}, expectedVersion: 3) { id }",
        "transitionIncident(id: $id, to: RESOLVED, expectedVersion: 1) { id }",
    ] {
        let error = service.error(&format!("mutation($id: UUID!) {{ {call} }}"), json!({ "id": id })).await;
        assert_eq!(code(&error), "CONFLICT", "{call}: {error}");
    }
    assert_eq!(read(&service, &id).await["title"], "Mine");

    let input = json!({ "title": "t", "severity": "P3", "source": "s", "fingerprint": "same" });
    let first = create(&service, input.clone()).await;
    let query = "mutation($input: CreateIncidentInput!) { createIncident(input: $input) { id } }";
    let error = service.error(query, json!({ "input": input })).await;
    assert_eq!(code(&error), "CONFLICT", "{error}");
    assert_eq!(database.count("incident").await, 2);
    // free again once it is over; and then it cannot be reopened beside the new one
    mutate(&service, "resolveIncident(id: $id)", &first["id"]).await;
    create(&service, input).await;
    let reopen = "mutation($id: UUID!) { transitionIncident(id: $id, to: INVESTIGATING) { id } }";
    assert_eq!(code(&service.error(reopen, json!({ "id": first["id"] })).await), "CONFLICT");
    service.stop().await;
}

#[tokio::test]
async fn a_row_that_another_session_holds_is_a_conflict() {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), &["--lock-timeout", "50ms"]).await;
    service.ready().await;
    let id = create_plain(&service).await;
    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("select from incident_manager.incident for update").execute(&mut *holder).await.unwrap();
    for call in ["acknowledgeIncident(id: $id) { id }", "addComment(incidentId: $id, body: \"Hello\") { id }"] {
        let error = service.error(&format!("mutation($id: UUID!) {{ {call} }}"), json!({ "id": id })).await;
        assert_eq!(code(&error), "CONFLICT", "{call}: {error}");
    }
    assert_eq!(read(&service, &id).await["version"], 1, "readers do not wait");
    holder.rollback().await.unwrap();
    assert_eq!(mutate(&service, "acknowledgeIncident(id: $id)", &id).await["version"], 2);
    service.stop().await;
}

#[tokio::test]
async fn an_alert_is_stored_as_it_was_sent() {
    let (database, service) = start().await;
    let given = json!({
        "externalId": "a-1", "source": "probe", "title": "Down", "description": "no answer", "severity": "P0",
        "alertType": "AVAILABILITY", "labels": { "zone": "a" }, "annotations": { "graph": "g" },
        "affectedServices": ["gateway"], "runbookUrl": "https://runbooks.example/down", "firing": true,
    });
    let selection = "{ status alert { id externalId source title description severity alertType labels annotations affectedServices
        runbookUrl firing deduplicated receivedAt } incident { id title severity source incidentType labels affectedResources description
        alerts { totalCount nodes { id } } } }";
    let query = format!("mutation($input: SubmitAlertInput!) {{ submitAlert(input: $input) {selection} }}");
    let result = service.data(&query, json!({ "input": given })).await["submitAlert"].take();
    for (field, value) in given.as_object().unwrap() {
        assert_eq!(result["alert"][field], *value, "{field}");
    }
    let incident = &result["incident"];
    assert_eq!(
        (&incident["title"], &incident["severity"], &incident["source"]),
        (&json!("Down"), &json!("P0"), &json!("probe"))
    );
    assert_eq!((&incident["incidentType"], &incident["labels"]), (&json!("AVAILABILITY"), &json!({ "zone": "a" })));
    assert_eq!((&incident["affectedResources"], &incident["description"]), (&json!(["gateway"]), &json!("no answer")));
    assert_eq!(incident["alerts"], json!({ "totalCount": 1, "nodes": [{ "id": result["alert"]["id"] }] }));

    let lists = "query($incident: UUID!) { all: alerts { totalCount } probe: alerts(sources: [\"probe\"], firing: true) { nodes { id } }
        none: alerts(sources: []) { totalCount } over: alerts(firing: false) { totalCount } of: alerts(incidentId: $incident) { totalCount } }";
    let found = service.data(lists, json!({ "incident": incident["id"] })).await;
    let total = |count: i32| json!({ "totalCount": count });
    assert_eq!(
        (&found["all"], &found["none"], &found["over"], &found["of"]),
        (&total(1), &total(0), &total(0), &total(1))
    );
    assert_eq!(found["probe"]["nodes"], json!([{ "id": result["alert"]["id"] }]));
    assert_eq!(database.count("alert").await, 1);
    service.stop().await;
}

#[tokio::test]
async fn a_nullable_field_that_fails_is_null_alone() {
    let (database, service) = start().await;
    let input = json!({ "source": "probe", "title": "Down", "severity": "P2" });
    let submitted = service
        .data(
            "mutation($input: SubmitAlertInput!) { submitAlert(input: $input) { alert { id } } }",
            json!({ "input": input }),
        )
        .await;
    // a database that is not as this release made it
    database.execute("alter table incident_manager.incident rename column root_cause to gone").await;
    let query = "query($id: UUID!) { alert(id: $id) { title incident { id } source } none: incident(id: $id) { id } alerts { totalCount } }";
    let response = service.graphql(query, json!({ "id": submitted["submitAlert"]["alert"]["id"] })).await;
    let data = json!({ "alert": { "title": "Down", "incident": null, "source": "probe" }, "none": null, "alerts": { "totalCount": 1 } });
    assert_eq!(response["data"], data, "{response}");
    let errors = response["errors"].as_array().unwrap();
    let mut paths: Vec<String> = errors.iter().map(|error| error["path"].to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["[\"alert\",\"incident\"]", "[\"none\"]"]);
    for error in errors {
        assert_eq!(code(error), "INTERNAL_SERVER_ERROR");
        assert_eq!(error["message"], "internal server error");
        error["extensions"]["id"].as_str().unwrap().parse::<Uuid>().unwrap();
        assert!(!error.to_string().contains("root_cause"), "{error}");
    }
    service.stop().await;
}
