//! The outline of the schema, read off the schema itself: where its fields lead, how many they bring, and what they ask of a
//! credential.

use std::collections::HashMap;

use async_graphql::parser::types::{
    BaseType, FieldDefinition, OperationType, ServiceDocument, TypeKind, TypeSystemDefinition,
};
use async_graphql_value::ConstValue;

use crate::domain::Permission;

/// Items of a page where nothing says how many.
const DEFAULT_PAGE: usize = 20;
/// Items of a list that has no pages: at most as many relations, and seldom more steps of a playbook.
const LIST: usize = 20;

/// What a field of introspection brings, about as many as this schema has: of others no list is without a bound.
const INTROSPECTED: [(&str, usize); 3] = [("types", 64), ("fields", 8), ("enumValues", 8)];
/// Of a list of introspection that is not named above.
const INTROSPECTED_OTHERWISE: usize = 4;

/// How many things a field brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    One,
    /// As many as its `first` or `last` says, else this many.
    Page(usize),
    List(usize),
}

/// What is to be known of a field before it is executed.
#[derive(Debug, Clone)]
pub struct Field {
    /// The type whose fields may be selected.
    pub leads_to: String,
    pub count: Count,
    pub needs: Option<Permission>,
}

/// Object types, and their fields by name.
#[derive(Debug, Default)]
pub struct Outline(HashMap<String, HashMap<String, Field>>);

impl Outline {
    pub fn of(schema: &ServiceDocument) -> Self {
        let mut types = HashMap::new();
        for definition in &schema.definitions {
            if let TypeSystemDefinition::Type(definition) = definition
                && let TypeKind::Object(object) = &definition.node.kind
            {
                let fields =
                    object.fields.iter().map(|field| (field.node.name.node.to_string(), field_of(&field.node)));
                types.insert(definition.node.name.node.to_string(), fields.collect());
            }
        }
        Self(types)
    }

    /// The type at the root of an operation.
    pub const fn root(operation: OperationType) -> &'static str {
        match operation {
            OperationType::Query => "Query",
            OperationType::Mutation => "Mutation",
            OperationType::Subscription => "Subscription",
        }
    }

    /// A field of a type; `None` where the schema has no such field.
    pub fn field(&self, of: &str, name: &str) -> Option<&Field> {
        self.0.get(of)?.get(name)
    }

    /// How many a field of introspection brings: those that are no lists bring one.
    pub fn introspected(name: &str) -> usize {
        let known = INTROSPECTED.iter().find(|(list, _)| *list == name).map(|(_, count)| *count);
        known.unwrap_or(match name {
            "args" | "inputFields" | "interfaces" | "possibleTypes" | "directives" => INTROSPECTED_OTHERWISE,
            _ => 1,
        })
    }
}

fn field_of(field: &FieldDefinition) -> Field {
    let mut base = &field.ty.node.base;
    let mut is_list = false;
    while let BaseType::List(of) = base {
        is_list = true;
        base = &of.base;
    }
    let leads_to = match base {
        BaseType::Named(name) => name.to_string(),
        BaseType::List(_) => unreachable!("a list is of something in the end"),
    };
    let default = field.arguments.iter().find(|argument| argument.node.name.node == "first").map(|first| {
        let default = first.node.default_value.as_ref().map(|value| &value.node);
        match default {
            Some(ConstValue::Number(number)) => number.as_u64().and_then(|first| usize::try_from(first).ok()),
            _ => None,
        }
    });
    let count = match default {
        Some(default) => Count::Page(default.unwrap_or(DEFAULT_PAGE)),
        // what a page brings is counted where the page is asked for
        None if is_list && !matches!(field.name.node.as_str(), "nodes" | "edges") => Count::List(LIST),
        None => Count::One,
    };
    let needs = field.directives.iter().find(|directive| directive.node.name.node == "needs").and_then(|needs| {
        match needs.node.get_argument("permission").map(|value| &value.node) {
            Some(ConstValue::String(name)) => name.parse().ok(),
            _ => None,
        }
    });
    Field { leads_to, count, needs }
}
