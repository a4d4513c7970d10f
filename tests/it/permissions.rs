//! What each field and route says that it needs of a credential, it needs.

use std::collections::BTreeSet;

use incident_manager::domain::Permission;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::access::{start_required, token};
use crate::support::rules::{ROOTS, routes, rules};
use crate::support::{Service, Socket, TestDatabase};

/// A token of these permissions.
fn permitting(permissions: impl IntoIterator<Item = Permission>) -> String {
    let names: Vec<_> = permissions.into_iter().map(Permission::as_str).collect();
    token(json!({ "permissions": names }))
}

fn all_but(permission: Permission) -> String {
    permitting(Permission::ALL.into_iter().filter(|other| *other != permission))
}

/// Two incidents that are linked, with an alert, a comment and a playbook, by the names of variables.
async fn fill(database: &TestDatabase) -> Value {
    database
        .execute(
            r#"insert into incident_manager.playbook (name, steps) values ('P', '[{"title": "t", "instructions": ""}]');
               insert into incident_manager.incident (title, severity, source) values ('a', 'P3', 's'), ('b', 'P3', 's');
               insert into incident_manager.alert (source, title, severity) values ('s', 'c', 'P3');
               insert into incident_manager.comment (incident_id, body) select id, 'x' from incident_manager.incident;
               insert into incident_manager.incident_link (a, b) select min(id::text)::uuid, max(id::text)::uuid
                 from incident_manager.incident where title in ('a', 'b')"#,
        )
        .await;
    let id = async |sql: &str| database.scalar::<uuid::Uuid>(&format!("select id from incident_manager.{sql}")).await;
    json!({
        "a": id("incident where title = 'a'").await,
        "b": id("incident where title = 'b'").await,
        "alert": id("alert").await,
        "playbook": id("playbook").await,
    })
}

/// An operation that asks for each field with a rule; of a nested one the way to it, and last what it is asked under.
const ASKED: &[(&str, &str)] = &[
    ("Query.incident", "query($a: UUID!) { incident(id: $a) { id } }"),
    ("Query.incidents", "{ incidents { totalCount nodes { id } } }"),
    ("Query.alert", "query($alert: UUID!) { alert(id: $alert) { id } }"),
    ("Query.alerts", "{ alerts { totalCount nodes { id } } }"),
    ("Query.playbook", "query($playbook: UUID!) { playbook(id: $playbook) { id } }"),
    ("Query.playbooks", "{ playbooks { totalCount nodes { id } } }"),
    ("Query.apiKeys", "{ apiKeys { id } }"),
    ("Incident.alerts", "query($a: UUID!) { incident(id: $a) { id alerts { totalCount nodes { id } } } }"),
    ("Incident.comments", "query($a: UUID!) { incident(id: $a) { id comments { totalCount nodes { id } } } }"),
    ("Incident.timeline", "query($a: UUID!) { incident(id: $a) { id timeline { totalCount nodes { actor } } } }"),
    ("Incident.relatedIncidents", "query($a: UUID!) { incident(id: $a) { id relatedIncidents { incident { id } } } }"),
    ("Incident.playbook", "query($a: UUID!) { incident(id: $a) { id playbook { id } } }"),
    ("Alert.incident", "query($alert: UUID!) { alert(id: $alert) { id incident { id } } }"),
    (
        "AlertResult.incident",
        "mutation { submitAlert(input: { title: \"t\", severity: P1, source: \"s\" }) { status incident { id } } }",
    ),
    (
        "Mutation.createIncident",
        "mutation { createIncident(input: { title: \"t\", severity: P1, source: \"s\" }) { id } }",
    ),
    ("Mutation.updateIncident", "mutation($a: UUID!) { updateIncident(id: $a, input: { title: \"n\" }) { id } }"),
    ("Mutation.acknowledgeIncident", "mutation($a: UUID!) { acknowledgeIncident(id: $a) { id } }"),
    ("Mutation.transitionIncident", "mutation($a: UUID!) { transitionIncident(id: $a, to: INVESTIGATING) { id } }"),
    ("Mutation.resolveIncident", "mutation($a: UUID!) { resolveIncident(id: $a) { id } }"),
    ("Mutation.assignIncident", "mutation($a: UUID!) { assignIncident(id: $a, assignee: \"x\") { id } }"),
    ("Mutation.addComment", "mutation($a: UUID!) { addComment(incidentId: $a, body: \"x\") { id } }"),
    ("Mutation.linkIncidents", "mutation($a: UUID!, $b: UUID!) { linkIncidents(a: $a, b: $b) { score } }"),
    (
        "Mutation.submitAlert",
        "mutation { submitAlert(input: { title: \"t\", severity: P1, source: \"s\" }) { status alert { id } } }",
    ),
    (
        "Mutation.createPlaybook",
        "mutation { createPlaybook(input: { name: \"n\", steps: [{ title: \"t\" }] }) { id } }",
    ),
    (
        "Mutation.updatePlaybook",
        "mutation($playbook: UUID!) { updatePlaybook(id: $playbook, input: { name: \"n\", steps: [{ title: \"t\" }] }) { id } }",
    ),
    ("Mutation.deletePlaybook", "mutation($playbook: UUID!) { deletePlaybook(id: $playbook) }"),
    (
        "Mutation.createApiKey",
        "mutation { createApiKey(input: { name: \"k\", permissions: [\"keys.manage\"] }) { id } }",
    ),
    ("Mutation.revokeApiKey", "mutation($a: UUID!) { revokeApiKey(id: $a) }"),
    ("Subscription.incidentUpdates", "subscription { incidentUpdates { updateType } }"),
    ("Subscription.newIncidents", "subscription { newIncidents { id } }"),
    ("Subscription.criticalIncidents", "subscription { criticalIncidents { id } }"),
    ("Subscription.incidentStateChanges", "subscription { incidentStateChanges { newState } }"),
    ("Subscription.alerts", "subscription { alerts { id } }"),
];

/// The way to a field in the answer, and the root field that it is asked under.
fn way(field: &str, operation: &str) -> (Vec<String>, String) {
    let (of, name) = field.split_once('.').unwrap();
    if ROOTS.contains(&of) {
        return (vec![name.to_owned()], field.to_owned());
    }
    let root = operation.split_once('{').unwrap().1.trim_start();
    let root = &root[..root.find(|character: char| !character.is_alphanumeric()).unwrap()];
    let root_type = if operation.starts_with("mutation") { "Mutation" } else { "Query" };
    (vec![root.to_owned(), name.to_owned()], format!("{root_type}.{root}"))
}

fn is_forbidden(error: &Value) -> bool {
    error["extensions"]["code"] == "FORBIDDEN"
}

/// What is said to a subscriber at once; null where it is heard of no error.
async fn subscribed(service: &Service, token: &str, operation: &str) -> Value {
    let mut socket = Socket::connect_as(service.address, Some(token)).await;
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": operation } })).await;
    for _ in 0..2 {
        socket.send(json!({ "type": "ping" })).await;
        let mut answer = socket.receive().await.unwrap();
        if answer["type"] == "error" {
            return answer["payload"].take();
        }
        assert_eq!(answer["type"], "pong", "{operation}: {answer}");
    }
    Value::Null
}

async fn executed(service: &Service, token: &str, operation: &str, variables: &Value) -> Value {
    let body = json!({ "query": operation, "variables": variables });
    let request = reqwest::Client::new().post(service.url("/graphql")).bearer_auth(token).json(&body);
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_field_is_forbidden_without_what_it_needs_and_nothing_else_is() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    let variables = fill(&database).await;
    let rules = rules();
    let asked: BTreeSet<_> = ASKED.iter().map(|(field, _)| (*field).to_owned()).collect();
    let declared: BTreeSet<_> =
        rules.iter().filter(|(_, rule)| rule.is_some()).map(|(field, _)| field.clone()).collect();
    assert_eq!(asked, declared, "every field with a rule is asked for");
    let state = "select (select count(*) || ' ' || sum(version) from incident_manager.incident) || ' ' ||
        (select count(*) || ' ' || min(name) from incident_manager.playbook) || ' ' ||
        (select count(*) from incident_manager.comment)";
    for (field, operation) in ASKED {
        let needed = rules[*field].unwrap();
        let (way, root) = way(field, operation);
        let nested = way.len() > 1;
        let lacking = all_but(needed);
        let before: String = database.scalar(state).await;
        if operation.starts_with("subscription") {
            let errors = subscribed(&service, &lacking, operation).await;
            assert!(is_forbidden(&errors[0]), "{field}: {errors}");
            assert!(subscribed(&service, &permitting([needed]), operation).await.is_null(), "{field}");
            continue;
        }
        // of a nested field whose root needs the same, what is asked for is had by nobody without it
        if !nested || rules[&root] != Some(needed) {
            let answer = executed(&service, &lacking, operation, &variables).await;
            let errors = answer["errors"].as_array().unwrap_or_else(|| panic!("{field}: {answer}"));
            assert_eq!(errors.len(), 1, "{field}: {answer}");
            assert!(is_forbidden(&errors[0]), "{field}: {answer}");
            assert_eq!(errors[0]["path"], json!(way), "{field}: {answer}");
            assert!(errors[0]["extensions"]["timestamp"].is_string(), "{field}: {answer}");
            let value = way.iter().fold(&answer["data"], |value, step| &value[step]);
            let nothing = [Value::Null, json!([]), json!({ "totalCount": 0, "nodes": [] })];
            assert!(nothing.contains(value), "{field}: {answer}");
            assert!(!nested || !answer["data"][&way[0]].is_null(), "the rest is there: {answer}");
        }
        let after: String = database.scalar(state).await;
        assert!(nested || before == after, "{field}: {before} became {after}");
        let having = permitting([Some(needed), rules[&root]].into_iter().flatten());
        let answer = executed(&service, &having, operation, &variables).await;
        let errors = answer["errors"].as_array();
        assert!(errors.into_iter().flatten().all(|error| !is_forbidden(error)), "{field}: {answer}");
    }
    service.stop().await;
}

/// What hangs on a subscription's incident is of the permissions of who subscribes, whoever shares the event.
#[tokio::test]
async fn a_field_of_a_stream_is_forbidden_to_those_alone_who_lack_what_it_needs() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    let query =
        "subscription { newIncidents { title comments { nodes { id } } alerts { nodes { id } } playbook { id } } }";
    let mut sockets = Vec::new();
    for permissions in [
        &[Permission::IncidentsSubscribe][..],
        &[Permission::IncidentsSubscribe, Permission::AlertsRead],
        &[Permission::IncidentsSubscribe, Permission::IncidentsRead, Permission::PlaybooksRead],
        &Permission::ALL,
    ] {
        let token = permitting(permissions.iter().copied());
        let mut socket = Socket::connect_as(service.address, Some(&token)).await;
        socket.subscribe("1", query, json!({})).await;
        sockets.push(socket);
    }
    database.execute("insert into incident_manager.incident (title, severity, source) values ('t', 'P3', 's')").await;
    let mut forbidden = Vec::new();
    for socket in &mut sockets {
        let message = socket.receive().await.unwrap();
        assert_eq!(message["payload"]["data"]["newIncidents"]["title"], "t", "{message}");
        let errors = message["payload"]["errors"].as_array().into_iter().flatten();
        let ways =
            errors.inspect(|error| assert!(is_forbidden(error), "{message}")).map(|error| error["path"][1].clone());
        let ways: BTreeSet<_> = ways.map(|way| way.as_str().unwrap().to_owned()).collect();
        forbidden.push(ways.into_iter().collect::<Vec<_>>().join(" "));
    }
    assert_eq!(forbidden, ["alerts comments playbook", "comments playbook", "alerts", ""]);
    service.stop().await;
}

#[tokio::test]
async fn a_route_is_forbidden_without_what_it_needs() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    let a = fill(&database).await["a"].as_str().unwrap().to_owned();
    let bodies = [
        ("POST /v1/alerts", json!({ "title": "t", "severity": "P1", "source": "s" })),
        ("POST /v1/incidents", json!({ "title": "t", "severity": "P1", "source": "s" })),
        ("PATCH /v1/incidents/{id}", json!({ "title": "n" })),
        ("POST /v1/incidents/{id}/acknowledge", json!({})),
        ("POST /v1/incidents/{id}/transition", json!({ "to": "INVESTIGATING" })),
        ("POST /v1/incidents/{id}/resolve", json!({})),
        ("POST /v1/incidents/{id}/assign", json!({ "assignee": "x" })),
        ("POST /v1/incidents/{id}/comments", json!({ "body": "x" })),
    ];
    for ((method, path), needed) in routes() {
        let name = format!("{method} {path}");
        let body = bodies.iter().find(|(route, _)| *route == name).map(|(_, body)| body);
        assert_eq!(body.is_some(), method != "GET", "{name}");
        let before = database.stored().await;
        for (token, may) in [(all_but(needed), false), (permitting([needed]), true)] {
            let method: Method = method.parse().unwrap();
            let request = reqwest::Client::new().request(method, service.url(&path.replace("{id}", &a)));
            let request = request.bearer_auth(token);
            let request = if let Some(body) = body { request.json(body) } else { request };
            let response = request.send().await.unwrap();
            let (status, body) = (response.status().as_u16(), response.json::<Value>().await.unwrap());
            if may {
                assert!(status < 300, "{name}: {status} {body}");
            } else {
                assert_eq!((status, &body["code"]), (403, &json!("FORBIDDEN")), "{name}: {body}");
                assert_eq!(database.stored().await, before, "{name}");
            }
        }
    }
    service.stop().await;
}
