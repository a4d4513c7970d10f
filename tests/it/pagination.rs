//! Pages by the Relay Cursor Connections Specification, found by key.

use serde_json::{Value, json};

use crate::support::{Service, TestDatabase};

const ORDERS: [&str; 4] = ["CREATED_AT_ASC", "CREATED_AT_DESC", "UPDATED_AT_DESC", "SEVERITY_THEN_CREATED_AT"];
const INCIDENTS: &str = "query($order: IncidentOrder, $first: Int, $after: String, $last: Int, $before: String) {
    incidents(orderBy: $order, first: $first, after: $after, last: $last, before: $before) {
        nodes { id } edges { cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// Incidents of all severities, several of one instant; some of them changed later.
async fn fill(database: &TestDatabase, count: u32) {
    database
        .execute(&format!(
            "insert into incident_manager.incident (title, severity, source, created_at)
               select 'Incident ' || n, 'P' || n % 5, 'test', now() - interval '1 minute' * (n / 4)
               from generate_series(1, {count}) n;
             update incident_manager.incident set title = 'Changed' where severity in ('P1', 'P3')"
        ))
        .await;
}

/// Every id of a list, read in pages with these arguments, and how many pages it took.
async fn walk(service: &Service, order: &str, size: &str, from: &str, more: &str, cursor: &str) -> (Vec<Value>, usize) {
    let (mut ids, mut pages, mut at) = (Vec::new(), 0, Value::Null);
    loop {
        let variables = json!({ "order": order, size: 7, from: at });
        let mut data = service.data(INCIDENTS, variables).await;
        let page = &mut data["incidents"];
        pages += 1;
        let nodes: Vec<Value> =
            page["nodes"].as_array_mut().unwrap().iter_mut().map(|node| node["id"].take()).collect();
        if size == "last" {
            ids.splice(0..0, nodes);
        } else {
            ids.extend(nodes);
        }
        if page["pageInfo"][more] == false {
            return (ids, pages);
        }
        at = page["pageInfo"][cursor].take();
    }
}

#[tokio::test]
async fn forward_and_backward_give_the_same_list_in_every_order() {
    let (database, service) = start().await;
    fill(&database, 45).await;
    for (order, sql) in ORDERS.into_iter().zip([
        "created_at, id",
        "created_at desc, id desc",
        "updated_at desc, id desc",
        "severity, created_at desc, id desc",
    ]) {
        let whole: String = database
            .scalar(&format!("select string_agg(id::text, ' ' order by {sql}) from incident_manager.incident"))
            .await;
        let whole: Vec<Value> = whole.split(' ').map(|id| json!(id)).collect();
        let forward = walk(&service, order, "first", "after", "hasNextPage", "endCursor").await;
        assert_eq!(forward, (whole.clone(), 7), "{order}");
        let backward = walk(&service, order, "last", "before", "hasPreviousPage", "startCursor").await;
        assert_eq!(backward, (whole, 7), "{order}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_inserted_meanwhile_neither_doubles_nor_hides_anything() {
    let (database, service) = start().await;
    fill(&database, 30).await;
    for order in ORDERS {
        let before: Vec<String> = ids(&database).await;
        let mut seen = Vec::new();
        let mut after = Value::Null;
        loop {
            let data = service.data(INCIDENTS, json!({ "order": order, "first": 5, "after": after })).await;
            let page = &data["incidents"];
            seen.extend(page["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned()));
            if page["pageInfo"]["hasNextPage"] == false {
                break;
            }
            after = page["pageInfo"]["endCursor"].clone();
            // before and behind the place that has been read to
            database
                .execute(
                    "insert into incident_manager.incident (title, severity, source, created_at)
                     values ('New', 'P0', 'test', now()), ('New', 'P4', 'test', now() - interval '1 year')",
                )
                .await;
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "{order}: twice");
        assert!(before.iter().all(|id| seen.binary_search(id).is_ok()), "{order}: one is missing");
    }
    service.stop().await;
}

async fn ids(database: &TestDatabase) -> Vec<String> {
    let text: String = database.scalar("select string_agg(id::text, ' ') from incident_manager.incident").await;
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn twenty_come_where_no_size_is_given_and_pages_have_from_1_to_100() {
    let (database, service) = start().await;
    fill(&database, 101).await;
    let page = |data: Value| {
        (data["incidents"]["nodes"].as_array().unwrap().len(), data["incidents"]["pageInfo"]["hasNextPage"] == true)
    };
    assert_eq!(page(service.data(INCIDENTS, json!({})).await), (20, true));
    assert_eq!(page(service.data(INCIDENTS, json!({ "first": 100 })).await), (100, true));
    for size in [0, 101, -1, i32::MIN] {
        for argument in ["first", "last"] {
            let error = service.error(INCIDENTS, json!({ argument: size })).await;
            assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
            assert_eq!(error["extensions"]["field"], argument, "{error}");
        }
        for nested in ["alerts", "comments", "timeline"] {
            let query = format!(
                "{{ incidents(first: 1) {{ nodes {{ {nested}(first: {size}) {{ nodes {{ __typename }} }} }} }} }}"
            );
            let error = service.error(&query, json!({})).await;
            assert_eq!(error["extensions"]["field"], "first", "{error}");
        }
        for list in ["alerts", "playbooks"] {
            let error = service.error(&format!("{{ {list}(first: {size}) {{ nodes {{ id }} }} }}"), json!({})).await;
            assert_eq!(error["extensions"]["field"], "first", "{error}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let (database, service) = start().await;
    fill(&database, 3).await;
    let data = service.data(INCIDENTS, json!({ "order": "CREATED_AT_DESC" })).await;
    let cursor = data["incidents"]["edges"][0]["cursor"].clone();
    let position = service.data("{ streamPosition { cursor } }", json!({})).await["streamPosition"]["cursor"].take();
    for wrong in [&cursor, &position, &json!("no cursor"), &json!("")] {
        let error = service.error(INCIDENTS, json!({ "order": "UPDATED_AT_DESC", "after": wrong })).await;
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
        assert_eq!(error["extensions"]["field"], "after", "{error}");
        for list in ["alerts", "playbooks"] {
            let query = format!("query($after: String) {{ {list}(after: $after) {{ nodes {{ id }} }} }}");
            let error = service.error(&query, json!({ "after": wrong })).await;
            assert_eq!(error["extensions"]["field"], "after", "{error}");
        }
        for nested in ["alerts", "comments", "timeline"] {
            let query = format!(
                "query($after: String) {{ incidents {{ nodes {{ {nested}(after: $after) {{ nodes {{ __typename }} }} }} }} }}"
            );
            let error = service.error(&query, json!({ "after": wrong })).await;
            assert_eq!(error["extensions"]["field"], "after", "{error}");
        }
    }
    let error = service.error(INCIDENTS, json!({ "first": 1, "last": 1 })).await;
    assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
    service.stop().await;
}

/// Reads a nested list of the one incident in pages of two: the texts of `field`.
async fn nested(service: &Service, list: &str, field: &str) -> Vec<String> {
    let query = format!(
        "query($after: String) {{ incidents {{ nodes {{
           {list}(first: 2, after: $after) {{ nodes {{ {field} }} pageInfo {{ hasNextPage endCursor }} }} }} }} }}"
    );
    let (mut texts, mut after) = (Vec::new(), Value::Null);
    loop {
        let data = service.data(&query, json!({ "after": after })).await;
        let page = &data["incidents"]["nodes"][0][list];
        texts.extend(page["nodes"].as_array().unwrap().iter().map(|node| node[field].as_str().unwrap().to_owned()));
        if page["pageInfo"]["hasNextPage"] == false {
            return texts;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
}

#[tokio::test]
async fn nested_lists_are_read_to_their_end() {
    let (database, service) = start().await;
    fill(&database, 1).await;
    database
        .execute(
            "insert into incident_manager.comment (incident_id, body)
               select id, 'c' || n from incident_manager.incident, generate_series(1, 5) n;
             insert into incident_manager.alert (source, title, severity, incident_id, status)
               select 'test', 'a' || n, 'P1', id, 'DEDUPLICATED' from incident_manager.incident, generate_series(1, 5) n",
        )
        .await;
    assert_eq!(nested(&service, "comments", "body").await, ["c1", "c2", "c3", "c4", "c5"]);
    assert_eq!(nested(&service, "alerts", "title").await, ["a5", "a4", "a3", "a2", "a1"]);
    crate::support::eventually("the timeline is written", || async {
        database.scalar::<i64>("select count(*) from incident_manager.timeline").await == 7
    })
    .await;
    let types = nested(&service, "timeline", "updateType").await;
    assert_eq!(types[..2], ["CREATED", "UPDATED"]);
    assert_eq!(types[2..], ["COMMENT_ADDED"; 5]);
    service.stop().await;
}

#[tokio::test]
async fn playbooks_come_oldest_first_in_pages() {
    let (database, service) = start().await;
    database
        .execute(
            r#"insert into incident_manager.playbook (name, steps)
               select 'p' || n, '[{"title": "t", "instructions": ""}]' from generate_series(1, 5) n"#,
        )
        .await;
    let query = "query($after: String) { playbooks(first: 3, after: $after) {
        totalCount nodes { name } pageInfo { hasNextPage hasPreviousPage endCursor } } }";
    let first = service.data(query, json!({})).await["playbooks"].take();
    assert_eq!(first["nodes"], json!([{ "name": "p1" }, { "name": "p2" }, { "name": "p3" }]));
    assert_eq!(first["totalCount"], 5);
    let rest = service.data(query, json!({ "after": first["pageInfo"]["endCursor"] })).await["playbooks"].take();
    assert_eq!(rest["nodes"], json!([{ "name": "p4" }, { "name": "p5" }]));
    assert_eq!((&rest["pageInfo"]["hasNextPage"], &rest["pageInfo"]["hasPreviousPage"]), (&json!(false), &json!(true)));
    service.stop().await;
}
