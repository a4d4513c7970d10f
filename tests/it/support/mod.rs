//! What the tests share: a database of their own, a service on it, and clients over real sockets.

pub mod access;
pub mod database;
pub mod document;
pub mod events;
pub mod heard;
pub mod log;
pub mod numbered;
pub mod process;
pub mod publisher;
pub mod random;
pub mod raw;
pub mod roles;
pub mod rules;
pub mod scoped;
pub mod server;
pub mod service;
pub mod socket;
pub mod statements;

use std::time::Duration;

pub use database::TestDatabase;
pub use heard::{Heard, committed};
pub use process::Process;
pub use server::Server;
pub use service::Service;
pub use socket::Socket;

/// How long anything may take before a test gives up. No test waits for it: it waits for a condition.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until a condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
