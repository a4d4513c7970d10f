//! Whatever document comes, fit or not: it is answered as the contract says, and the service goes on.

use std::collections::BTreeMap;

use chrono::DateTime;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::random::{Dice, INTROSPECTION, Schema};
use crate::support::{Service, TestDatabase};

const CASES: u32 = 250;
/// Repeats a run: the number that a failed one has printed.
const SEED: &str = "INCIDENT_MANAGER_TEST_SEED";

/// What a request can be answered with; none of them is the service's own fault, nor the database's.
const CODES: [&str; 6] = [
    "BAD_USER_INPUT",
    "CONFLICT",
    "GRAPHQL_PARSE_FAILED",
    "GRAPHQL_VALIDATION_FAILED",
    "INVALID_STATE_TRANSITION",
    "NOT_FOUND",
];

const FILL: &str = r#"
    insert into incident_manager.playbook (name, steps)
      select 'Playbook ' || n, '[{"title": "Look", "instructions": ""}]' from generate_series(1, 3) n;
    insert into incident_manager.incident (title, severity, source, affected_resources)
      select 'Incident ' || n, 'P' || n % 5, 'source-' || n % 3, array['service-' || n % 2] from generate_series(1, 8) n;
    insert into incident_manager.comment (incident_id, body) select id, 'Comment' from incident_manager.incident;
    insert into incident_manager.alert (source, title, severity) select source, title, severity from incident_manager.incident"#;

async fn start() -> (TestDatabase, Service, Schema) {
    let database = TestDatabase::new().await;
    database.execute(FILL).await;
    let service = Service::start(&database.database_url()).await;
    let mut ids = Vec::new();
    for table in ["incident", "alert", "playbook", "comment"] {
        let of_table: Vec<Uuid> = database.scalar(&format!("select array_agg(id) from incident_manager.{table}")).await;
        ids.extend(of_table.iter().map(Uuid::to_string));
    }
    let schema = Schema::new(&service.data(INTROSPECTION, Value::Null).await, ids);
    (database, service, schema)
}

/// Checks the answer to a request's body; what it was answered with, by code.
async fn answer(service: &Service, body: &str) -> Result<Vec<String>, String> {
    let request = service.http().post(service.url("/graphql")).header("content-type", "application/json");
    let response = request.body(body.to_owned()).send().await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(|error| error.to_string())?;
    let answered: Value = serde_json::from_str(&text).map_err(|error| format!("{status} {text}: {error}"))?;
    let wrong = |what: &str| Err(format!("{what}: {status} {answered}"));
    if !matches!(status, 200 | 400) {
        return wrong("no status of a request that was answered");
    }
    let Some(errors) = answered.get("errors") else {
        return if answered["data"].is_object() {
            Ok(vec!["none".to_owned()])
        } else {
            wrong("neither data nor errors")
        };
    };
    let errors = errors.as_array().cloned().unwrap_or_default();
    if errors.is_empty() {
        return wrong("errors, and none of them");
    }
    let mut codes = Vec::new();
    for error in &errors {
        let code = error["extensions"]["code"].as_str().unwrap_or_default();
        if !CODES.contains(&code) {
            return wrong("a code that no request is answered with");
        }
        if code == "BAD_USER_INPUT" && !error["extensions"]["field"].is_string() {
            return wrong("bad input without the field at fault");
        }
        let timestamp = error["extensions"]["timestamp"].as_str().unwrap_or_default();
        if DateTime::parse_from_rfc3339(timestamp).is_err() || error["message"].as_str().is_none_or(str::is_empty) {
            return wrong("an error without its time or message");
        }
        let path = error.get("path").is_none_or(Value::is_array);
        if !path || error.get("locations").is_some_and(|locations| !are_locations(locations)) {
            return wrong("an error that is nowhere");
        }
        codes.push(code.to_owned());
    }
    Ok(codes)
}

fn are_locations(locations: &Value) -> bool {
    locations.as_array().is_some_and(|locations| {
        locations.iter().all(|at| at["line"].as_u64().is_some_and(|line| line > 0) && at["column"].is_u64())
    })
}

#[test]
fn random_documents_are_answered_as_the_contract_says() {
    let seed: u128 = std::env::var(SEED).map_or_else(|_| Uuid::new_v4().as_u128(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    let bytes: Vec<u8> = [seed.to_le_bytes(), seed.to_be_bytes()].concat();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (database, service, schema) = runtime.block_on(start());

    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let met = std::cell::RefCell::new(BTreeMap::<String, usize>::new());
    let outcome = runner.run(&vec(any::<u32>(), 0..400), |numbers| {
        let body = schema.request(Dice(&numbers));
        let codes = runtime
            .block_on(answer(&service, &body))
            .map_err(|wrong| TestCaseError::fail(format!("{wrong}\nto {body:.3000}")))?;
        for code in codes {
            *met.borrow_mut().entry(code).or_default() += 1;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(wrong, _)) => panic!("{wrong}"),
        Err(TestError::Abort(reason)) => panic!("given up: {reason}"),
    }
    let met = met.into_inner();
    println!("{met:?}");
    // documents that are all refused alike would show little
    for expected in ["none", "BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED", "NOT_FOUND"] {
        assert!(met.contains_key(expected), "{expected} is not among {met:?}");
    }

    runtime.block_on(async {
        assert_eq!(service.status("/health/ready").await, 200);
        assert_eq!(service.data("{ __typename }", Value::Null).await, json!({ "__typename": "Query" }));
        service.stop().await;
        drop(database);
    });
}
