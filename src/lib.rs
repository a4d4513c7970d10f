//! Incident Manager: incidents and alerts in PostgreSQL, live on every screen.
//!
//! The modules, in the order in which data flows through them; a module imports only from those above it
//! (`tests/house.rs` holds the exact rules):
//!
//! - [`domain`]: pure types and rules
//! - [`config`]: settings, from flags and environment
//! - [`clock`]: the time of day, which tests can set
//! - [`embedded`]: a private PostgreSQL, for those who name none
//! - [`lifecycle`]: signals, shutdown, every background task
//! - [`telemetry`]: the log and the metrics
//! - [`store`]: every SQL statement
//! - [`auth`]: who asks, and what that one may do
//! - [`events`]: the event log, in order, in memory
//! - [`graphql`]: the schema and what answers it
//! - [`live`]: one execution of an event, however many watch
//! - [`http`]: what the service speaks
//! - [`server`]: everything put together
//! - [`cli`]: the subcommands

pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod events;
pub mod graphql;
pub mod http;
pub mod lifecycle;
pub mod live;
pub mod server;
pub mod store;
pub mod telemetry;
