//! What is known to be tried on GraphQL servers: each is refused before anything of it is executed.

use std::fmt::Write as _;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Service, TestDatabase};

const CREATE: &str = r#"mutation { createIncident(input: { title: "t", severity: P3, source: "s" }) { id } }"#;

async fn start(flags: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), flags).await;
    service.ready().await;
    (database, service)
}

/// Refused for what it is, by a message that says the bound; over every transport.
async fn assert_refused(service: &Service, document: &str, bound: &str) {
    let shown = &document[..document.len().min(100)];
    let response = service.graphql(document, json!({})).await;
    assert!(response.get("data").is_none(), "{shown}: {response}");
    let told = |errors: &Value| {
        let error = &errors[0];
        assert_eq!(error["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{shown}: {error}");
        assert!(error["message"].as_str().unwrap().contains(bound), "{shown}: {error}");
    };
    told(&response["errors"]);
    let mut socket = service.socket().await;
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": document } })).await;
    let message = socket.receive().await.unwrap();
    assert_eq!(message["type"], "error", "{shown}: {message}");
    told(&message["payload"]);
    let streamed = service
        .http()
        .post(service.url("/graphql/stream"))
        .header("accept", "text/event-stream")
        .json(&json!({ "query": document }));
    let streamed = streamed.send().await.unwrap().text().await.unwrap();
    let data = streamed.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    told(&serde_json::from_str::<Value>(data).unwrap()["errors"]);
}

#[tokio::test]
async fn alias_overload() {
    let (_database, service) = start(&[]).await;
    let aliased = |count: usize| {
        let fields = (0..count).fold(String::new(), |mut fields, n| {
            write!(fields, " a{n}: __typename").unwrap();
            fields
        });
        format!("{{{fields} }}")
    };
    service.data(&aliased(50), json!({})).await;
    assert_refused(&service, &aliased(51), "more than 50 aliases").await;
    let hidden = "{ ...A ...A } fragment A on Query { ...B ...B } fragment B on Query { ...C ...C ...C ...C } \
                  fragment C on Query { a: __typename b: __typename c: __typename d: __typename }";
    assert_refused(&service, hidden, "more than 50 aliases").await;
    service.stop().await;
}

#[tokio::test]
async fn directive_overload() {
    let (_database, service) = start(&[]).await;
    let fields = |count| format!("{{ {} }}", "__typename @skip(if: false) ".repeat(count));
    service.data(&fields(50), json!({})).await;
    assert_refused(&service, &fields(51), "more than 50 directives").await;
    let one = format!("{{ __typename {} }}", "@no ".repeat(1000));
    assert_refused(&service, &one, "more than 50 directives").await;
    service.stop().await;
}

#[tokio::test]
async fn batches() {
    let (database, service) = start(&[]).await;
    for path in ["/graphql", "/graphql/stream"] {
        for batch in [json!([{ "query": CREATE }]), json!(vec![json!({ "query": CREATE }); 100])] {
            let request = service.http().post(service.url(path)).header("accept", "*/*").json(&batch);
            assert_eq!(request.send().await.unwrap().status(), 400, "{path}");
        }
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn field_duplication() {
    let (_database, service) = start(&[]).await;
    let fields = |count| format!("{{ {} }}", "__typename ".repeat(count));
    assert_eq!(service.data(&fields(10_000), json!({})).await, json!({ "__typename": "Query" }));
    assert_refused(&service, &fields(10_001), "more than 10000 fields").await;
    assert_refused(&service, &format!("{{ __typename #{} \n }}", "x".repeat(128 << 10)), "more than 131072 bytes")
        .await;
    service.stop().await;
}

/// A name that there is not is told with a place, a time and suggestions: many times its own length.
#[tokio::test]
async fn errors_without_end() {
    let (_database, service) = start(&[]).await;
    let fields = (0..9000).fold(String::new(), |fields, n| fields + &format!(" a{n}"));
    let response = service.graphql(&format!("{{{fields} }}"), json!({})).await;
    assert_eq!(response["errors"].as_array().unwrap().len(), 100);
    service.stop().await;
}

#[tokio::test]
async fn deep_queries() {
    let (_database, service) = start(&[]).await;
    let nested = |rounds| {
        let around = "alerts(first: 1) { nodes { incident { ".repeat(rounds);
        format!("{{ incidents(first: 1) {{ nodes {{ {around} id {} }} }} }}", "} } }".repeat(rounds))
    };
    service.data(&nested(4), json!({})).await;
    assert_refused(&service, &nested(5), "deeper than 16 fields").await;
    let inline = format!("{{ {} __typename {} }}", "... { ".repeat(40), "}".repeat(40));
    assert_refused(&service, &inline, "deeper than 32 levels").await;
    service.stop().await;
}

#[tokio::test]
async fn circular_queries() {
    let (_database, service) = start(&[]).await;
    let wide =
        "{ incidents(first: 100) { nodes { relatedIncidents { incident { alerts(first: 100) { nodes { id } } } } } } }";
    assert_refused(&service, wide, "more than 100000 fields: each as often as").await;
    let by_variable = "query($n: Int = 100) { incidents(first: $n) { nodes { alerts(first: $n) { nodes {
        incident { timeline(first: $n) { nodes { actor } } } } } } } }";
    assert_refused(&service, by_variable, "more than 100000 fields").await;
    let narrow = service.graphql(by_variable, json!({ "n": 5 })).await;
    assert!(narrow.get("errors").is_none(), "{narrow}");
    for circle in [
        "{ ...A } fragment A on Query { ...A }",
        "{ ...A } fragment A on Query { incidents { nodes { ...B } } } fragment B on Incident { alerts { nodes { incident { ...B } } } }",
    ] {
        assert_refused(&service, circle, "32").await;
    }
    service.stop().await;
}

#[tokio::test]
async fn circular_introspection() {
    let (_database, service) = start(&[]).await;
    let around = "fields { type { ".repeat(5);
    let circle = format!("{{ __schema {{ types {{ {around} name {} }} }} }}", "} }".repeat(5));
    assert_refused(&service, &circle, "more than 100000 fields").await;
    let tools = include_str!("support/introspection.graphql");
    assert!(service.data(tools, json!({})).await["__schema"]["types"].as_array().unwrap().len() > 30);
    service.stop().await;
}

#[tokio::test]
async fn fragment_bombs() {
    let (_database, service) = start(&[]).await;
    let mut doubling = String::from("{ ...F0 ...F0 }");
    for n in 0..30 {
        write!(doubling, " fragment F{n} on Query {{ ...F{next} ...F{next} }}", next = n + 1).unwrap();
    }
    doubling.push_str(" fragment F30 on Query { __typename }");
    assert_refused(&service, &doubling, "more than 10000 fields").await;
    // spread or not, a chain is followed on somebody's stack
    for start in ["{ ...F0 }", "{ __typename }"] {
        let mut chain = String::from(start);
        for n in 0..3000 {
            write!(chain, " fragment F{n} on Query {{ ...F{} }}", n + 1).unwrap();
        }
        chain.push_str(" fragment F3000 on Query { __typename }");
        assert_refused(&service, &chain, "deeper than 32 levels").await;
    }
    service.data("{ __typename }", json!({})).await;
    service.stop().await;
}

#[tokio::test]
async fn mutation_by_get() {
    let (database, service) = start(&[]).await;
    for path in ["/graphql", "/graphql/stream"] {
        for query in [CREATE, &format!("query Q {{ __typename }} mutation M {}", &CREATE["mutation".len()..])] {
            let parameters = [("query", query), ("operationName", if query == CREATE { "" } else { "M" })];
            let request = service.http().get(service.url(path)).header("accept", "*/*").query(&parameters);
            assert_eq!(request.send().await.unwrap().status(), 405, "{path} {query}");
        }
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

/// What a page of another site may send without asking first (Fetch standard, "CORS-safelisted request-header").
#[tokio::test]
async fn csrf_by_form() {
    let (database, service) = start(&[]).await;
    let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("query", CREATE).finish();
    let multipart = format!("--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n{CREATE}\r\n--x--\r\n");
    let json = json!({ "query": CREATE }).to_string();
    let rest = json!({ "title": "t", "severity": "P3", "source": "s" }).to_string();
    for (path, kind, body) in [
        ("/graphql", "application/x-www-form-urlencoded", &form),
        ("/graphql", "multipart/form-data; boundary=x", &multipart),
        ("/graphql", "text/plain", &json),
        ("/graphql/stream", "text/plain", &json),
        ("/v1/incidents", "text/plain", &rest),
        ("/v1/alerts", "application/x-www-form-urlencoded", &rest),
    ] {
        let request = service.http().request(Method::POST, service.url(path));
        let request = request.header("accept", "*/*").header("content-type", kind).body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), 415, "{path} {kind}");
    }
    assert_eq!(database.stored().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn suggestions_where_introspection_is_off() {
    let (_database, told) = start(&[]).await;
    let (_other, silent) = start(&["--introspection", "off"]).await;
    for document in [
        "{ incident_ { id } }",
        "{ incidents(firs: 1) { totalCount } }",
        "{ incidents { nodes { titl } } }",
        "{ incidents @deprecated(reaso: \"none\") { totalCount } }",
        "subscription { newIncident { id } }",
        "subscription { newIncidents(severity: P1) { id } }",
    ] {
        for (service, suggests) in [(&told, true), (&silent, false)] {
            let mut socket = service.socket().await;
            socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": document } })).await;
            let over_socket = socket.receive().await.unwrap();
            let errors = [service.graphql(document, json!({})).await["errors"].take(), over_socket["payload"].clone()];
            for error in
                errors.iter().flat_map(|errors| errors.as_array().unwrap_or_else(|| panic!("{document}: {errors}")))
            {
                assert_eq!(error["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{error}");
            }
            for errors in errors {
                assert_eq!(errors.to_string().contains("Did you mean"), suggests, "{document}: {errors}");
            }
        }
    }
    for document in [
        "{ __schema { types { name } } }",
        "{ s: __schema { queryType { name } } }",
        "{ ...F } fragment F on Query { __type(name: \"Incident\") { name } }",
        "{ __typename } fragment F on Query { __schema { queryType { name } } }",
        "subscription { __schema { queryType { name } } }",
    ] {
        assert_refused(&silent, document, "introspection is off").await;
    }
    assert_eq!(silent.data("{ __typename }", json!({})).await, json!({ "__typename": "Query" }));
    told.stop().await;
    silent.stop().await;
}
