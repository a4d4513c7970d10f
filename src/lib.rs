//! Incident Manager: incidents and alerts in PostgreSQL, live on every screen.
//!
//! The modules, in the order in which data flows through them; a module imports only from those above it
//! (`tests/house.rs` holds the exact rules):
//!
//! - [`config`]: settings, from flags and environment
//! - [`clock`]: the time of day, which tests can set
//! - [`embedded`]: a private PostgreSQL, for those who name none
//! - [`lifecycle`]: signals, shutdown, every background task
//! - [`telemetry`]: the log and the metrics
//! - [`cli`]: the subcommands

pub mod cli;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod lifecycle;
pub mod telemetry;
