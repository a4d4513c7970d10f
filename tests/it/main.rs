//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod log_doorbell;
mod log_epochs;
mod log_events;
mod log_maintenance;
mod log_sequencer;
mod log_writers;
mod schema;
mod settings;
mod subscriptions;
mod support;
mod watch;
