//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod schema;
mod settings;
mod stream;
mod subscriptions;
mod support;
mod watch;
