//! What hangs on incidents, with the grants of `docs/grants.sql` and no more: playbooks, links, timelines, alerts by REST.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::roles::Tenancy;
use crate::support::{Service, eventually};
use incident_manager::config::DatabaseUrl;

const DENIED: &str = "42501";

async fn start() -> (Tenancy, Service) {
    let tenancy = Tenancy::installed().await;
    let service = Service::start(&DatabaseUrl::from(tenancy.url("service"))).await;
    (tenancy, service)
}

async fn create(service: &Service, title: &str) -> Value {
    let mutation = "mutation($title: String!) { createIncident(input: { title: $title, severity: P1, source: \"s\",
        affectedResources: [\"gateway\"], labels: { team: \"llm\" } }) { id } }";
    service.data(mutation, json!({ "title": title })).await["createIncident"]["id"].take()
}

#[tokio::test]
async fn the_service_keeps_playbooks_and_links_and_reads_timelines() {
    let (_tenancy, service) = start().await;
    let input = json!({ "name": "Look", "severities": ["P1"], "steps": [{ "title": "Look", "instructions": "" }] });
    let made = service
        .data("mutation($input: PlaybookInput!) { createPlaybook(input: $input) { id } }", json!({ "input": input }))
        .await;
    let playbook = &made["createPlaybook"]["id"];
    let update = "mutation($id: UUID!, $input: PlaybookInput!) { updatePlaybook(id: $id, input: $input) { name } }";
    let renamed = json!({ "name": "Look again", "severities": ["P1"], "steps": input["steps"] });
    let updated = service.data(update, json!({ "id": playbook, "input": renamed })).await;
    assert_eq!(updated["updatePlaybook"]["name"], "Look again");

    let (a, b) = (create(&service, "a").await, create(&service, "b").await);
    let link = "mutation($a: UUID!, $b: UUID!) { linkIncidents(a: $a, b: $b) { reason incident { id } } }";
    let linked = service.data(link, json!({ "a": a, "b": b })).await;
    assert_eq!(linked["linkIncidents"], json!([{ "reason": "LINKED", "incident": { "id": b } }]));
    let read = "query($id: UUID!) { streamPosition { cursor } playbooks { totalCount }
        incidents(filter: { labels: { team: \"llm\" } }) { totalCount nodes { title } }
        incident(id: $id) { playbook { name } relatedIncidents { reason } timeline { totalCount nodes { updateType } } } }";
    eventually("the sequencer has written the timeline", || async {
        service.data(read, json!({ "id": a })).await["incident"]["timeline"]["totalCount"] == 1
    })
    .await;
    let found = service.data(read, json!({ "id": a })).await;
    assert_eq!((&found["playbooks"]["totalCount"], &found["incidents"]["totalCount"]), (&json!(1), &json!(2)));
    let expected = json!({ "playbook": { "name": "Look again" }, "relatedIncidents": [{ "reason": "LINKED" }],
        "timeline": { "totalCount": 1, "nodes": [{ "updateType": "CREATED" }] } });
    assert_eq!(found["incident"], expected);

    let delete = "mutation($id: UUID!) { deletePlaybook(id: $id) }";
    assert_eq!(service.data(delete, json!({ "id": playbook })).await, json!({ "deletePlaybook": true }));
    assert_eq!(service.data(read, json!({ "id": a })).await["incident"]["playbook"], Value::Null);
    service.stop().await;
}

#[tokio::test]
async fn the_service_takes_alerts_and_answers_rest() {
    let (_tenancy, service) = start().await;
    let alert =
        |firing: bool| json!({ "source": "s", "title": "t", "severity": "P2", "externalId": "e", "firing": firing });
    let (status, stored) = service.rest(Method::POST, "/v1/alerts", json!([alert(true), alert(false)])).await;
    assert_eq!((status, &stored[0]["status"], &stored[1]["status"]), (201, &json!("CREATED"), &json!("RESOLVED")));
    let id = stored[0]["incidentId"].as_str().unwrap();
    let (status, comment) =
        service.rest(Method::POST, &format!("/v1/incidents/{id}/comments"), json!({ "body": "b" })).await;
    assert_eq!((status, &comment["body"]), (201, &json!("b")));
    let (status, incident) = service.rest(Method::GET, &format!("/v1/incidents/{id}"), Value::Null).await;
    assert_eq!((status, &incident["state"]), (200, &json!("RESOLVED")));
    service.stop().await;
}

#[tokio::test]
async fn what_the_database_keeps_neither_role_writes() {
    let (tenancy, service) = start().await;
    create(&service, "a").await;
    service.stop().await;
    let both = [
        "insert into incident_manager.timeline (incident_id, pos, at, update_type, actor, summary, changed_fields)
           values (gen_random_uuid(), 1, now(), 'CREATED', 'a', 's', '{}')",
        "update incident_manager.timeline set summary = 's'",
        "insert into incident_manager.incident_playbook values (gen_random_uuid(), gen_random_uuid())",
        "delete from incident_manager.incident_playbook",
        "delete from incident_manager.incident_link",
        "update incident_manager.incident_link set linked_by = 'a'",
    ];
    let writer = [
        "select * from incident_manager.timeline",
        "select * from incident_manager.playbook",
        "insert into incident_manager.playbook (name, steps) values ('p', '[{\"title\": \"t\", \"instructions\": \"\"}]')",
        "insert into incident_manager.incident_link (a, b) values (gen_random_uuid(), gen_random_uuid())",
        "select * from incident_manager.related_candidates('{}', null)",
    ];
    for (role, refused) in [("service", &both[..]), ("writer", &both[..]), ("writer", &writer[..])] {
        let mut connection = tenancy.connect(role).await;
        for sql in refused {
            let error = connection.execute(AssertSqlSafe((*sql).to_owned())).await.expect_err(sql);
            let state = error.as_database_error().and_then(DatabaseError::code).expect("an error of the server");
            assert_eq!(state, DENIED, "{role}: {sql}");
        }
    }
}
