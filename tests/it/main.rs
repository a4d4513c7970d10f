//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod loaders;
mod playbooks;
mod relations;
mod schema;
mod settings;
mod subscriptions;
mod support;
mod watch;
