//! Input that cannot be: which field, by which code, and that nothing of it is stored.

use serde_json::{Value, json};

use crate::support::{Service, TestDatabase};

const CREATE: &str = "mutation($input: CreateIncidentInput!) { createIncident(input: $input) { id } }";
const SUBMIT: &str = "mutation($input: SubmitAlertInput!) { submitAlert(input: $input) { status } }";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// A good input with one field replaced.
fn with(field: &str, value: &Value) -> Value {
    let mut input = json!({ "title": "t", "severity": "P3", "source": "s" });
    input[field] = value.clone();
    json!({ "input": input })
}

fn assert_refused(error: &Value, code: &str, field: Option<&str>) {
    assert_eq!(error["extensions"]["code"], code, "{error}");
    assert!(error["extensions"]["timestamp"].is_string(), "{error}");
    assert_eq!(error["extensions"].get("field").and_then(Value::as_str), field, "{error}");
}

/// 16 KiB as JSON and a little more.
fn large() -> Value {
    json!({ "k": "x".repeat(16 << 10) })
}

/// Objects and lists within each other.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "k": inner }) })
}

/// Values that a field of this kind refuses.
fn bad_name(max: usize) -> Vec<Value> {
    vec![json!(""), json!("x".repeat(max + 1)), json!("ü".repeat(max + 1)), json!("a\0b")]
}

fn bad_strings() -> Vec<Value> {
    vec![
        json!({ "k": 1 }),
        json!({ "k": null }),
        json!({ "k": {} }),
        json!({ "a\0": "b" }),
        json!({ "a": "b\0" }),
        large(),
    ]
}

fn bad_list() -> Vec<Value> {
    vec![json!(["a\0"]), json!(["x".repeat(16 << 10)])]
}

fn bad_text() -> Vec<Value> {
    vec![json!("x".repeat((64 << 10) + 1)), json!("a\0b")]
}

#[tokio::test]
async fn an_incident_that_cannot_be_is_refused_by_the_field_at_fault() {
    let (database, service) = start().await;
    let metadata = vec![
        json!({ "a\0": 1 }),
        json!({ "a": ["b\0"] }),
        json!({ "a": { "b\0": 1 } }),
        large(),
        json!({ "k": nested(32) }),
    ];
    for (field, values) in [
        ("title", bad_name(500)),
        ("source", bad_name(200)),
        ("assignedTo", bad_name(200)),
        ("fingerprint", bad_name(200)),
        ("description", bad_text()),
        ("labels", bad_strings()),
        ("metadata", metadata),
        ("affectedResources", bad_list()),
    ] {
        for value in values {
            assert_refused(&service.error(CREATE, with(field, &value)).await, "BAD_USER_INPUT", Some(field));
        }
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn an_alert_that_cannot_be_is_refused_by_the_field_at_fault() {
    let (database, service) = start().await;
    for (field, values) in [
        ("title", bad_name(500)),
        ("source", bad_name(200)),
        ("fingerprint", bad_name(200)),
        ("externalId", bad_name(500)),
        ("runbookUrl", bad_name(2000)),
        ("description", bad_text()),
        ("labels", bad_strings()),
        ("annotations", bad_strings()),
        ("affectedServices", bad_list()),
    ] {
        for value in values {
            assert_refused(&service.error(SUBMIT, with(field, &value)).await, "BAD_USER_INPUT", Some(field));
        }
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_taken() {
    let (_database, service) = start().await;
    // `{"k":"…"}`: nine characters around the value in PostgreSQL's print of it
    let labels = json!({ "k": "x".repeat((16 << 10) - 9) });
    for (field, value) in [
        ("title", json!("ü".repeat(500))),
        ("source", json!("ü".repeat(200))),
        ("description", json!("x".repeat(64 << 10))),
        ("labels", labels.clone()),
        ("fingerprint", json!("x".repeat(200))),
    ] {
        service.data(CREATE, with(field, &value)).await;
        service.data(SUBMIT, with(field, &value)).await;
    }
    service.data(CREATE, with("metadata", &labels)).await;
    service.data(CREATE, with("metadata", &nested(32))).await;
    service.stop().await;
}

#[tokio::test]
async fn lists_and_maps_that_postgresql_prints_longer_are_refused_by_their_field() {
    let (database, service) = start().await;
    // compact JSON is within the limit; `", "` and `": "` are not
    let map: Value =
        (0..1400).map(|number| (format!("{number:04}"), json!("a"))).collect::<serde_json::Map<_, _>>().into();
    assert!(map.to_string().len() <= 16 << 10);
    for field in ["labels", "metadata"] {
        assert_refused(&service.error(CREATE, with(field, &map)).await, "BAD_USER_INPUT", Some(field));
    }
    for field in ["labels", "annotations"] {
        assert_refused(&service.error(SUBMIT, with(field, &map)).await, "BAD_USER_INPUT", Some(field));
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn numbers_are_stored_or_refused_and_never_a_failure_of_the_server() {
    let (database, service) = start().await;
    let query = "mutation($input: CreateIncidentInput!) { createIncident(input: $input) { metadata } }";
    for number in ["1e400", "-1e400", "1e131072"] {
        let body = format!(
            r#"{{"query":{},"variables":{{"input":{{"title":"t","severity":"P3","source":"s","metadata":{{"n":{number}}}}}}}}}"#,
            json!(query)
        );
        let request =
            service.http().post(service.url("/graphql")).header("content-type", "application/json").body(body);
        let response = request.send().await.unwrap();
        let answered: Value = response.json().await.unwrap();
        assert_refused(&answered["errors"][0], "BAD_USER_INPUT", Some("variables.input.metadata.n"));
    }
    assert_eq!(database.stored().await, 0);
    let kept = json!({ "n": [i64::MIN, u64::MAX, 1.5e300, -0.1, 1e-300] });
    let created = service.data(query, with("metadata", &kept)).await;
    assert_eq!(created["createIncident"]["metadata"], kept);
    // literals are read by another parser
    for number in ["1e400", "123456789012345678901234567890"] {
        let literal = format!(
            "mutation {{ createIncident(input: {{ title: \"t\", severity: P3, source: \"s\", metadata: {{ n: {number} }} }}) {{ metadata }} }}"
        );
        let answered = service.graphql(&literal, json!({})).await;
        let code = answered["errors"][0]["extensions"]["code"].as_str();
        assert!(
            answered.get("errors").is_none() || code == Some("BAD_USER_INPUT") || code == Some("GRAPHQL_PARSE_FAILED"),
            "{number}: {answered}"
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_leaves_the_incident_as_it_was() {
    let (database, service) = start().await;
    let input = with("labels", &json!({ "a": "b" }));
    let id = service.data(CREATE, input).await["createIncident"]["id"].take();
    let update = "mutation($id: UUID!, $input: UpdateIncidentInput!) { updateIncident(id: $id, input: $input) { id } }";
    for field in ["title", "description", "severity", "incidentType", "affectedResources", "labels", "metadata"] {
        let error = service.error(update, json!({ "id": id, "input": { field: null } })).await;
        assert_refused(&error, "BAD_USER_INPUT", Some(field));
    }
    for (field, values) in [
        ("title", bad_name(500)),
        ("description", bad_text()),
        ("labels", bad_strings()),
        ("metadata", vec![large(), nested(34)]),
    ] {
        for value in values {
            let error = service.error(update, json!({ "id": id, "input": { "severity": "P0", field: value } })).await;
            assert_refused(&error, "BAD_USER_INPUT", Some(field));
        }
    }
    for (call, field, values) in [
        ("resolveIncident(id: $id, resolution: $text) { id }", "resolution", bad_text()),
        ("resolveIncident(id: $id, rootCause: $text) { id }", "rootCause", bad_text()),
        ("assignIncident(id: $id, assignee: $text) { id }", "assignee", bad_name(200)),
        ("addComment(incidentId: $id, body: $text) { id }", "body", [bad_text(), vec![json!("")]].concat()),
    ] {
        for text in values {
            let kind = if field == "body" { "String!" } else { "String" };
            let query = format!("mutation($id: UUID!, $text: {kind}) {{ {call} }}");
            assert_refused(
                &service.error(&query, json!({ "id": id, "text": text })).await,
                "BAD_USER_INPUT",
                Some(field),
            );
        }
    }
    assert_eq!(database.scalar::<i32>("select version from incident_manager.incident").await, 1);
    assert_eq!(database.count("comment").await, 0);
    service.stop().await;
}

#[tokio::test]
async fn documents_and_values_that_do_not_fit_the_schema_are_told_apart() {
    let (database, service) = start().await;
    for (document, code) in [
        ("", "GRAPHQL_PARSE_FAILED"),
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("query { incident(id: ) { id } }", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ incidents { nodes } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ incidents(colour: 1) { totalCount } }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "mutation { createIncident(input: { title: \"t\", severity: P9, source: \"s\" }) { id } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("mutation { createIncident(input: { severity: P1, source: \"s\" }) { id } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { alerts { totalCount } } query B { alerts { totalCount } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { newIncidents { id } }", "GRAPHQL_VALIDATION_FAILED"),
    ] {
        let response = service.graphql(document, json!({})).await;
        assert_refused(&response["errors"][0], code, None);
        assert!(response.get("data").is_none(), "{document}: {response}");
    }
    let date = "query($at: DateTime) { incidents(filter: { createdAfter: $at }) { totalCount } }";
    for at in ["yesterday", "2025-01-01", "+10000-01-01T00:00:00Z"] {
        assert_refused(&service.error(date, json!({ "at": at })).await, "GRAPHQL_VALIDATION_FAILED", None);
    }
    for at in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+01:00"] {
        assert_refused(&service.error(date, json!({ "at": at })).await, "BAD_USER_INPUT", Some("createdAfter"));
    }
    for at in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2025-06-01T12:00:00+02:00"] {
        service.data(date, json!({ "at": at })).await;
    }
    for (query, variables) in [
        (CREATE, json!({})),
        (CREATE, with("severity", &json!("P9"))),
        (CREATE, with("title", &json!(7))),
        (CREATE, with("labels", &json!([]))),
        (CREATE, with("colour", &json!("red"))),
        ("query($id: UUID!) { incident(id: $id) { id } }", json!({ "id": null })),
        ("query($id: UUID!) { incident(id: $id) { id } }", json!({})),
    ] {
        let error = service.error(query, variables).await;
        assert!(
            ["BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"].contains(&error["extensions"]["code"].as_str().unwrap()),
            "{error}"
        );
        assert!(error["extensions"]["timestamp"].is_string(), "{error}");
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn filters_refuse_what_the_database_cannot_be_asked() {
    let (_database, service) = start().await;
    let query = "query($filter: IncidentFilter) { incidents(filter: $filter) { totalCount } }";
    for (field, value) in [
        ("sources", json!(["a\0"])),
        ("assignedTo", json!("a\0")),
        ("labels", json!({ "a\0": "b" })),
        ("labels", json!({ "a": 1 })),
    ] {
        let error = service.error(query, json!({ "filter": { field: value } })).await;
        assert_refused(&error, "BAD_USER_INPUT", Some(field));
    }
    let error = service
        .error("query($sources: [String!]) { alerts(sources: $sources) { totalCount } }", json!({ "sources": ["\0"] }))
        .await;
    assert_refused(&error, "BAD_USER_INPUT", Some("sources"));
    service.stop().await;
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_refused_and_the_service_lives() {
    const DEPTH: usize = 20_000;
    let (database, service) = start().await;
    let list = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let fields = format!("{}{}", "{ a ".repeat(DEPTH), "}".repeat(DEPTH));
    let literal = format!(
        "mutation {{ createIncident(input: {{ title: \"t\", severity: P3, source: \"s\", metadata: {{ n: {list} }} }}) {{ id }} }}"
    );
    for document in [&literal, &fields] {
        let error = service.error(document, json!({})).await;
        let code = error["extensions"]["code"].as_str().unwrap();
        assert!(["GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"].contains(&code), "{error}");
    }
    let body = format!(r#"{{"query":"{{ a }}","variables":{{"x":{list}}}}}"#);
    let request = service.http().post(service.url("/graphql")).header("content-type", "application/json").body(body);
    assert_eq!(request.send().await.unwrap().status(), 400);
    assert_eq!(database.stored().await, 0);
    service.data("{ alerts { totalCount } }", json!({})).await;
    service.stop().await;
}
