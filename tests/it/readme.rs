//! What the README tells people to type does what it says.

use incident_manager::config::DatabaseUrl;
use reqwest::Response;
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::time::timeout;

use crate::support::roles::Tenancy;
use crate::support::{PATIENCE, Service, Socket};

const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));

/// The first line of a block of statements that the database is to refuse.
const REFUSED: &str = "-- each of these is refused";

/// The README's fenced blocks in a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let mut blocks = Vec::new();
    let mut rest = README;
    while let Some((_, opened)) = rest.split_once("\n```") {
        let (info, body) = opened.split_once('\n').expect("a fence's line ends");
        let (block, after) = body.split_once("\n```").expect("a fence is closed");
        if info == language {
            blocks.push(block);
        }
        rest = after;
    }
    assert!(!blocks.is_empty(), "README.md has no block of {language}");
    blocks
}

/// What stands between two marks.
fn between(text: &'static str, from: &str, to: &str) -> &'static str {
    let (_, after) = text.split_once(from).unwrap_or_else(|| panic!("{from} is not in {text}"));
    after.split_once(to).unwrap_or_else(|| panic!("{to} is not in {text}")).0
}

/// The service and a writer, with the grants that the README names.
async fn start() -> (Tenancy, Service) {
    let tenancy = Tenancy::installed().await;
    let service = Service::start(&DatabaseUrl::from(tenancy.url("service"))).await;
    (tenancy, service)
}

/// Runs all SQL that is not to be refused: as a writer, but what is the owner's as the owner.
async fn write(tenancy: &Tenancy) {
    for block in blocks("sql").into_iter().filter(|block| !block.starts_with(REFUSED)) {
        let role = if block.contains("purge_closed_incidents") { "owner" } else { "writer" };
        let mut connection = tenancy.connect(role).await;
        connection.execute(block).await.unwrap_or_else(|error| panic!("{block}: {error}"));
    }
}

/// Sends what the README's call of curl that contains a word sends.
async fn curl(service: &Service, word: &str) -> Response {
    let is_wanted = |block: &&&str| block.starts_with("curl") && block.contains(word);
    let call = *blocks("sh").iter().find(is_wanted).unwrap_or_else(|| panic!("README.md calls no curl with {word}"));
    let mut request = service.http().post(service.url(between(call, "http://127.0.0.1:8080", " ")));
    for header in call.split("-H '").skip(1) {
        let (name, value) = between(header, "", "'").split_once(": ").expect("a header");
        request = request.header(name, value);
    }
    request.body(between(call, "-d '", "'")).send().await.unwrap()
}

/// The data of the next `count` results.
async fn results(socket: &mut Socket, field: &str, count: usize) -> Vec<Value> {
    let mut results = Vec::with_capacity(count);
    while results.len() < count {
        results.push(socket.next(field).await);
    }
    results
}

/// What a stream brings next.
async fn heard(stream: &mut Response) -> String {
    let chunk = timeout(PATIENCE, stream.chunk()).await.expect("in time").unwrap().expect("the stream goes on");
    String::from_utf8(chunk.into()).unwrap()
}

#[tokio::test]
async fn what_the_readme_writes_by_sql_is_heard() {
    let (tenancy, service) = start().await;
    let mut updates = service
        .subscribe("subscription { incidentUpdates { updateType actor incident { title state assignedTo } } }")
        .await;
    write(&tenancy).await;
    let heard: Vec<_> = results(&mut updates, "incidentUpdates", 5)
        .await
        .into_iter()
        .map(|mut update| (update["updateType"].take(), update["incident"]["title"].take(), update["actor"].take()))
        .collect();
    let writer = tenancy.role("writer");
    let update = |kind: &str, title: &str, actor: &str| (json!(kind), json!(title), json!(actor));
    assert_eq!(
        heard,
        [
            update("CREATED", "Backup is late", "nightly-check"),
            update("STATE_CHANGED", "Backup is late", "nightly-check"),
            update("COMMENT_ADDED", "Backup is late", "nightly-check"),
            update("CREATED", "Disk fills up", &writer),
            update("RESOLVED", "Disk fills up", &writer),
        ]
    );
    service.stop().await;
}

#[tokio::test]
async fn what_the_readme_says_is_refused_is_refused() {
    let tenancy = Tenancy::installed().await;
    write(&tenancy).await;
    let refused: Vec<_> = blocks("sql").into_iter().filter_map(|block| block.strip_prefix(REFUSED)).collect();
    assert!(!refused.is_empty(), "README.md has no block that begins with: {REFUSED}");
    for statement in refused.into_iter().flat_map(|block| block.trim().split_terminator(';')) {
        let (code, _) = tenancy.database().refused(statement).await;
        // to a superuser: by a rule (integrity constraint violation, feature not supported), not for want of a right
        assert!(code.starts_with("23") || code == "0A000", "{statement}: {code}");
    }
}

#[tokio::test]
async fn the_readmes_operations_are_answered() {
    let (tenancy, service) = start().await;
    write(&tenancy).await;
    let operations = blocks("graphql").into_iter().filter(|operation| !operation.starts_with("subscription"));
    let mut ran = 0;
    for operation in operations {
        let data = service.data(operation, json!({})).await;
        assert!(data.as_object().expect("an object").values().all(|field| !field.is_null()), "{operation}: {data}");
        ran += 1;
    }
    assert!(ran > 0, "README.md has neither a query nor a mutation");
    service.stop().await;
}

#[tokio::test]
async fn the_readmes_curl_is_heard_by_its_client() {
    let (_tenancy, service) = start().await;
    let query = between(blocks("js")[0], "const query = `", "`;");
    let mut client = service.subscribe(query).await;
    let response: Value = curl(&service, "mutation").await.json().await.unwrap();
    assert_eq!(response["data"]["createIncident"]["state"], "DETECTED", "{response}");
    let update = client.next("incidentUpdates").await;
    assert_eq!(update["updateType"], "CREATED");
    assert_eq!(update["incident"]["id"], response["data"]["createIncident"]["id"]);
    service.stop().await;
}

#[tokio::test]
async fn the_readmes_stream_hears_what_its_curl_does() {
    let tenancy = Tenancy::installed().await;
    let database = DatabaseUrl::from(tenancy.url("service"));
    let service = Service::start_with(&database, &["--ping-interval", "100ms"]).await;
    service.ready().await;
    let mut stream = curl(&service, "subscription").await;
    // a bookmark, past what the filter leaves out, shows that the stream is open
    while !heard(&mut stream).await.contains("id:") {
        tenancy
            .database()
            .execute("insert into incident_manager.alert (title, severity, source) values ('Idle', 'P4', 'test')")
            .await;
    }
    let created: Value = curl(&service, "mutation").await.json().await.unwrap();
    let id = created["data"]["createIncident"]["id"].as_str().expect("an id");
    let mut text = String::new();
    while !text.contains(id) {
        text.push_str(&heard(&mut stream).await);
    }
    assert!(text.contains("event: next\n") && !text.contains("Idle"), "{text}");
    service.stop().await;
}

#[tokio::test]
async fn the_readmes_subscriptions_hear_what_the_readme_writes() {
    let (tenancy, service) = start().await;
    let subscriptions: Vec<_> =
        blocks("graphql").into_iter().filter(|operation| operation.starts_with("subscription")).collect();
    assert!(!subscriptions.is_empty(), "README.md has no subscription");
    let mut sockets = Vec::new();
    for subscription in subscriptions {
        let field = between(subscription, "{", "(").trim();
        sockets.push((field, service.subscribe(subscription).await));
    }
    write(&tenancy).await;
    for (field, socket) in &mut sockets {
        assert!(socket.next(field).await.is_object(), "{field}");
    }
    service.stop().await;
}
