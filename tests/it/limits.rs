//! The limits of every column that a writer fills, by the name of the constraint that refuses what is beyond.

use crate::support::TestDatabase;

const TEXT_64K: &str = "repeat('é', 32768)";
const TEXT_64K_AND_1: &str = "repeat('é', 32768) || 'x'";
/// As jsonb prints it, `{"k": "…"}`, and as json, `["…"]`: 16 KiB exactly, or more.
const MAP_16K: &str = "jsonb_build_object('k', repeat('x', 16384 - 9))";
const MAP_16K_AND_1: &str = "jsonb_build_object('k', repeat('x', 16384 - 8))";
const LIST_16K: &str = "array[repeat('x', 16384 - 4)]";
const LIST_16K_AND_1: &str = "array[repeat('x', 16384 - 3)]";

/// Column, what just fits, what does not, and who says so.
type Limit = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

const NAME_200: (&[&str], &[&str]) = (&["repeat('é', 200)", "'x'"], &["repeat('é', 201)", "''"]);
const NAME_500: (&[&str], &[&str]) = (&["repeat('é', 500)", "'x'"], &["repeat('é', 501)", "''"]);
const STRINGS: (&[&str], &[&str]) = (
    &[MAP_16K, "'{}'"],
    &[
        MAP_16K_AND_1,
        "'{\"a\": 1}'",
        "'{\"a\": 1e400}'",
        "'{\"a\": null}'",
        "'{\"a\": [\"b\"]}'",
        "'[]'",
        "'[\"a\"]'",
        "'\"a\"'",
        "'null'",
    ],
);
const LISTS: (&[&str], &[&str]) =
    (&[LIST_16K, "'{}'", "'{\"\"}'"], &[LIST_16K_AND_1, "array['a', null]", "'{{a},{b}}'", "'[0:1]={a,b}'"]);
const INSTANTS: (&[&str], &[&str]) = (
    &["'0001-01-01 00:00Z'", "'9999-12-31 23:59Z'"],
    &["'infinity'", "'-infinity'", "'10000-01-01 00:00Z'", "'0001-01-01 BC'"],
);

const INCIDENT: [Limit; 16] = [
    ("title", NAME_500.0, NAME_500.1, "incident_title_length"),
    ("description", &[TEXT_64K, "''"], &[TEXT_64K_AND_1], "incident_description_size"),
    ("severity", &["'P0'", "'P4'"], &["'P5'", "'p0'", "''"], "incident_severity_name"),
    ("incident_type", &["'MODEL_DRIFT'"], &["'model_drift'", "''"], "incident_incident_type_name"),
    ("source", NAME_200.0, NAME_200.1, "incident_source_length"),
    ("assigned_to", NAME_200.0, NAME_200.1, "incident_assigned_to_length"),
    ("affected_resources", LISTS.0, LISTS.1, "incident_affected_resources_size"),
    ("labels", STRINGS.0, STRINGS.1, "incident_labels_size"),
    (
        "metadata",
        &[MAP_16K, "'{\"a\": {\"b\": [1, null]}}'"],
        &[MAP_16K_AND_1, "'[]'", "'1'", "'null'"],
        "incident_metadata_size",
    ),
    (
        "metadata",
        &[r#"('{"a":' || repeat('[', 31) || repeat(']', 31) || '}')::jsonb"#],
        &[
            r#"('{"a":' || repeat('[', 32) || repeat(']', 32) || '}')::jsonb"#,
            r#"(repeat('{"a":', 127) || '{}' || repeat('}', 127))::jsonb"#,
            r#"('{"a":' || repeat('[', 5000) || repeat(']', 5000) || '}')::jsonb"#,
        ],
        "incident_metadata_depth",
    ),
    (
        "metadata",
        &[r#"'{"a": 1.7976931348623157e308, "b": [-1.7976931348623157e308, 1e-400, "1e400"]}'"#],
        &[r#"'{"a": 1e400}'"#, r#"'{"a": [{"b": -1e309}]}'"#],
        "incident_metadata_range",
    ),
    ("resolution", &[TEXT_64K, "''"], &[TEXT_64K_AND_1], "incident_resolution_size"),
    ("root_cause", &[TEXT_64K, "''"], &[TEXT_64K_AND_1], "incident_root_cause_size"),
    ("fingerprint", NAME_200.0, NAME_200.1, "incident_fingerprint_length"),
    ("created_at", INSTANTS.0, INSTANTS.1, "incident_created_at_range"),
    ("updated_at", INSTANTS.0, INSTANTS.1, "incident_updated_at_range"),
];

const COMMENT: [Limit; 3] = [
    ("author", NAME_200.0, NAME_200.1, "comment_author_length"),
    ("body", &[TEXT_64K, "'x'"], &[TEXT_64K_AND_1, "''"], "comment_body_size"),
    ("created_at", INSTANTS.0, INSTANTS.1, "comment_created_at_range"),
];

const ALERT: [Limit; 11] = [
    ("external_id", NAME_500.0, NAME_500.1, "alert_external_id_length"),
    ("source", NAME_200.0, NAME_200.1, "alert_source_length"),
    ("title", NAME_500.0, NAME_500.1, "alert_title_length"),
    ("description", &[TEXT_64K, "''"], &[TEXT_64K_AND_1], "alert_description_size"),
    ("severity", &["'P0'", "'P4'"], &["'P5'", "''"], "alert_severity_name"),
    ("alert_type", &["'CONTENT_SAFETY'"], &["'OTHER'", "''"], "alert_alert_type_name"),
    ("labels", STRINGS.0, STRINGS.1, "alert_labels_size"),
    ("annotations", STRINGS.0, STRINGS.1, "alert_annotations_size"),
    ("affected_services", LISTS.0, LISTS.1, "alert_affected_services_size"),
    ("runbook_url", &["repeat('x', 2000)", "'x'"], &["repeat('x', 2001)", "''"], "alert_runbook_url_length"),
    ("fingerprint", NAME_200.0, NAME_200.1, "alert_fingerprint_length"),
];

/// The statement that inserts a row with this value, and what else a row needs.
fn insert(table: &str, needed: &[(&str, &str)], column: &str, value: &str) -> String {
    let (mut columns, mut values) = (vec![column], vec![value]);
    for (name, default) in needed {
        if *name != column {
            columns.push(name);
            values.push(default);
        }
    }
    format!("insert into incident_manager.{table} ({}) values ({})", columns.join(", "), values.join(", "))
}

async fn check(database: &TestDatabase, statement: impl Fn(&str, &str) -> String, limits: &[Limit]) {
    for (column, fit, refused, constraint) in limits {
        for value in *fit {
            database.execute(&statement(column, value)).await;
        }
        for value in *refused {
            let (state, name) = database.refused(&statement(column, value)).await;
            assert_eq!((&*state, &*name), ("23514", *constraint), "{column} = {value}");
        }
    }
}

#[tokio::test]
async fn an_incident_keeps_its_limits_when_it_is_made() {
    let database = TestDatabase::new().await;
    let needed = [("title", "'t'"), ("severity", "'P3'"), ("source", "gen_random_uuid()")];
    check(&database, |column, value| insert("incident", &needed, column, value), &INCIDENT).await;
}

#[tokio::test]
async fn an_incident_keeps_its_limits_when_it_changes() {
    let database = TestDatabase::new().await;
    database.execute("insert into incident_manager.incident (title, severity, source) values ('t', 'P3', 's')").await;
    let changing: Vec<_> =
        INCIDENT.into_iter().filter(|(column, ..)| !["source", "created_at", "updated_at"].contains(column)).collect();
    check(&database, |column, value| format!("update incident_manager.incident set {column} = {value}"), &changing)
        .await;
}

#[tokio::test]
async fn a_comment_keeps_its_limits() {
    let database = TestDatabase::new().await;
    database.execute("insert into incident_manager.incident (title, severity, source) values ('t', 'P3', 's')").await;
    let needed = [("incident_id", "(select id from incident_manager.incident)"), ("body", "'b'")];
    check(&database, |column, value| insert("comment", &needed, column, value), &COMMENT).await;
}

#[tokio::test]
async fn an_alert_keeps_its_limits_and_opens_nothing_beyond_them() {
    let database = TestDatabase::new().await;
    let needed = [("source", "gen_random_uuid()"), ("title", "'t'"), ("severity", "'P3'")];
    check(&database, |column, value| insert("alert", &needed, column, value), &ALERT).await;
    let alone: i64 = database
        .scalar("select count(*) from incident_manager.incident i where not exists (select 1 from incident_manager.alert a where a.incident_id = i.id)")
        .await;
    assert_eq!(alone, 0);
}

#[tokio::test]
async fn a_submitted_alert_keeps_the_same_limits() {
    let database = TestDatabase::new().await;
    let needed = [("source", "gen_random_uuid()"), ("title", "'t'"), ("severity", "'P3'")];
    let submit = |column: &str, value: &str| {
        // a literal takes the column's type, as an insert would give it
        let kind = match column {
            "labels" | "annotations" => "jsonb",
            "affected_services" => "text[]",
            _ => "text",
        };
        let mut members = vec![format!("'{column}', ({value})::{kind}")];
        members.extend(
            needed.iter().filter(|(name, _)| *name != column).map(|(name, value)| format!("'{name}', ({value})::text")),
        );
        format!(
            "select count(*) from incident_manager.submit_alerts(jsonb_build_array(jsonb_build_object({})))",
            members.join(", ")
        )
    };
    // what is null in JSON is not given, and the arrays of JSON all begin at the same place
    let submittable: Vec<_> = ALERT
        .into_iter()
        .filter(|(column, ..)| !["labels", "annotations", "affected_services"].contains(column))
        .chain([("affected_services", LISTS.0, &LISTS.1[..3], "alert_affected_services_size")])
        .collect();
    check(&database, submit, &submittable).await;
    for (column, constraint) in [("labels", "alert_labels_size"), ("annotations", "alert_annotations_size")] {
        database.execute(&submit(column, MAP_16K)).await;
        for value in [MAP_16K_AND_1, "'{\"a\": 1}'", "'[]'"] {
            let (state, name) = database.refused(&submit(column, value)).await;
            assert_eq!((&*state, &*name), ("23514", constraint), "{column} = {value}");
        }
    }
}

#[tokio::test]
async fn a_playbook_keeps_its_limits() {
    let database = TestDatabase::new().await;
    let names: (&[&str], &[&str]) = (&["'{}'", "'{P0,P1}'"], &["'{P9}'", "'{{P0},{P1}}'", "'[0:0]={P0}'", "'{null}'"]);
    let kinds: (&[&str], &[&str]) = (&["'{}'", "'{DATA}'"], &["'{X}'", "'{{DATA}}'", "'[2:2]={DATA}'", "'{null}'"]);
    let limits = [
        ("name", &["repeat('é', 200)", "'x'"] as &[_], &["repeat('é', 201)", "''"] as &[_], "playbook_name_length"),
        ("description", &[TEXT_64K, "''"], &[TEXT_64K_AND_1], "playbook_description_size"),
        ("severities", names.0, names.1, "playbook_severities_name"),
        ("incident_types", kinds.0, kinds.1, "playbook_incident_types_name"),
        ("sources", LISTS.0, LISTS.1, "playbook_sources_size"),
        ("created_at", INSTANTS.0, INSTANTS.1, "playbook_created_at_range"),
    ];
    let needed = [("name", "'n'"), ("steps", r#"'[{"title": "Look", "instructions": ""}]'"#)];
    check(&database, |column, value| insert("playbook", &needed, column, value), &limits).await;
}

/// What PostgreSQL takes for no JSON and no text reaches no limit of ours.
#[tokio::test]
async fn characters_that_no_text_holds_are_refused_everywhere() {
    let database = TestDatabase::new().await;
    for (table, column) in
        [("incident", "labels"), ("incident", "metadata"), ("alert", "labels"), ("alert", "annotations")]
    {
        for (text, state) in
            [(r"\u0000", "22P05"), (r"\ud800", "22P02"), (r"\udc00", "22P02"), (r"\ud800\ud800", "22P02")]
        {
            for json in [format!(r#"{{"a": "{text}"}}"#), format!(r#"{{"{text}": "a"}}"#)] {
                let needed = [("source", "'s'"), ("title", "'t'"), ("severity", "'P3'")];
                let refused = database.refused(&insert(table, &needed, column, &format!("'{json}'"))).await;
                assert_eq!(refused.0, state, "{table}.{column} = {json}");
            }
        }
    }
    assert_eq!(database.stored().await, 0);
}
