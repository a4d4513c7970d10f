//! What becomes of an alert, inserted by SQL or submitted, alone or with others: the same.

use std::collections::HashMap;

use uuid::Uuid;

use crate::support::TestDatabase;

/// A story, told in lines:
/// `fire X F = CREATED a` and `end X F = RESOLVED a`: an alert with this external id and fingerprint (`-`: none), what
/// becomes of it, and the incident that it names (`-`: none); each letter stands for an incident of its own.
/// `state a RESOLVED`: the state that the incident is in. `sql …`: what somebody does, `{a}` being the incident's id.
const STORIES: [(&str, &str); 20] = [
    ("the first opens, the second joins", "fire X F = CREATED a; fire Y F = DEDUPLICATED a; state a DETECTED"),
    ("another fingerprint is another incident", "fire X F = CREATED a; fire Y G = CREATED b"),
    ("without an external id nothing is a repeat", "fire - F = CREATED a; fire - F = DEDUPLICATED a"),
    (
        "a repeat is ignored and names its twin's incident",
        "fire X F = CREATED a; fire X F = IGNORED a; fire X G = IGNORED a",
    ),
    ("the only one ends its incident", "fire X F = CREATED a; end X F = RESOLVED a; state a RESOLVED"),
    (
        "the last of several ends it",
        "fire X F = CREATED a; fire Y F = DEDUPLICATED a; end X F = DEDUPLICATED a; state a DETECTED; end Y F = RESOLVED a; state a RESOLVED",
    ),
    (
        "an end by external id need not know the fingerprint",
        "fire X F = CREATED a; end X G = RESOLVED a; state a RESOLVED",
    ),
    (
        "an end without external id ends all of its fingerprint",
        "fire X F = CREATED a; fire - F = DEDUPLICATED a; fire Y G = CREATED b; end - F = RESOLVED a; state b DETECTED",
    ),
    ("an end with an external id ends nothing else", "fire - F = CREATED a; end X F = IGNORED -; state a DETECTED"),
    (
        "what does not fire cannot end",
        "end X F = IGNORED -; end - F = IGNORED -; fire X F = CREATED a; end Y F = IGNORED -",
    ),
    ("it ends once", "fire X F = CREATED a; end X F = RESOLVED a; end X F = IGNORED -; end - F = IGNORED -"),
    (
        "repeats end with what they repeat",
        "fire X F = CREATED a; fire X F = IGNORED a; end X F = RESOLVED a; state a RESOLVED",
    ),
    (
        "what fires again opens anew",
        "fire X F = CREATED a; end X F = RESOLVED a; fire X F = CREATED b; fire X F = IGNORED b; end X F = RESOLVED b; state a RESOLVED",
    ),
    (
        "one end for two incidents resolves the one that is active",
        "fire - F = CREATED a; sql update incident_manager.incident set state = 'RESOLVED' where id = '{a}'; fire - F = CREATED b; end - F = RESOLVED b; state a RESOLVED",
    ),
    (
        "what a person opened, alerts join and do not resolve",
        "sql insert into incident_manager.incident (title, severity, source, fingerprint) values ('t', 'P3', 's', 'F'); fire X F = DEDUPLICATED a; end X F = DEDUPLICATED a; state a DETECTED",
    ),
    (
        "progress that a person makes does not keep it from ending",
        "fire X F = CREATED a; sql update incident_manager.incident set state = 'REMEDIATING' where id = '{a}'; fire Y F = DEDUPLICATED a; end X F = DEDUPLICATED a; end Y F = RESOLVED a",
    ),
    (
        "what a person resolved stays so, and its alert fires on",
        "fire X F = CREATED a; sql update incident_manager.incident set state = 'RESOLVED' where id = '{a}'; fire X F = IGNORED a; fire Y F = CREATED b; end X F = DEDUPLICATED a; end Y F = RESOLVED b; state a RESOLVED",
    ),
    (
        "what was reopened can end again",
        "fire X F = CREATED a; end X F = RESOLVED a; sql update incident_manager.incident set state = 'INVESTIGATING' where id = '{a}'; fire X F = DEDUPLICATED a; end X F = RESOLVED a; state a RESOLVED",
    ),
    (
        "a fingerprint that a person changes loses no alert",
        "fire X F = CREATED a; sql update incident_manager.incident set fingerprint = 'G' where id = '{a}'; fire Y F = CREATED b; fire Z G = DEDUPLICATED a; end X F = DEDUPLICATED a; end Z G = RESOLVED a; state b DETECTED",
    ),
    (
        "long runs of both",
        "fire X F = CREATED a; fire Y F = DEDUPLICATED a; fire X F = IGNORED a; fire Z G = CREATED b; end X F = DEDUPLICATED a; end Z G = RESOLVED b; end Y F = RESOLVED a; end Y F = IGNORED -; fire Z G = CREATED c; fire X F = CREATED d; fire Z G = IGNORED c; end - F = RESOLVED d; end - G = RESOLVED c",
    ),
];

/// How alerts come in.
#[derive(Debug, Clone, Copy)]
enum Way {
    Submitted,
    SubmittedTogether,
    Inserted,
    InsertedTogether,
}

struct Told<'a> {
    id: Uuid,
    firing: bool,
    external_id: Option<&'a str>,
    fingerprint: &'a str,
    status: &'a str,
    incident: &'a str,
}

fn tell(line: &str) -> Told<'_> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [verb, external_id, fingerprint, "=", status, incident] = words[..] else { panic!("{line}") };
    let external_id = (external_id != "-").then_some(external_id);
    Told { id: Uuid::new_v4(), firing: verb == "fire", external_id, fingerprint, status, incident }
}

/// The statement by which these alerts come in.
fn statement(alerts: &[Told<'_>], together: bool, submitted: bool) -> Vec<String> {
    let size = if together { alerts.len().max(1) } else { 1 };
    let one = |alert: &Told<'_>| {
        let Told { id, firing, fingerprint, .. } = alert;
        if submitted {
            serde_json::json!({ "id": id, "source": "s", "title": "t", "severity": "P3", "firing": firing,
                                "external_id": alert.external_id, "fingerprint": fingerprint })
            .to_string()
        } else {
            let external_id = alert.external_id.map_or("null".into(), |id| format!("'{id}'"));
            format!("('{id}', 's', 't', 'P3', {firing}, {external_id}, '{fingerprint}')")
        }
    };
    alerts
        .chunks(size)
        .map(|chunk| {
            let rows = chunk.iter().map(one).collect::<Vec<_>>().join(", ");
            if submitted {
                format!("select count(*) from incident_manager.submit_alerts('[{rows}]')")
            } else {
                format!(
                    "insert into incident_manager.alert (id, source, title, severity, firing, external_id, fingerprint) values {rows}"
                )
            }
        })
        .collect()
}

struct Story<'a> {
    database: &'a TestDatabase,
    way: Way,
    name: &'a str,
    incidents: HashMap<String, Uuid>,
}

impl Story<'_> {
    async fn take(&mut self, alerts: &mut Vec<Told<'_>>) {
        let submitted = matches!(self.way, Way::Submitted | Way::SubmittedTogether);
        let together = matches!(self.way, Way::SubmittedTogether | Way::InsertedTogether);
        for sql in statement(alerts, together, submitted) {
            self.database.execute(&sql).await;
        }
        for (n, alert) in alerts.drain(..).enumerate() {
            let (status, incident, deduplicated): (String, Option<Uuid>, bool) =
                sqlx::query_as("select status, incident_id, deduplicated from incident_manager.alert where id = $1")
                    .bind(alert.id)
                    .fetch_one(self.database.pool())
                    .await
                    .unwrap();
            let place = format!("{}, {:?}, alert {n}", self.name, self.way);
            assert_eq!(status, alert.status, "{place}");
            assert_eq!(deduplicated, alert.firing && status == "DEDUPLICATED", "{place}");
            match incident {
                None => assert_eq!(alert.incident, "-", "{place}"),
                Some(id) => {
                    let others_id = self.incidents.iter().any(|(name, known)| name != alert.incident && *known == id);
                    assert!(!others_id, "{place}: names another incident than {}", alert.incident);
                    assert_eq!(*self.incidents.entry(alert.incident.to_owned()).or_insert(id), id, "{place}");
                }
            }
        }
    }

    async fn act(&self, line: &str) {
        if let Some(sql) = line.strip_prefix("sql ") {
            let sql = self
                .incidents
                .iter()
                .fold(sql.to_owned(), |sql, (name, id)| sql.replace(&format!("{{{name}}}"), &id.to_string()));
            self.database.execute(&sql).await;
        } else {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["state", incident, expected] = words[..] else { panic!("{line}") };
            let state: String = self
                .database
                .scalar(&format!(
                    "select state from incident_manager.incident where id = '{}'",
                    self.incidents[incident]
                ))
                .await;
            assert_eq!(state, expected, "{}, {:?}: incident {incident}", self.name, self.way);
        }
    }
}

/// Tells every story in one database, in which only the incidents of the story before are in the way: they are closed.
async fn tell_all(way: Way) {
    let database = TestDatabase::new().await;
    for (name, lines) in STORIES {
        let mut story = Story { database: &database, way, name, incidents: HashMap::new() };
        let mut waiting = Vec::new();
        for line in lines.split(';').map(str::trim) {
            if line.starts_with("fire") || line.starts_with("end") {
                waiting.push(tell(line));
            } else {
                story.take(&mut waiting).await;
                story.act(line).await;
            }
        }
        story.take(&mut waiting).await;
        database
            .execute(
                "update incident_manager.alert set firing = false;
                 update incident_manager.incident set state = 'RESOLVED' where state not in ('RESOLVED', 'CLOSED')",
            )
            .await;
    }
}

#[tokio::test]
async fn alerts_that_are_submitted_one_by_one_follow_the_rule() {
    tell_all(Way::Submitted).await;
}

#[tokio::test]
async fn alerts_that_are_submitted_together_follow_the_rule_as_if_one_by_one() {
    tell_all(Way::SubmittedTogether).await;
}

#[tokio::test]
async fn alerts_that_are_inserted_one_by_one_follow_the_rule() {
    tell_all(Way::Inserted).await;
}

#[tokio::test]
async fn alerts_that_are_inserted_together_follow_the_rule_as_if_one_by_one() {
    tell_all(Way::InsertedTogether).await;
}

#[tokio::test]
async fn submitting_tells_what_became_of_each_in_order() {
    let database = TestDatabase::new().await;
    let told: Vec<(i32, String)> = sqlx::query_as(
        "select ordinal, status from incident_manager.submit_alerts('[
           {\"source\": \"s\", \"title\": \"t\", \"severity\": \"P3\", \"external_id\": \"x\"},
           {\"source\": \"s\", \"title\": \"t\", \"severity\": \"P3\", \"external_id\": \"y\"},
           {\"source\": \"s\", \"title\": \"t\", \"severity\": \"P3\", \"external_id\": \"y\", \"firing\": false},
           {\"source\": \"s\", \"title\": \"t\", \"severity\": \"P3\", \"external_id\": \"x\", \"firing\": false}]')",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    let expected = [(1, "CREATED"), (2, "DEDUPLICATED"), (3, "DEDUPLICATED"), (4, "RESOLVED")];
    assert_eq!(told, expected.map(|(ordinal, status)| (ordinal, status.to_owned())));
    let statuses: Vec<String> =
        sqlx::query_scalar("select status from incident_manager.alert order by received_at, id")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(statuses, ["CREATED", "DEDUPLICATED", "DEDUPLICATED", "RESOLVED"]);
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.submit_alerts('[]')").await, 0);
}

#[tokio::test]
async fn an_incident_takes_over_what_its_first_alert_says() {
    let database = TestDatabase::new().await;
    database
        .execute(
            "insert into incident_manager.alert (source, title, description, severity, alert_type, labels, affected_services)
             values ('s', 'the title', 'the text', 'P1', 'COST', '{\"a\": \"b\"}', '{x,y}')",
        )
        .await;
    let same: bool = database
        .scalar(
            "select (i.source, i.title, i.description, i.severity, i.incident_type, i.labels, i.affected_resources, i.fingerprint)
                  = (a.source, a.title, a.description, a.severity, a.alert_type, a.labels, a.affected_services, a.fingerprint)
                    and i.opened_by_alert
             from incident_manager.alert a join incident_manager.incident i on i.id = a.incident_id",
        )
        .await;
    assert!(same);
}

#[tokio::test]
async fn the_same_words_cut_otherwise_are_another_fingerprint() {
    let database = TestDatabase::new().await;
    let alerts = [
        ("s", "COST", "t", "{}"),
        ("sC", "COST", "t", "{}"),
        ("s", "COST", "Ct", "{}"),
        ("s,4:COST,1:t,", "COST", "t", "{}"),
        ("s", "DATA", "t", "{}"),
        ("s", "COST", "t{}", "{}"),
        ("s", "COST", "t,2:{}", "{}"),
        ("s", "COST", "t", "{\"a\": \"b\"}"),
        ("s", "COST", "t", "{\"a\": \"b\", \"c\": \"d\"}"),
        ("s", "COST", "t", "{\"a\": \"b, c: d\"}"),
        ("s", "COST", "é", "{}"),
    ];
    for (source, kind, title, labels) in alerts {
        let insert = format!(
            "insert into incident_manager.alert (source, alert_type, title, labels, severity) values ('{source}', '{kind}', '{title}', '{labels}', 'P3')"
        );
        database.execute(&insert).await;
    }
    let distinct: i64 = database.scalar("select count(distinct fingerprint) from incident_manager.alert").await;
    assert_eq!(usize::try_from(distinct).unwrap(), alerts.len());
    // the order of keys and what else the alert says make no difference, nor the way it comes
    database
        .execute(
            "select count(*) from incident_manager.submit_alerts('[{\"source\": \"s\", \"alert_type\": \"COST\", \"title\": \"t\", \"severity\": \"P0\", \"description\": \"x\", \"labels\": {\"c\": \"d\", \"a\": \"b\"}}]')",
        )
        .await;
    assert_eq!(
        database.scalar::<i64>("select count(distinct fingerprint) from incident_manager.alert").await,
        distinct
    );
    // it is kept in incidents for years
    let stable: String = database
        .scalar("select fingerprint from incident_manager.alert where title = 't' and alert_type = 'COST' and labels = '{}' and source = 's'")
        .await;
    assert_eq!(stable, database.scalar::<String>("select encode(sha256('1:s,4:COST,1:t,2:{},'), 'hex')").await);
}

#[tokio::test]
async fn an_alert_that_is_there_already_opens_and_ends_nothing() {
    let database = TestDatabase::new().await;
    let id = Uuid::new_v4();
    let insert = |title: &str, firing: bool| {
        format!(
            "insert into incident_manager.alert (id, source, title, severity, firing) values ('{id}', 's', '{title}', 'P3', {firing})"
        )
    };
    database.execute(&insert("t", true)).await;
    for (title, firing) in [("t", true), ("another", true), ("t", false)] {
        database.execute(&format!("{} on conflict do nothing", insert(title, firing))).await;
        database.execute(&format!("{} on conflict (id) do nothing", insert(title, firing))).await;
        assert_eq!(database.refused(&insert(title, firing)).await, ("23505".into(), "alert_pkey".into()));
    }
    assert_eq!(
        database.scalar::<i64>("select count(*) from incident_manager.incident where state = 'DETECTED'").await,
        1
    );
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.incident").await, 1);
    assert_eq!(database.scalar::<i64>("select count(*) from incident_manager.event_outbox").await, 2);
}

#[tokio::test]
async fn the_incidents_event_comes_before_that_of_its_alert() {
    let database = TestDatabase::new().await;
    database
        .execute(
            "insert into incident_manager.alert (source, title, severity, external_id) values ('s', 't', 'P3', 'x')",
        )
        .await;
    database
        .execute("insert into incident_manager.alert (source, title, severity, external_id, firing) values ('s', 't', 'P3', 'x', false)")
        .await;
    database
        .execute(
            "select count(*) from incident_manager.submit_alerts('[{\"source\": \"s\", \"title\": \"t\", \"severity\": \"P3\", \"external_id\": \"x\"},
             {\"source\": \"s\", \"title\": \"t\", \"severity\": \"P3\", \"external_id\": \"x\", \"firing\": false}]')",
        )
        .await;
    database.execute("select * from incident_manager.sequence_events()").await;
    let log: Vec<(String, Option<String>, Option<bool>, bool)> = sqlx::query_as(
        "select kind, update_type, firing, incident_id is not null from incident_manager.event_log order by pos",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    let incident = |change: &str| ("incident".to_owned(), Some(change.to_owned()), None, true);
    let alert = |firing| ("alert".to_owned(), None, Some(firing), true);
    let once = [incident("CREATED"), alert(true), incident("RESOLVED"), alert(false)];
    assert_eq!(log[..4], once);
    assert_eq!(log[4..], once);
    let named: i64 = database
        .scalar("select count(*) from incident_manager.event_log l join incident_manager.alert a on a.id = l.alert_id and a.incident_id = l.incident_id")
        .await;
    assert_eq!(named, 4);
}
