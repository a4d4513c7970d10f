//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod schema;
mod subscriptions;
mod support;
