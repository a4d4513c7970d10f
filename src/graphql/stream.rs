//! The field `streamPosition`, which is read before anything else of its operation.

use std::sync::Arc;

use async_graphql::SimpleObject;
use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet};

use crate::domain;
use crate::store::StoreError;

/// Where the stream of events is.
#[derive(SimpleObject)]
pub struct StreamPosition {
    cursor: String,
    /// The oldest cursor that can still be resumed from.
    oldest_cursor: String,
}

/// Rides in the data of an operation that asks for it.
pub struct Position(pub Result<domain::StreamPosition, Arc<StoreError>>);

impl From<&domain::StreamPosition> for StreamPosition {
    fn from(position: &domain::StreamPosition) -> Self {
        Self { cursor: position.newest.encode(), oldest_cursor: position.oldest.encode() }
    }
}

/// Whether an operation may select the field, under whatever name and in whatever fragment.
pub fn is_selected(document: &ExecutableDocument, operation: &OperationDefinition) -> bool {
    operation.ty == OperationType::Query && selects(document, &operation.selection_set.node, &mut Vec::new())
}

fn selects<'d>(document: &'d ExecutableDocument, set: &'d SelectionSet, seen: &mut Vec<&'d str>) -> bool {
    set.items.iter().any(|selection| match &selection.node {
        Selection::Field(field) => field.node.name.node == "streamPosition",
        Selection::InlineFragment(inline) => selects(document, &inline.node.selection_set.node, seen),
        Selection::FragmentSpread(spread) => {
            let name = spread.node.fragment_name.node.as_str();
            if seen.contains(&name) {
                return false;
            }
            seen.push(name);
            let fragment = document.fragments.get(name);
            fragment.is_some_and(|fragment| selects(document, &fragment.node.selection_set.node, seen))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::named_operation;

    fn selected(document: &str) -> bool {
        let document = async_graphql::parser::parse_query(document).unwrap();
        is_selected(&document, named_operation(&document, None).unwrap())
    }

    #[test]
    fn the_field_is_found_wherever_it_stands() {
        assert!(selected("{ streamPosition { cursor } }"));
        assert!(selected("{ viewer: __typename at: streamPosition { cursor } }"));
        assert!(selected("{ ... on Query { ...F } } fragment F on Query { streamPosition { cursor } }"));
        assert!(!selected("{ incidents { nodes { streamPosition: id } } }"));
        assert!(!selected("{ ...F } fragment F on Query { ...F }"));
        assert!(!selected("mutation { streamPosition }"));
    }
}
