//! The GraphQL schema and what answers it.

mod access;
mod alert;
mod api_key;
mod coercion;
mod comment;
mod connection;
mod error;
mod gateway;
mod incident;
mod input;
mod inputs;
mod loader;
mod mutation;
mod outline;
mod playbook;
mod query;
mod relation;
mod scalar;
mod stream;
mod subscription;
mod survey;
mod timeline;
mod turns;

use async_graphql::{Schema, SchemaBuilder};

pub use error::{Code, NotFound, Refusal, milliseconds};
pub use gateway::{Gateway, OperationType, is_request_error, named_operation};
pub use input::{CreateIncidentInput, IncidentFilter, SubmitAlertInput, UpdateIncidentInput};
pub use scalar::print as print_instant;

/// The schema, with its roots.
pub type IncidentSchema = Schema<query::Query, mutation::Mutation, subscription::Subscription>;

fn schema() -> SchemaBuilder<query::Query, mutation::Mutation, subscription::Subscription> {
    Schema::build(query::Query, mutation::Mutation, subscription::Subscription)
}

/// The schema's SDL, as it is served.
pub fn sdl() -> String {
    schema().finish().sdl()
}
