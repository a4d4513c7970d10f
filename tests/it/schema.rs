//! The published schema is the served one.

use incident_manager::graphql;

#[test]
fn the_published_schema_is_the_served_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql");
    let published = std::fs::read_to_string(path).unwrap_or_default();
    let served = graphql::sdl();
    assert!(published == served, "schema.graphql is behind: write it anew by `cargo run -- schema > schema.graphql`");
}
