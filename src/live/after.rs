//! The argument `after` of a subscription's root field: where it is to begin. It makes no other subscription of it.

use async_graphql::parser::Positioned;
use async_graphql::parser::types::{Directive, Field, OperationDefinition};
use async_graphql::{Name, Variables};
use async_graphql_value::{ConstValue, Value};

/// The argument's name.
pub const AFTER: &str = "after";

/// Where a subscription is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    Now,
    /// Behind what this cursor says was seen; as it came.
    Cursor(String),
    /// Something that is no text, or nothing where the variable's type promises something.
    OtherType,
}

/// The values of an operation's variables.
pub struct Values<'d> {
    pub operation: &'d OperationDefinition,
    pub given: &'d Variables,
}

impl Values<'_> {
    /// What a root field's argument says.
    pub fn after(&self, field: &Field) -> After {
        let Some(value) = field.get_argument(AFTER) else { return After::Now };
        match &value.node {
            Value::String(text) => After::Cursor(text.clone()),
            Value::Null => After::Now,
            Value::Variable(name) => match self.get(name) {
                Some(ConstValue::String(text)) => After::Cursor(text.clone()),
                None | Some(ConstValue::Null) if !self.promises(name) => After::Now,
                _ => After::OtherType,
            },
            _ => After::OtherType,
        }
    }

    /// Whether neither `@skip` nor `@include` leaves a field out.
    pub fn let_through<'d>(&self, mut directives: impl Iterator<Item = &'d Positioned<Directive>>) -> bool {
        directives.all(|directive| {
            let condition = directive.node.get_argument("if").map(|value| match &value.node {
                Value::Variable(name) => self.get(name) == Some(&ConstValue::Boolean(true)),
                value => *value == Value::Boolean(true),
            });
            match (&*directive.node.name.node, condition) {
                ("include", Some(condition)) => condition,
                ("skip", Some(condition)) => !condition,
                _ => true,
            }
        })
    }

    fn get(&self, name: &Name) -> Option<&ConstValue> {
        let default = || {
            let definition = self.operation.variable_definitions.iter().find(|known| known.node.name.node == *name)?;
            definition.node.default_value.as_ref().map(|default| &default.node)
        };
        self.given.get(name).or_else(default)
    }

    /// Whether the variable's type is one of what is there.
    fn promises(&self, name: &Name) -> bool {
        let definitions = &self.operation.variable_definitions;
        definitions.iter().any(|known| known.node.name.node == *name && !known.node.var_type.node.nullable)
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;
    use crate::live::canonical::canonical;

    fn asked(text: &str, variables: serde_json::Value) -> (String, String, After) {
        let document = parse_query(text).unwrap();
        let (_, operation) = document.operations.iter().next().unwrap();
        let (form, after) = canonical(&document, &operation.node, &Variables::from_json(variables));
        (form.document, form.variables, after)
    }

    #[test]
    fn it_is_taken_out_wherever_it_comes_from() {
        let plain = asked("subscription { alerts(sources: [\"a\"]) { id } }", json!({}));
        assert_eq!(plain.2, After::Now);
        for (text, variables) in [
            ("subscription { alerts(sources: [\"a\"], after: \"c\") { id } }", json!({})),
            ("subscription($c: String) { alerts(after: $c, sources: [\"a\"]) { id } }", json!({ "c": "c" })),
            ("subscription($c: String!) { alerts(after: $c, sources: [\"a\"]) { id } }", json!({ "c": "c" })),
            ("subscription($c: String = \"c\") { alerts(after: $c, sources: [\"a\"]) { id } }", json!({})),
            (
                "subscription { ...R } fragment R on Subscription { alerts(sources: [\"a\"], after: \"c\") { id } }",
                json!({}),
            ),
        ] {
            let (document, variables, after) = asked(text, variables);
            assert_eq!((document, variables), (plain.0.clone(), plain.1.clone()), "{text}");
            assert_eq!(after, After::Cursor("c".to_owned()), "{text}");
        }
    }

    #[test]
    fn null_and_nothing_are_now_where_they_may_be() {
        let optional = "subscription($c: String) { criticalIncidents(after: $c) { id } }";
        let promised = "subscription($c: String!) { criticalIncidents(after: $c) { id } }";
        let after = |text, variables| asked(text, variables).2;
        assert_eq!(after("subscription { criticalIncidents(after: null) { id } }", json!({})), After::Now);
        assert_eq!(after(optional, json!({})), After::Now);
        assert_eq!(after(optional, json!({ "c": null })), After::Now);
        assert_eq!(after(optional, json!({ "c": 5 })), After::OtherType);
        assert_eq!(after(promised, json!({})), After::OtherType);
        assert_eq!(after(promised, json!({ "c": null })), After::OtherType);
    }

    #[test]
    fn a_variable_that_is_used_elsewhere_too_stays_there() {
        let text = "subscription($c: String) { criticalIncidents(after: $c) { comments(after: $c) { nodes { id } } } }";
        let (document, variables, after) = asked(text, json!({ "c": "x" }));
        assert_eq!(document, "subscription($c:String){criticalIncidents{comments(after:$c ){nodes{id } } } }");
        assert_eq!((variables.as_str(), after), (r#"{"c":"x"}"#, After::Cursor("x".to_owned())));
    }

    #[test]
    fn it_is_the_fields_that_is_not_left_out() {
        let text = "subscription($a: Boolean = false) {
            criticalIncidents(after: \"a\") @include(if: $a) { id } newIncidents(after: \"b\") @skip(if: $a) { id } }";
        assert_eq!(asked(text, json!({})).2, After::Cursor("b".to_owned()));
        assert_eq!(asked(text, json!({ "a": true })).2, After::Cursor("a".to_owned()));
    }
}
