//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod log_epochs;
mod log_events;
mod log_sequencer;
mod schema;
mod settings;
mod subscriptions;
mod support;
mod watch;
