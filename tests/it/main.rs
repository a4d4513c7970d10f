//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod subscriptions;
mod support;
