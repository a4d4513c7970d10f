//! API keys: made, shown, used and revoked, over GraphQL and by the program itself; never beyond who makes them.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::support::access::{now, start_required, token};
use crate::support::statements::Statements;
use crate::support::{Process, Service, TestDatabase, eventually};

const CREATE: &str =
    "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { id name secret expiresAt } }";
const LIST: &str = "{ apiKeys { id name prefix permissions sources createdAt expiresAt revokedAt lastUsedAt } }";

async fn start() -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &[]).await;
    (database, service)
}

async fn create(service: &Service, input: Value) -> Value {
    service.data(CREATE, json!({ "input": input })).await["createApiKey"].take()
}

/// The code and the field of the error that making such a key gets.
async fn refused(service: &Service, input: Value) -> (String, String) {
    let error = service.error(CREATE, json!({ "input": input })).await;
    let text = |name: &str| error["extensions"][name].as_str().unwrap_or_default().to_owned();
    (text("code"), text("field"))
}

async fn revoke(service: &Service, key: &Value) -> Value {
    service.graphql("mutation($id: UUID!) { revokeApiKey(id: $id) }", json!({ "id": key["id"] })).await
}

async fn names(service: &Service) -> Vec<String> {
    let keys = service.data(LIST, json!({})).await["apiKeys"].take();
    keys.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
}

/// The answer to the bearer of a key: its status, and what the challenge says.
async fn tried(service: &Service, key: &str) -> (u16, String) {
    let request = service.http().get(service.url("/graphql?query=%7Bviewer%7Bsubject%7D%7D"));
    let response = request.header(AUTHORIZATION, format!("Bearer {key}")).send().await.unwrap();
    let challenge = response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), challenge.unwrap_or_default())
}

#[tokio::test]
async fn a_key_is_shown_once_and_lets_in_until_it_is_revoked() {
    let (database, service) = start().await;
    let input = json!({ "name": "dashboard", "permissions": ["incidents.read", "keys.manage"], "sources": ["cron"] });
    let made = create(&service, input).await;
    let secret = made["secret"].as_str().unwrap();
    let stored: String = database.scalar("select k::text from incident_manager.api_key k").await;
    assert!(!stored.contains(&secret[16..]), "only a hash is stored");

    let as_key = start_beside(&database).await.bearing(secret);
    let viewer = as_key.data("{ viewer { subject permissions sources expiresAt } }", json!({})).await;
    assert_eq!(
        viewer["viewer"],
        json!({ "subject": "api-key:dashboard", "permissions": ["incidents.read", "keys.manage"], "sources": ["cron"], "expiresAt": made["expiresAt"] })
    );
    let listed = service.data(LIST, json!({})).await["apiKeys"][0].take();
    assert_eq!(
        (&listed["id"], &listed["name"], &listed["prefix"]),
        (&made["id"], &json!("dashboard"), &json!(&secret[..15]))
    );
    assert_eq!((&listed["revokedAt"], &listed["sources"]), (&Value::Null, &json!(["cron"])));
    eventually("its use is noted", || async {
        !service.data(LIST, json!({})).await["apiKeys"][0]["lastUsedAt"].is_null()
    })
    .await;

    assert_eq!(revoke(&service, &made).await["data"]["revokeApiKey"], true);
    let (status, challenge) = tried(&service, secret).await;
    assert_eq!(status, 401, "where it was revoked, at once");
    assert!(challenge.contains("the API key has been revoked"), "{challenge}");
    eventually("other replicas see it", || async { tried(&as_key, secret).await.0 == 401 }).await;
    assert_eq!(revoke(&service, &made).await["data"]["revokeApiKey"], false, "it was before");
    assert!(!service.data(LIST, json!({})).await["apiKeys"][0]["revokedAt"].is_null());
    service.stop().await;
}

/// Another replica.
async fn start_beside(database: &TestDatabase) -> Service {
    let service = Service::start_with(&database.database_url(), &["--auth", "required"]).await;
    service.ready().await;
    service
}

#[tokio::test]
async fn a_wrong_key_is_no_key() {
    let (_database, service) = start().await;
    let made = create(&service, json!({ "name": "k", "permissions": ["incidents.read"] })).await;
    let secret = made["secret"].as_str().unwrap();
    assert_eq!(tried(&service, secret).await.0, 200);
    let last = if secret.ends_with('0') { "1" } else { "0" };
    let same_prefix = format!("{}{last}", &secret[..secret.len() - 1]);
    let unknown = format!("im_{}{}", "0".repeat(12), &secret[15..]);
    for wrong in [same_prefix, unknown] {
        let (status, challenge) = tried(&service, &wrong).await;
        assert_eq!(status, 401);
        assert!(challenge.contains("the API key is unknown"), "the prefix alone tells nobody anything: {challenge}");
    }
    assert_eq!(tried(&service, secret).await.0, 200);
    service.stop().await;
}

#[tokio::test]
async fn a_key_expires() {
    let (_database, service) = start().await;
    let at = chrono::DateTime::from_timestamp(now() + 2, 0).unwrap().to_rfc3339();
    let made = create(&service, json!({ "name": "k", "permissions": ["incidents.read"], "expiresAt": at })).await;
    let secret = made["secret"].as_str().unwrap();
    eventually("it has expired", || async { tried(&service, secret).await.1.contains("the API key has expired") })
        .await;
    service.stop().await;
}

#[tokio::test]
async fn nobody_gives_on_or_takes_away_more_than_they_have() {
    let (database, service) = start().await;
    create(&service, json!({ "name": "of everything", "permissions": ["incidents.read"] })).await;
    let of_b = json!({ "name": "of b", "permissions": ["incidents.read"], "sources": ["b"] });
    let of_b = create(&service, of_b).await;
    let writes = json!({ "name": "writes", "permissions": ["incidents.write"], "sources": ["a"] });
    let writes = create(&service, writes).await;

    let expiry = now() + 600;
    let claims = json!({ "permissions": ["incidents.read", "keys.manage"], "sources": ["a", "c"], "exp": expiry });
    let limited = start_required(&database.database_url(), &[]).await.bearing(&token(claims));
    let at = |seconds: i64| chrono::DateTime::from_timestamp(seconds, 0).unwrap().to_rfc3339();
    let input = |change: Value| {
        let mut input =
            json!({ "name": "k", "permissions": ["incidents.read"], "sources": ["a"], "expiresAt": at(expiry) });
        for (name, value) in change.as_object().unwrap() {
            input[name] = value.clone();
        }
        input
    };
    for beyond in [
        json!({ "permissions": ["incidents.write"] }),
        json!({ "permissions": ["incidents.read", "alerts.read"] }),
        json!({ "sources": null }),
        json!({ "sources": ["a", "b"] }),
        json!({ "expiresAt": at(expiry + 1) }),
    ] {
        assert_eq!(refused(&limited, input(beyond.clone())).await.0, "FORBIDDEN", "{beyond}");
    }
    let own = create(&limited, input(json!({ "expiresAt": null }))).await;
    assert_eq!(
        own["expiresAt"].as_str().map(|at| at[..19].to_owned()),
        Some(at(expiry)[..19].to_owned()),
        "its maker's"
    );
    assert_eq!(names(&limited).await, ["k"]);
    assert_eq!(names(&service).await, ["k", "writes", "of b", "of everything"]);
    for beyond in [&of_b, &writes] {
        let answer = revoke(&limited, beyond).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], "NOT_FOUND", "{answer}");
    }
    assert_eq!(revoke(&limited, &own).await["data"]["revokeApiKey"], true);
    let nobody = limited.bearing(&token(json!({ "roles": ["responder"] })));
    for query in [LIST, "mutation { revokeApiKey(id: \"00000000-0000-0000-0000-000000000000\") }"] {
        assert_eq!(nobody.error(query, json!({})).await["extensions"]["code"], "FORBIDDEN");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_makes_no_key_is_refused_by_its_field() {
    let (database, service) = start().await;
    for (input, field) in [
        (json!({ "name": "", "permissions": ["incidents.read"] }), "name"),
        (json!({ "name": "x".repeat(181), "permissions": ["incidents.read"] }), "name"),
        (json!({ "name": "k", "permissions": [] }), "permissions"),
        (json!({ "name": "k", "permissions": ["incidents.delete"] }), "permissions"),
        (json!({ "name": "k", "permissions": ["incidents.read"], "sources": ["x".repeat(20_000)] }), "sources"),
        (json!({ "name": "k", "permissions": ["incidents.read"], "expiresAt": "2000-01-01T00:00:00Z" }), "expiresAt"),
    ] {
        let (code, named) = refused(&service, input.clone()).await;
        assert_eq!((&*code, &*named), ("BAD_USER_INPUT", field), "{input}");
    }
    assert_eq!(database.count("api_key").await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_flood_of_wrong_keys_costs_the_database_a_few_statements_and_locks_nobody_out() {
    const WRONG: usize = 2_000;
    let database = TestDatabase::new().await;
    let statements = Statements::of(&database).await;
    let service = start_required(statements.url(), &[]).await;
    let made = create(&service, json!({ "name": "k", "permissions": ["incidents.read"] })).await;
    let late = create(&service, json!({ "name": "late", "permissions": ["incidents.read"] })).await;
    let (known, late) = (made["secret"].as_str().unwrap(), late["secret"].as_str().unwrap());
    assert_eq!(tried(&service, known).await.0, 200);
    statements.take_all();
    let wrong = |number: usize| format!("im_{number:012x}{}", &known[15..]);
    let flood = futures::future::join_all((0..32).map(|sender| {
        let (service, wrong) = (&service, &wrong);
        async move {
            for number in (sender..WRONG).step_by(32) {
                assert_eq!(tried(service, &wrong(number)).await.0, 401);
            }
        }
    }));
    let others = async {
        assert_eq!(tried(&service, known).await.0, 200);
        assert_eq!(tried(&service, late).await.0, 200, "one that was not used before");
    };
    tokio::join!(flood, others);
    let asked = |statements: &Statements| {
        statements.take_all().iter().filter(|sql| sql.contains("FROM incident_manager.api_key WHERE prefix")).count()
    };
    let flooded = asked(&statements);
    assert!((1..WRONG / 4).contains(&flooded), "{flooded} statements for {WRONG} wrong keys");
    for _ in 0..100 {
        assert_eq!(tried(&service, known).await.0, 200);
        assert_eq!(tried(&service, &wrong(WRONG - 1)).await.0, 401);
    }
    // what was refused is remembered for seconds, and not for ever
    assert!(asked(&statements) < 50);
    service.stop().await;
}

fn program(database: &TestDatabase, args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_incident-manager");
    Command::new(program).arg("api-key").args(args).env_clear().env("DATABASE_URL", database.url()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_makes_shows_and_revokes_keys_without_one() {
    let database = TestDatabase::new().await;
    let service = start_beside(&database).await;
    let made = program(
        &database,
        &[
            "create",
            "--name",
            "ops",
            "--roles",
            "responder",
            "--permissions",
            "keys.manage",
            "--sources",
            "a,b",
            "--expires-in",
            "90d",
        ],
    );
    assert!(made.status.success(), "{made:?}");
    let secret = String::from_utf8(made.stdout).unwrap();
    let secret = secret.strip_suffix('\n').expect("the key, alone");
    let service = service.bearing(secret);
    let viewer = service.data("{ viewer { subject permissions sources expiresAt } }", json!({})).await["viewer"].take();
    assert_eq!((&viewer["subject"], &viewer["sources"]), (&json!("api-key:ops"), &json!(["a", "b"])));
    assert_eq!(viewer["permissions"].as_array().unwrap().len(), 7);
    assert!(viewer["expiresAt"].is_string());

    let listed = String::from_utf8(program(&database, &["list"]).stdout).unwrap();
    let (prefix, _) = secret.split_at(15);
    assert!(listed.contains(prefix) && listed.contains("ops") && !listed.contains(&secret[16..]), "{listed}");
    assert!(program(&database, &["revoke", prefix]).status.success());
    eventually("it is revoked", || async { tried(&service, secret).await.0 == 401 }).await;
    assert!(program(&database, &["revoke", prefix]).status.success(), "once more does no harm");
    for (args, said) in [
        (&["revoke", "im_000000000000"][..], "there is no API key"),
        (&["create", "--name", "k", "--roles", "king"], "no role"),
        (&["create", "--name", "k", "--permissions", "incidents"], "no permission"),
        (&["create", "--name", "", "--roles", "viewer"], "name"),
        (&["create", "--name", "k"], "--permissions"),
        (&["create", "--roles", "viewer"], "--name"),
    ] {
        let refused = program(&database, args);
        let line = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{args:?}");
        assert!(line.contains(said) && line.lines().count() == 1, "{args:?}: {line}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_makes_keys_in_the_database_of_a_service_that_brings_its_own() {
    let directory = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o711)).tempdir_in("/tmp").unwrap();
    let data_dir = directory.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let path = std::env::var("PATH").unwrap();
    let variables = [("PATH", &*path), ("INCIDENT_MANAGER_DATA_DIR", data_dir)];
    let process = Process::start_in(&variables, &["--auth", "required"]).await;
    let program = |args: &[&str]| {
        let program = env!("CARGO_BIN_EXE_incident-manager");
        Command::new(program).arg("api-key").args(args).env_clear().envs(variables).output().unwrap()
    };
    let made = program(&["create", "--name", "ops", "--roles", "viewer"]);
    assert!(made.status.success(), "{made:?}");
    let secret = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
    let status = async || {
        let request = reqwest::Client::new().get(format!("http://{}/v1/incidents", process.address));
        request.bearer_auth(&secret).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status().await, 200);
    assert!(String::from_utf8(program(&["list"]).stdout).unwrap().contains(&secret[..15]));
    assert!(program(&["revoke", &secret[..15]]).status.success());
    eventually("it is revoked", || async { status().await == 401 }).await;
    process.terminate();
    assert!(process.end().await.success());
    let alone = program(&["list"]);
    let said = String::from_utf8(alone.stderr).unwrap();
    assert!(!alone.status.success() && said.contains("cannot join the embedded database"), "{said}");
}
