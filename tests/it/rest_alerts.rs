//! Alerts over REST, one and many, alone and from many senders at a time.

use std::collections::HashSet;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::statements::Statements;
use crate::support::{Service, TestDatabase, eventually};

async fn start() -> (TestDatabase, Service) {
    start_with(&[]).await
}

async fn start_with(flags: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), flags).await;
    service.ready().await;
    (database, service)
}

fn alert(source: &str, fingerprint: &str) -> Value {
    json!({ "source": source, "title": "Down", "severity": "P1", "fingerprint": fingerprint })
}

async fn submit(service: &Service, body: Value) -> (u16, Value) {
    service.rest(Method::POST, "/v1/alerts", body).await
}

#[tokio::test]
async fn an_alert_is_stored_and_its_sender_hears_what_became_of_it() {
    let (database, service) = start().await;
    let given = json!({
        "externalId": "a-1", "source": "probe", "title": "Down", "description": "no answer", "severity": "P0",
        "alertType": "AVAILABILITY", "labels": { "zone": "a" }, "annotations": { "graph": "g" },
        "affectedServices": ["gateway"], "runbookUrl": "https://runbooks.example/down", "firing": true,
    });
    let (status, opened) = submit(&service, given.clone()).await;
    assert_eq!((status, &opened["status"]), (201, &json!("CREATED")));
    let query =
        "query($id: UUID!) { alert(id: $id) { externalId source title description severity alertType labels annotations
        affectedServices runbookUrl firing incident { id } } }";
    let mut stored = service.data(query, json!({ "id": opened["id"] })).await["alert"].take();
    assert_eq!(stored["incident"].take()["id"], opened["incidentId"]);
    stored.as_object_mut().unwrap().remove("incident");
    assert_eq!(stored, given);
    let (_, repeated) = submit(&service, given).await;
    assert_eq!((&repeated["status"], &repeated["incidentId"]), (&json!("IGNORED"), &opened["incidentId"]));
    let over = json!({ "source": "probe", "title": "Down", "severity": "P0", "externalId": "a-1", "firing": false });
    assert_eq!(submit(&service, over).await.1["status"], "RESOLVED");
    assert_eq!(database.count("alert").await, 3);
    service.stop().await;
}

#[tokio::test]
async fn an_array_is_answered_in_its_order() {
    let (database, service) = start().await;
    let mut over = alert("s", "a");
    over["firing"] = json!(false);
    let (status, answer) = submit(&service, json!([alert("s", "a"), alert("s", "b"), alert("s", "a"), over])).await;
    let statuses: Vec<_> = answer.as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!((status, statuses), (201, vec!["CREATED", "CREATED", "DEDUPLICATED", "RESOLVED"]));
    assert_eq!(
        (&answer[0]["incidentId"], &answer[2]["incidentId"]),
        (&answer[2]["incidentId"], &answer[3]["incidentId"])
    );
    let (status, answer) = submit(&service, json!([alert("s", "one")])).await;
    assert_eq!((status, answer.as_array().map(Vec::len)), (201, Some(1)), "an array of one is answered by an array");
    assert_eq!(database.count("alert").await, 5);
    let thousand: Vec<_> = (0..1000).map(|number| alert("many", &format!("{}", number % 10))).collect();
    let (status, answer) = submit(&service, json!(thousand)).await;
    assert_eq!((status, answer.as_array().map(Vec::len)), (201, Some(1000)));
    assert_eq!(database.count("incident").await, 13);
    service.stop().await;
}

#[tokio::test]
async fn an_array_with_one_that_cannot_be_is_refused_whole() {
    let (database, service) = start().await;
    let bad = |field: &str, value: Value| {
        let mut alert = alert("s", "b");
        alert[field] = value;
        json!([self::alert("s", "a"), alert, self::alert("s", "c")])
    };
    for (field, value) in [
        ("severity", json!("P9")),
        ("title", json!("")),
        ("labels", json!({ "k": 1 })),
        ("labels", json!({ "k": "a\0" })),
        ("firing", json!("yes")),
        ("colour", json!("red")),
    ] {
        let (status, problem) = submit(&service, bad(field, value)).await;
        assert_eq!((status, &problem["code"]), (400, &json!("BAD_USER_INPUT")), "{problem}");
        assert_eq!(problem["field"], format!("[1].{field}"), "{problem}");
    }
    for (body, field) in [(json!([]), json!("body")), (json!(vec![alert("s", "a"); 1001]), json!("[1000]"))] {
        let (status, problem) = submit(&service, body).await;
        assert_eq!((status, &problem["code"], &problem["field"]), (400, &json!("BAD_USER_INPUT"), &field), "{problem}");
    }
    assert_eq!(database.count("alert").await + database.count("incident").await, 0);
    service.stop().await;
}

/// Alerts that wait in this process, as the metrics have it.
async fn waiting(service: &Service) -> usize {
    let shown = service.http().get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let value = shown.lines().find_map(|line| line.strip_prefix("incident_manager_alerts_waiting "));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn many_senders_at_a_time_share_calls_and_each_has_its_own_answer() {
    const SENDERS: usize = 64;
    let database = TestDatabase::new().await;
    let statements = Statements::of(&database).await;
    // one connection for requests
    let flags = ["--database-connections", "4", "--lock-timeout", "1m", "--statement-timeout", "1m"];
    let service = Service::start_with(statements.url(), &flags).await;
    service.ready().await;
    assert_eq!(submit(&service, alert("s", "held")).await.0, 201);
    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("select from incident_manager.incident for update").execute(&mut *holder).await.unwrap();
    statements.take_all();
    let first = submit(&service, alert("s", "held"));
    let mutation = "mutation($input: SubmitAlertInput!) { submitAlert(input: $input) { status alert { id } } }";
    let others = async {
        eventually("the first has the connection", || async {
            let waiting = "select count(*) from pg_locks where not granted and locktype = 'transactionid'";
            database.scalar::<i64>(waiting).await > 0
        })
        .await;
        let senders = join_all((0..SENDERS).map(|number| {
            let (service, alert) = (&service, alert("s", &format!("{number}")));
            async move {
                if number % 8 == 0 {
                    let told = service.data(mutation, json!({ "input": alert })).await["submitAlert"].take();
                    (told["status"].clone(), told["alert"]["id"].clone())
                } else {
                    let (status, told) = submit(service, alert).await;
                    assert_eq!(status, 201, "{told}");
                    (told["status"].clone(), told["id"].clone())
                }
            }
        }));
        let release = async {
            eventually("they wait", || async { waiting(&service).await > SENDERS }).await;
            holder.rollback().await.unwrap();
        };
        tokio::join!(senders, release).0
    };
    let ((status, _), answers) = tokio::join!(first, others);
    assert_eq!(status, 201);
    assert!(answers.iter().all(|(status, _)| status == "CREATED"), "{answers:?}");
    let ids: HashSet<String> = answers.iter().map(|(_, id)| id.to_string()).collect();
    assert_eq!(ids.len(), SENDERS);
    assert_eq!(database.count("incident").await, 1 + i64::try_from(SENDERS).unwrap());
    let calls = statements.take_all().iter().filter(|sql| sql.contains("submit_alerts(")).count();
    assert!(calls <= SENDERS / 2, "{calls} calls for {SENDERS} senders");
    service.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_row_that_another_holds_does_not_fail_the_others() {
    let (database, service) = start_with(&["--lock-timeout", "1s"]).await;
    assert_eq!(submit(&service, alert("s", "held")).await.0, 201);
    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("select from incident_manager.incident for update").execute(&mut *holder).await.unwrap();
    let senders = (0..32).map(|number| {
        let fingerprint = if number % 8 == 0 { "held".to_owned() } else { format!("{number}") };
        submit(&service, alert("s", &fingerprint))
    });
    for (number, (status, told)) in join_all(senders).await.into_iter().enumerate() {
        if number % 8 == 0 {
            assert_eq!((status, &told["code"]), (409, &json!("CONFLICT")), "{told}");
        } else {
            assert_eq!((status, &told["status"]), (201, &json!("CREATED")), "{told}");
        }
    }
    holder.rollback().await.unwrap();
    assert_eq!(submit(&service, alert("s", "held")).await.1["status"], "DEDUPLICATED");
    assert_eq!(database.count("alert").await, 30);
    service.stop().await;
}

#[tokio::test]
async fn one_that_only_the_database_refuses_does_not_fail_the_others() {
    let (database, service) = start().await;
    // of four bytes each, and with no pattern to compress: more than the index of what fires can hold
    let astral = |seed: u32, length: u32| -> String {
        (0..length).map(|n| char::from_u32(0x1_0000 + (n * 7919 + seed * 104_729) % 0x6_0000).unwrap()).collect()
    };
    let mut long = alert(&astral(1, 200), "long");
    long["externalId"] = json!(astral(2, 500));
    let senders =
        (0..32).map(|n| submit(&service, if n % 8 == 0 { long.clone() } else { alert("s", &format!("{n}")) }));
    for (number, (status, told)) in join_all(senders).await.into_iter().enumerate() {
        if number % 8 == 0 {
            assert_eq!(
                (status, &told["code"], &told["field"]),
                (400, &json!("BAD_USER_INPUT"), &json!("externalId")),
                "{told}"
            );
        } else {
            assert_eq!((status, &told["status"]), (201, &json!("CREATED")), "{told}");
        }
    }
    assert_eq!(database.count("alert").await, 28);
    service.stop().await;
}

#[tokio::test]
async fn more_alerts_than_may_wait_are_refused_at_once() {
    let (database, service) = start_with(&["--max-waiting-alerts", "1000", "--lock-timeout", "1m"]).await;
    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("lock table incident_manager.alert in access exclusive mode").execute(&mut *holder).await.unwrap();
    let many: Vec<_> = (0..1000).map(|number| alert("s", &format!("{number}"))).collect();
    let waiting = submit(&service, json!(many));
    let refused = async {
        eventually("the first wait", || async {
            let waiting =
                "select count(*) from pg_locks where not granted and relation = 'incident_manager.alert'::regclass";
            database.scalar::<i64>(waiting).await > 0
        })
        .await;
        let response = service.http().post(service.url("/v1/alerts")).json(&alert("s", "late")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"1".parse().unwrap()));
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], "RATE_LIMIT_EXCEEDED");
        let mutation = "mutation($input: SubmitAlertInput!) { submitAlert(input: $input) { status } }";
        let error = service.error(mutation, json!({ "input": alert("s", "late") })).await;
        assert_eq!(error["extensions"]["code"], "RATE_LIMIT_EXCEEDED");
        holder.rollback().await.unwrap();
    };
    let ((status, _), ()) = tokio::join!(waiting, refused);
    assert_eq!(status, 201);
    assert_eq!(database.count("alert").await, 1000);
    service.stop().await;
}
