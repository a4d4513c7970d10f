//! Incident Manager: incidents and alerts in PostgreSQL, live on every screen.
//!
//! The modules, in the order in which data flows through them; a module imports only from those above it
//! (`tests/house.rs` holds the exact rules):
//!
//! - [`config`]: settings, from flags and environment
//! - [`embedded`]: a private PostgreSQL, for those who name none

pub mod config;
pub mod embedded;
