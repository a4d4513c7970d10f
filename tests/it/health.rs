//! `health` against a service that is ready, one that is not, and what is none.

use std::net::SocketAddr;

use incident_manager::config::DatabaseUrl;
use tokio::process::Command;

use crate::support::{Service, TestDatabase};

/// Runs `health`; its exit code, and what it says.
async fn health(flags: &[&str], listen: SocketAddr) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_incident-manager"))
        .arg("health")
        .args(flags)
        .env_clear()
        .env("INCIDENT_MANAGER_LISTEN", listen.to_string())
        .output()
        .await
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_service_that_is_ready_is_healthy() {
    let database = TestDatabase::new().await;
    let service = Service::start(&database.database_url()).await;
    assert_eq!(health(&[], service.address).await, (Some(0), String::new()));
    // what listens on all addresses is asked on this machine's own
    let everywhere = SocketAddr::from(([0, 0, 0, 0], service.address.port()));
    assert_eq!(health(&[], everywhere).await, (Some(0), String::new()));
    service.stop().await;
}

#[tokio::test]
async fn a_service_whose_database_is_away_is_not() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let database = DatabaseUrl::from(format!("postgres://nobody@{nobody}/nothing"));
    let service = Service::start_with(&database, &[]).await;
    let (code, said) = health(&[], service.address).await;
    assert_eq!(
        (code, said.as_str()),
        (Some(1), "incident-manager: not ready: the database's schema is not up to date\n")
    );
    service.stop().await;
}

#[tokio::test]
async fn what_does_not_answer_or_is_no_service_of_ours_is_not() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // accepted by the kernel, and never answered
    let (code, said) = health(&["--timeout", "50ms"], address).await;
    assert!(code == Some(1) && said.contains("does not answer") && said.contains("timed out"), "{said}");
    let page = axum::Router::new().fallback(|| async { "Welcome" });
    let serving = tokio::spawn(axum::serve(listener, page).into_future());
    let (code, said) = health(&[], address).await;
    assert!(code == Some(1) && said.contains("is not this service") && said.lines().count() == 1, "{said}");
    serving.abort();
    assert!(serving.await.is_err_and(|ended| ended.is_cancelled()));
    let (code, said) = health(&[], address).await;
    assert!(code == Some(1) && said.contains("does not answer"), "{said}");
}
