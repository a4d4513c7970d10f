//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod faults;
mod filters;
mod http;
mod pages;
mod refusals;
mod requests;
mod schema;
mod settings;
mod subscriptions;
mod support;
mod watch;
mod writers;
