//! The streams of credentials that are limited to sources: nothing outside is heard, live or replayed, and everything inside is.

use std::collections::BTreeSet;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

use crate::support::access::{start_required, token};
use crate::support::events::Events;
use crate::support::scoped::{Documents, SOURCES, asked, assert_inside, fill, ids, mark, scope, within};
use crate::support::statements::Statements;
use crate::support::{PATIENCE, Service, Socket, TestDatabase, eventually};

/// A credential's scope, and what it subscribes to.
struct Listener {
    scope: Vec<&'static str>,
    /// With a place for an argument.
    subscriptions: [String; 4],
}

/// A change: of which source, what it was, and the title that it gave.
type Written = (&'static str, &'static str, String);

impl Listener {
    fn new(documents: &mut Documents<'_>) -> Self {
        let mut scope = scope(documents.random);
        if scope.is_empty() {
            scope.push("s0");
        }
        let known = json!(documents.incidents.iter().map(ToString::to_string).collect::<Vec<_>>());
        let subscriptions = [
            format!(
                "incidentUpdates(updateTypes: [CREATED, UPDATED] AFTER) {{ incident {{ {} }} }}",
                documents.incident(2)
            ),
            format!("newIncidents(severities: [P0, P3] AFTER) {{ {} }}", documents.incident(1)),
            format!("alerts(sources: null AFTER) {{ {} }}", documents.alert(2)),
            format!(
                "incidentUpdates(incidentIds: {known}, updateTypes: [UPDATED] AFTER) {{ incident {{ {} }} }}",
                documents.incident(1)
            ),
        ];
        Self { scope, subscriptions }
    }

    async fn subscribe(&self, service: &Service, subject: &str, after: Option<&str>) -> Socket {
        let mut socket = Socket::connect_as(service.address, Some(&within(subject, &self.scope))).await;
        let after = after.map(|cursor| format!("after: \"{cursor}\"")).unwrap_or_default();
        for (at, subscription) in self.subscriptions.iter().enumerate() {
            let query = format!("subscription {{ {} }}", subscription.replace("AFTER", &after));
            let payload = json!({ "query": query });
            socket.send(json!({ "id": at.to_string(), "type": "subscribe", "payload": payload })).await;
        }
        // messages are answered in their order, and a stream is open when what came after it is answered
        let mut pongs = 0;
        while after.is_empty() && pongs < 2 {
            socket.send(json!({ "type": "ping" })).await;
            let answer = socket.receive().await.unwrap();
            assert_eq!(answer["type"], "pong", "{answer}");
            pongs += 1;
        }
        socket
    }

    /// Hears until it has heard all that is inside its scope of what was written, and of nothing outside.
    async fn hear(&self, socket: &mut Socket, written: &[Written], seed: u64) {
        const KINDS: [&[&str]; 4] = [&["created", "updated"], &["created"], &["alert"], &["updated"]];
        let of = |kinds: &[&str]| -> BTreeSet<String> {
            let inside = written.iter().filter(|(source, kind, _)| self.scope.contains(source) && kinds.contains(kind));
            inside.map(|(.., title)| title.clone()).collect()
        };
        let mut waiting = KINDS.map(of);
        while waiting.iter().any(|titles| !titles.is_empty()) {
            let message = socket.receive().await.expect("the connection is open");
            if message["type"] == "ping" {
                continue;
            }
            let at: usize = message["id"].as_str().unwrap().parse().unwrap();
            let what = format!("seed {seed} {}", self.subscriptions[at]);
            assert_eq!(message["type"], "next", "{what}: {message}");
            assert!(message["payload"].get("errors").is_none(), "{what}: {message}");
            assert_inside(&self.scope, &what, &message["payload"].to_string());
            let data = message["payload"]["data"].as_object().unwrap().values().next().unwrap();
            let changed = if at.is_multiple_of(3) { &data["incident"] } else { data };
            waiting[at].remove(changed["title"].as_str().unwrap());
        }
    }
}

#[tokio::test]
async fn nothing_outside_a_scope_is_heard_live_or_replayed_and_everything_inside_is() {
    const WRITES: usize = 60;
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let database = TestDatabase::new().await;
    // listeners are read one after the other, and answer no ping meanwhile
    let flags = ["--ping-interval", "1h"];
    let service = start_required(&database.database_url(), &flags).await;
    fill(&database, &mut random).await;
    let (incidents, alerts) = (ids(&database, "incident").await, ids(&database, "alert").await);
    eventually("the log holds all of it", || async { logged(&database).await }).await;
    let before = asked(&service, &within("mei", &[]), "{ streamPosition { cursor } }").await;
    let before = before["data"]["streamPosition"]["cursor"].as_str().unwrap().to_owned();

    let mut listeners = Vec::new();
    for number in 0..6 {
        let mut documents = Documents { random: &mut random, incidents: incidents.clone(), alerts: alerts.clone() };
        let listener = Listener::new(&mut documents);
        let socket = listener.subscribe(&service, &format!("subject {number}"), None).await;
        listeners.push((listener, socket));
    }
    let known = incidents.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut written: Vec<Written> = Vec::new();
    for n in 0..WRITES + SOURCES.len() {
        let source = if n < WRITES { *SOURCES.choose(&mut random).unwrap() } else { SOURCES[n - WRITES] };
        let (title, kind) = (format!("{}write-{n}", mark(source)), if n < WRITES { n % 3 } else { 0 });
        let insert = format!("(title, severity, source) values ('{title}', 'P3', '{source}')");
        let sql = match kind {
            0 => format!("insert into incident_manager.incident {insert}"),
            1 => format!("insert into incident_manager.alert {insert}"),
            _ => format!(
                "update incident_manager.incident set title = '{title}' where id =
                 (select id from incident_manager.incident where source = '{source}' and state <> 'CLOSED'
                    and id = any('{{{known}}}') limit 1)"
            ),
        };
        database.execute(&sql).await;
        written.push((source, ["created", "alert", "updated"][kind], title));
    }
    for (listener, socket) in &mut listeners {
        listener.hear(socket, &written, seed).await;
    }
    // one that has nothing of it in memory
    let replica = start_required(&database.database_url(), &flags).await;
    for (listener, _) in &listeners {
        let mut socket = listener.subscribe(&replica, "later", Some(&before)).await;
        listener.hear(&mut socket, &written, seed).await;
    }
    service.stop().await;
    replica.stop().await;
}

/// Whether every comment, and with it all that came before, is in the log.
async fn logged(database: &TestDatabase) -> bool {
    let comments = "select count(*) from incident_manager.timeline where update_type = 'COMMENT_ADDED'";
    database.scalar::<i64>(comments).await == database.count("comment").await
}

#[tokio::test]
async fn an_event_stream_brings_nothing_outside_and_ends_for_who_may_not_subscribe() {
    const QUERY: &str = "subscription { newIncidents { title } }";
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    let stream = async |bearer: &str| {
        let request = reqwest::Client::new().post(service.url("/graphql/stream")).bearer_auth(bearer);
        let request = request.header("accept", "text/event-stream").json(&json!({ "query": QUERY }));
        request.send().await.unwrap()
    };
    let refused = stream(&token(json!({ "permissions": ["incidents.read"] }))).await.text().await.unwrap();
    assert!(refused.contains("\"code\":\"FORBIDDEN\"") && refused.contains("event: complete"), "{refused}");

    let mut stream = stream(&within("mei", &["s0"])).await;
    for (title, source) in [("outside", "s1"), ("inside", "s0")] {
        let insert = "insert into incident_manager.incident (title, severity, source)";
        database.execute(&format!("{insert} values ('{title}', 'P3', '{source}')")).await;
    }
    let mut heard = String::new();
    while !heard.contains("data: {") {
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("an event in time").unwrap();
        heard += std::str::from_utf8(&chunk.expect("the stream goes on")).unwrap();
    }
    assert!(heard.contains("inside") && !heard.contains("outside"), "{heard}");
    drop(stream);
    service.stop().await;
}

/// A cursor names a position in the log, which is one for all: where it came from makes no difference.
#[tokio::test]
async fn an_event_stream_that_goes_on_brings_what_it_missed_inside_and_nothing_outside() {
    const QUERY: &str = "subscription { newIncidents { title description } }";
    let database = TestDatabase::new().await;
    let insert = async |title: &str, source: &str| {
        let sql = "insert into incident_manager.incident (title, description, severity, source) values";
        database.execute(&format!("{sql} ('{title}', '{}', 'P3', '{source}')", mark(source))).await;
    };
    let service = start_required(&database.database_url(), &[]).await;
    let mut everything = Events::open(&service, QUERY).await;
    insert("seen", "s1").await;
    let (_, seen) = everything.next_result().await;
    let mut missed = Vec::new();
    for n in 0..30 {
        let (title, source) = (n.to_string(), SOURCES[n % 3]);
        insert(&title, source).await;
        missed.extend((source == "s0").then_some(title));
        assert_eq!(everything.next_result().await.0["data"]["newIncidents"]["title"], n.to_string());
    }
    // one that has it in memory, and one that reads the log
    let bearer = within("mei", &["s0"]);
    let replica = start_required(&database.database_url(), &[]).await.bearing(&bearer);
    let service = service.bearing(&bearer);
    let mut streams = [Events::resume(&service, QUERY, &seen).await, Events::resume(&replica, QUERY, &seen).await];
    insert("outside", "s2").await;
    insert("inside", "s0").await;
    missed.push("inside".to_owned());
    for stream in &mut streams {
        for title in &missed {
            let (result, _) = stream.next_result().await;
            assert_eq!(result["data"]["newIncidents"]["title"], *title);
            assert_inside(&["s0"], QUERY, &result.to_string());
        }
    }
    service.stop().await;
    replica.stop().await;
}

/// How often an event was executed shows in how often its comments were asked for.
#[tokio::test]
async fn an_event_is_executed_once_for_all_of_equal_scope_and_never_for_others() {
    const QUERY: &str = "subscription { newIncidents { title comments { nodes { body } } } }";
    let database = TestDatabase::new().await;
    let statements = Statements::of(&database).await;
    let service = start_required(statements.url(), &[]).await;
    let read = ["incidents.read", "incidents.subscribe"];
    let of = |claims: Value| token(claims);
    let mut equal = Vec::new();
    for bearer in [
        of(json!({ "sub": "a", "permissions": read, "sources": ["s0"] })),
        of(json!({ "sub": "b", "permissions": read, "sources": ["s0", "s0"] })),
        // what a subscription's fields do not ask for makes no difference
        of(json!({ "sub": "c", "roles": ["admin"], "sources": ["s0"] })),
        of(json!({ "sub": "d", "roles": ["viewer"], "sources": ["s0"] })),
    ] {
        let mut socket = Socket::connect_as(service.address, Some(&bearer)).await;
        socket.subscribe("1", QUERY, json!({})).await;
        equal.push(socket);
    }
    let insert = async |title: &str, source: &str| {
        let sql = "insert into incident_manager.incident (title, severity, source) values ";
        database.execute(&format!("{sql} ('{title}', 'P3', '{source}')")).await;
    };
    let executions = || statements.take().iter().filter(|sql| sql.contains("incident_manager.comment ")).count();
    statements.take();
    insert("outside", "s1").await;
    insert("inside", "s0").await;
    for socket in &mut equal {
        assert_eq!(socket.next("newIncidents").await["title"], "inside");
    }
    assert_eq!(executions(), 1);

    let mut others = Vec::new();
    for claims in [
        json!({ "permissions": read, "sources": ["s0", "s1"] }),
        json!({ "permissions": read }),
        json!({ "permissions": ["incidents.subscribe"], "sources": ["s0"] }),
    ] {
        let mut socket = Socket::connect_as(service.address, Some(&of(claims))).await;
        socket.subscribe("1", QUERY, json!({})).await;
        others.push(socket);
    }
    statements.take();
    insert("second", "s0").await;
    for socket in &mut equal {
        assert_eq!(socket.next("newIncidents").await["title"], "second");
    }
    for socket in &mut others {
        let message = socket.receive().await.unwrap();
        assert_eq!(message["payload"]["data"]["newIncidents"]["title"], "second", "{message}");
    }
    assert_eq!(executions(), 3, "two scopes more, and one that may not see comments");
    service.stop().await;
}
