//! Playbooks: made, changed, deleted, and attached to incidents as these are made.

use serde_json::{Value, json};

use crate::support::{Service, TestDatabase};

const CREATE: &str = "mutation($input: PlaybookInput!) { createPlaybook(input: $input) { id } }";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// A playbook with one step and what `narrowed` says.
fn input(name: &str, mut narrowed: Value) -> Value {
    narrowed["name"] = json!(name);
    narrowed["steps"] = json!([{ "title": "Look" }]);
    narrowed
}

async fn create(service: &Service, name: &str, narrowed: Value) -> Value {
    service.data(CREATE, json!({ "input": input(name, narrowed) })).await["createPlaybook"]["id"].take()
}

/// The name of the playbook that a new incident gets, which a direct writer makes.
async fn attached(database: &TestDatabase, severity: &str, kind: &str, source: &str) -> Option<String> {
    let id: uuid::Uuid = database
        .scalar(&format!(
            "insert into incident_manager.incident (title, severity, incident_type, source)
             values ('One', '{severity}', '{kind}', '{source}') returning id"
        ))
        .await;
    database
        .scalar(&format!(
            "select (select p.name from incident_manager.incident_playbook a
                     join incident_manager.playbook p on p.id = a.playbook_id where a.incident_id = '{id}')"
        ))
        .await
}

#[tokio::test]
async fn a_playbook_is_made_read_changed_and_deleted() {
    let (_database, service) = start().await;
    let all = "id name description enabled severities incidentTypes sources steps { title instructions }";
    let create = format!("mutation($input: PlaybookInput!) {{ made: createPlaybook(input: $input) {{ {all} }} }}");
    let full = json!({ "name": "Drift", "description": "What to do", "severities": ["P1", "P0"],
        "incidentTypes": ["MODEL_DRIFT"], "sources": ["monitor"],
        "steps": [{ "title": "Look", "instructions": "At the graphs" }, { "title": "Roll back" }] });
    let made = service.data(&create, json!({ "input": full })).await["made"].take();
    let id = made["id"].clone();
    assert_eq!(
        made,
        json!({ "id": id, "name": "Drift", "description": "What to do", "enabled": true, "severities": ["P0", "P1"],
            "incidentTypes": ["MODEL_DRIFT"], "sources": ["monitor"],
            "steps": [{ "title": "Look", "instructions": "At the graphs" }, { "title": "Roll back", "instructions": "" }] })
    );
    let read = format!("query($id: UUID!) {{ playbook(id: $id) {{ {all} }} }}");
    assert_eq!(service.data(&read, json!({ "id": id })).await["playbook"], made);

    let update = format!(
        "mutation($id: UUID!, $input: PlaybookInput!) {{ now: updatePlaybook(id: $id, input: $input) {{ {all} }} }}"
    );
    let input = json!({ "name": "Drifting", "enabled": false, "steps": [{ "title": "Wait" }] });
    let now = service.data(&update, json!({ "id": id, "input": input })).await["now"].take();
    assert_eq!((&now["name"], &now["enabled"], &now["severities"]), (&json!("Drifting"), &json!(false), &json!([])));

    let delete = "mutation($id: UUID!) { deletePlaybook(id: $id) }";
    assert_eq!(service.data(delete, json!({ "id": id })).await["deletePlaybook"], true);
    assert_eq!(service.data(delete, json!({ "id": id })).await["deletePlaybook"], false);
    assert_eq!(service.data(&read, json!({ "id": id })).await["playbook"], Value::Null);
    let error = service.error(&update, json!({ "id": id, "input": input })).await;
    assert_eq!(error["extensions"]["code"], "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn an_incident_gets_the_enabled_match_with_the_most_lists_then_the_oldest() {
    let (database, service) = start().await;
    assert_eq!(attached(&database, "P0", "SECURITY", "a").await, None);
    create(&service, "any", json!({})).await;
    create(&service, "any, later", json!({})).await;
    create(&service, "severe", json!({ "severities": ["P0", "P1"] })).await;
    create(&service, "severe of a", json!({ "severities": ["P0"], "sources": ["a"] })).await;
    create(
        &service,
        "off",
        json!({ "enabled": false, "severities": ["P0"], "sources": ["a"], "incidentTypes": ["DATA"] }),
    )
    .await;
    create(&service, "another's", json!({ "severities": ["P0"], "sources": ["b"], "incidentTypes": ["DATA"] })).await;
    assert_eq!(attached(&database, "P4", "SECURITY", "a").await.as_deref(), Some("any"));
    assert_eq!(attached(&database, "P1", "SECURITY", "a").await.as_deref(), Some("severe"));
    assert_eq!(attached(&database, "P0", "DATA", "a").await.as_deref(), Some("severe of a"));
    service.stop().await;
}

#[tokio::test]
async fn deleting_a_playbook_takes_it_from_its_incidents_and_changes_none_of_them() {
    let (database, service) = start().await;
    let id = create(&service, "any", json!({})).await;
    let data = service
        .data(
            "mutation { createIncident(input: { title: \"One\", severity: P2, source: \"test\" }) {
                id version playbook { name } } }",
            json!({}),
        )
        .await;
    let made = &data["createIncident"];
    assert_eq!(made["playbook"]["name"], "any");
    service.data("mutation($id: UUID!) { deletePlaybook(id: $id) }", json!({ "id": id })).await;
    let read = "query($id: UUID!) { incident(id: $id) { version playbook { name } } }";
    let data = service.data(read, json!({ "id": made["id"] })).await;
    assert_eq!(data["incident"], json!({ "version": made["version"], "playbook": null }));
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.incident_playbook").await, 0);
    service.stop().await;
}

#[tokio::test]
async fn an_incident_that_an_alert_opens_gets_its_playbook() {
    let (_database, service) = start().await;
    create(&service, "any", json!({})).await;
    let data = service
        .data(
            "mutation { submitAlert(input: { source: \"m\", title: \"High\", severity: P1 }) {
                status incident { playbook { name } } } }",
            json!({}),
        )
        .await;
    assert_eq!(data["submitAlert"], json!({ "status": "CREATED", "incident": { "playbook": { "name": "any" } } }));
    service.stop().await;
}

#[tokio::test]
async fn a_playbook_beyond_its_limits_is_refused_and_the_field_named() {
    let (database, service) = start().await;
    let step = |title: &str, instructions: usize| json!({ "title": title, "instructions": "x".repeat(instructions) });
    for (field, wrong) in [
        ("name", json!({ "name": "", "steps": [step("Look", 0)] })),
        ("name", json!({ "name": "x".repeat(201), "steps": [step("Look", 0)] })),
        ("description", json!({ "name": "n", "description": "x".repeat(65_537), "steps": [step("Look", 0)] })),
        ("sources", json!({ "name": "n", "sources": ["x".repeat(17_000)], "steps": [step("Look", 0)] })),
        ("steps", json!({ "name": "n", "steps": [] })),
        ("steps", json!({ "name": "n", "steps": vec![step("Look", 0); 101] })),
        ("steps.title", json!({ "name": "n", "steps": [step("", 0)] })),
        ("steps.title", json!({ "name": "n", "steps": [step(&"x".repeat(501), 0)] })),
        ("steps.instructions", json!({ "name": "n", "steps": [step("Look", 40_000), step("Again", 40_000)] })),
    ] {
        let error = service.error(CREATE, json!({ "input": wrong })).await;
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
        assert_eq!(error["extensions"]["field"], field, "{error}");
    }
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.playbook").await, 0);
    for (constraint, values) in [
        ("playbook_name_length", r#"'', '{}', '[{"title": "t", "instructions": ""}]'"#),
        ("playbook_severities_name", r#"'n', '{P5}', '[{"title": "t", "instructions": ""}]'"#),
        ("playbook_steps_size", "'n', '{}', '[]'"),
        ("playbook_steps_size", "'n', '{}', '{}'"),
        ("playbook_steps_size", r#"'n', '{}', '[{"title": "t"}]'"#),
        ("playbook_steps_size", r#"'n', '{}', '[{"title": 1, "instructions": ""}]'"#),
    ] {
        let sql = format!("insert into incident_manager.playbook (name, severities, steps) values ({values})");
        assert_eq!(database.refused(&sql).await, ("23514".to_owned(), constraint.to_owned()));
    }
    service.stop().await;
}
