//! Lists by pages: every order, both directions, and rows that come in between.

use serde_json::{Value, json};

use crate::support::{Service, TestDatabase};

const LIST: &str =
    "query($order: IncidentOrder, $first: Int, $after: String, $last: Int, $before: String, $filter: IncidentFilter) {
    incidents(orderBy: $order, first: $first, after: $after, last: $last, before: $before, filter: $filter) {
        totalCount nodes { title } edges { cursor node { title } }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// Twenty-five incidents, some of the same time and severity, later changed in another order.
async fn make_incidents(database: &TestDatabase) {
    database
        .execute(
            "insert into incident_manager.incident (title, severity, source, created_at)
               select n::text, 'P' || n % 5, 'probe', timestamptz '2025-01-01 00:00Z' + (n / 3) * interval '1 hour'
               from generate_series(1, 25) n;
             update incident_manager.incident set description = 'changed' where title::integer % 2 = 0",
        )
        .await;
}

async fn page(service: &Service, variables: Value) -> Value {
    service.data(LIST, variables).await["incidents"].take()
}

fn titles(page: &Value) -> Vec<String> {
    let titles = |list: &Value, title: fn(&Value) -> &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| title(item).as_str().unwrap().to_owned()).collect()
    };
    let nodes = titles(&page["nodes"], |node| &node["title"]);
    assert_eq!(nodes, titles(&page["edges"], |edge| &edge["node"]["title"]));
    nodes
}

#[tokio::test]
async fn every_order_is_the_same_by_pages_in_both_directions() {
    let (database, service) = start().await;
    make_incidents(&database).await;
    for (order, sql) in [
        ("CREATED_AT_ASC", "created_at, id"),
        ("CREATED_AT_DESC", "created_at desc, id desc"),
        ("UPDATED_AT_DESC", "updated_at desc, id desc"),
        ("SEVERITY_THEN_CREATED_AT", "severity, created_at desc, id desc"),
    ] {
        let whole: Vec<String> =
            database.scalar(&format!("select array_agg(title order by {sql}) from incident_manager.incident")).await;
        assert_eq!(titles(&page(&service, json!({ "order": order, "first": 100 })).await), whole, "{order}");

        let (mut forward, mut after) = (Vec::new(), Value::Null);
        loop {
            let page = page(&service, json!({ "order": order, "first": 7, "after": after })).await;
            assert_eq!(page["totalCount"], 25);
            assert_eq!(page["pageInfo"]["hasPreviousPage"], json!(!after.is_null()));
            assert_eq!(page["pageInfo"]["startCursor"], page["edges"][0]["cursor"]);
            forward.extend(titles(&page));
            after = page["pageInfo"]["endCursor"].clone();
            if page["pageInfo"]["hasNextPage"] == false {
                break;
            }
        }
        assert_eq!(forward, whole, "{order}, forward");

        let (mut backward, mut before) = (Vec::new(), Value::Null);
        loop {
            let page = page(&service, json!({ "order": order, "last": 6, "before": before })).await;
            assert_eq!(page["pageInfo"]["hasNextPage"], json!(!before.is_null()));
            backward.splice(0..0, titles(&page));
            before = page["pageInfo"]["startCursor"].clone();
            if page["pageInfo"]["hasPreviousPage"] == false {
                break;
            }
        }
        assert_eq!(backward, whole, "{order}, backward");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_list_is_of_20_newest_first_where_nothing_is_asked() {
    let (database, service) = start().await;
    make_incidents(&database).await;
    let newest: Vec<String> = database
        .scalar("select (array_agg(title order by created_at desc, id desc))[:20] from incident_manager.incident")
        .await;
    let page = page(&service, json!({})).await;
    assert_eq!(titles(&page), newest);
    assert_eq!((&page["pageInfo"]["hasNextPage"], &page["totalCount"]), (&json!(true), &json!(25)));
    service.stop().await;
}

#[tokio::test]
async fn pages_stay_where_they_are_when_rows_come_in_between() {
    let (database, service) = start().await;
    make_incidents(&database).await;
    let whole: Vec<String> = database
        .scalar("select array_agg(title order by severity, created_at desc, id desc) from incident_manager.incident")
        .await;
    let (mut seen, mut after) = (Vec::new(), Value::Null);
    for round in 0.. {
        let page = page(&service, json!({ "order": "SEVERITY_THEN_CREATED_AT", "first": 5, "after": after })).await;
        seen.extend(titles(&page));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        // before all that was there: already passed by
        let insert = format!(
            "insert into incident_manager.incident (title, severity, source) values ('new {round}', 'P0', 'probe')"
        );
        database.execute(&insert).await;
    }
    assert_eq!(seen, whole);
    service.stop().await;
}

#[tokio::test]
async fn filters_choose_and_count() {
    let (database, service) = start().await;
    make_incidents(&database).await;
    database
        .execute(
            r#"update incident_manager.incident set labels = '{"team": "llm", "zone": "a"}', assigned_to = 'ada' where title in ('1', '2');
               update incident_manager.incident set state = 'RESOLVED' where title in ('2', '3');
               insert into incident_manager.incident (title, severity, source, incident_type) values ('other', 'P4', 'psql', 'COST')"#,
        )
        .await;
    let id: uuid::Uuid = database.scalar("select id from incident_manager.incident where title = '1'").await;
    for (filter, count) in [
        (json!({}), 26),
        (json!({ "ids": [id] }), 1),
        (json!({ "ids": [] }), 0),
        (json!({ "states": ["RESOLVED", "CLOSED"] }), 2),
        (json!({ "states": [] }), 0),
        (json!({ "severities": ["P0"] }), 5),
        (json!({ "severities": [] }), 0),
        (json!({ "incidentTypes": ["COST"] }), 1),
        (json!({ "sources": ["probe"] }), 25),
        (json!({ "sources": [] }), 0),
        (json!({ "assignedTo": "ada" }), 2),
        (json!({ "activeOnly": true }), 24),
        (json!({ "activeOnly": false, "states": null }), 26),
        (json!({ "labels": {} }), 26),
        (json!({ "labels": { "team": "llm" } }), 2),
        (json!({ "labels": { "team": "llm", "zone": "b" } }), 0),
        (json!({ "createdAfter": "2025-01-01T07:00:00Z", "createdBefore": "2025-01-02T00:00:00Z" }), 2),
        (json!({ "createdBefore": "2025-01-01T01:00:00+01:00" }), 0),
        (json!({ "assignedTo": "ada", "activeOnly": true }), 1),
    ] {
        let page = page(&service, json!({ "filter": filter, "first": 100 })).await;
        assert_eq!((&page["totalCount"], titles(&page).len()), (&json!(count), count), "{filter}");
    }
    service.stop().await;
}

#[tokio::test]
async fn arguments_that_ask_for_no_page_are_refused() {
    let (database, service) = start().await;
    make_incidents(&database).await;
    let by_date =
        page(&service, json!({ "order": "CREATED_AT_DESC", "first": 1 })).await["pageInfo"]["endCursor"].take();
    for (variables, field) in [
        (json!({ "first": 0 }), "first"),
        (json!({ "first": 101 }), "first"),
        (json!({ "first": -1 }), "first"),
        (json!({ "last": 0 }), "last"),
        (json!({ "last": 101 }), "last"),
        (json!({ "first": 5, "last": 5 }), "last"),
        (json!({ "last": 5, "after": by_date }), "after"),
        (json!({ "before": by_date }), "before"),
        (json!({ "after": "no cursor" }), "after"),
        (json!({ "after": "" }), "after"),
        (json!({ "after": by_date, "order": "UPDATED_AT_DESC" }), "after"),
        (json!({ "last": 5, "before": by_date, "order": "CREATED_AT_ASC" }), "before"),
    ] {
        let error = service.error(LIST, variables.clone()).await;
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{variables}: {error}");
        assert_eq!(error["extensions"]["field"], field, "{variables}: {error}");
    }
    let others = "query($after: String) { alerts(after: $after) { totalCount } }";
    let error = service.error(others, json!({ "after": by_date })).await;
    assert_eq!(error["extensions"]["field"], "after");
    service.stop().await;
}

#[tokio::test]
async fn an_incidents_alerts_are_newest_first_and_its_comments_oldest_first() {
    let (database, service) = start().await;
    database
        .execute(
            "insert into incident_manager.alert (source, title, severity, external_id, fingerprint)
               select 'probe', n::text, 'P3', n::text, 'same' from generate_series(1, 5) n;
             insert into incident_manager.comment (incident_id, body)
               select i.id, n::text from incident_manager.incident i, generate_series(1, 5) n",
        )
        .await;
    let query = "query($alert: String, $comment: String) { incidents { nodes {
        alerts(first: 2, after: $alert) { totalCount nodes { title } pageInfo { hasNextPage endCursor } }
        comments(first: 2, after: $comment) { totalCount nodes { body } pageInfo { hasNextPage endCursor } } } } }";
    let (mut alerts, mut comments) = (Vec::new(), Vec::new());
    let (mut alert, mut comment) = (Value::Null, Value::Null);
    for rest in [true, true, false] {
        let mut data = service.data(query, json!({ "alert": alert, "comment": comment })).await;
        let incident = data["incidents"]["nodes"][0].take();
        assert_eq!((&incident["alerts"]["totalCount"], &incident["comments"]["totalCount"]), (&json!(5), &json!(5)));
        alerts.extend(incident["alerts"]["nodes"].as_array().unwrap().iter().map(|node| node["title"].clone()));
        comments.extend(incident["comments"]["nodes"].as_array().unwrap().iter().map(|node| node["body"].clone()));
        for list in ["alerts", "comments"] {
            assert_eq!(incident[list]["pageInfo"]["hasNextPage"], json!(rest));
        }
        alert = incident["alerts"]["pageInfo"]["endCursor"].clone();
        comment = incident["comments"]["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(json!(alerts), json!(["5", "4", "3", "2", "1"]));
    assert_eq!(json!(comments), json!(["1", "2", "3", "4", "5"]));
    for call in ["alerts(first: 0)", "comments(first: 101)", "comments(after: \"no cursor\")"] {
        let error =
            service.error(&format!("{{ incidents {{ nodes {{ {call} {{ totalCount }} }} }} }}"), json!({})).await;
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{call}: {error}");
    }
    service.stop().await;
}
