//! Credentials that are limited to sources: nothing outside is seen, by whatever way, or changed.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::access::{start_required, token};
use crate::support::statements::Statements;
use crate::support::{PATIENCE, Service, Socket, TestDatabase, eventually};

const SOURCES: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];

/// A credential that may do everything, in these sources.
fn within(subject: &str, sources: &[&str]) -> String {
    token(json!({ "sub": subject, "roles": ["admin"], "sources": sources }))
}

/// What every text of a source has in it.
fn mark(source: &str) -> String {
    format!("of-{source}-")
}

/// Incidents of every source that have to do with each other in every way, with alerts of any of them.
async fn fill(database: &TestDatabase, random: &mut StdRng) {
    for source in SOURCES {
        let mark = mark(source);
        database
            .execute(&format!(
                r#"insert into incident_manager.incident
                     (title, description, severity, source, fingerprint, affected_resources, labels, metadata)
                   select '{mark}' || n, '{mark}', 'P' || n % 5, '{source}', 'fingerprint-' || n, array['shared', '{mark}'],
                          '{{"k": "{mark}"}}', '{{"k": "{mark}"}}' from generate_series(1, 4) n;
                   insert into incident_manager.comment (incident_id, body)
                   select id, '{mark}' from incident_manager.incident where source = '{source}'"#
            ))
            .await;
    }
    let ids: Vec<Uuid> = ids(database, "incident").await;
    for _ in 0..40 {
        let (source, id) = (SOURCES.choose(random).unwrap(), ids.choose(random).unwrap());
        let mark = mark(source);
        // as a merge leaves them
        database
            .execute(&format!(
                "insert into incident_manager.alert (source, title, description, severity, incident_id, status)
                 values ('{source}', '{mark}', '{mark}', 'P3', '{id}', 'DEDUPLICATED')"
            ))
            .await;
    }
    for _ in 0..20 {
        let (a, b) = (ids.choose(random).unwrap(), ids.choose(random).unwrap());
        database
            .execute(&format!(
                "insert into incident_manager.incident_link (a, b) select least(a, b), greatest(a, b)
                 from (values ('{a}'::uuid, '{b}'::uuid)) pair(a, b) where a <> b on conflict do nothing"
            ))
            .await;
    }
    for _ in 0..3 {
        let (gone, into) = (ids.choose(random).unwrap(), ids.choose(random).unwrap());
        database
            .execute(&format!(
                "update incident_manager.incident set state = 'CLOSED', merged_into = '{into}'
                 where id = '{gone}' and '{gone}' <> '{into}' and merged_into is null
                   and not exists (select from incident_manager.incident where merged_into = '{gone}')
                   and exists (select from incident_manager.incident where id = '{into}' and merged_into is null)"
            ))
            .await;
    }
}

async fn ids(database: &TestDatabase, table: &str) -> Vec<Uuid> {
    database.scalar(&format!("select array_agg(id order by id) from incident_manager.{table}")).await
}

/// Documents at random, in which one thing leads to another.
struct Documents<'r> {
    random: &'r mut StdRng,
    incidents: Vec<Uuid>,
    alerts: Vec<Uuid>,
}

impl Documents<'_> {
    fn incident(&mut self, depth: usize) -> String {
        let mut fields = vec!["id source title description labels metadata affectedResources".to_owned()];
        if depth > 0 {
            let chosen: Vec<_> = (0..5).filter(|_| self.random.random_ratio(2, 3)).collect();
            fields.extend(chosen.into_iter().map(|field| match field {
                0 => format!("alerts(first: 4) {{ totalCount nodes {{ {} }} }}", self.alert(depth - 1)),
                1 => "comments(first: 3) { totalCount nodes { body } }".to_owned(),
                2 => "timeline(first: 3) { totalCount nodes { summary } }".to_owned(),
                3 => format!("relatedIncidents {{ reason incident {{ {} }} }}", self.incident(depth - 1)),
                _ => "playbook { name }".to_owned(),
            }));
        }
        fields.join(" ")
    }

    fn alert(&mut self, depth: usize) -> String {
        if depth == 0 {
            return "id source title description".to_owned();
        }
        format!("id source title description incident {{ {} }}", self.incident(depth - 1))
    }

    fn query(&mut self) -> String {
        let (incident, alert) = (self.incidents.choose(self.random).unwrap(), self.alerts.choose(self.random).unwrap());
        let (incident, alert) = (*incident, *alert);
        let named: Vec<_> = SOURCES.into_iter().filter(|_| self.random.random()).collect();
        let sources = json!(named);
        match self.random.random_range(0..5) {
            0 => format!("{{ incident(id: \"{incident}\") {{ {} }} }}", self.incident(2)),
            1 => format!(
                "{{ incidents(first: 12, filter: {{ sources: {sources} }}) {{ totalCount nodes {{ {} }} }} }}",
                self.incident(2)
            ),
            2 => format!("{{ alert(id: \"{alert}\") {{ {} }} }}", self.alert(2)),
            3 => format!("{{ alerts(first: 12, sources: {sources}) {{ totalCount nodes {{ {} }} }} }}", self.alert(2)),
            _ => format!("{{ alerts(incidentId: \"{incident}\") {{ totalCount nodes {{ {} }} }} }}", self.alert(2)),
        }
    }
}

/// Nothing of a source outside is in a text, under no name.
fn assert_inside(scope: &[&str], what: &str, text: &str) {
    for outside in SOURCES.iter().filter(|source| !scope.contains(source)) {
        assert!(!text.contains(&mark(outside)), "{scope:?} {what}: {text}");
        assert!(!text.contains(&format!("\"{outside}\"")), "{scope:?} {what}: {text}");
    }
}

fn scope(random: &mut StdRng) -> Vec<&'static str> {
    SOURCES.into_iter().filter(|_| random.random_ratio(2, 5)).collect()
}

async fn asked(service: &Service, token: &str, query: &str) -> Value {
    let request =
        reqwest::Client::new().post(service.url("/graphql")).bearer_auth(token).json(&json!({ "query": query }));
    request.send().await.unwrap().json().await.unwrap()
}

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
