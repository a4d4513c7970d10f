//! Where the schema takes input objects, read off the schema itself.

use std::collections::HashMap;

use async_graphql::parser::types::{
    BaseType, InputValueDefinition, ServiceDocument, Type, TypeKind, TypeSystemDefinition,
};
use async_graphql::{Name, Positioned};
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
        self.missed_in(self.argument(field, argument)?, value)
    }

    /// The same of a value of a type. A variable has a type of its own, and where null may be the library knows.
    pub fn missed_in<'a>(&'a self, of: &'a Type, value: &Literal) -> Option<&'a str> {
        let mut missed = None;
        self.leaves(of, value, &mut |of, value| {
            if let (BaseType::Named(name), false) = (&of.base, matches!(value, Literal::Variable(_) | Literal::Null))
                && self.members.contains_key(name.as_str())
            {
                missed = missed.or(Some(name.as_str()));
            }
        });
        missed
    }

    /// Each variable in an argument, and the type of what is to be in its place.
    pub fn variables<'a, 'v>(
        &'a self,
        (field, argument): (&str, &str),
        value: &'v Literal,
        found: &mut impl FnMut(&'v Name, &'a Type),
    ) {
        let Some(of) = self.argument(field, argument) else { return };
        self.leaves(of, value, &mut |of, value| {
            if let Literal::Variable(name) = value {
                found(name, of);
            }
        });
    }

    fn argument(&self, field: &str, argument: &str) -> Option<&Type> {
        self.arguments.get(&(field.to_owned(), argument.to_owned()))
    }

    /// What a value of a type comes to, beside the lists and the input objects that are where they should be.
    fn leaves<'a, 'v>(&'a self, of: &'a Type, value: &'v Literal, leaf: &mut impl FnMut(&'a Type, &'v Literal)) {
        match (&of.base, value) {
            (_, Literal::Variable(_) | Literal::Null) => leaf(of, value),
            (BaseType::List(of), Literal::List(items)) => items.iter().for_each(|item| self.leaves(of, item, leaf)),
            (BaseType::List(of), single) => self.leaves(of, single, leaf),
            (BaseType::Named(name), Literal::Object(object)) => {
                let Some(members) = self.members.get(name.as_str()) else { return };
                for (name, value) in object {
                    if let Some(of) = members.get(name.as_str()) {
                        self.leaves(of, value, leaf);
                    }
                }
            }
            (BaseType::Named(_), _) => leaf(of, value),
        }
    }
}

fn named(values: &[Positioned<InputValueDefinition>]) -> impl Iterator<Item = (String, Type)> {
    values.iter().map(|value| {
        let of = value.node.ty.node.clone();
        // nothing has to be there for which there is a default
        let nullable = of.nullable || value.node.default_value.is_some();
        (value.node.name.node.to_string(), Type { nullable, ..of })
    })
}
