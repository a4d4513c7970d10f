//! What a subscriber has heard, against what has been committed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Service, Socket};

/// Each incident and its version. A version goes up by one with every change, so that each is one event.
pub type Versions = BTreeMap<Uuid, i32>;

/// Everything that is committed.
pub async fn committed(connection: &mut PgConnection) -> Versions {
    let rows: Vec<(Uuid, i32)> =
        sqlx::query_as("select id, version from incident_manager.incident").fetch_all(connection).await.unwrap();
    rows.into_iter().collect()
}

/// A subscriber of all incidents. What it hears must be in order: nothing left out, nothing twice.
pub struct Heard {
    socket: Socket,
    versions: Versions,
}

impl Heard {
    /// Hears of everything that is committed from now on.
    pub async fn start(service: &Service) -> Self {
        let socket = service
            .subscribe(
                "subscription {
                    incidentUpdates(updateTypes: [CREATED, UPDATED, STATE_CHANGED, RESOLVED, ASSIGNED, COMMENT_ADDED]) {
                        incidentId incident { version } } }",
            )
            .await;
        Self { socket, versions: Versions::new() }
    }

    /// Hears one event; which incident it is of.
    pub async fn one(&mut self) -> Uuid {
        let message = self.socket.receive().await.expect("the connection is open");
        self.note(&message)
    }

    /// Hears until it has heard everything of `expected`.
    pub async fn all(&mut self, expected: &Versions) {
        while self.versions != *expected {
            for (id, version) in &self.versions {
                assert!(expected.get(id).is_some_and(|last| version <= last), "{id} has no version {version}");
            }
            self.one().await;
        }
    }

    /// Hears until `count` events more have come.
    pub async fn some(&mut self, count: usize) {
        for _ in 0..count {
            self.one().await;
        }
    }

    /// Hears until the service ends the connection.
    pub async fn until_the_end(mut self) -> Versions {
        while let Some(message) = self.socket.receive().await {
            self.note(&message);
        }
        self.versions
    }

    fn note(&mut self, message: &Value) -> Uuid {
        assert_eq!(message["type"], json!("next"), "{message}");
        let update = &message["payload"]["data"]["incidentUpdates"];
        let id: Uuid = update["incidentId"].as_str().expect("an incident").parse().unwrap();
        let version = self.versions.entry(id).or_default();
        *version += 1;
        assert_eq!(update["incident"]["version"], json!(*version), "{id}: out of order");
        id
    }
}
