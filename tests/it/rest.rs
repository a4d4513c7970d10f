//! Incidents and comments over REST, and the description of it.

use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_TYPE, LINK, LOCATION};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, TestDatabase};

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    (database, service)
}

async fn ok(service: &Service, method: Method, path: &str, body: Value) -> Value {
    let (status, answer) = service.rest(method, path, body).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

async fn create(service: &Service, title: &str) -> String {
    let body = json!({ "title": title, "severity": "P3", "source": "test" });
    let created = ok(service, Method::POST, "/v1/incidents", body).await;
    format!("/v1/incidents/{}", created["id"].as_str().unwrap())
}

const FIELDS: &str = "id title description severity state incidentType source createdAt updatedAt acknowledgedAt
    resolvedAt closedAt assignedTo affectedResources labels metadata resolution rootCause fingerprint version";

#[tokio::test]
async fn an_incident_is_the_same_over_rest_and_graphql() {
    let (_database, service) = start().await;
    let given = json!({
        "title": "Latency ⏱", "description": "p99 above 2 s", "severity": "P1", "incidentType": "MODEL_DRIFT",
        "source": "probe", "affectedResources": ["gateway"], "labels": { "team": "llm" },
        "metadata": { "p99": 2.5, "layers": [1, null, true], "count": 9_007_199_254_740_993_i64 },
        "assignedTo": "ada", "fingerprint": "latency",
    });
    let request = service.http().post(service.url("/v1/incidents")).json(&given);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()[LOCATION].to_str().unwrap().to_owned();
    let created: Value = response.json().await.unwrap();
    for (field, value) in given.as_object().unwrap() {
        assert_eq!(created[field], *value, "{field}");
    }
    assert_eq!(ok(&service, Method::GET, &location, Value::Null).await, created);
    let query = format!("query($id: UUID!) {{ incident(id: $id) {{ {FIELDS} }} }}");
    let told = service.data(&query, json!({ "id": created["id"] })).await;
    assert_eq!(told["incident"], created);
    service.stop().await;
}

#[tokio::test]
async fn an_incident_goes_through_its_life() {
    let (_database, service) = start().await;
    let path = create(&service, "An incident").await;
    let step = async |action: &str, body: Value| ok(&service, Method::POST, &format!("{path}/{action}"), body).await;
    let acknowledged = step("acknowledge", Value::Null).await;
    assert_eq!((&acknowledged["state"], &acknowledged["version"]), (&json!("TRIAGED"), &json!(2)));
    assert_eq!(step("acknowledge", json!({})).await, acknowledged, "twice changes nothing");
    assert_eq!(step("assign", json!({ "assignee": "ada" })).await["assignedTo"], "ada");
    assert_eq!(step("assign", json!({ "assignee": null })).await["assignedTo"], Value::Null);
    let moved = step("transition?expectedVersion=4", json!({ "to": "REMEDIATING" })).await;
    assert_eq!((&moved["state"], &moved["version"]), (&json!("REMEDIATING"), &json!(5)));
    let body = json!({ "title": "After", "labels": { "a": "b" }, "severity": "P0" });
    let updated = ok(&service, Method::PATCH, &format!("{path}?expectedVersion=5"), body).await;
    assert_eq!(
        (&updated["title"], &updated["severity"], &updated["source"]),
        (&json!("After"), &json!("P0"), &json!("test"))
    );
    let resolved = step("resolve", json!({ "resolution": "restarted", "rootCause": "a leak" })).await;
    assert_eq!((&resolved["state"], &resolved["rootCause"]), (&json!("RESOLVED"), &json!("a leak")));
    step("transition", json!({ "to": "INVESTIGATING" })).await;
    let again = step("resolve", Value::Null).await;
    assert_eq!((&again["state"], &again["resolution"]), (&json!("RESOLVED"), &json!("restarted")));
    let closed = step("transition", json!({ "to": "CLOSED" })).await;
    assert_eq!(ok(&service, Method::GET, &path, Value::Null).await, closed);
    service.stop().await;
}

#[tokio::test]
async fn a_list_is_read_page_by_page_along_its_links() {
    let (_database, service) = start().await;
    for number in 0..5 {
        create(&service, &format!("{number}")).await;
    }
    let other = json!({ "title": "other", "severity": "P0", "source": "other" });
    ok(&service, Method::POST, "/v1/incidents", other).await;
    let page = async |path: &str| {
        let response = service.http().get(service.url(path)).send().await.unwrap();
        let link = response.headers().get(LINK).map(|link| link.to_str().unwrap().to_owned()).unwrap_or_default();
        let relation = |name: &str| {
            let link = link.split(", ").find(|link| link.ends_with(&format!("rel=\"{name}\"")))?;
            Some(link[1..link.find('>').unwrap()].to_owned())
        };
        let (next, previous) = (relation("next"), relation("prev"));
        let body: Value = response.json().await.unwrap();
        let titles = body["incidents"].as_array().unwrap_or_else(|| panic!("{path}: {body}")).iter();
        let titles: Vec<String> = titles.map(|incident| incident["title"].as_str().unwrap().to_owned()).collect();
        assert_eq!(body["pageInfo"]["hasNextPage"], next.is_some(), "{path}");
        (titles.join(" "), next, previous)
    };
    let first = page("/v1/incidents?sources=test&orderBy=CREATED_AT_ASC&first=2").await;
    assert_eq!((&*first.0, &first.2), ("0 1", &None));
    let second = page(&first.1.unwrap()).await;
    assert_eq!(second.0, "2 3");
    let last = page(&second.1.unwrap()).await;
    assert_eq!((&*last.0, &last.1), ("4", &None));
    let back = page(&last.2.unwrap()).await;
    assert_eq!(back.0, "2 3");
    assert_eq!(page(&back.2.unwrap()).await.0, "0 1");
    assert_eq!(page("/v1/incidents?last=2&sources=test").await.0, "1 0");
    assert_eq!(page("/v1/incidents").await.0, "other 4 3 2 1 0");
    service.stop().await;
}

#[tokio::test]
async fn a_list_holds_what_all_its_parameters_let_through() {
    let (_database, service) = start().await;
    for (title, severity, labels) in [
        ("a", "P0", json!({ "team": "llm", "zone=": "x y" })),
        ("b", "P1", json!({ "team": "llm" })),
        ("c", "P4", json!({})),
    ] {
        let body = json!({ "title": title, "severity": severity, "source": title, "labels": labels, "assignedTo": "ada",
            "incidentType": "COST" });
        ok(&service, Method::POST, "/v1/incidents", body).await;
    }
    let c = ok(&service, Method::GET, "/v1/incidents?sources=c", Value::Null).await["incidents"][0].take();
    let id = c["id"].as_str().unwrap();
    ok(&service, Method::POST, &format!("/v1/incidents/{id}/resolve"), Value::Null).await;
    let created = c["createdAt"].as_str().unwrap();
    for (query, titles) in [
        ("severities=P0&severities=P4", "c a"),
        ("labels[team]=llm", "b a"),
        ("labels%5Bteam%5D=llm&labels%5Bzone%3D%5D=x+y", "a"),
        ("activeOnly=true", "b a"),
        ("activeOnly=false&states=RESOLVED", "c"),
        ("sources=a&sources=b&assignedTo=ada", "b a"),
        ("assignedTo=eve", ""),
        ("incidentTypes=COST&orderBy=SEVERITY_THEN_CREATED_AT", "a b c"),
        (&format!("ids={id}"), "c"),
        (&format!("createdBefore={created}"), "b a"),
        (&format!("createdAfter={created}"), ""),
    ] {
        let found = ok(&service, Method::GET, &format!("/v1/incidents?{query}"), Value::Null).await;
        let found: Vec<_> =
            found["incidents"].as_array().unwrap().iter().map(|i| i["title"].as_str().unwrap()).collect();
        assert_eq!(found.join(" "), titles, "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn comments_are_added_and_read_oldest_first() {
    let (_database, service) = start().await;
    let path = format!("{}/comments", create(&service, "An incident").await);
    let empty = ok(&service, Method::GET, &path, Value::Null).await;
    assert_eq!(
        empty,
        json!({ "comments": [], "pageInfo": { "hasNextPage": false, "hasPreviousPage": false, "startCursor": null, "endCursor": null } })
    );
    for body in ["one", "two", "three"] {
        let (status, comment) = service.rest(Method::POST, &path, json!({ "body": body })).await;
        assert_eq!((status, &comment["body"], &comment["author"]), (201, &json!(body), &json!("anonymous")));
    }
    let first = ok(&service, Method::GET, &format!("{path}?first=2"), Value::Null).await;
    let bodies =
        |page: &Value| page["comments"].as_array().unwrap().iter().map(|c| c["body"].clone()).collect::<Vec<_>>();
    assert_eq!(bodies(&first), ["one", "two"]);
    let after = first["pageInfo"]["endCursor"].as_str().unwrap();
    let rest = ok(&service, Method::GET, &format!("{path}?after={after}"), Value::Null).await;
    assert_eq!(bodies(&rest), ["three"]);
    service.stop().await;
}

#[tokio::test]
async fn every_described_operation_is_served_and_nothing_else() {
    let (_database, service) = start().await;
    let response = service.http().get(service.url("/openapi.json")).send().await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    let description: Value = response.json().await.unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."), "{}", description["openapi"]);
    let paths = description["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 8);
    for (path, item) in paths {
        let concrete = path.replace("{id}", &Uuid::nil().to_string());
        let allowed = service.http().delete(service.url(&concrete)).send().await.unwrap();
        assert_eq!(allowed.status(), 405, "{path}");
        let mut served: Vec<String> =
            allowed.headers()[ALLOW].to_str().unwrap().split(',').map(str::to_lowercase).collect();
        served.retain(|method| method != "head");
        served.sort();
        let described: Vec<_> = item.as_object().unwrap().keys().filter(|key| *key != "parameters").cloned().collect();
        assert_eq!(served, described, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn requests_are_counted_by_route() {
    let (_database, service) = start().await;
    create(&service, "An incident").await;
    let shown = service.http().get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let line = r#"incident_manager_requests_total{route="/v1/incidents",method="POST",status="201"}"#;
    assert!(shown.lines().any(|shown| shown.starts_with(line)), "{shown}");
    service.stop().await;
}
