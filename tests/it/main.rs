//! Black box: real sockets, a real PostgreSQL.

mod alert_races;
mod alert_rules;
mod embedded;
mod faults;
mod filters;
mod limits;
mod loaders;
mod log_doorbell;
mod log_epochs;
mod log_events;
mod log_sequencer;
mod log_writers;
mod pagination;
mod plans;
mod playbooks;
mod privileges;
mod relations;
mod schema;
mod settings;
mod state_machine;
mod stream;
mod stream_position;
mod subscriptions;
mod support;
mod watch;
mod writers;
