//! The rules of incidents and comments, as a writer of SQL meets them.

use uuid::Uuid;

use crate::support::TestDatabase;

const STATES: [&str; 6] = ["DETECTED", "TRIAGED", "INVESTIGATING", "REMEDIATING", "RESOLVED", "CLOSED"];

/// Where each state may go, itself included: that is no change.
const STEPS: [(&str, &[&str]); 6] = [
    ("DETECTED", &["DETECTED", "TRIAGED", "INVESTIGATING", "REMEDIATING", "RESOLVED"]),
    ("TRIAGED", &["TRIAGED", "INVESTIGATING", "REMEDIATING", "RESOLVED"]),
    ("INVESTIGATING", &["INVESTIGATING", "REMEDIATING", "RESOLVED"]),
    ("REMEDIATING", &["REMEDIATING", "RESOLVED"]),
    ("RESOLVED", &["RESOLVED", "INVESTIGATING", "CLOSED"]),
    ("CLOSED", &["CLOSED"]),
];

fn violates(constraint: &str) -> (String, String) {
    ("23514".into(), constraint.into())
}

async fn insert(database: &TestDatabase) -> Uuid {
    database
        .scalar("insert into incident_manager.incident (title, severity, source) values ('t', 'P2', 's') returning id")
        .await
}

/// A new incident that was brought to a state by steps that are allowed.
async fn incident_in(database: &TestDatabase, state: &str) -> Uuid {
    let id = insert(database).await;
    let way: &[&str] = if state == "CLOSED" { &["RESOLVED", "CLOSED"] } else { &[state] };
    for state in way {
        update(database, id, &format!("state = '{state}'")).await;
    }
    id
}

async fn update(database: &TestDatabase, id: Uuid, change: &str) {
    database.execute(&format!("update incident_manager.incident set {change} where id = '{id}'")).await;
}

async fn update_refused(database: &TestDatabase, id: Uuid, change: &str) -> (String, String) {
    database.refused(&format!("update incident_manager.incident set {change} where id = '{id}'")).await
}

async fn text(database: &TestDatabase, id: Uuid, expression: &str) -> Option<String> {
    database.scalar(&format!("select ({expression})::text from incident_manager.incident where id = '{id}'")).await
}

async fn row(database: &TestDatabase, id: Uuid) -> String {
    database.scalar(&format!("select i::text from incident_manager.incident i where id = '{id}'")).await
}

async fn events(database: &TestDatabase) -> i64 {
    database.scalar("select count(*) from incident_manager.event_outbox").await
}

#[tokio::test]
async fn an_incident_goes_from_each_state_where_the_state_machine_lets_it() {
    let database = TestDatabase::new().await;
    for (from, allowed) in STEPS {
        for to in STATES {
            let id = incident_in(&database, from).await;
            let before = row(&database, id).await;
            let version: i32 =
                database.scalar(&format!("select version from incident_manager.incident where id = '{id}'")).await;
            let change = format!("state = '{to}'");
            if allowed.contains(&to) {
                update(&database, id, &change).await;
                assert_eq!(text(&database, id, "state").await.as_deref(), Some(to), "from {from}");
                let expected = version + i32::from(from != to);
                assert_eq!(text(&database, id, "version").await, Some(expected.to_string()), "{from} to {to}");
            } else {
                let constraint =
                    if from == "CLOSED" { "incident_closed_is_final" } else { "incident_state_transition" };
                assert_eq!(update_refused(&database, id, &change).await, violates(constraint), "{from} to {to}");
                assert_eq!(row(&database, id).await, before, "{from} to {to} is refused and yet changes something");
            }
        }
    }
    let id = insert(&database).await;
    assert_eq!(update_refused(&database, id, "state = 'LOST'").await, violates("incident_state_name"));
}

#[tokio::test]
async fn leaving_detected_acknowledges_once_and_for_all() {
    let database = TestDatabase::new().await;
    for to in ["TRIAGED", "INVESTIGATING", "REMEDIATING", "RESOLVED"] {
        let id = insert(&database).await;
        update(&database, id, "title = 'still detected'").await;
        assert_eq!(text(&database, id, "acknowledged_at").await, None);
        update(&database, id, &format!("state = '{to}'")).await;
        assert_eq!(text(&database, id, "acknowledged_at = updated_at").await.as_deref(), Some("true"), "{to}");
        let acknowledged = text(&database, id, "acknowledged_at").await;
        for state in ["RESOLVED", "INVESTIGATING", "RESOLVED", "CLOSED"] {
            update(&database, id, &format!("state = '{state}'")).await;
            assert_eq!(text(&database, id, "acknowledged_at").await, acknowledged, "{to}, then {state}");
        }
    }
    let (other, merged) = (insert(&database).await, insert(&database).await);
    update(&database, merged, &format!("state = 'CLOSED', merged_into = '{other}'")).await;
    assert_eq!(text(&database, merged, "acknowledged_at = closed_at").await.as_deref(), Some("true"));
}

#[tokio::test]
async fn reopening_clears_when_it_was_resolved_and_keeps_why() {
    let database = TestDatabase::new().await;
    let id = insert(&database).await;
    update(&database, id, "state = 'RESOLVED', resolution = 'turned it off', root_cause = 'it was on'").await;
    let first = text(&database, id, "resolved_at").await;
    assert!(first.is_some());
    update(&database, id, "state = 'INVESTIGATING'").await;
    assert_eq!(text(&database, id, "resolved_at").await, None);
    assert_eq!(
        text(&database, id, "resolution || ', ' || root_cause").await.as_deref(),
        Some("turned it off, it was on")
    );
    update(&database, id, "state = 'RESOLVED'").await;
    let again = text(&database, id, "resolved_at").await;
    assert!(again.is_some() && again != first);
    update(&database, id, "state = 'CLOSED'").await;
    assert_eq!(text(&database, id, "resolved_at").await, again, "closing keeps it");
    assert_eq!(text(&database, id, "closed_at = updated_at").await.as_deref(), Some("true"));
}

#[tokio::test]
async fn a_closed_incident_keeps_every_field_and_takes_comments() {
    let database = TestDatabase::new().await;
    let (other, id) = (insert(&database).await, incident_in(&database, "CLOSED").await);
    let before = row(&database, id).await;
    let merge = format!("merged_into = '{other}'");
    for change in [
        "title = 'x'",
        "description = 'x'",
        "severity = 'P0'",
        "incident_type = 'DATA'",
        "assigned_to = 'x'",
        "affected_resources = '{x}'",
        "labels = '{\"x\": \"y\"}'",
        "metadata = '{\"x\": 1}'",
        "resolution = 'x'",
        "root_cause = 'x'",
        "fingerprint = 'x'",
        &merge,
    ] {
        assert_eq!(update_refused(&database, id, change).await, violates("incident_closed_is_final"), "{change}");
    }
    update(&database, id, "title = title, state = 'CLOSED'").await;
    assert_eq!(row(&database, id).await, before);
    database
        .execute(&format!("insert into incident_manager.comment (incident_id, body) values ('{id}', 'after')"))
        .await;
    assert_eq!(row(&database, id).await, before, "a comment changes nothing of its incident");
}

#[tokio::test]
async fn a_merge_closes_what_is_active_and_stays() {
    let database = TestDatabase::new().await;
    let other = insert(&database).await;
    for state in STATES {
        let id = incident_in(&database, state).await;
        let merge = format!("state = 'CLOSED', merged_into = '{other}'");
        if state == "CLOSED" {
            assert_eq!(update_refused(&database, id, &merge).await, violates("incident_closed_is_final"));
            continue;
        }
        update(&database, id, &merge).await;
        assert_eq!(text(&database, id, "merged_into").await, Some(other.to_string()), "from {state}");
        assert_eq!(text(&database, id, "closed_at is not null").await.as_deref(), Some("true"), "from {state}");
        assert_eq!(update_refused(&database, id, "merged_into = null").await, violates("incident_closed_is_final"));
    }
    let id = insert(&database).await;
    let alone = update_refused(&database, id, &format!("merged_into = '{other}'")).await;
    assert_eq!(alone, violates("incident_merged_into_closes"), "a merge closes");
    let itself = update_refused(&database, id, &format!("state = 'CLOSED', merged_into = '{id}'")).await;
    assert_eq!(itself, violates("incident_merged_into_closes"));
    let nobody = update_refused(&database, id, &format!("state = 'CLOSED', merged_into = '{}'", Uuid::new_v4())).await;
    assert_eq!(nobody, ("23503".into(), "incident_merged_into_fk".into()));
}

#[tokio::test]
async fn a_new_incident_begins_at_the_beginning() {
    let database = TestDatabase::new().await;
    let other = insert(&database).await;
    let other = format!("'{other}'");
    let begins = [
        ("state", "'TRIAGED'"),
        ("state", "'CLOSED'"),
        ("version", "2"),
        ("version", "0"),
        ("description_version", "2"),
        ("acknowledged_at", "now()"),
        ("resolved_at", "now()"),
        ("closed_at", "now()"),
        ("merged_into", &other),
    ];
    for (column, value) in begins {
        let sql = format!(
            "insert into incident_manager.incident (title, severity, source, {column}) values ('t', 'P2', 's', {value})"
        );
        let rule = if column == "merged_into" { "incident_merged_into_closes" } else { "incident_state_transition" };
        assert_eq!(database.refused(&sql).await, violates(rule), "{column} {value}");
    }
    let id = insert(&database).await;
    let fresh = "state || version || (created_at = updated_at) || opened_by_alert || incident_type";
    assert_eq!(text(&database, id, fresh).await.as_deref(), Some("DETECTED1truefalseUNKNOWN"));
}

#[tokio::test]
async fn id_and_source_never_change() {
    let database = TestDatabase::new().await;
    let id = insert(&database).await;
    for change in ["id = gen_random_uuid()", "source = 'elsewhere'"] {
        assert_eq!(update_refused(&database, id, change).await, violates("incident_source_fixed"), "{change}");
    }
}

#[tokio::test]
async fn what_the_database_keeps_cannot_be_forged() {
    let database = TestDatabase::new().await;
    let forged = "created_at = '2000-01-01', updated_at = '2000-01-01', acknowledged_at = '2000-01-01',
         resolved_at = '2000-01-01', closed_at = '2000-01-01', opened_by_alert = true, version = 40,
         description_version = 40";
    for state in ["DETECTED", "TRIAGED", "RESOLVED"] {
        let id = incident_in(&database, state).await;
        let (before, heard) = (row(&database, id).await, events(&database).await);
        update(&database, id, forged).await;
        assert_eq!(row(&database, id).await, before, "{state}");
        assert_eq!(events(&database).await, heard, "what changes nothing is no event");
        let version = text(&database, id, "version + 1").await;
        update(&database, id, &format!("title = 'changed', {forged}")).await;
        assert_eq!(text(&database, id, "version").await, version);
        let kept = "created_at > '2001-01-01' and updated_at > '2001-01-01' and not opened_by_alert
             and coalesce(acknowledged_at, 'infinity') > '2001-01-01' and coalesce(resolved_at, 'infinity') > '2001-01-01'
             and closed_at is null and description_version = 1";
        assert_eq!(text(&database, id, kept).await.as_deref(), Some("true"), "{state}");
    }
}

#[tokio::test]
async fn each_change_is_one_version_and_none_is_none() {
    let database = TestDatabase::new().await;
    let id = insert(&database).await;
    let changes = [
        "title = 'x'",
        "description = 'x'",
        "severity = 'P0'",
        "incident_type = 'DATA'",
        "assigned_to = 'x'",
        "assigned_to = null",
        "affected_resources = '{x}'",
        "labels = '{\"x\": \"y\"}'",
        "metadata = '{\"x\": 1}'",
        "resolution = 'x'",
        "root_cause = 'x'",
        "fingerprint = 'x'",
        "title = 'y', severity = 'P1', state = 'REMEDIATING', labels = '{}'",
    ];
    for (version, change) in (2..).zip(changes) {
        update(&database, id, change).await;
        assert_eq!(text(&database, id, "version").await, Some(format!("{version}")), "{change}");
        let (before, heard) = (row(&database, id).await, events(&database).await);
        update(&database, id, change).await;
        assert_eq!(row(&database, id).await, before, "{change}, again");
        assert_eq!(events(&database).await, heard, "{change}, again");
    }
    assert_eq!(text(&database, id, "description_version").await.as_deref(), Some("3"));
    assert_eq!(events(&database).await, 1 + i64::try_from(changes.len()).unwrap());
}

#[tokio::test]
async fn one_active_incident_of_a_source_has_a_fingerprint() {
    let database = TestDatabase::new().await;
    let insert = |source: &str| {
        format!(
            "insert into incident_manager.incident (title, severity, source, fingerprint) values ('t', 'P2', '{source}', 'f') returning id"
        )
    };
    let taken = || ("23505".to_owned(), "incident_active_fingerprint".to_owned());
    let first: Uuid = database.scalar(&insert("a")).await;
    let _elsewhere: Uuid = database.scalar(&insert("b")).await;
    assert_eq!(database.refused(&insert("a")).await, taken());
    update(&database, first, "state = 'RESOLVED'").await;
    let second: Uuid = database.scalar(&insert("a")).await;
    let reopened = update_refused(&database, first, "state = 'INVESTIGATING'").await;
    assert_eq!(reopened, taken(), "reopening makes it active");
    update(&database, second, "fingerprint = null").await;
    update(&database, first, "state = 'INVESTIGATING'").await;
    assert_eq!(update_refused(&database, second, "fingerprint = 'f'").await, taken());
}

#[tokio::test]
async fn a_comment_stays_as_it_was_said() {
    let database = TestDatabase::new().await;
    let id = insert(&database).await;
    let comment: Uuid = database
        .scalar(&format!("insert into incident_manager.comment (incident_id, body) values ('{id}', 'b') returning id"))
        .await;
    for change in ["body = 'c'", "author = 'c'", "created_at = '2000-01-01'", "id = gen_random_uuid()"] {
        let sql = format!("update incident_manager.comment set {change} where id = '{comment}'");
        assert_eq!(database.refused(&sql).await, ("0A000".into(), "comment_is_fixed".into()), "{change}");
    }
    database.execute("update incident_manager.comment set body = body").await;
    let author: String = database.scalar("select author from incident_manager.comment").await;
    assert_eq!(author, "postgres", "the writer's role, where it says nothing else");
}

#[tokio::test]
async fn nothing_is_deleted_that_no_subscriber_would_hear_of() {
    let database = TestDatabase::new().await;
    for state in ["DETECTED", "CLOSED"] {
        let id = incident_in(&database, state).await;
        database
            .execute(&format!("insert into incident_manager.comment (incident_id, body) values ('{id}', 'b')"))
            .await;
    }
    database.execute("insert into incident_manager.alert (source, title, severity) values ('s', 't', 'P3')").await;
    for table in ["incident", "comment", "alert"] {
        let before = database.count(table).await;
        assert!(before > 0);
        for sql in
            [format!("delete from incident_manager.{table}"), format!("truncate incident_manager.{table} cascade")]
        {
            assert_eq!(database.refused(&sql).await, ("0A000".into(), "delete_is_refused".into()), "{sql}");
        }
        assert_eq!(database.count(table).await, before);
    }
}
