//! Where the schema takes input objects, read off the schema itself.

use std::collections::HashMap;

use async_graphql::Positioned;
use async_graphql::parser::types::{
    BaseType, InputValueDefinition, ServiceDocument, Type, TypeKind, TypeSystemDefinition,
};
use async_graphql_value::Value as Literal;

/// The arguments that take input objects, and the members of those.
#[derive(Debug, Default)]
pub struct Inputs {
    /// By the names of the field and the argument, whatever type has the field: none takes one thing here and another there.
    arguments: HashMap<(String, String), Type>,
    /// Of each type of input object, by their names.
    members: HashMap<String, HashMap<String, Type>>,
}

impl Inputs {
    pub fn of(schema: &ServiceDocument) -> Self {
        let mut inputs = Self::default();
        for definition in &schema.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            match &definition.node.kind {
                TypeKind::Object(object) => {
                    for field in &object.fields {
                        let name = field.node.name.node.to_string();
                        for (argument, of) in named(&field.node.arguments) {
                            inputs.arguments.insert((name.clone(), argument), of);
                        }
                    }
                }
                TypeKind::InputObject(object) => {
                    inputs.members.insert(definition.node.name.node.to_string(), named(&object.fields).collect());
                }
                _ => {}
            }
        }
        inputs
    }

    /// The input object that this argument should have, or have in it, where something else is.
    pub fn missed<'a>(&'a self, field: &str, argument: &str, value: &Literal) -> Option<&'a str> {
        self.missed_in(self.arguments.get(&(field.to_owned(), argument.to_owned()))?, value)
    }

    /// The same of a value of a type. A variable has a type of its own, and where null may be the library knows.
    pub fn missed_in<'a>(&'a self, of: &'a Type, value: &Literal) -> Option<&'a str> {
        match (&of.base, value) {
            (_, Literal::Variable(_) | Literal::Null) => None,
            (BaseType::List(of), Literal::List(items)) => items.iter().find_map(|item| self.missed_in(of, item)),
            (BaseType::List(of), single) => self.missed_in(of, single),
            (BaseType::Named(name), Literal::Object(object)) => {
                let members = self.members.get(name.as_str())?;
                object.iter().find_map(|(name, value)| self.missed_in(members.get(name.as_str())?, value))
            }
            (BaseType::Named(name), _) => self.members.contains_key(name.as_str()).then_some(name.as_str()),
        }
    }
}

fn named(values: &[Positioned<InputValueDefinition>]) -> impl Iterator<Item = (String, Type)> {
    values.iter().map(|value| (value.node.name.node.to_string(), value.node.ty.node.clone()))
}
