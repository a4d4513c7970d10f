//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod filters;
mod limits;
mod log_events;
mod log_sequencer;
mod readme;
mod schema;
mod settings;
mod state_machine;
mod stream;
mod subscriptions;
mod support;
mod watch;
