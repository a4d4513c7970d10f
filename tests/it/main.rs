//! Black box: real sockets, a real PostgreSQL.

mod alert_races;
mod alert_rules;
mod embedded;
mod faults;
mod filters;
mod http;
mod limits;
mod log_doorbell;
mod log_epochs;
mod log_events;
mod log_maintenance;
mod log_sequencer;
mod log_writers;
mod pages;
mod privileges;
mod readme;
mod refusals;
mod requests;
mod schema;
mod settings;
mod state_machine;
mod stream;
mod subscriptions;
mod support;
mod watch;
mod writers;
