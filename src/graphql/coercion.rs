//! What the specification wants of an operation's inputs before anything is carried out, and the library finds only in the
//! field that takes them, when fields before it have had their effect: that every required variable has a value, that none
//! which may be null stands where something has to be, that an Int has 32 bits, and that an input object is an object.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{BaseType, ExecutableDocument, Selection, SelectionSet, VariableDefinition};
use async_graphql::{Name, Pos, Positioned, ServerError, Value, Variables};
use async_graphql_value::{ConstValue, Number, Value as Literal};

use super::gateway::named_operation;
use super::inputs::Inputs;

/// Checks the operation that is named, and the literals of all.
pub fn check(
    inputs: &Inputs,
    document: &ExecutableDocument,
    name: Option<&str>,
    variables: &Variables,
) -> Result<(), ServerError> {
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
            if let Some(value) = value
                && let Some(missed) = inputs.missed_in(of, &value.clone().into_value())
            {
                return Err(no_object(missed, definition.pos));
            }
        }
    }
    if let Some(operation) = named_operation(document, name) {
        let variables = operation.variable_definitions.iter().map(|one| &one.node);
        let loose: HashMap<_, _> = variables.filter(|one| is_loose(one)).map(|one| (&one.name.node, one)).collect();
        if !loose.is_empty() {
            Usages { inputs, document, loose, followed: HashSet::new() }.check(&operation.selection_set.node)?;
        }
    }
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operations.chain(fragments).try_for_each(|set| literals(inputs, set))
}

/// Whether a variable may be null.
fn is_loose(variable: &VariableDefinition) -> bool {
    let default = variable.default_value.as_ref().map(|default| &default.node);
    variable.var_type.node.nullable && default.is_none_or(|default| *default == ConstValue::Null)
}

/// Looks at where an operation uses variables (GraphQL specification, "All Variable Usages Are Allowed"); that the types are
/// otherwise of a kind the library sees by the values.
struct Usages<'d> {
    inputs: &'d Inputs,
    document: &'d ExecutableDocument,
    /// Those that may be null.
    loose: HashMap<&'d Name, &'d VariableDefinition>,
    /// Fragments that have been looked at.
    followed: HashSet<&'d Name>,
}

impl<'d> Usages<'d> {
    fn check(&mut self, set: &'d SelectionSet) -> Result<(), ServerError> {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    for (name, argument) in &field.node.arguments {
                        self.argument((&field.node.name.node, &name.node), argument)?;
                    }
                    self.check(&field.node.selection_set.node)?;
                }
                Selection::InlineFragment(inline) => self.check(&inline.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.document.fragments.get(name)
                        && self.followed.insert(name)
                    {
                        self.check(&fragment.node.selection_set.node)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn argument(&self, of: (&Name, &Name), argument: &'d Positioned<Literal>) -> Result<(), ServerError> {
        let mut wrong = None;
        self.inputs.variables((of.0, of.1), &argument.node, &mut |name, place| {
            let used = self.loose.get(name);
            wrong = wrong.take().or_else(|| used.filter(|_| !place.nullable).map(|used| (*used, place)));
        });
        let Some((variable, place)) = wrong else { return Ok(()) };
        let (name, of) = (&variable.name.node, &variable.var_type.node);
        let message = format!("Variable \"${name}\" of type \"{of}\" is used where \"{place}\" is expected.");
        Err(ServerError::new(message, Some(argument.pos)))
    }
}

/// No argument takes another number than an Int, so that a number says what it is to be.
fn literals(inputs: &Inputs, set: &SelectionSet) -> Result<(), ServerError> {
    set.items.iter().try_for_each(|selection| match &selection.node {
        Selection::Field(field) => {
            for (name, argument) in &field.node.arguments {
                if let Some(missed) = inputs.missed(&field.node.name.node, &name.node, &argument.node) {
                    return Err(no_object(missed, argument.pos));
                }
                if let Literal::Number(number) = &argument.node {
                    thirty_two_bits(number, argument.pos)?;
                }
            }
            literals(inputs, &field.node.selection_set.node)
        }
        Selection::InlineFragment(inline) => literals(inputs, &inline.node.selection_set.node),
        Selection::FragmentSpread(_) => Ok(()),
    })
}

fn no_object(name: &str, at: Pos) -> ServerError {
    ServerError::new(format!("Expected value of type \"{name}\", which is an object."), Some(at))
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
    use crate::graphql::gateway::described;
    use serde_json::{Value as Json, json};

    fn refused(document: &str, variables: Json) -> Option<String> {
        let document = async_graphql::parser::parse_query(document).unwrap();
        check(&Inputs::of(&described(&crate::graphql::sdl())), &document, None, &Variables::from_json(variables))
            .err()
            .map(|error| error.message)
    }

    #[test]
    fn a_required_variable_has_a_value() {
        let message = "Variable \"$id\" of required type \"UUID!\" was not provided.";
        assert_eq!(refused("query($id: UUID!) { incident(id: $id) { id } }", json!({})).as_deref(), Some(message));
        assert_eq!(refused("query($id: UUID!) { incident(id: $id) { id } }", json!({ "id": "x" })), None);
        assert_eq!(refused("query($id: UUID! = \"x\") { incident(id: $id) { id } }", json!({})), None);
    }

    #[test]
    fn a_variable_that_may_be_null_stands_where_null_may() {
        for (document, wrong) in [
            ("query($v: UUID) { incident(id: $v) { id } }", Some(("UUID", "UUID!"))),
            (
                "query($v: UUID = null) { ...F } fragment F on Query { incident(id: $v) { id } }",
                Some(("UUID", "UUID!")),
            ),
            ("query($v: UUID = \"x\") { incident(id: $v) { id } }", None),
            ("query($v: UUID!) { incident(id: $v) { id } }", None),
            ("query($v: Int) { incidents(first: $v) { totalCount } }", None),
            (
                "query($v: Severity) { incidents(filter: { severities: [$v] }) { totalCount } }",
                Some(("Severity", "Severity!")),
            ),
            ("query($v: [Severity!]) { incidents(filter: { severities: $v }) { totalCount } }", None),
            (
                "mutation($v: String) { createIncident(input: { title: $v, severity: P1, source: \"s\" }) { id } }",
                Some(("String", "String!")),
            ),
            (
                "mutation($v: String) { createPlaybook(input: { name: \"n\", steps: { title: $v } }) { id } }",
                Some(("String", "String!")),
            ),
        ] {
            let message = wrong
                .map(|(of, place)| format!("Variable \"$v\" of type \"{of}\" is used where \"{place}\" is expected."));
            // whatever is given
            for variables in [json!({ "v": null }), json!({ "v": "x" })] {
                assert_eq!(refused(document, variables), message, "{document}");
            }
        }
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
    fn an_input_object_is_an_object() {
        for (value, missed) in [
            ("[]", Some("SubmitAlertInput")),
            ("5", Some("SubmitAlertInput")),
            ("\"x\"", Some("SubmitAlertInput")),
            ("null", None),
            ("{}", None),
        ] {
            let message = missed.map(|name| format!("Expected value of type \"{name}\", which is an object."));
            let literal = format!("mutation {{ submitAlert(input: {value}) {{ status }} }}");
            assert_eq!(refused(&literal, json!({})), message, "{value}");
            let document = "mutation($i: SubmitAlertInput!) { submitAlert(input: $i) { status } }";
            let variable = format!("{{ \"i\": {value} }}").parse::<Json>().unwrap();
            assert_eq!(refused(document, variable), message, "{value}");
        }
        let steps =
            |steps: &str| format!("mutation {{ createPlaybook(input: {{ name: \"n\", steps: {steps} }}) {{ id }} }}");
        let message = "Expected value of type \"PlaybookStepInput\", which is an object.";
        assert_eq!(refused(&steps("[{ title: \"t\" }, []]"), json!({})).as_deref(), Some(message));
        assert_eq!(refused(&steps("7"), json!({})).as_deref(), Some(message));
        assert_eq!(refused(&steps("{ title: \"one, of which a list is made\" }"), json!({})), None);
    }

    #[test]
    fn no_argument_takes_another_number() {
        let schema = crate::graphql::sdl();
        assert!(!schema.contains("Float,") && !schema.contains("Float)") && !schema.contains(": Float ="), "{schema}");
    }
}
