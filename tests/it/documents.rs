//! What the documents tell people to type does what they say.

use std::collections::HashSet;
use std::path::Path;

use incident_manager::config::{self, DatabaseUrl, Stop, settings_table};
use incident_manager::telemetry::metric;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::process::Command;

use crate::support::Service;
use crate::support::document::{self, Document, statements};
use crate::support::roles::Tenancy;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs all SQL of a document as the roles that it is for, in order.
pub async fn write(tenancy: &Tenancy, document: &Document) {
    for sql in document.sql().into_iter().filter(|sql| sql.role != "administrator") {
        let mut connection = tenancy.connect(sql.role).await;
        for statement in statements(sql.text) {
            let run = connection.execute(AssertSqlSafe(statement.to_owned())).await;
            run.unwrap_or_else(|error| panic!("{}: {statement}: {error}", document.path));
        }
    }
}

/// Where the service of the documents is.
const BASES: [&str; 2] = ["http://127.0.0.1:8080", "https://incidents.example:8443"];

/// Sends what a call of curl sends.
pub async fn curl(service: &Service, call: &str) -> Response {
    let url = call
        .split_whitespace()
        .find_map(|word| BASES.iter().find_map(|base| word.trim_matches('\'').strip_prefix(base)))
        .expect(call);
    let quoted = |flag: &str| {
        let values = call.split(flag).skip(1).map(|rest| {
            let quote = rest.trim_start().chars().next().filter(|quote| "'\"".contains(*quote)).expect("a quote");
            rest.trim_start().split(quote).nth(1).expect("a quoted value")
        });
        values.collect::<Vec<_>>()
    };
    let mut request = match quoted(" -d ").first() {
        Some(data) => service.http().post(service.url(url)).body((*data).to_owned()),
        None => service.http().get(service.url(url)),
    };
    for header in quoted(" -H ") {
        let (name, value) = header.split_once(": ").expect("a header");
        // what the shell would put there is the service's own
        request = if value.contains('$') { request } else { request.header(name, value) };
    }
    request.send().await.unwrap()
}

/// The service with the documented roles and grants.
pub async fn start() -> (Tenancy, Service) {
    let tenancy = Tenancy::installed().await;
    let service = Service::start(&DatabaseUrl::from(tenancy.url("service"))).await;
    (tenancy, service)
}

fn operations(document: &Document) -> (Vec<&'static str>, Vec<&'static str>) {
    document.blocks("graphql").into_iter().partition(|operation| operation.starts_with("subscription"))
}

/// The first root field of an operation.
fn root_field(operation: &'static str) -> &'static str {
    let (_, fields) = operation.split_once('{').expect("a selection");
    fields.trim_start().split(|next: char| !next.is_ascii_alphanumeric()).next().expect("a field")
}

/// Values for what operations declare: incidents of their own, in their first version.
async fn variables(service: &Service, operation: &str) -> Value {
    let mut variables = json!({ "version": 1 });
    for name in ["id", "a", "b"].into_iter().filter(|name| operation.contains(&format!("${name}:"))) {
        let create = "mutation { createIncident(input: { title: \"t\", severity: P2, source: \"s\" }) { id } }";
        variables[name] = service.data(create, json!({})).await["createIncident"]["id"].take();
    }
    variables
}

#[test]
fn every_document_is_known() {
    let known: HashSet<_> = document::ALL.iter().map(|document| document.path.to_owned()).collect();
    for folder in ["", "docs/"] {
        for entry in std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = format!("{folder}{}", entry.unwrap().file_name().into_string().unwrap());
            let is_document = Path::new(&path).extension().is_some_and(|extension| extension == "md");
            let is_known = known.contains(&path) || path == "CHANGELOG.md";
            assert!(!is_document || is_known, "tests/it/support/document.rs does not name {path}");
        }
    }
}

#[tokio::test]
async fn what_documents_write_by_sql_is_taken_and_what_they_say_is_refused_is_refused() {
    for document in document::ALL.iter().filter(|document| !document.blocks("sql").is_empty()) {
        let tenancy = Tenancy::installed().await;
        write(&tenancy, document).await;
        for refused in document.refused() {
            let (code, constraint) = tenancy.database().refused(refused.statement).await;
            match refused.by {
                Some(by) => assert_eq!((&*code, &*constraint), by, "{}: {}", document.path, refused.statement),
                // to a superuser: by a rule (integrity constraint violation, feature not supported), not for want of a right
                None => assert!(code.starts_with("23") || code == "0A000", "{}: {code}", refused.statement),
            }
        }
    }
}

#[tokio::test]
async fn the_documents_operations_are_answered_and_their_subscriptions_hear() {
    for document in document::ALL.iter().filter(|document| !document.blocks("graphql").is_empty()) {
        let (tenancy, service) = start().await;
        let (subscriptions, operations) = operations(document);
        let mut sockets = Vec::new();
        for subscription in subscriptions {
            sockets.push((root_field(subscription), service.subscribe(subscription).await));
        }
        write(&tenancy, document).await;
        for operation in operations {
            let data = service.data(operation, variables(&service, operation).await).await;
            assert!(data.as_object().expect("an object").values().all(|field| !field.is_null()), "{operation}: {data}");
        }
        for (field, socket) in &mut sockets {
            assert!(socket.next(field).await.is_object(), "{}: {field}", document.path);
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn the_documents_calls_of_curl_are_answered() {
    let (_tenancy, service) = start().await;
    let mut calls = 0;
    for document in document::ALL {
        for call in document.commands().into_iter().filter(|command| command.starts_with("curl ")) {
            let response = curl(&service, &call).await;
            assert!(response.status().is_success(), "{}: {call}: {}", document.path, response.status());
            if response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream") {
                continue;
            }
            let answer: Value = response.json().await.unwrap();
            assert!(answer.get("errors").is_none(), "{}: {call}: {answer}", document.path);
            calls += 1;
        }
    }
    assert!(calls > 0);
    service.stop().await;
}

#[tokio::test]
async fn the_document_on_rest_has_every_route() {
    let (_tenancy, service) = start().await;
    let (_, described) = service.rest(reqwest::Method::GET, "/openapi.json", Value::Null).await;
    let routes = described["paths"].as_object().unwrap().iter().flat_map(|(path, operations)| {
        operations.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    let described: HashSet<String> = routes.filter(|route| route.contains("/v1/")).collect();
    let rows = document::REST.text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let named: HashSet<String> =
        rows.map(|(route, _)| route.to_owned()).filter(|route| route.contains("/v1/")).collect();
    assert_eq!(named, described);
    service.stop().await;
}

#[tokio::test]
async fn the_steps_of_deployment_lead_to_a_service() {
    let tenancy = Tenancy::new().await;
    let program = |subcommand: &'static str, role: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_incident-manager"));
        command.arg(subcommand).env_clear().env("DATABASE_URL", tenancy.url(role)).kill_on_drop(true);
        command
    };
    let migrated = program("migrate", "owner").output().await.unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    tenancy.grant().await;
    let refused = program("migrate", "writer").output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1), "a writer may not migrate");
    let service = Service::start(&DatabaseUrl::from(tenancy.url("service"))).await;
    service.stop().await;
}

#[tokio::test]
async fn the_steps_of_security_lead_to_a_key_for_two_sources() {
    let tenancy = Tenancy::installed().await;
    let url = DatabaseUrl::from(tenancy.url("service"));
    let commands = document::SECURITY.commands();
    let create = commands.iter().find(|command| command.contains(" api-key create ")).expect("a first key");
    let mut program = Command::new(env!("CARGO_BIN_EXE_incident-manager"));
    let program = program.args(create.split_whitespace().skip(1)).env_clear().env("DATABASE_URL", url.expose());
    let made = program.output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let first = String::from_utf8(made.stdout).unwrap();

    let service = Service::start_with(&url, &["--auth", "required"]).await.bearing(first.trim_end());
    service.ready().await;
    let create = commands.iter().find(|command| command.starts_with("curl ")).expect("another key");
    let made: Value = curl(&service, create).await.json().await.unwrap();
    let key = made["data"]["createApiKey"]["secret"].as_str().unwrap_or_else(|| panic!("{made}"));
    let service = service.bearing(key);
    let mut heard = service.subscribe("subscription { newIncidents { source } }").await;
    let mut writer = tenancy.connect("writer").await;
    for source in ["elsewhere", "prometheus", "elsewhere", "cron"] {
        let insert = "insert into incident_manager.incident (title, severity, source) values ('t', 'P3', $1)";
        sqlx::query(insert).bind(source).execute(&mut writer).await.unwrap();
    }
    for source in ["prometheus", "cron"] {
        assert_eq!(heard.next("newIncidents").await["source"], source);
    }
    let (status, _) = service.rest(Method::POST, "/v1/incidents", json!({})).await;
    assert_eq!(status, 403, "it changes nothing");
    service.stop().await;
}

/// Flags that the documents name and that are other programs'.
const FOREIGN_FLAGS: [&str; 5] = ["--help", "--data-only", "--no-owner", "--no-acl", "--all-targets"];
/// Variables that are no settings of the program.
const FOREIGN_VARIABLES: [&str; 1] = ["INCIDENT_MANAGER_TEST_SERVER"];

/// The words that begin with `start` and go on with these characters.
fn words<'t>(text: &'t str, start: &str, goes_on: impl Fn(char) -> bool) -> Vec<&'t str> {
    let found = text.match_indices(start).map(|(at, _)| &text[at..]);
    found
        .map(|rest| {
            &rest[..start.len() + rest[start.len()..].find(|c| !goes_on(c)).unwrap_or(rest.len() - start.len())]
        })
        .collect()
}

#[test]
fn the_settings_that_documents_and_deployment_files_name_are_settings() {
    let table = settings_table();
    let files = ["Dockerfile", "docker-compose.yml", "deploy/incident-manager.service"];
    let files = files.map(|path| (path, std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()));
    let documents = document::ALL.iter().map(|document| (document.path, document.text));
    for (path, text) in documents.chain(files.iter().map(|(path, text)| (*path, text.as_str()))) {
        for name in words(text, "INCIDENT_MANAGER_", |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            let known = table.contains(&format!("`{name}`")) || FOREIGN_VARIABLES.contains(&name);
            assert!(known, "{path}: there is no setting {name}");
        }
        for flag in words(text, "`--", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            let known = table.contains(&format!("{flag}`")) || FOREIGN_FLAGS.contains(&&flag[1..]);
            assert!(known, "{path}: there is no setting {flag}");
        }
    }
    for name in words(document::DEPLOYMENT.text, "| `incident_manager_", |c| c.is_ascii_lowercase() || c == '_') {
        assert!(metric::ALL.iter().any(|(metric, _)| *metric == &name[3..]), "there is no metric {name}");
    }
}

#[test]
fn the_commands_that_documents_name_are_commands() {
    for document in document::ALL {
        for command in document.commands() {
            let mut rest = command.as_str();
            let mut variables = Vec::new();
            // VAR=value before a command
            while let Some((variable, after)) = rest.split_once(' ').filter(|(word, _)| word.contains('=')) {
                variables.push(variable.split_once('=').expect("filtered"));
                rest = after.trim_start();
            }
            let words: Vec<_> = rest.split(" | ").next().unwrap_or_default().split_whitespace().collect();
            let path = document.path;
            match words[..] {
                [program, ref args @ ..] if program.ends_with("incident-manager") => {
                    let env =
                        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
                    let parsed = config::parse(args.iter().map(Into::into), env);
                    assert!(matches!(parsed, Ok(_) | Err(Stop::Shown(_))), "{path}: {command}: {parsed:?}");
                }
                [program, ..] => {
                    assert!(program.starts_with("script/") || KNOWN.contains(&program), "{path}: {command}");
                }
                [] => {}
            }
            let ours = ["docs/", "deploy/", "script/", "tests/"];
            for file in words.iter().filter(|word| ours.iter().any(|folder| word.starts_with(folder))) {
                assert!(Path::new(ROOT).join(file).exists(), "{path}: {command}: there is no {file}");
            }
            for flag in ["--test", "--bench"] {
                let named = words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
                let target = |name: &str| ["benches", "tests"].iter().any(|folder| is_target(folder, name));
                assert!(named.is_none_or(target), "{path}: {command}");
            }
        }
    }
}

/// Programs of others that the documents call.
const KNOWN: [&str; 13] = [
    "cargo",
    "curl",
    "docker",
    "echo",
    "export",
    "npm",
    "openssl",
    "pg_dump",
    "pg_restore",
    "psql",
    "sqlx",
    "sudo",
    "ariadne-codegen",
];

fn is_target(folder: &str, name: &str) -> bool {
    ["", ".rs"].iter().any(|ending| Path::new(ROOT).join(folder).join(format!("{name}{ending}")).exists())
}

#[test]
fn the_documents_links_lead_somewhere() {
    for document in document::ALL {
        let folder = Path::new(document.path).parent().unwrap();
        for link in document.text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { Path::new(document.path).to_owned() } else { folder.join(file) };
            let target = Path::new(ROOT).join(file);
            assert!(target.exists(), "{}: {link}", document.path);
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(headings.into_iter().any(|heading| heading == anchor), "{}: {link}", document.path);
            }
        }
    }
}

/// As GitHub makes it of a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn the_documents_json_is_json() {
    for document in document::ALL {
        for block in document.blocks("json") {
            serde_json::from_str::<Value>(block).unwrap_or_else(|error| panic!("{}: {error}: {block}", document.path));
        }
    }
}
