//! What the specification wants of an operation's inputs before anything is carried out, and the library finds only in the
//! field that takes them, when fields before it have had their effect: that every required variable has a value, and that an
//! Int has 32 bits.

use async_graphql::parser::types::{BaseType, ExecutableDocument, Selection, SelectionSet};
use async_graphql::{Name, Pos, ServerError, Value, Variables};
use async_graphql_value::{ConstValue, Number, Value as Literal};

use super::gateway::named_operation;

/// Checks the operation that is named, and the literals of all.
pub fn check(document: &ExecutableDocument, name: Option<&str>, variables: &Variables) -> Result<(), ServerError> {
    if let Some(operation) = named_operation(document, name) {
        for definition in &operation.variable_definitions {
            let (name, of) = (&definition.node.name.node, &definition.node.var_type.node);
            let value = variables.get(name);
            if !of.nullable && definition.node.default_value.is_none() && value.is_none() {
                let message = format!("Variable \"${name}\" of required type \"{of}\" was not provided.");
                return Err(ServerError::new(message, Some(definition.pos)));
            }
            if of.base == BaseType::Named(Name::new("Int")) {
                integer(value, definition.pos)?;
            }
        }
    }
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operations.chain(fragments).try_for_each(literals)
}

/// No argument takes another number than an Int, so that a number says what it is to be.
fn literals(set: &SelectionSet) -> Result<(), ServerError> {
    set.items.iter().try_for_each(|selection| match &selection.node {
        Selection::Field(field) => {
            for (_, argument) in &field.node.arguments {
                if let Literal::Number(number) = &argument.node {
                    thirty_two_bits(number, argument.pos)?;
                }
            }
            literals(&field.node.selection_set.node)
        }
        Selection::InlineFragment(inline) => literals(&inline.node.selection_set.node),
        Selection::FragmentSpread(_) => Ok(()),
    })
}

fn integer(value: Option<&Value>, at: Pos) -> Result<(), ServerError> {
    match value {
        Some(ConstValue::Number(number)) => thirty_two_bits(number, at),
        _ => Ok(()),
    }
}

/// Whether it is an integer at all is looked at by the library's own rules.
fn thirty_two_bits(number: &Number, at: Pos) -> Result<(), ServerError> {
    let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
    if fits || number.is_f64() {
        return Ok(());
    }
    Err(ServerError::new(format!("Int cannot represent {number}: it has more than 32 bits."), Some(at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn refused(document: &str, variables: Json) -> Option<String> {
        let document = async_graphql::parser::parse_query(document).unwrap();
        check(&document, None, &Variables::from_json(variables)).err().map(|error| error.message)
    }

    #[test]
    fn a_required_variable_has_a_value() {
        let message = "Variable \"$id\" of required type \"UUID!\" was not provided.";
        assert_eq!(refused("query($id: UUID!) { incident(id: $id) { id } }", json!({})).as_deref(), Some(message));
        assert_eq!(refused("query($id: UUID!) { incident(id: $id) { id } }", json!({ "id": "x" })), None);
        assert_eq!(refused("query($id: UUID! = \"x\") { incident(id: $id) { id } }", json!({})), None);
        assert_eq!(refused("query($id: UUID) { incident(id: $id) { id } }", json!({})), None);
    }

    #[test]
    fn an_int_has_thirty_two_bits() {
        for number in ["2147483648", "-2147483649", "9223372036854775808", "18446744073709551615"] {
            let message = format!("Int cannot represent {number}: it has more than 32 bits.");
            let literal = format!("{{ ...F }} fragment F on Query {{ incidents(first: {number}) {{ totalCount }} }}");
            assert_eq!(refused(&literal, json!({})), Some(message.clone()));
            let variable = format!("{{ \"n\": {number} }}").parse::<Json>().unwrap();
            let document = "query($n: Int) { incidents(first: $n) { totalCount } }";
            assert_eq!(refused(document, variable), Some(message));
        }
        assert_eq!(refused("{ incidents(first: 2147483647) { totalCount } }", json!({})), None);
        assert_eq!(refused("{ incidents(first: -2147483648) { totalCount } }", json!({})), None);
    }

    #[test]
    fn no_argument_takes_another_number() {
        let schema = crate::graphql::sdl();
        assert!(!schema.contains("Float,") && !schema.contains("Float)") && !schema.contains(": Float ="), "{schema}");
    }
}
