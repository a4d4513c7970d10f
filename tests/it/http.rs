//! The edges of HTTP: methods, types, sizes, who may ask.

use reqwest::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, ORIGIN};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{Service, TestDatabase};

const GRAPHQL: &str = "application/graphql-response+json";
const QUERY: &str = "{ incidents { totalCount } }";
const CREATE: &str = "mutation { createIncident(input: { title: \"t\", severity: P3, source: \"s\" }) { id } }";
const ROUTES: [&str; 6] = ["/graphql", "/graphql/ws", "/health/live", "/health/ready", "/metrics", "/nowhere"];

async fn start_with(flags: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), flags).await;
    service.ready().await;
    (database, service)
}

async fn start() -> (TestDatabase, Service) {
    start_with(&[]).await
}

fn post(service: &Service, body: impl Into<reqwest::Body>) -> RequestBuilder {
    service.http().post(service.url("/graphql")).header(CONTENT_TYPE, "application/json").body(body)
}

/// The status, and the code of the one error.
async fn error(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let extensions = &body["errors"][0]["extensions"];
    assert!(extensions["timestamp"].is_string() && body.get("data").is_none(), "{body}");
    (status, extensions["code"].as_str().unwrap().to_owned())
}

async fn assert_problem(response: Response, status: u16, code: &str) {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)), "{body}");
    assert!(body["timestamp"].is_string() && body["title"].is_string() && body["type"] == "about:blank", "{body}");
}

async fn incidents(database: &TestDatabase) -> i64 {
    database.scalar("select count(*) from incident_manager.incident").await
}

#[tokio::test]
async fn a_post_needs_json() {
    let (database, service) = start().await;
    let body = json!({ "query": CREATE }).to_string();
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "",
        "application/json; charset=utf-16",
    ] {
        let request =
            service.http().post(service.url("/graphql")).header(CONTENT_TYPE, content_type).body(body.clone());
        assert_eq!(error(request).await, (415, "BAD_USER_INPUT".to_owned()), "{content_type}");
    }
    let request = service.http().post(service.url("/graphql")).body(body.clone());
    assert_eq!(error(request).await, (415, "BAD_USER_INPUT".to_owned()), "no content type");
    assert_eq!(incidents(&database).await, 0);
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json;Charset=\"UTF-8\""] {
        let request =
            service.http().post(service.url("/graphql")).header(CONTENT_TYPE, content_type).body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), 200, "{content_type}");
    }
    assert_eq!(incidents(&database).await, 3);
    service.stop().await;
}

const CHUNK: usize = 1 << 16;

/// Sends so many bytes without a length that says so beforehand; the status line of the answer.
async fn chunked(service: &Service, bytes: usize) -> String {
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let head = "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{CHUNK:x}\r\n{}\r\n", " ".repeat(CHUNK));
    let (read, mut write) = stream.split();
    let send = async {
        for _ in 0..bytes / CHUNK {
            // a server that has heard enough may close
            if write.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let _ = write.write_all(b"0\r\n\r\n").await;
    };
    let mut lines = BufReader::new(read).lines();
    let ((), line) = tokio::join!(send, lines.next_line());
    line.unwrap().unwrap()
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused() {
    let (database, service) = start().await;
    let batch = json!([{ "query": CREATE }, { "query": CREATE }]).to_string();
    let long = json!({ "query": CREATE, "variables": { "x": "x".repeat(1 << 20) } }).to_string();
    for (body, status) in [
        ("{".to_owned(), 400),
        (String::new(), 400),
        ("\"query\"".to_owned(), 400),
        (batch, 400),
        ("{}".to_owned(), 400),
        (json!({ "query": 1 }).to_string(), 400),
        (json!({ "query": CREATE, "variables": [] }).to_string(), 400),
        (json!({ "query": CREATE, "operationName": 1 }).to_string(), 400),
        (long, 413),
    ] {
        assert_eq!(error(post(&service, body.clone())).await, (status, "BAD_USER_INPUT".to_owned()), "{body:.80}");
    }
    assert_eq!(error(post(&service, vec![b'{', 0xff, b'}'])).await, (400, "BAD_USER_INPUT".to_owned()));
    assert_eq!(chunked(&service, 20 * CHUNK).await, "HTTP/1.1 413 Payload Too Large");
    assert_eq!(chunked(&service, CHUNK).await, "HTTP/1.1 400 Bad Request");
    assert_eq!(incidents(&database).await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_query_may_come_by_get_and_a_mutation_may_not() {
    let (database, service) = start().await;
    let get = |parameters: &[(&str, &str)]| {
        let mut url = url::Url::parse(&service.url("/graphql")).unwrap();
        url.query_pairs_mut().extend_pairs(parameters);
        service.http().get(url)
    };
    let id = "00000000-0000-0000-0000-000000000000";
    let named = "query A($id: UUID!) { incident(id: $id) { id } } query B { alerts { totalCount } } mutation C { acknowledgeIncident(id: \"00000000-0000-0000-0000-000000000000\") { id } }";
    let variables = json!({ "id": id }).to_string();
    for (parameters, data) in [
        (vec![("query", QUERY)], json!({ "incidents": { "totalCount": 0 } })),
        (vec![("query", named), ("operationName", "A"), ("variables", &variables)], json!({ "incident": null })),
        (vec![("query", named), ("operationName", "B")], json!({ "alerts": { "totalCount": 0 } })),
    ] {
        let response = get(&parameters).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({ "data": data }));
    }
    for parameters in [vec![("query", CREATE)], vec![("query", named), ("operationName", "C")]] {
        let response = get(&parameters).send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()[ALLOW]), (405, &"POST".parse().unwrap()));
        assert_eq!(error(get(&parameters)).await, (405, "BAD_USER_INPUT".to_owned()));
    }
    for parameters in [vec![], vec![("query", QUERY), ("variables", "{")], vec![("query", QUERY), ("variables", "[]")]]
    {
        assert_eq!(error(get(&parameters)).await, (400, "BAD_USER_INPUT".to_owned()), "{parameters:?}");
    }
    assert_eq!(incidents(&database).await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_request_error_has_a_status_of_its_own_for_who_accepts_that() {
    let (_database, service) = start().await;
    let ask = |query: &str, accept: &str| post(&service, json!({ "query": query }).to_string()).header(ACCEPT, accept);
    for (query, accept, status, content_type) in [
        (QUERY, GRAPHQL, 200, GRAPHQL),
        ("{ nothing }", GRAPHQL, 400, GRAPHQL),
        ("{", GRAPHQL, 400, GRAPHQL),
        ("{ nothing }", "application/json", 200, "application/json"),
        ("{ nothing }", "*/*", 200, "application/json"),
    ] {
        let response = ask(query, accept).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{query} {accept}");
        assert_eq!(response.headers()[CONTENT_TYPE], format!("{content_type}; charset=utf-8"), "{query} {accept}");
    }
    service.stop().await;
}

#[tokio::test]
async fn an_unknown_resource_or_method_is_a_problem() {
    let (_database, service) = start().await;
    for path in ["/", "/nowhere", "/graphql/", "/health"] {
        assert_problem(service.http().get(service.url(path)).send().await.unwrap(), 404, "NOT_FOUND").await;
    }
    for (method, path) in [
        (Method::DELETE, "/graphql"),
        (Method::PUT, "/graphql"),
        (Method::POST, "/health/live"),
        (Method::POST, "/metrics"),
    ] {
        let response = service.http().request(method, service.url(path)).send().await.unwrap();
        assert!(response.headers()[ALLOW].to_str().unwrap().contains("GET"), "{path}");
        assert_problem(response, 405, "BAD_USER_INPUT").await;
    }
    let no_upgrade = service.http().get(service.url("/graphql/ws")).send().await.unwrap();
    let status = no_upgrade.status().as_u16();
    assert!((400..500).contains(&status));
    assert_problem(no_upgrade, status, "BAD_USER_INPUT").await;
    service.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_everywhere() {
    let (database, service) = start().await;
    let own = format!("http://{}", service.address);
    for path in ROUTES {
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost", ""] {
            let response = service.http().get(service.url(path)).header(ORIGIN, origin).send().await.unwrap();
            assert_problem(response, 403, "FORBIDDEN").await;
        }
        let response = service.http().get(service.url(path)).header(ORIGIN, &own).send().await.unwrap();
        assert_ne!(response.status(), 403, "{path}");
    }
    let create = || post(&service, json!({ "query": CREATE }).to_string());
    assert_problem(create().header(ORIGIN, "http://evil.example").send().await.unwrap(), 403, "FORBIDDEN").await;
    assert_eq!(incidents(&database).await, 0);
    assert_eq!(create().header(ORIGIN, own).send().await.unwrap().status(), 200);
    service.stop().await;
}

#[tokio::test]
async fn only_names_that_are_the_services_own_are_served() {
    let (database, service) = start_with(&["--allowed-hosts", "incidents.example,other.example"]).await;
    for path in ROUTES {
        let ask = |host: &'static str| service.http().get(service.url(path)).header(HOST, host).send();
        for host in ["evil.example", "evil.example:8080", "incidents.example.evil.example"] {
            assert_problem(ask(host).await.unwrap(), 403, "FORBIDDEN").await;
        }
        for host in ["incidents.example", "OTHER.example:8080", "localhost:1", "192.0.2.1", "[::1]:8080"] {
            assert_ne!(ask(host).await.unwrap().status(), 403, "{path} {host}");
        }
    }
    let create = post(&service, json!({ "query": CREATE }).to_string()).header(HOST, "evil.example");
    assert_problem(create.send().await.unwrap(), 403, "FORBIDDEN").await;
    assert_eq!(incidents(&database).await, 0);
    service.stop().await;
}

/// The status of an upgrade that was refused, or the subprotocol that was chosen.
async fn upgrade(service: &Service, headers: &[(&'static str, &str)]) -> Result<Option<String>, u16> {
    let mut request = format!("ws://{}/graphql/ws", service.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok((_, response)) => {
            Ok(response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap().to_owned()))
        }
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        // what the client of these tests makes of a server that chooses none
        Err(Error::Protocol(_)) => Ok(None),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_websocket_is_refused_to_others_and_speaks_no_legacy() {
    let (_database, service) = start().await;
    let (modern, own) = (("sec-websocket-protocol", "graphql-transport-ws"), format!("http://{}", service.address));
    let chosen = Ok(Some("graphql-transport-ws".to_owned()));
    assert_eq!(upgrade(&service, &[modern]).await, chosen);
    assert_eq!(upgrade(&service, &[modern, ("origin", &own)]).await, chosen);
    assert_eq!(upgrade(&service, &[modern, ("origin", "http://evil.example")]).await, Err(403));
    assert_eq!(upgrade(&service, &[modern, ("origin", "null")]).await, Err(403));
    assert_eq!(upgrade(&service, &[modern, ("host", "evil.example")]).await, Err(403));
    assert_eq!(upgrade(&service, &[("sec-websocket-protocol", "graphql-ws, graphql-transport-ws")]).await, chosen);
    for legacy in ["graphql-ws", "soap"] {
        assert_eq!(upgrade(&service, &[("sec-websocket-protocol", legacy)]).await, Ok(None), "{legacy}");
    }
    assert_eq!(upgrade(&service, &[]).await, Ok(None));
    service.stop().await;
}

#[tokio::test]
async fn health_and_metrics_are_told() {
    let (database, service) = start().await;
    for (path, status) in [("/health/live", "live"), ("/health/ready", "ready")] {
        let body: Value = service.http().get(service.url(path)).send().await.unwrap().json().await.unwrap();
        assert_eq!(body["status"], status);
    }
    let mut socket = service.subscribe("subscription { newIncidents { title } }").await;
    database.execute("insert into incident_manager.incident (title, severity, source) values ('t', 'P3', 's')").await;
    socket.next("newIncidents").await;
    let response = service.http().get(service.url("/metrics")).send().await.unwrap();
    assert!(response.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let shown = response.text().await.unwrap();
    for name in [
        "hub_position",
        "sequencer_calls_total",
        "sequenced_events_total",
        "doorbell_on",
        "listening",
        "subscriptions",
        "requests_total",
    ] {
        assert!(shown.contains(&format!("# HELP incident_manager_{name} ")), "{name}:\n{shown}");
        assert!(shown.lines().any(|line| line.starts_with(&format!("incident_manager_{name}"))), "{name}:\n{shown}");
    }
    service.stop().await;
}
