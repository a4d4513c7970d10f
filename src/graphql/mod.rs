//! The GraphQL schema and what answers it.

mod access;
mod alert;
mod comment;
mod connection;
mod error;
mod gateway;
mod incident;
mod input;
mod loader;
mod mutation;
mod playbook;
mod query;
mod relation;
mod scalar;
mod size;
mod stream;
mod subscription;
mod timeline;
mod turns;

use async_graphql::Schema;

pub use error::{Code, NotFound, Refusal};
pub use gateway::{Gateway, OperationType, is_request_error, named_operation};
pub use input::{CreateIncidentInput, IncidentFilter, SubmitAlertInput, UpdateIncidentInput};
pub use scalar::print as print_instant;

use crate::store::{Intake, Store};

/// The schema, with its roots.
pub type IncidentSchema = Schema<query::Query, mutation::Mutation, subscription::Subscription>;

/// How deep a document may nest; the contract's own objects lead to each other without end.
const MAX_DEPTH: usize = 16;

fn schema(served: Option<(Store, Intake)>) -> IncidentSchema {
    let builder = Schema::build(query::Query, mutation::Mutation, subscription::Subscription).limit_depth(MAX_DEPTH);
    match served {
        Some((store, intake)) => builder.data(store).data(intake).finish(),
        None => builder.finish(),
    }
}

/// The schema's SDL, as it is served.
pub fn sdl() -> String {
    schema(None).sdl()
}
