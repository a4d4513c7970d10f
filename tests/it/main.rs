//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod readme;
mod limits;
mod log_events;
mod log_sequencer;
mod filters;
mod schema;
mod settings;
mod stream;
mod state_machine;
mod subscriptions;
mod support;
mod watch;
