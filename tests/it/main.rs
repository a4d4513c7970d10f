//! Black box: real sockets, a real PostgreSQL.

mod alert_races;
mod alert_rules;
mod embedded;
mod limits;
mod privileges;
mod schema;
mod settings;
mod state_machine;
mod subscriptions;
mod support;
mod watch;
