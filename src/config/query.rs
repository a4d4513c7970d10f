//! What a GraphQL document may cost.

use clap::{Args, ValueEnum};

use super::at_least_one;

/// Bounds of a GraphQL document; what is beyond one of them is refused before any of it is executed.
#[derive(Debug, Clone, Copy, Args)]
pub struct QueryConfig {
    /// Largest GraphQL document, in bytes
    #[arg(long, env = "INCIDENT_MANAGER_MAX_DOCUMENT_BYTES", default_value_t = 128 << 10, value_parser = at_least_one)]
    pub max_document_bytes: usize,

    /// Fields of a GraphQL document, its fragments written out
    #[arg(long, env = "INCIDENT_MANAGER_MAX_SELECTIONS", default_value_t = 10_000, value_parser = at_least_one)]
    pub max_selections: usize,

    /// How deep a GraphQL document's fields may nest
    #[arg(long, env = "INCIDENT_MANAGER_MAX_DEPTH", default_value_t = 16, value_parser = at_least_one)]
    pub max_depth: usize,

    /// Fields that a GraphQL operation's result may have: each as often as the pages and lists around it have items
    #[arg(long, env = "INCIDENT_MANAGER_MAX_COST", default_value_t = 100_000, value_parser = at_least_one)]
    pub max_cost: usize,

    /// Aliases of a GraphQL document, its fragments written out
    #[arg(long, env = "INCIDENT_MANAGER_MAX_ALIASES", default_value_t = 50, value_parser = at_least_one)]
    pub max_aliases: usize,

    /// Directives of a GraphQL document, its fragments written out
    #[arg(long, env = "INCIDENT_MANAGER_MAX_DIRECTIVES", default_value_t = 50, value_parser = at_least_one)]
    pub max_directives: usize,

    /// Whether clients may ask for the schema
    #[arg(long, env = "INCIDENT_MANAGER_INTROSPECTION", default_value = "on", value_enum)]
    pub introspection: Introspection,
}

/// Whether clients may ask for the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Introspection {
    /// Any client
    On,
    /// None, and no error suggests a name
    Off,
}
