//! What a document is, measured before anything of it is validated or executed, in one walk: each fragment once, however
//! often it is spread.
//!
//! Thirty fragments that each spread the next twice are 1.2 KB and a thousand million fields. The library's own limits are
//! checked by walking through all of them.

use std::collections::HashMap;

use async_graphql::Variables;
use async_graphql::parser::Positioned;
use async_graphql::parser::types::{
    Directive, ExecutableDocument, Field, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
};
use async_graphql_value::{ConstValue, Value};

use super::outline::{Count, Outline};
use crate::config::{Introspection, QueryConfig};
use crate::domain::Permissions;

/// Selection sets within each other, fragments included: the validator follows them on its stack.
const MAX_LEVELS: usize = 32;
/// Where introspection leads, whose types are not in the outline.
const INTROSPECTION: &str = "__Schema";

/// Measures of a part of a document, its fragments written out; they saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// Fields and fragments.
    selections: usize,
    /// Selection sets within each other.
    levels: usize,
    /// Fields within each other.
    depth: usize,
    /// Fields of the result.
    cost: usize,
    aliases: usize,
    directives: usize,
    introspects: bool,
    /// What its fields need of a credential.
    pub asks: Permissions,
}

impl Survey {
    /// Together with what stands beside it.
    fn beside(self, other: Self) -> Self {
        Self {
            selections: self.selections.saturating_add(other.selections),
            levels: self.levels.max(other.levels),
            depth: self.depth.max(other.depth),
            cost: self.cost.saturating_add(other.cost),
            aliases: self.aliases.saturating_add(other.aliases),
            directives: self.directives.saturating_add(other.directives),
            introspects: self.introspects || other.introspects,
            asks: self.asks.union(other.asks),
        }
    }

    /// Which bound is not kept, for people.
    pub fn excess(&self, bounds: &QueryConfig) -> Option<String> {
        let QueryConfig { max_selections, max_depth, max_cost, max_aliases, max_directives, .. } = bounds;
        let beyond = [
            (self.levels, MAX_LEVELS, "nests deeper than", "levels, its fragments written out"),
            (self.selections, *max_selections, "has more than", "fields, its fragments written out"),
            (self.aliases, *max_aliases, "has more than", "aliases, its fragments written out"),
            (self.directives, *max_directives, "has more than", "directives, its fragments written out"),
            (self.depth, *max_depth, "nests deeper than", "fields"),
            (
                self.cost,
                *max_cost,
                "may bring more than",
                "fields: each as often as the pages and lists around it have items",
            ),
        ];
        let beyond = beyond.into_iter().find(|(found, bound, ..)| found > bound);
        if let Some((_, bound, is, what)) = beyond {
            return Some(format!("the document {is} {bound} {what}"));
        }
        (self.introspects && bounds.introspection == Introspection::Off).then(|| "introspection is off".to_owned())
    }
}

/// Measures one document.
pub struct Surveyor<'d> {
    outline: &'d Outline,
    document: &'d ExecutableDocument,
    variables: &'d Variables,
    /// Of the variables that the request does not have.
    defaults: HashMap<&'d str, &'d ConstValue>,
    /// Fragments; `None` while they are being measured.
    known: HashMap<&'d str, Option<Survey>>,
}

impl<'d> Surveyor<'d> {
    pub fn new(outline: &'d Outline, document: &'d ExecutableDocument, variables: &'d Variables) -> Self {
        let definitions = document.operations.iter().flat_map(|(_, operation)| &operation.node.variable_definitions);
        let defaults = definitions.filter_map(|definition| {
            let default = definition.node.default_value.as_ref()?;
            Some((definition.node.name.node.as_str(), &default.node))
        });
        Self { outline, document, variables, defaults: defaults.collect(), known: HashMap::new() }
    }

    /// All of the document: its operations, and the fragments that none of them spreads.
    pub fn document(&mut self) -> Survey {
        let document = self.document;
        let operations = document.operations.iter().map(|(_, operation)| self.operation(&operation.node));
        let all =
            operations.fold(Survey::default(), |all, one| Survey { cost: all.cost.max(one.cost), ..all.beside(one) });
        let mut unused = Survey::default();
        for (name, fragment) in &document.fragments {
            if !self.known.contains_key(name.as_str()) {
                unused = unused.beside(self.fragment(name, &fragment.node, MAX_LEVELS));
            }
        }
        // they are validated, and do nothing else
        Survey { cost: all.cost, asks: all.asks, ..all.beside(unused) }
    }

    /// One operation.
    pub fn operation(&mut self, operation: &'d OperationDefinition) -> Survey {
        let variables = operation.variable_definitions.iter().map(|definition| definition.node.directives.len());
        let own = Survey { directives: operation.directives.len() + variables.sum::<usize>(), ..Survey::default() };
        own.beside(self.set(&operation.selection_set.node, Outline::root(operation.ty), MAX_LEVELS))
    }

    /// What is selected of a type; below `levels` nothing more is looked at, and it is too deep.
    fn set(&mut self, set: &'d SelectionSet, of: &str, levels: usize) -> Survey {
        if set.items.is_empty() {
            return Survey::default();
        }
        let Some(below) = levels.checked_sub(1) else {
            return Survey { levels: MAX_LEVELS + 1, ..Survey::default() };
        };
        let selections = set.items.iter().map(|selection| match &selection.node {
            Selection::Field(field) => self.field(&field.node, of, below),
            Selection::InlineFragment(inline) => {
                let inline = &inline.node;
                let on = inline.type_condition.as_ref().map_or(of, |condition| condition.node.on.node.as_str());
                around(&inline.directives, self.set(&inline.selection_set.node, on, below))
            }
            Selection::FragmentSpread(spread) => {
                let name = spread.node.fragment_name.node.as_str();
                let fragment = self.document.fragments.get(name);
                let spread_out = fragment.map_or_else(Survey::default, |found| self.fragment(name, &found.node, below));
                around(&spread.node.directives, spread_out)
            }
        });
        let all = selections.fold(Survey::default(), Survey::beside);
        Survey { levels: all.levels.saturating_add(1), ..all }
    }

    /// One that spreads itself counts as nothing there: the rules of validation refuse it.
    fn fragment(&mut self, name: &'d str, fragment: &'d FragmentDefinition, levels: usize) -> Survey {
        if let Some(known) = self.known.get(name) {
            return known.unwrap_or_default();
        }
        self.known.insert(name, None);
        let on = fragment.type_condition.node.on.node.as_str();
        let own = Survey { directives: fragment.directives.len(), ..Survey::default() };
        let survey = own.beside(self.set(&fragment.selection_set.node, on, levels));
        self.known.insert(name, Some(survey));
        survey
    }

    fn field(&mut self, field: &'d Field, of: &str, levels: usize) -> Survey {
        let name = field.name.node.as_str();
        let introspects = of == INTROSPECTION || matches!(name, "__schema" | "__type");
        let outline = self.outline;
        let known = outline.field(of, name);
        let (leads_to, count) = match known {
            _ if introspects => (INTROSPECTION, Outline::introspected(name)),
            Some(known) => (known.leads_to.as_str(), self.count(field, known.count)),
            None => ("", 1),
        };
        let below = self.set(&field.selection_set.node, leads_to, levels);
        let needs: Permissions = known.and_then(|known| known.needs).into_iter().collect();
        Survey {
            selections: below.selections.saturating_add(1),
            levels: below.levels,
            depth: below.depth.saturating_add(1),
            cost: below.cost.saturating_mul(count).saturating_add(1),
            aliases: below.aliases.saturating_add(usize::from(field.alias.is_some())),
            directives: below.directives.saturating_add(field.directives.len()),
            introspects: below.introspects || introspects,
            asks: below.asks.union(needs),
        }
    }

    /// How many a field brings, with these arguments.
    fn count(&self, field: &Field, count: Count) -> usize {
        match count {
            Count::One => 1,
            Count::List(items) => items,
            Count::Page(default) => {
                let given =
                    ["first", "last"].into_iter().filter_map(|name| self.number(&field.get_argument(name)?.node));
                given.max().unwrap_or(default)
            }
        }
    }

    fn number(&self, value: &Value) -> Option<usize> {
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::Variable(name) => {
                match self.variables.get(name).or_else(|| self.defaults.get(name.as_str()).copied())? {
                    ConstValue::Number(number) => number.as_u64(),
                    _ => None,
                }
            }
            _ => None,
        };
        usize::try_from(number?).ok()
    }
}

/// A fragment with its directives.
fn around(directives: &[Positioned<Directive>], within: Survey) -> Survey {
    Survey {
        selections: within.selections.saturating_add(1),
        directives: within.directives.saturating_add(directives.len()),
        ..within
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;
    use crate::domain::Permission::{AlertsRead, IncidentsRead, IncidentsSubscribe};
    use crate::graphql::gateway::described;

    fn survey_with(document: &str, variables: serde_json::Value) -> Survey {
        let outline = Outline::of(&described(&crate::graphql::sdl()));
        let document = parse_query(document).unwrap();
        Surveyor::new(&outline, &document, &Variables::from_json(variables)).document()
    }

    fn survey(document: &str) -> Survey {
        survey_with(document, json!({}))
    }

    #[test]
    fn what_is_written_out_counts() {
        assert_eq!(survey("{ a b { c } }").selections, 3);
        assert_eq!(survey("{ ...F ...F } fragment F on Query { a b }").selections, 6);
        assert_eq!(survey("{ ... on Query { a } }").selections, 2);
        assert_eq!(survey("{ ...F ...F x: a } fragment F on Query { y: a @skip(if: true) }").aliases, 3);
        let directives = survey("query($a: Int @a) @b { ...F @c ... @d { a @e @f } } fragment F on Query @g { a @h }");
        assert_eq!(directives.directives, 8);
        assert_eq!(survey("{ a ...F } fragment F on Query { b { ... { c { d } } } }").depth, 3);
        assert_eq!(survey("{ a } fragment Unused on Query { b { c } }").selections, 3);
    }

    #[test]
    fn a_result_has_as_many_fields_as_its_pages_have_items() {
        assert_eq!(survey("{ incident(id: 1) { id title } }").cost, 3);
        assert_eq!(survey("{ incidents(first: 10) { nodes { id title } } }").cost, 1 + 10 * 3);
        assert_eq!(survey("{ incidents { nodes { id } } }").cost, 1 + 20 * 2);
        assert_eq!(survey("{ incidents(first: null, last: 7) { edges { node { id } } } }").cost, 1 + 7 * 3);
        let nested = "query($n: Int = 3) { incidents(first: $n) { nodes { timeline { nodes { at } } } } }";
        assert_eq!(survey(nested).cost, 1 + 3 * (1 + 1 + 50 * 2));
        assert_eq!(survey_with(nested, json!({ "n": 5 })).cost, 1 + 5 * (1 + 1 + 50 * 2));
        let related = "{ incident(id: 1) { relatedIncidents { score incident { id } } } }";
        assert_eq!(survey(related).cost, 1 + 1 + 20 * 3);
        assert_eq!(survey("{ incidents(first: 18446744073709551615) { nodes { id } } }").cost, usize::MAX);
        assert_eq!(survey("query A { a } query B { a b c }").cost, 3, "one of them is executed");
    }

    #[test]
    fn a_bomb_is_measured_at_once() {
        let mut bomb = String::from("{ ...F0 ...F0 }");
        for n in 0..30 {
            write!(bomb, " fragment F{n} on Query {{ ...F{next} ...F{next} }}", next = n + 1).unwrap();
        }
        bomb.push_str(" fragment F30 on Query { x: a @b }");
        let bomb = survey(&bomb);
        assert!(bomb.selections > 1_000_000_000 && bomb.aliases > 1_000_000_000 && bomb.directives > 1_000_000_000);
    }

    #[test]
    fn a_cycle_ends() {
        assert!(survey("{ ...A } fragment A on Query { a ...B } fragment B on Query { ...A }").selections < 10);
    }

    #[test]
    fn a_chain_of_fragments_is_too_deep_and_not_followed_to_its_end() {
        for start in ["{ a }", "{ ...F0 }"] {
            let mut chain = String::from(start);
            for n in 0..20_000 {
                write!(chain, " fragment F{n} on Query {{ ...F{} }}", n + 1).unwrap();
            }
            assert!(survey(&chain).levels > MAX_LEVELS, "{start}");
        }
    }

    #[test]
    fn what_fields_need_is_found_by_the_types_that_they_are_of() {
        let asks = |document| survey(document).asks;
        assert_eq!(asks("{ streamPosition { cursor } }"), Permissions::NONE);
        assert_eq!(asks("{ incidents { nodes { alerts: id } } }"), Permissions::of(&[IncidentsRead]));
        let nested =
            "subscription { newIncidents { ...I } } fragment I on Incident { alerts { nodes { incident { id } } } }";
        assert_eq!(asks(nested), Permissions::of(&[IncidentsSubscribe, AlertsRead, IncidentsRead]));
        assert_eq!(
            asks("subscription { incidentUpdates { incident { id } } }"),
            Permissions::of(&[IncidentsSubscribe])
        );
    }

    #[test]
    fn introspection_is_seen_and_grows_with_every_list() {
        let circle = |rounds| {
            let around = "fields { type { ".repeat(rounds);
            format!("{{ __schema {{ types {{ {around} name {} }} }} }}", "} }".repeat(rounds))
        };
        assert!(survey("{ __type(name: \"Incident\") { name } }").introspects);
        assert!(!survey("{ __typename incidents { __typename } }").introspects);
        assert!(survey(&circle(1)).cost < 10_000);
        assert!(survey(&circle(5)).cost > 1_000_000);
    }
}
