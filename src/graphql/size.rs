//! How large a document is when its fragments are written out, counted without writing them out: each fragment once, however
//! often it is spread.
//!
//! Thirty fragments that each spread the next twice are 1.2 KB and a thousand million fields. The library's own limits are
//! checked by walking through all of them.

use std::collections::HashMap;

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};

/// Selections of a fragment and all that it spreads; `None` while they are being counted.
type Known<'d> = HashMap<&'d str, Option<usize>>;

/// Selections of all operations of a document, its fragments written out; saturates. A fragment that spreads itself counts
/// as nothing there: the rules of validation refuse it.
pub fn written_out(document: &ExecutableDocument) -> usize {
    let mut known = Known::new();
    document
        .operations
        .iter()
        .map(|(_, operation)| selections(&operation.node.selection_set.node, document, &mut known))
        .fold(0, usize::saturating_add)
}

fn selections<'d>(set: &'d SelectionSet, document: &'d ExecutableDocument, known: &mut Known<'d>) -> usize {
    set.items
        .iter()
        .map(|selection| match &selection.node {
            Selection::Field(field) => {
                1_usize.saturating_add(selections(&field.node.selection_set.node, document, known))
            }
            Selection::InlineFragment(inline) => {
                1_usize.saturating_add(selections(&inline.node.selection_set.node, document, known))
            }
            Selection::FragmentSpread(spread) => {
                let name = spread.node.fragment_name.node.as_str();
                if let Some(count) = known.get(name) {
                    return 1_usize.saturating_add(count.unwrap_or(0));
                }
                let Some(fragment) = document.fragments.get(name) else { return 1 };
                known.insert(name, None);
                let count = selections(&fragment.node.selection_set.node, document, known);
                known.insert(name, Some(count));
                1_usize.saturating_add(count)
            }
        })
        .fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(document: &str) -> usize {
        written_out(&async_graphql::parser::parse_query(document).unwrap())
    }

    #[test]
    fn what_is_written_out_counts() {
        assert_eq!(size("{ a b { c } }"), 3);
        assert_eq!(size("{ ...F ...F } fragment F on Query { a b }"), 6);
        assert_eq!(size("{ ... on Query { a } }"), 2);
    }

    #[test]
    fn a_bomb_is_counted_at_once() {
        use std::fmt::Write as _;
        let mut bomb = String::from("{ ...F0 ...F0 }");
        for n in 0..30 {
            write!(bomb, " fragment F{n} on Query {{ ...F{next} ...F{next} }}", next = n + 1).unwrap();
        }
        bomb.push_str(" fragment F30 on Query { a }");
        assert!(size(&bomb) > 1_000_000_000);
    }

    #[test]
    fn a_cycle_ends() {
        assert!(size("{ ...A } fragment A on Query { a ...B } fragment B on Query { ...A }") < 10);
    }
}
