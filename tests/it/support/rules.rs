//! What the schema and the description of REST say that each field and route needs of a credential.

use std::collections::BTreeMap;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{BaseType, ConstDirective, FieldDefinition, TypeKind, TypeSystemDefinition};
use async_graphql_value::ConstValue;
use incident_manager::domain::Permission;
use incident_manager::{graphql, http};
use serde_json::Value;

pub const ROOTS: [&str; 3] = ["Query", "Mutation", "Subscription"];

/// What a field needs: a permission, or any credential.
pub type Rule = Option<Permission>;

pub struct Field {
    pub name: String,
    pub leads_to: String,
    /// None: it says nothing.
    pub rule: Option<Rule>,
}

fn rule(directives: &[&ConstDirective]) -> Option<Rule> {
    directives.iter().find_map(|directive| match directive.name.node.as_str() {
        "open" => Some(None),
        "needs" => match directive.get_argument("permission").map(|value| &value.node) {
            Some(ConstValue::String(name)) => Some(Some(name.parse().unwrap())),
            other => panic!("{other:?} is no permission"),
        },
        _ => None,
    })
}

fn field(definition: &FieldDefinition) -> Field {
    let mut base = &definition.ty.node.base;
    while let BaseType::List(of) = base {
        base = &of.base;
    }
    let BaseType::Named(leads_to) = base else { unreachable!("the loop ends at a name") };
    let directives: Vec<_> = definition.directives.iter().map(|directive| &directive.node).collect();
    Field { name: definition.name.node.to_string(), leads_to: leads_to.to_string(), rule: rule(&directives) }
}

/// The object types of the schema and their fields.
pub fn schema() -> BTreeMap<String, Vec<Field>> {
    let document = parse_schema(graphql::sdl()).unwrap();
    let objects = document.definitions.into_iter().filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => match definition.node.kind {
            TypeKind::Object(object) => Some((
                definition.node.name.node.to_string(),
                object.fields.iter().map(|definition| field(&definition.node)).collect(),
            )),
            _ => None,
        },
        _ => None,
    });
    objects.collect()
}

/// Fields with a rule, by their names `Type.field`.
pub fn rules() -> BTreeMap<String, Rule> {
    let schema = schema();
    let rules = schema.iter().flat_map(|(of, fields)| {
        fields.iter().filter_map(move |field| Some((format!("{of}.{}", field.name), field.rule?)))
    });
    rules.collect()
}

/// Operations of the REST description, by method and path, and what they need.
pub fn routes() -> BTreeMap<(String, String), Permission> {
    let document: Value = serde_json::from_str(http::openapi()).unwrap();
    let mut routes = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let needed = operation["security"][0]["bearer"][0].as_str();
            let needed = needed.unwrap_or_else(|| panic!("{method} {path} needs nothing"));
            routes.insert((method.to_uppercase(), path.clone()), needed.parse().unwrap());
        }
    }
    routes
}
