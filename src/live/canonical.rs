//! The one form of a subscription: two that ask for the same come out the same, and share a feed, wherever each begins.
//!
//! Arguments and members of objects are sorted; fields, aliases and lists keep their order, which results show. Fragments are
//! written out: at the root, where the library passes over them, as fields that keep the fragment's directives; below as
//! inline fragments, so that their names make no difference. Of the variables only those that are used stay, with defaults
//! filled in, which the library passes over in `@include(if: $v)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use async_graphql::parser::Positioned;
use async_graphql::parser::types::{
    Directive, ExecutableDocument, Field, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{Name, Variables};
use async_graphql_value::{ConstValue, Value};

use super::after::{AFTER, After, Values};

/// A subscription's document and variables, in their one form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Canonical {
    pub document: String,
    /// JSON.
    pub variables: String,
}

/// Brings an operation that is valid into its one form, without the place from which it is to begin, which is beside it.
pub fn canonical(
    document: &ExecutableDocument,
    operation: &OperationDefinition,
    given: &Variables,
) -> (Canonical, After) {
    let mut printer = Printer { document, used: BTreeSet::new(), text: String::new() };
    let mut roots = Vec::new();
    collect_roots(document, &operation.selection_set.node, &[], &mut roots);
    let values = Values { operation, given };
    let after = roots
        .iter()
        .filter(|root| values.let_through(root.directives.iter().copied().chain(&root.field.directives)))
        .map(|root| values.after(root.field))
        .find(|after| *after != After::Now)
        .unwrap_or(After::Now);
    printer.roots(&roots);
    printer.directives(&operation.directives);
    let (body, used) = (printer.text, printer.used);

    let mut head = String::from("subscription");
    let mut values = BTreeMap::new();
    let mut definitions: Vec<_> =
        operation.variable_definitions.iter().filter(|definition| used.contains(&definition.node.name.node)).collect();
    definitions.sort_by(|one, other| one.node.name.node.cmp(&other.node.name.node));
    for (at, definition) in definitions.iter().enumerate() {
        let definition = &definition.node;
        let name = &definition.name.node;
        head.push_str(if at == 0 { "(" } else { " " });
        let default = definition.default_value.as_ref().map(|default| &default.node);
        let value = given.get(name).or(default);
        // a default let the variable stand where null may not: the type has to say so in its place
        let type_ = &definition.var_type.node;
        let promised = type_.nullable && default.is_some() && value.is_some_and(|value| *value != ConstValue::Null);
        let _ = write!(head, "${name}:{type_}{}", if promised { "!" } else { "" });
        if let Some(value) = value {
            values.insert(name.to_string(), value.clone().into_json().unwrap_or_default());
        }
    }
    if !definitions.is_empty() {
        head.push(')');
    }
    let variables = serde_json::Value::Object(values.into_iter().collect());
    (Canonical { document: head + &body, variables: variables.to_string() }, after)
}

/// A root field with the directives of the fragments around it, and its selection sets: fields of one response key are one.
struct Root<'d> {
    field: &'d Field,
    directives: Vec<&'d Positioned<Directive>>,
    selections: Vec<&'d SelectionSet>,
}

fn collect_roots<'d>(
    document: &'d ExecutableDocument,
    set: &'d SelectionSet,
    around: &[&'d Positioned<Directive>],
    roots: &mut Vec<Root<'d>>,
) {
    for selection in &set.items {
        let with = |own: &'d [Positioned<Directive>]| around.iter().copied().chain(own).collect::<Vec<_>>();
        match &selection.node {
            Selection::Field(field) => {
                let field = &field.node;
                let directives = with(&field.directives);
                // a field that may be left out by itself stays by itself
                let same = roots.iter_mut().find(|root| {
                    root.field.response_key().node == field.response_key().node
                        && root.directives.is_empty()
                        && directives.is_empty()
                });
                match same {
                    Some(root) => root.selections.push(&field.selection_set.node),
                    None => roots.push(Root { field, directives, selections: vec![&field.selection_set.node] }),
                }
            }
            Selection::InlineFragment(inline) => {
                collect_roots(document, &inline.node.selection_set.node, &with(&inline.node.directives), roots);
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                    let directives = with(&spread.node.directives);
                    collect_roots(document, &fragment.node.selection_set.node, &directives, roots);
                }
            }
        }
    }
}

struct Printer<'d> {
    document: &'d ExecutableDocument,
    used: BTreeSet<Name>,
    text: String,
}

impl<'d> Printer<'d> {
    fn roots(&mut self, roots: &[Root<'d>]) {
        self.text.push('{');
        for root in roots {
            self.field_head(root.field, |name| name != AFTER);
            for directive in &root.directives {
                self.directive(&directive.node);
            }
            if root.selections.iter().any(|set| !set.items.is_empty()) {
                self.text.push('{');
                for set in &root.selections {
                    self.selections(set);
                }
                self.text.push('}');
            }
            self.text.push(' ');
        }
        self.text.push('}');
    }

    fn selections(&mut self, set: &'d SelectionSet) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    self.field_head(&field.node, |_| true);
                    self.directives(&field.node.directives);
                    self.nested(&field.node.selection_set.node);
                }
                Selection::InlineFragment(inline) => {
                    self.text.push_str("...");
                    if let Some(condition) = &inline.node.type_condition {
                        let _ = write!(self.text, "on {}", condition.node.on.node);
                    }
                    self.directives(&inline.node.directives);
                    self.nested(&inline.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.node.fragment_name.node) {
                        let _ = write!(self.text, "...on {}", fragment.node.type_condition.node.on.node);
                        self.directives(&spread.node.directives);
                        self.nested(&fragment.node.selection_set.node);
                    }
                }
            }
            self.text.push(' ');
        }
    }

    fn nested(&mut self, set: &'d SelectionSet) {
        if !set.items.is_empty() {
            self.text.push('{');
            self.selections(set);
            self.text.push('}');
        }
    }

    fn field_head(&mut self, field: &Field, counts: impl Fn(&str) -> bool) {
        if let Some(alias) = field.alias.as_ref().filter(|alias| alias.node != field.name.node) {
            let _ = write!(self.text, "{}:", alias.node);
        }
        self.text.push_str(&field.name.node);
        self.arguments(field.arguments.iter().filter(|(name, _)| counts(&name.node)));
    }

    fn directives(&mut self, directives: &[Positioned<Directive>]) {
        for directive in directives {
            self.directive(&directive.node);
        }
    }

    fn directive(&mut self, directive: &Directive) {
        let _ = write!(self.text, "@{}", directive.name.node);
        self.arguments(directive.arguments.iter());
    }

    fn arguments<'a>(&mut self, arguments: impl Iterator<Item = &'a (Positioned<Name>, Positioned<Value>)>) {
        let mut sorted: Vec<_> = arguments.collect();
        if sorted.is_empty() {
            return;
        }
        sorted.sort_by(|one, other| one.0.node.cmp(&other.0.node));
        self.text.push('(');
        for (name, value) in sorted {
            let _ = write!(self.text, "{}:", name.node);
            self.value(&value.node);
            self.text.push(' ');
        }
        self.text.push(')');
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Variable(name) => {
                self.used.insert(name.clone());
                let _ = write!(self.text, "${name}");
            }
            Value::List(items) => {
                self.text.push('[');
                for item in items {
                    self.value(item);
                    self.text.push(' ');
                }
                self.text.push(']');
            }
            Value::Object(members) => {
                let sorted: BTreeMap<_, _> = members.iter().collect();
                self.text.push('{');
                for (name, member) in sorted {
                    let _ = write!(self.text, "{name}:");
                    self.value(member);
                    self.text.push(' ');
                }
                self.text.push('}');
            }
            Value::String(text) => {
                // a JSON string is one of GraphQL
                self.text.push_str(&serde_json::Value::String(text.clone()).to_string());
            }
            other => {
                let _ = write!(self.text, "{other}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;

    fn form(text: &str, variables: serde_json::Value) -> Canonical {
        let document = parse_query(text).unwrap();
        let (_, operation) = document.operations.iter().next().unwrap();
        canonical(&document, &operation.node, &Variables::from_json(variables)).0
    }

    #[test]
    fn what_makes_no_difference_comes_out_the_same() {
        let one = form(
            "subscription A { incidentUpdates(activeOnly: true, severities: [P0, P1]) { updateType incident { id } } }",
            json!({}),
        );
        let same = [
            "subscription B{incidentUpdates(severities:[P0 P1]activeOnly:true){updateType,incident{id}}}",
            "subscription { ...R } fragment R on Subscription { incidentUpdates(activeOnly: true, severities: [P0, P1]) { updateType incident { id } } }",
            "subscription { ... on Subscription { incidentUpdates(severities: [P0, P1], activeOnly: true) { updateType incident { id } } } }",
            "subscription { incidentUpdates: incidentUpdates(severities: [P0, P1], activeOnly: true) { updateType incident { id } } }",
            "subscription { incidentUpdates(severities: [P0, P1], activeOnly: true) { updateType } incidentUpdates(severities: [P0, P1], activeOnly: true) { incident { id } } }",
        ];
        for text in same {
            assert_eq!(form(text, json!({})), one, "{text}");
        }
    }

    #[test]
    fn what_makes_a_difference_does_not() {
        let forms = [
            "subscription { newIncidents { id title } }",
            "subscription { newIncidents { title id } }",
            "subscription { newIncidents { id name: title } }",
            "subscription { newIncidents(severities: [P0, P1]) { id title } }",
            "subscription { newIncidents(severities: [P1, P0]) { id title } }",
            "subscription { newIncidents(severities: null) { id title } }",
            "subscription { newIncidents { id title @skip(if: false) } }",
            "subscription { newIncidents { id ... on Incident { title } } }",
        ];
        let distinct: BTreeSet<_> = forms.iter().map(|text| form(text, json!({})).document).collect();
        assert_eq!(distinct.len(), forms.len());
    }

    #[test]
    fn variables_count_by_name_type_and_value_if_they_are_used() {
        let text = "subscription($s: [Severity!] = [P0], $t: Boolean = true) { newIncidents(severities: $s) { id title @include(if: $t) } }";
        let defaults = form(text, json!({}));
        assert_eq!(defaults.variables, r#"{"s":["P0"],"t":true}"#);
        assert_eq!(form(text, json!({ "t": true, "unused": 1, "s": ["P0"] })), defaults);
        assert_ne!(form(text, json!({ "t": false })), defaults);
        assert_ne!(form(text, json!({ "s": null })), defaults);
        let omitted = form("subscription($s: [Severity!]) { newIncidents(severities: $s) { id } }", json!({}));
        assert_eq!(omitted.variables, "{}", "left out is not null");
    }

    #[test]
    fn the_form_is_a_document_again_and_its_own_form() {
        let texts = [
            "subscription($a: [UUID!], $n: Boolean = false) { u: incidentUpdates(incidentIds: $a, activeOnly: $n) { ...F @include(if: $n) } } fragment F on IncidentUpdate { incident { labels title } ...G } fragment G on IncidentUpdate { cursor }",
            "subscription { ...R @include(if: true) } fragment R on Subscription { alerts(sources: [\"a\\\"b\\n\", \"é\"]) { id } }",
        ];
        for text in texts {
            let once = form(text, json!({}));
            let twice = form(&once.document, serde_json::from_str(&once.variables).unwrap());
            assert_eq!(once, twice);
        }
    }

    #[test]
    fn directives_around_root_fields_stay_on_them() {
        let canonical =
            form("subscription { ...R @skip(if: true) } fragment R on Subscription { alerts { id } }", json!({}));
        assert_eq!(canonical.document, "subscription{alerts@skip(if:true ){id } }");
    }
}
