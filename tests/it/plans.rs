//! Every list and filter of the contract goes by an index.

use serde_json::{Value, json};

use crate::support::statements::{Statements, say_plans};
use crate::support::{Service, TestDatabase};

/// As years of use leave it: most incidents closed, few active, alerts of many sources; without the events of all that.
const FILL: &str = r#"
    set session_replication_role = replica;
    insert into incident_manager.incident (title, severity, state, incident_type, source, assigned_to, labels,
                                           affected_resources, fingerprint, created_at, updated_at)
      select 'Incident ' || n, 'P' || n % 5,
             case when n > 19800 then 'DETECTED' when n > 19700 then 'RESOLVED' else 'CLOSED' end,
             case when n % 50 = 0 then 'SECURITY' else 'AVAILABILITY' end, 'source-' || n % 200,
             case when n % 10 = 0 then 'person-' || n % 70 end, jsonb_build_object('service', 'service-' || n % 40),
             array['resource-' || n % 30], 'fingerprint-' || n, now() - interval '1 minute' * (20000 - n),
             now() - interval '1 minute' * (20000 - n)
      from generate_series(1, 20000) n;
    insert into incident_manager.alert (source, title, severity, incident_id, status, firing, received_at)
      select source, 'Alert', severity, id, 'DEDUPLICATED', n = 1 and state = 'DETECTED', created_at
      from incident_manager.incident, generate_series(1, 2) n;
    insert into incident_manager.comment (incident_id, body, created_at)
      select id, 'Comment', created_at from incident_manager.incident;
    insert into incident_manager.timeline (incident_id, pos, at, update_type, actor, summary, changed_fields)
      select id, row_number() over () * 3 + n, created_at, 'UPDATED', 'somebody', 'changed', '{}'
      from incident_manager.incident, generate_series(1, 2) n;
    insert into incident_manager.playbook (name, steps)
      select 'Playbook ' || n, '[{"title": "Look", "instructions": ""}]' from generate_series(1, 2000) n;
    insert into incident_manager.incident_playbook (incident_id, playbook_id)
      select id, (select id from incident_manager.playbook limit 1) from incident_manager.incident;
    insert into incident_manager.incident_link (a, b)
      select least(i.id, lead), greatest(i.id, lead) from (
        select id, lead(id) over (order by created_at) from incident_manager.incident) i where lead is not null;
    set session_replication_role = origin;
    analyze"#;

async fn start() -> (TestDatabase, Statements, Service) {
    let database = TestDatabase::new().await;
    database.execute(FILL).await;
    say_plans(&database).await;
    let nested = format!("alter database {} set auto_explain.log_nested_statements = on", database.name());
    database.execute(&nested).await;
    let statements = Statements::of(&database).await;
    let service = Service::start(statements.url()).await;
    (database, statements, service)
}

/// The plans of an operation, those inside functions too, none of which reads a whole table.
async fn plans(statements: &Statements, service: &Service, query: &str, variables: Value) -> Vec<String> {
    statements.take_plans();
    service.data(query, variables.clone()).await;
    let mut plans = statements.take_plans();
    // what the function runs has a plan of its own
    plans.retain(|plan| !plan.contains("Function Scan on related_candidates"));
    assert!(!plans.is_empty(), "{query} has no plan");
    for plan in &plans {
        assert!(!plan.contains("Seq Scan"), "{query} {variables}: {plan}");
        assert!(plan.contains("Index"), "{query} {variables}: {plan}");
    }
    plans
}

#[tokio::test]
async fn incidents_by_every_filter_in_every_order() {
    let (database, statements, service) = start().await;
    let id: uuid::Uuid = database.scalar("select id from incident_manager.incident limit 1").await;
    let at: String = database.scalar("select to_json(now() - interval '7 days') #>> '{}'").await;
    let query = "query($filter: IncidentFilter, $order: IncidentOrder, $after: String) {
        incidents(filter: $filter, orderBy: $order, after: $after) { nodes { id } pageInfo { endCursor } } }";
    for filter in [
        json!({}),
        json!({ "ids": [id] }),
        json!({ "states": ["DETECTED"] }),
        json!({ "states": ["CLOSED"] }),
        json!({ "severities": ["P1", "P2"] }),
        json!({ "incidentTypes": ["SECURITY"] }),
        json!({ "sources": ["source-3"] }),
        json!({ "assignedTo": "person-10" }),
        json!({ "activeOnly": true }),
        json!({ "labels": { "service": "service-3" } }),
        json!({ "createdAfter": at }),
        json!({ "createdBefore": at }),
    ] {
        for order in ["CREATED_AT_ASC", "CREATED_AT_DESC", "UPDATED_AT_DESC", "SEVERITY_THEN_CREATED_AT"] {
            plans(&statements, &service, query, json!({ "filter": filter, "order": order })).await;
            let data = service.data(query, json!({ "filter": filter, "order": order })).await;
            let after = &data["incidents"]["pageInfo"]["endCursor"];
            assert_ne!(after, &Value::Null, "{filter} matches something");
            plans(&statements, &service, query, json!({ "filter": filter, "order": order, "after": after })).await;
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn incidents_with_labels_that_few_have_are_looked_up() {
    let (database, statements, service) = start().await;
    database
        .execute(
            r#"set session_replication_role = replica;
               update incident_manager.incident set labels = '{"rare": "yes", "more": ""}' where id in (
                 select id from incident_manager.incident order by created_at limit 7);
               set session_replication_role = origin"#,
        )
        .await;
    for (order, by) in [
        ("CREATED_AT_ASC", "created_at, id"),
        ("CREATED_AT_DESC", "created_at desc, id desc"),
        ("UPDATED_AT_DESC", "updated_at desc, id desc"),
        ("SEVERITY_THEN_CREATED_AT", "severity, created_at desc, id desc"),
    ] {
        let expected: Vec<uuid::Uuid> = database
            .scalar(&format!("select array_agg(id order by {by}) from incident_manager.incident where labels ? 'rare'"))
            .await;
        for (size, cursor, there, next) in
            [("first", "after", "hasNextPage", "endCursor"), ("last", "before", "hasPreviousPage", "startCursor")]
        {
            let query = format!(
                "query($cursor: String) {{ incidents(orderBy: {order}, filter: {{ labels: {{ rare: \"yes\" }} }}, {size}: 3, {cursor}: $cursor) {{
                    nodes {{ id }} pageInfo {{ {there} {next} }} }} }}"
            );
            let (mut found, mut from) = (Vec::new(), Value::Null);
            loop {
                let shown = plans(&statements, &service, &query, json!({ "cursor": from })).await;
                // where little of the list is left, that is gone through
                let looked_up = shown.iter().any(|plan| plan.contains("incident_labels"));
                assert!(looked_up || !from.is_null(), "{order}: {shown:#?}");
                let page = service.data(&query, json!({ "cursor": from })).await["incidents"].take();
                let nodes = page["nodes"].as_array().unwrap().iter().map(|node| node["id"].clone());
                if size == "first" {
                    found.extend(nodes);
                } else {
                    found.splice(0..0, nodes).for_each(drop);
                }
                if page["pageInfo"][there] == json!(false) {
                    break;
                }
                from = page["pageInfo"][next].clone();
            }
            assert_eq!(json!(found), json!(expected), "{order} by {size}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_page_by_its_order_alone_sorts_nothing() {
    let (_database, statements, service) = start().await;
    for order in ["CREATED_AT_ASC", "CREATED_AT_DESC", "UPDATED_AT_DESC", "SEVERITY_THEN_CREATED_AT"] {
        for size in ["first", "last"] {
            let query = format!("{{ incidents(orderBy: {order}, {size}: 100) {{ nodes {{ id }} }} }}");
            let plans = plans(&statements, &service, &query, json!({})).await;
            assert!(!plans[0].contains("Sort"), "{query}: {}", plans[0]);
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn alerts_by_source_incident_and_whether_they_fire() {
    let (database, statements, service) = start().await;
    let id: uuid::Uuid = database.scalar("select id from incident_manager.incident limit 1").await;
    let query = "query($sources: [String!], $incidentId: UUID, $firing: Boolean) {
        alerts(sources: $sources, incidentId: $incidentId, firing: $firing) { nodes { id } } }";
    for filter in [
        json!({}),
        json!({ "sources": ["source-3"] }),
        json!({ "sources": ["source-3", "source-4"] }),
        json!({ "incidentId": id }),
        json!({ "firing": true }),
        json!({ "firing": false }),
        json!({ "sources": ["source-3"], "firing": true }),
    ] {
        plans(&statements, &service, query, filter).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn what_hangs_on_incidents() {
    let (_database, statements, service) = start().await;
    let query = "{ incidents(first: 50) { nodes {
        alerts { totalCount nodes { incident { id } } } comments { totalCount nodes { id } }
        timeline { totalCount nodes { summary } } playbook { name } relatedIncidents { score } } } }";
    let plans = plans(&statements, &service, query, json!({})).await;
    assert_eq!(plans.len(), 10, "{plans:#?}");
    service.stop().await;
}

#[tokio::test]
async fn single_things_and_playbooks() {
    let (database, statements, service) = start().await;
    for (field, table) in [("incident", "incident"), ("alert", "alert"), ("playbook", "playbook")] {
        let id: uuid::Uuid = database.scalar(&format!("select id from incident_manager.{table} limit 1")).await;
        plans(&statements, &service, &format!("{{ {field}(id: \"{id}\") {{ id }} }}"), json!({})).await;
    }
    plans(&statements, &service, "{ playbooks { nodes { name } } }", json!({})).await;
    service.stop().await;
}
