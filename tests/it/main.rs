//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod faults;
mod filters;
mod schema;
mod settings;
mod subscriptions;
mod support;
mod watch;
mod writers;
