//! Which incidents belong together.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, TestDatabase};

const LINK: &str = "mutation($a: UUID!, $b: UUID!) { linkIncidents(a: $a, b: $b) { reason score incident { id } } }";
const RELATED: &str = "query($id: UUID!) { incident(id: $id) { relatedIncidents { reason score incident { id } } } }";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// An incident that correlates with nothing unless `columns` and `values` make it.
async fn insert(database: &TestDatabase, source: &str, columns: &str, values: &str) -> Uuid {
    database
        .scalar(&format!(
            "insert into incident_manager.incident (title, severity, source{columns}) values ('One', 'P2', '{source}'{values})
             returning id"
        ))
        .await
}

async fn related(service: &Service, id: Uuid) -> Value {
    service.data(RELATED, json!({ "id": id })).await["incident"]["relatedIncidents"].take()
}

#[tokio::test]
async fn incidents_are_linked_once_whichever_is_named_first() {
    let (database, service) = start().await;
    let a = insert(&database, "s", "", "").await;
    let b = insert(&database, "s", "", "").await;
    let link = |to: Uuid| json!([{ "reason": "LINKED", "score": 1.0, "incident": { "id": to } }]);
    assert_eq!(service.data(LINK, json!({ "a": a, "b": b })).await["linkIncidents"], link(b));
    assert_eq!(service.data(LINK, json!({ "a": b, "b": a })).await["linkIncidents"], link(a));
    assert_eq!(related(&service, a).await, link(b));
    assert_eq!(
        database.scalar::<String>("select string_agg(linked_by, ' ') from incident_manager.incident_link").await,
        "anonymous"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_link_to_itself_or_to_nothing_is_refused() {
    let (database, service) = start().await;
    let a = insert(&database, "s", "", "").await;
    let error = service.error(LINK, json!({ "a": a, "b": a })).await;
    assert_eq!((&error["extensions"]["code"], &error["extensions"]["field"]), (&json!("BAD_USER_INPUT"), &json!("b")));
    let error = service.error(LINK, json!({ "a": a, "b": Uuid::new_v4() })).await;
    assert_eq!(error["extensions"]["code"], "NOT_FOUND");
    let sql = format!("insert into incident_manager.incident_link (a, b) values ('{a}', '{a}')");
    assert_eq!(database.refused(&sql).await, ("23514".to_owned(), "incident_link_b_order".to_owned()));
    service.stop().await;
}

#[tokio::test]
async fn merged_incidents_are_related_both_ways() {
    let (database, service) = start().await;
    let source = insert(&database, "s", "", "").await;
    let target = insert(&database, "s", "", "").await;
    database
        .execute(&format!(
            "update incident_manager.incident set state = 'CLOSED', merged_into = '{target}' where id = '{source}'"
        ))
        .await;
    for (one, other) in [(source, target), (target, source)] {
        assert_eq!(
            related(&service, one).await,
            json!([{ "reason": "MERGED", "score": 1.0, "incident": { "id": other } }])
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn incidents_of_one_cause_correlate_and_the_surest_comes_first() {
    let (database, service) = start().await;
    let fingerprint = ", fingerprint, created_at, affected_resources";
    let earlier = insert(&database, "s", fingerprint, ", 'f', now() - interval '9 days', '{db}'").await;
    database.execute("update incident_manager.incident set state = 'RESOLVED'").await;
    let elsewhere = insert(&database, "t", fingerprint, ", 'f', now() - interval '8 days', '{}'").await;
    let near =
        insert(&database, "u", ", created_at, affected_resources", ", now() - interval '30 minutes', '{db,lb}'").await;
    let far =
        insert(&database, "u", ", created_at, affected_resources", ", now() - interval '61 minutes', '{db}'").await;
    let other = insert(&database, "u", ", affected_resources", ", '{lb}'").await;
    let linked = insert(&database, "v", "", "").await;
    let one = insert(&database, "s", fingerprint, ", 'f', now(), '{db,queue}'").await;
    service.data(LINK, json!({ "a": linked, "b": one })).await;
    let related = related(&service, one).await;
    let ids: Vec<_> = related.as_array().unwrap().iter().map(|related| related["incident"]["id"].clone()).collect();
    assert_eq!(ids, [linked, earlier, elsewhere, near].map(|id| json!(id)), "not {far}, not {other}: {related}");
    let scores: Vec<_> = related.as_array().unwrap().iter().map(|related| related["score"].as_f64().unwrap()).collect();
    assert_eq!(scores[..3], [1.0, 0.9, 0.8]);
    assert!((0.54..0.56).contains(&scores[3]), "{scores:?}");
    service.stop().await;
}

#[tokio::test]
async fn twenty_at_most_are_related() {
    let (database, service) = start().await;
    let one = insert(&database, "s", ", affected_resources", ", '{db}'").await;
    database
        .execute(
            "insert into incident_manager.incident (title, severity, source, affected_resources)
             select 'Many', 'P3', 's', '{db}' from generate_series(1, 100)",
        )
        .await;
    assert_eq!(related(&service, one).await.as_array().unwrap().len(), 20);
    service.stop().await;
}

#[tokio::test]
async fn a_purge_takes_links_and_attachments_with_it() {
    let (database, service) = start().await;
    database
        .execute(r#"insert into incident_manager.playbook (name, steps) values ('p', '[{"title": "t", "instructions": ""}]')"#)
        .await;
    let a = insert(&database, "s", "", "").await;
    let b = insert(&database, "s", "", "").await;
    service.data(LINK, json!({ "a": a, "b": b })).await;
    for state in ["RESOLVED", "CLOSED"] {
        database.execute(&format!("update incident_manager.incident set state = '{state}' where id = '{a}'")).await;
    }
    let purged: i64 =
        database.scalar("select incident_manager.purge_closed_incidents(now() + interval '1 hour')").await;
    assert_eq!(purged, 1);
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.incident_link").await, 0);
    let left: Uuid = database.scalar("select incident_id from incident_manager.incident_playbook").await;
    assert_eq!(left, b);
    service.stop().await;
}

#[tokio::test]
async fn a_related_incident_is_told_as_it_is() {
    const BRIEF: &str =
        "id title severity state incidentType source createdAt updatedAt acknowledgedAt resolvedAt closedAt
        assignedTo fingerprint version";
    const LONG: &str = "description affectedResources labels metadata resolution rootCause";
    let (database, service) = start().await;
    let one = insert(&database, "s", ", fingerprint", ", 'f'").await;
    let resolved = ", fingerprint, description, assigned_to, affected_resources, labels, metadata, incident_type";
    let values = r#", 'g', 'Long', 'mei', array['db', 'lb'], '{"a": "b"}', '{"n": [1]}', 'DATA'"#;
    let linked = insert(&database, "t", resolved, values).await;
    let resolve = format!(
        "update incident_manager.incident set state = 'RESOLVED', resolution = 'Put right', root_cause = 'A typo'
         where id = '{linked}'"
    );
    database.execute(&resolve).await;
    service.data(LINK, json!({ "a": one, "b": linked })).await;
    let all = format!("{BRIEF} {LONG}");
    for fields in [BRIEF, &all] {
        let own = service.data(&format!("{{ incident(id: \"{linked}\") {{ {fields} }} }}"), json!({})).await;
        assert!(own["incident"]["resolvedAt"].is_string(), "{own}");
        let query = format!("{{ incident(id: \"{one}\") {{ relatedIncidents {{ incident {{ {fields} }} }} }} }}");
        let told = service.data(&query, json!({})).await;
        assert_eq!(told["incident"]["relatedIncidents"], json!([{ "incident": own["incident"] }]));
    }
    service.stop().await;
}
