//! Black box: real sockets, a real PostgreSQL.

mod alert_races;
mod alert_rules;
mod embedded;
mod filters;
mod limits;
mod log_events;
mod log_sequencer;
mod privileges;
mod log_doorbell;
mod log_epochs;
mod log_events;
mod log_sequencer;
mod log_writers;
mod schema;
mod settings;
mod state_machine;
mod stream;
mod subscriptions;
mod support;
mod watch;
