//! What hangs on incidents is loaded for all of them at once.

use serde_json::{Value, json};

use crate::support::statements::Statements;
use crate::support::{Service, TestDatabase, eventually};

const EVERYTHING: &str = "query($n: Int!) { incidents(first: $n) { totalCount nodes { id title
    alerts(first: 3) { totalCount nodes { title incident { id playbook { name } } } }
    comments { totalCount nodes { body } }
    timeline { totalCount nodes { updateType summary } }
    playbook { name }
    relatedIncidents { reason score incident { id comments(first: 1) { nodes { body } } } }
    more: alerts(first: 100) { pageInfo { hasNextPage } nodes { title } } } } }";

/// Sixty incidents, each with five alerts, two comments and a playbook, some of them related.
async fn fill(database: &TestDatabase) {
    database
        .execute(
            r#"insert into incident_manager.playbook (name, steps)
                 values ('Look at it', '[{"title": "Look", "instructions": ""}]');
               insert into incident_manager.incident (title, severity, source, affected_resources)
                 select 'Incident ' || n, 'P' || n % 5, 'source-' || n % 3, array['service-' || n % 7]
                 from generate_series(1, 60) n;
               insert into incident_manager.comment (incident_id, body)
                 select id, 'Comment ' || n from incident_manager.incident, generate_series(1, 2) n;
               insert into incident_manager.alert (source, title, severity, incident_id, status)
                 select source, 'Alert ' || n, severity, id, 'DEDUPLICATED'
                 from incident_manager.incident, generate_series(1, 5) n"#,
        )
        .await;
    // the sequencer writes the timelines
    eventually("every change has its entry", || async {
        database.scalar::<i64>("select count(*) from incident_manager.timeline").await == 180
    })
    .await;
}

#[tokio::test]
async fn a_page_takes_the_same_statements_however_many_incidents_it_has() {
    let database = TestDatabase::new().await;
    let statements = Statements::of(&database).await;
    let service = Service::start(statements.url()).await;
    fill(&database).await;
    let mut counts = Vec::new();
    for size in [5, 50] {
        statements.take();
        let data = service.data(EVERYTHING, json!({ "n": size })).await;
        let ran = statements.take();
        let nodes = data["incidents"]["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), size);
        for node in nodes {
            assert_eq!(node["alerts"]["nodes"].as_array().unwrap().len(), 3, "{node}");
            assert_eq!(node["more"]["nodes"].as_array().unwrap().len(), 5, "{node}");
            assert_eq!(node["alerts"]["totalCount"], 5);
            assert_eq!(node["alerts"]["nodes"][0]["incident"]["id"], node["id"]);
            assert_eq!(node["comments"]["nodes"], json!([{ "body": "Comment 1" }, { "body": "Comment 2" }]));
            assert_eq!(node["timeline"]["nodes"][0]["updateType"], "CREATED");
            assert_eq!(node["timeline"]["totalCount"], 3);
            assert_eq!(node["playbook"]["name"], "Look at it");
            assert!(!node["relatedIncidents"].as_array().unwrap().is_empty(), "{node}");
        }
        counts.push(ran);
    }
    assert_eq!(counts[0].len(), counts[1].len(), "{counts:#?}");
    // incidents, their count; of all of them alerts (both pages), comments, timeline, playbook, what may be related, three
    // counts; the alerts' incidents, their playbooks, the related ones' comments
    assert_eq!(counts[1].len(), 13, "{:#?}", counts[1]);
    service.stop().await;
}

#[tokio::test]
async fn what_may_be_long_is_there_however_it_is_asked_for() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    let other: uuid::Uuid = database
        .scalar(
            r#"insert into incident_manager.incident
                 (title, severity, source, description, affected_resources, labels, metadata, resolution, root_cause)
               values ('Other', 'P2', 'a', 'Long.', '{db}', '{"team": "llm"}', '{"deep": {"n": 1}}', 'Restarted.', 'Disk.')
               returning id"#,
        )
        .await;
    let id: uuid::Uuid = database
        .scalar(
            "insert into incident_manager.incident (title, severity, source, affected_resources)
               values ('One', 'P2', 'b', '{db}') returning id",
        )
        .await;
    database
        .execute(&format!(
            r#"insert into incident_manager.alert
                 (source, title, severity, description, labels, annotations, affected_services, incident_id, status)
               values ('b', 'Alert', 'P2', 'Long.', '{{"team": "llm"}}', '{{"a": "b"}}', '{{gateway}}', '{id}', 'DEDUPLICATED')"#
        ))
        .await;
    let alert = |field: &str| match field {
        "description" => json!("Long."),
        "labels" => json!({ "team": "llm" }),
        "annotations" => json!({ "a": "b" }),
        _ => json!(["gateway"]),
    };
    for field in ["description", "labels", "annotations", "affectedServices"] {
        for (selection, at) in [
            (format!("alerts {{ nodes {{ {field} }} }}"), "/alerts/nodes/0"),
            (format!("alerts {{ edges {{ node {{ ... on Alert {{ {field} }} }} }} }}"), "/alerts/edges/0/node"),
            (format!("alerts {{ nodes {{ id }} }} more: alerts {{ nodes {{ {field} }} }}"), "/more/nodes/0"),
            (format!("... on Incident {{ alerts {{ nodes {{ title }} nodes {{ {field} }} }} }}"), "/alerts/nodes/0"),
        ] {
            let query = format!("query($id: UUID!) {{ incident(id: $id) {{ {selection} }} }}");
            let data = service.data(&query, json!({ "id": id })).await;
            let node = data["incident"].pointer(at).unwrap();
            assert_eq!(node[field], alert(field), "{query}: {data}");
        }
    }
    let whole = "description affectedResources labels metadata resolution rootCause";
    let query = format!("query($id: UUID!) {{ incident(id: $id) {{ {whole} }} }}");
    let expected = service.data(&query, json!({ "id": other })).await["incident"].take();
    assert_eq!(expected["metadata"], json!({ "deep": { "n": 1 } }));
    for field in whole.split(' ') {
        let query = format!(
            "query($id: UUID!) {{ incident(id: $id) {{ relatedIncidents {{ incident {{ id }} ...F }} }} }}
             fragment F on RelatedIncident {{ incident {{ other: {field} }} }}"
        );
        let data = service.data(&query, json!({ "id": id })).await;
        let incident = &data["incident"]["relatedIncidents"][0]["incident"];
        assert_eq!((&incident["id"], &incident["other"]), (&json!(other), &expected[field]), "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_list_without_total_count_is_not_counted() {
    let database = TestDatabase::new().await;
    let statements = Statements::of(&database).await;
    let service = Service::start(statements.url()).await;
    statements.take();
    service.data("{ incidents { nodes { id alerts { nodes { id } } } } alerts { nodes { id } } }", json!({})).await;
    let ran = statements.take();
    assert_eq!(ran.len(), 2, "{ran:#?}");
    assert!(ran.iter().all(|sql| !sql.contains("count(")), "{ran:#?}");
    service.stop().await;
}

#[tokio::test]
async fn a_subscription_reads_what_hangs_on_an_incident_anew_for_every_event() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    let mut updates = service
        .subscribe(
            "subscription { incidentUpdates { incident { version comments { nodes { body } } playbook { name } } } }",
        )
        .await;
    let id: uuid::Uuid = database
        .scalar(
            "insert into incident_manager.incident (title, severity, source) values ('One', 'P2', 'test') returning id",
        )
        .await;
    let first = updates.next("incidentUpdates").await;
    assert_eq!(first["incident"], json!({ "version": 1, "comments": { "nodes": [] }, "playbook": Value::Null }));
    for n in 1..=3 {
        let body = format!("Comment {n}");
        database
            .execute(&format!("insert into incident_manager.comment (incident_id, body) values ('{id}', '{body}')"))
            .await;
        let update = updates.next("incidentUpdates").await;
        let bodies = update["incident"]["comments"]["nodes"].as_array().unwrap();
        assert_eq!((bodies.len(), &bodies[n - 1]["body"]), (n, &json!(body)), "{update}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_mutations_next_field_sees_what_the_one_before_it_did() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    let id: uuid::Uuid = database
        .scalar(
            "insert into incident_manager.incident (title, severity, source) values ('One', 'P2', 'test') returning id",
        )
        .await;
    let data = service
        .data(
            "mutation($id: UUID!) {
                a: acknowledgeIncident(id: $id) { comments { totalCount } }
                addComment(incidentId: $id, body: \"Said\") { id }
                b: acknowledgeIncident(id: $id) { comments { totalCount nodes { body } } } }",
            json!({ "id": id }),
        )
        .await;
    assert_eq!(data["a"]["comments"]["totalCount"], 0);
    assert_eq!(data["b"]["comments"], json!({ "totalCount": 1, "nodes": [{ "body": "Said" }] }));
    service.stop().await;
}
