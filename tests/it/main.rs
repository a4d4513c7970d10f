//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod readme;
mod schema;
mod settings;
mod subscriptions;
mod support;
mod watch;
