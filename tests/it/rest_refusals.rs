//! Requests over REST that cannot be: the status, the code, the field, and that nothing of them is stored.

use reqwest::header::{ALLOW, CONTENT_TYPE, HOST, ORIGIN};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, TestDatabase};

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

/// Looks at the shape of a problem: its status, its code and its field.
async fn problem(response: Response) -> (u16, String, Option<String>) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["status"], &body["type"]), (&json!(status), &json!("about:blank")), "{body}");
    for member in ["title", "detail", "timestamp"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {body}");
    }
    (status, body["code"].as_str().unwrap().to_owned(), body["field"].as_str().map(str::to_owned))
}

async fn send(
    service: &Service,
    method: Method,
    path: &str,
    body: impl Into<reqwest::Body>,
) -> (u16, String, Option<String>) {
    let request = service.http().request(method, service.url(path)).header(CONTENT_TYPE, "application/json").body(body);
    problem(request.send().await.unwrap()).await
}

fn bad_input(field: &str) -> (u16, String, Option<String>) {
    (400, "BAD_USER_INPUT".to_owned(), Some(field.to_owned()))
}

fn refused(status: u16, code: &str) -> (u16, String, Option<String>) {
    (status, code.to_owned(), None)
}

#[tokio::test]
async fn a_body_that_is_no_json_of_ours_is_refused_where_it_is_at_fault() {
    let (database, service) = start().await;
    let required = r#""title":"t","severity":"P3","source":"s""#;
    for path in ["/v1/incidents", "/v1/alerts"] {
        for (body, field) in [
            (String::new(), None),
            ("{".to_owned(), None),
            ("nonsense".to_owned(), None),
            (format!("{{{required}}} trailing"), None),
            ("7".to_owned(), Some("body")),
            ("null".to_owned(), Some("body")),
            ("{}".to_owned(), Some("source")),
            (format!(r#"{{{required},"title":"u"}}"#), Some("title")),
            (format!(r#"{{{required},"labels":{{"a":"b","a":"c"}}}}"#), Some("labels.a")),
            (format!(r#"{{{required},"labels":{{"\u0061":"b","a":"c"}}}}"#), Some("labels.a")),
            (format!(r#"{{{required},"description":"\ud800"}}"#), Some("description")),
            (format!(r#"{{{required},"labels":{{"a":"\udc00x"}}}}"#), Some("labels.a")),
            (format!(r#"{{{required},"description":"\u0000"}}"#), Some("description")),
            (format!(r#"{{{required},"labels":{{"a\u0000":"b"}}}}"#), Some("labels")),
            (format!(r#"{{{required},"labels":{{"a":1e400}}}}"#), Some("labels.a")),
            (format!(r#"{{{required},"labels":{{"a":1}}}}"#), Some("labels")),
            (format!(r#"{{{required},"labels":[]}}"#), Some("labels")),
            (format!(r#"{{{required},"colour":"red"}}"#), Some("colour")),
            (format!(r#"{{{required},"description":{}}}"#, json!("x".repeat((64 << 10) + 1))), Some("description")),
            (format!(r#"{{{required},"fingerprint":""}}"#), Some("fingerprint")),
            (format!(r#"{{{required},"fingerprint":{}}}"#, json!("ü".repeat(201))), Some("fingerprint")),
            (format!(r#"{{{required},"labels":{{"k":{}}}}}"#, json!("x".repeat(16 << 10))), Some("labels")),
            (r#"{"title":"t","severity":"P9","source":"s"}"#.to_owned(), Some("severity")),
            (r#"{"title":7,"severity":"P1","source":"s"}"#.to_owned(), Some("title")),
            (format!(r#"{{"title":{},"severity":"P1","source":"s"}}"#, json!("x".repeat(501))), Some("title")),
            (r#"{"title":"t","severity":"P1","source":null}"#.to_owned(), Some("source")),
            (format!(r#"{{{required},"labels":{}"#, "[".repeat(10_000)), None),
        ] {
            let (status, code, named) = send(&service, Method::POST, path, body.clone()).await;
            assert_eq!((status, &*code), (400, "BAD_USER_INPUT"), "{path} {body:.120}");
            // of two that are missing, which one is named is not said
            let one_of_missing = body == "{}" && named.is_some();
            let nested = named.as_deref().is_some_and(|named| named.starts_with("labels[0]"));
            assert!(named.as_deref() == field || one_of_missing || nested, "{path} {body:.120}: {named:?}");
        }
    }
    let mut latin = br#"{"title":"t","severity":"P3","source":""#.to_vec();
    latin.extend(b"\xff\"}");
    assert_eq!(send(&service, Method::POST, "/v1/incidents", latin).await, bad_input("source"));
    let metadata = r#"{"title":"t","severity":"P3","source":"s","metadata":{"n":[0,1e400]}}"#;
    assert_eq!(send(&service, Method::POST, "/v1/incidents", metadata).await, bad_input("metadata.n[1]"));
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn types_and_sizes_of_bodies_are_told() {
    let (database, service) = start().await;
    let good = json!({ "title": "t", "severity": "P3", "source": "s" }).to_string();
    let nobody = format!("/v1/incidents/{}", Uuid::nil());
    for path in ["/v1/incidents", "/v1/alerts", &format!("{nobody}/resolve")] {
        for content_type in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")]
        {
            let mut request = service.http().post(service.url(path)).body(good.clone());
            if let Some(content_type) = content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            let told = problem(request.send().await.unwrap()).await;
            assert_eq!(told, refused(415, "BAD_USER_INPUT"), "{path} {content_type:?}");
        }
        let long = format!("{good}{}", " ".repeat(1 << 20));
        assert_eq!(send(&service, Method::POST, path, long).await, refused(413, "BAD_USER_INPUT"), "{path}");
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_cannot_be_done_to_it_is_told() {
    let (database, service) = start().await;
    let nobody = format!("/v1/incidents/{}", Uuid::nil());
    let not_found = refused(404, "NOT_FOUND");
    let actions = [
        (Method::PATCH, "", json!({ "title": "t" })),
        (Method::POST, "/acknowledge", json!({})),
        (Method::POST, "/transition", json!({ "to": "RESOLVED" })),
        (Method::POST, "/resolve", json!({})),
        (Method::POST, "/assign", json!({ "assignee": "ada" })),
        (Method::POST, "/comments", json!({ "body": "Hello" })),
    ];
    for (method, action, body) in actions.clone() {
        let path = format!("{nobody}{action}");
        assert_eq!(send(&service, method.clone(), &path, body.to_string()).await, not_found, "{path}");
        for id in ["7", "%00", "%FF", "00000000-0000-0000-0000-00000000000g"] {
            let path = format!("/v1/incidents/{id}{action}");
            assert_eq!(send(&service, method.clone(), &path, body.to_string()).await, bad_input("id"), "{path}");
        }
    }
    for path in [
        nobody.clone(),
        format!("{nobody}/comments"),
        "/v1".to_owned(),
        "/v1/incidents/".to_owned(),
        "/v2/alerts".to_owned(),
    ] {
        let response = service.http().get(service.url(&path)).send().await.unwrap();
        assert_eq!(problem(response).await, not_found, "{path}");
    }
    for (method, path, allow) in [
        (Method::GET, "/v1/alerts", "POST"),
        (Method::PUT, "/v1/incidents", "GET,HEAD,POST"),
        (Method::DELETE, &*nobody, "GET,HEAD,PATCH"),
        (Method::GET, &*format!("{nobody}/resolve"), "POST"),
        (Method::POST, "/openapi.json", "GET,HEAD"),
    ] {
        let response = service.http().request(method.clone(), service.url(path)).send().await.unwrap();
        assert_eq!(response.headers()[ALLOW], allow, "{method} {path}");
        assert_eq!(problem(response).await, refused(405, "BAD_USER_INPUT"), "{method} {path}");
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_made_changes_nothing() {
    let (database, service) = start().await;
    let (_, created) = service
        .rest(
            Method::POST,
            "/v1/incidents",
            json!({ "title": "t", "severity": "P3", "source": "s", "fingerprint": "f" }),
        )
        .await;
    let path = format!("/v1/incidents/{}", created["id"].as_str().unwrap());
    let long = "x".repeat((64 << 10) + 1);
    for (method, action, body, told) in [
        (Method::PATCH, "", json!({ "title": null }), bad_input("title")),
        (Method::PATCH, "", json!({ "severity": "P0", "labels": null }), bad_input("labels")),
        (Method::PATCH, "", json!({ "severity": "P0", "title": "" }), bad_input("title")),
        (Method::PATCH, "", json!({ "source": "elsewhere" }), bad_input("source")),
        (Method::PATCH, "", json!([]), bad_input("body")),
        (Method::PATCH, "?expectedVersion=2", json!({ "title": "x" }), refused(409, "CONFLICT")),
        (Method::PATCH, "?expectedVersion=x", json!({ "title": "x" }), bad_input("expectedVersion")),
        (Method::PATCH, "?expectedVersion=2147483648", json!({ "title": "x" }), bad_input("expectedVersion")),
        (Method::PATCH, "?version=1", json!({ "title": "x" }), bad_input("version")),
        (Method::POST, "/acknowledge", json!({ "by": "me" }), bad_input("by")),
        (Method::POST, "/acknowledge?force=1", json!({}), bad_input("force")),
        (Method::POST, "/transition", json!({}), bad_input("to")),
        (Method::POST, "/transition", json!({ "to": "DONE" }), bad_input("to")),
        (Method::POST, "/transition", json!({ "to": "CLOSED" }), refused(409, "INVALID_STATE_TRANSITION")),
        (Method::POST, "/transition?expectedVersion=7", json!({ "to": "TRIAGED" }), refused(409, "CONFLICT")),
        (Method::POST, "/resolve", json!({ "resolution": long }), bad_input("resolution")),
        (Method::POST, "/resolve", json!({ "rootCause": "a\0" }), bad_input("rootCause")),
        (Method::POST, "/assign", json!({}), bad_input("assignee")),
        (Method::POST, "/assign", json!({ "assignee": "" }), bad_input("assignee")),
        (Method::POST, "/assign", json!({ "assignee": 7 }), bad_input("assignee")),
        (Method::POST, "/comments", json!({ "body": "" }), bad_input("body")),
        (Method::POST, "/comments", json!({}), bad_input("body")),
        (Method::POST, "/comments", json!({ "body": long }), bad_input("body")),
    ] {
        let what = format!("{action} {:.80}", body.to_string());
        assert_eq!(send(&service, method, &format!("{path}{action}"), body.to_string()).await, told, "{what}");
    }
    let same = json!({ "title": "t", "severity": "P3", "source": "s", "fingerprint": "f" });
    assert_eq!(send(&service, Method::POST, "/v1/incidents", same.to_string()).await, refused(409, "CONFLICT"));
    assert_eq!(service.rest(Method::GET, &path, Value::Null).await, (200, created));
    assert_eq!(database.count("comment").await, 0);
    service.stop().await;
}

#[tokio::test]
async fn parameters_that_cannot_be_are_named() {
    let (_database, service) = start().await;
    let (_, created) =
        service.rest(Method::POST, "/v1/incidents", json!({ "title": "t", "severity": "P3", "source": "s" })).await;
    let of_another_order = {
        let (_, page) = service.rest(Method::GET, "/v1/incidents?orderBy=UPDATED_AT_DESC", Value::Null).await;
        format!("after={}", page["pageInfo"]["endCursor"].as_str().unwrap())
    };
    let comments = format!("{}/comments", created["id"].as_str().unwrap());
    for (query, field) in [
        ("first=0", "first"),
        ("first=101", "first"),
        ("first=-1", "first"),
        ("first=two", "first"),
        ("first=", "first"),
        ("last=0", "last"),
        ("first=1&first=2", "first"),
        ("first=1&last=1", "last"),
        ("after=nonsense", "after"),
        (&of_another_order, "after"),
        ("before=x", "before"),
        ("severities=P9", "severities[0]"),
        ("severities=P1,P2", "severities[0]"),
        ("severities=P0&severities=", "severities[1]"),
        ("states=OPEN", "states[0]"),
        ("ids=7", "ids[0]"),
        ("activeOnly=yes", "activeOnly"),
        ("assignedTo=", "assignedTo"),
        ("assignedTo=%00", "assignedTo"),
        ("sources=a%00", "sources"),
        ("labels=team", "labels"),
        ("labels[a]=1&labels[a]=2", "labels.a"),
        ("labels[a]=%00", "labels"),
        ("createdAfter=yesterday", "createdAfter"),
        ("createdAfter=0000-01-01T00:00:00Z", "createdAfter"),
        ("orderBy=TITLE", "orderBy"),
        ("colour=red", "colour"),
        ("sources=%FF", "sources"),
    ] {
        let response = service.http().get(service.url(&format!("/v1/incidents?{query}"))).send().await.unwrap();
        assert_eq!(problem(response).await, bad_input(field), "{query}");
    }
    for (query, field) in [("first=101", "first"), ("after=x", "after"), ("last=1", "last")] {
        let response =
            service.http().get(service.url(&format!("/v1/incidents/{comments}?{query}"))).send().await.unwrap();
        assert_eq!(problem(response).await, bad_input(field), "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn other_sites_and_names_are_refused() {
    let (database, service) = start().await;
    let body = json!({ "title": "t", "severity": "P3", "source": "s" });
    for path in ["/v1/incidents", "/v1/alerts", "/openapi.json"] {
        for (header, value) in [(ORIGIN, "http://evil.example"), (HOST, "evil.example")] {
            let request = service.http().post(service.url(path)).header(header, value).json(&body);
            assert_eq!(problem(request.send().await.unwrap()).await, refused(403, "FORBIDDEN"), "{path}");
        }
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_graphql_request_with_a_member_given_twice_or_an_id_that_is_none_is_not_carried_out() {
    let (database, service) = start().await;
    let create = r#"mutation { createIncident(input: { title: \"t\", severity: P3, source: \"s\" }) { id } }"#;
    for (body, field) in [
        (format!(r#"{{"query":"{create}","query":"{create}"}}"#), "query"),
        (format!(r#"{{"query":"{create}","variables":{{"a":{{"b":[{{"c":1,"c":2}}]}}}}}}"#), "variables.a.b[0].c"),
        (format!(r#"{{"query":"{create}","variables":{{"n":1e400}}}}"#), "variables.n"),
    ] {
        let request = service.http().post(service.url("/graphql")).header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let answer: Value = response.json().await.unwrap();
        let extensions = &answer["errors"][0]["extensions"];
        assert_eq!((&extensions["code"], &extensions["field"]), (&json!("BAD_USER_INPUT"), &json!(field)), "{answer}");
    }
    let first = r#"createIncident(input: { title: "t", severity: P3, source: "s" }) { id }"#;
    for (document, variables) in [
        (format!("mutation {{ {first} acknowledgeIncident(id: \"7\") {{ id }} }}"), json!({})),
        (format!("mutation($id: UUID!) {{ {first} acknowledgeIncident(id: $id) {{ id }} }}"), json!({ "id": "7" })),
        ("{ incidents(filter: { ids: [\"7\"] }) { totalCount } }".to_owned(), json!({})),
        (
            "query($ids: [UUID!]) { incidents(filter: { ids: $ids }) { totalCount } }".to_owned(),
            json!({ "ids": ["7"] }),
        ),
    ] {
        let answer = service.graphql(&document, variables).await;
        assert!(answer.get("data").is_none(), "{document}: {answer}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{document}: {answer}");
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}
