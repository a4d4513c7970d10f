//! Credentials that are limited to sources: nothing outside is read, by whatever way, or changed.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::TestDatabase;
use crate::support::access::start_required;
use crate::support::scoped::{Documents, asked, assert_inside, fill, ids, scope, within};

#[tokio::test]
async fn nothing_outside_a_scope_is_read_whatever_is_asked() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    fill(&database, &mut random).await;
    let (incidents, alerts) = (ids(&database, "incident").await, ids(&database, "alert").await);
    let mut marked = 0;
    for _ in 0..8 {
        let scope = scope(&mut random);
        let bearer = within("mei", &scope);
        let counts = asked(&service, &bearer, "{ incidents { totalCount } alerts { totalCount } }").await;
        for (list, table) in [("incidents", "incident"), ("alerts", "alert")] {
            let sources = format!("'{{{}}}'", scope.join(","));
            let count = format!("select count(*) from incident_manager.{table} where source = any({sources})");
            assert_eq!(
                counts["data"][list]["totalCount"],
                database.scalar::<i64>(&count).await,
                "seed {seed}: {counts}"
            );
        }
        for _ in 0..25 {
            let mut documents = Documents { random: &mut random, incidents: incidents.clone(), alerts: alerts.clone() };
            let query = documents.query();
            let answer = asked(&service, &bearer, &query).await;
            assert!(answer.get("errors").is_none(), "seed {seed}: {query}: {answer}");
            let text = answer["data"].to_string();
            assert_inside(&scope, &format!("seed {seed} {query}"), &text);
            marked += text.matches("of-s").count();
        }
        for id in &incidents {
            let source: String =
                database.scalar(&format!("select source from incident_manager.incident where id = '{id}'")).await;
            let expected = if scope.contains(&source.as_str()) { 200 } else { 404 };
            for path in [format!("/v1/incidents/{id}"), format!("/v1/incidents/{id}/comments")] {
                let response =
                    reqwest::Client::new().get(service.url(&path)).bearer_auth(&bearer).send().await.unwrap();
                assert_eq!(response.status(), expected, "seed {seed}: {path}");
                assert_inside(&scope, &format!("seed {seed} {path}"), &response.text().await.unwrap());
            }
        }
        let page = reqwest::Client::new().get(service.url("/v1/incidents?first=100"));
        let page = page.bearer_auth(&bearer).send().await.unwrap().text().await.unwrap();
        assert_inside(&scope, &format!("seed {seed} list"), &page);
    }
    assert!(marked > 100, "seed {seed}: there was something to see");
    service.stop().await;
}

#[tokio::test]
async fn writes_stay_inside_the_scope() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    let new = async |source: &str| -> Uuid {
        let sql = "insert into incident_manager.incident (title, severity, source) values ('t', 'P3', ";
        database.scalar(&format!("{sql}'{source}') returning id")).await
    };
    let (inside, other, outside) = (new("s0").await, new("s0").await, new("s1").await);
    let bearer = within("mei", &["s0"]);
    let state = "select string_agg(id || ' ' || version, ' ' order by id) from incident_manager.incident";
    let before: String = database.scalar(state).await;

    for (mutation, code, field) in [
        (
            r#"createIncident(input: { title: "t", severity: P1, source: "s1" }) { id }"#.to_owned(),
            "FORBIDDEN",
            Some("source"),
        ),
        (
            r#"submitAlert(input: { title: "t", severity: P1, source: "s1" }) { status }"#.to_owned(),
            "FORBIDDEN",
            Some("source"),
        ),
        (format!(r#"updateIncident(id: "{outside}", input: {{ title: "n" }}) {{ id }}"#), "NOT_FOUND", None),
        (format!(r#"acknowledgeIncident(id: "{outside}") {{ id }}"#), "NOT_FOUND", None),
        (format!(r#"transitionIncident(id: "{outside}", to: RESOLVED) {{ id }}"#), "NOT_FOUND", None),
        (format!(r#"resolveIncident(id: "{outside}") {{ id }}"#), "NOT_FOUND", None),
        (format!(r#"assignIncident(id: "{outside}", assignee: "x") {{ id }}"#), "NOT_FOUND", None),
        (format!(r#"addComment(incidentId: "{outside}", body: "x") {{ id }}"#), "NOT_FOUND", None),
        (format!(r#"linkIncidents(a: "{inside}", b: "{outside}") {{ score }}"#), "NOT_FOUND", None),
        (format!(r#"linkIncidents(a: "{outside}", b: "{inside}") {{ score }}"#), "NOT_FOUND", None),
    ] {
        let answer = asked(&service, &bearer, &format!("mutation {{ {mutation} }}")).await;
        let error = &answer["errors"][0]["extensions"];
        assert_eq!((&error["code"], error["field"].as_str()), (&json!(code), field), "{mutation}: {answer}");
    }
    let alert = |source: &str| json!({ "title": "t", "severity": "P1", "source": source });
    for (method, path, body, status, field) in [
        (Method::POST, "/v1/incidents".to_owned(), alert("s1"), 403, Some("source")),
        (Method::POST, "/v1/alerts".to_owned(), alert("s1"), 403, Some("source")),
        (
            Method::POST,
            "/v1/alerts".to_owned(),
            json!([alert("s0"), alert("s1"), alert("s0")]),
            403,
            Some("[1].source"),
        ),
        (Method::GET, format!("/v1/incidents/{outside}"), Value::Null, 404, None),
        (Method::PATCH, format!("/v1/incidents/{outside}"), json!({ "title": "n" }), 404, None),
        (Method::POST, format!("/v1/incidents/{outside}/acknowledge"), json!({}), 404, None),
        (Method::POST, format!("/v1/incidents/{outside}/transition"), json!({ "to": "RESOLVED" }), 404, None),
        (Method::POST, format!("/v1/incidents/{outside}/resolve"), json!({}), 404, None),
        (Method::POST, format!("/v1/incidents/{outside}/assign"), json!({ "assignee": "x" }), 404, None),
        (Method::GET, format!("/v1/incidents/{outside}/comments"), Value::Null, 404, None),
        (Method::POST, format!("/v1/incidents/{outside}/comments"), json!({ "body": "x" }), 404, None),
    ] {
        let request = reqwest::Client::new().request(method.clone(), service.url(&path)).bearer_auth(&bearer);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], if status == 403 { "FORBIDDEN" } else { "NOT_FOUND" }, "{path}: {problem}");
        assert_eq!(problem["field"].as_str(), field, "{path}: {problem}");
    }
    assert_eq!(database.scalar::<String>(state).await, before);
    assert_eq!(
        database.count("comment").await + database.count("alert").await + database.count("incident_link").await,
        0
    );
    assert_eq!(database.count("incident").await, 3);

    let link = format!(
        r#"mutation {{ linkIncidents(a: "{inside}", b: "{other}") {{ incident {{ id }} }}
        createIncident(input: {{ title: "t", severity: P1, source: "s0" }}) {{ id }}
        submitAlert(input: {{ title: "t", severity: P1, source: "s0" }}) {{ alert {{ source }} incident {{ source }} }}
        addComment(incidentId: "{inside}", body: "x") {{ id }} }}"#
    );
    let answer = asked(&service, &bearer, &link).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    service.stop().await;
}
