//! Black box: real sockets, a real PostgreSQL.

mod embedded;
mod settings;
mod watch;
