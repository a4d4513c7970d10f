//! Reads what clients send into types, and names the member or parameter that does not fit.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use crate::domain::InvalidInput;
use crate::http::json::{Step, print};

/// Reads a JSON value.
pub fn from_json<T: DeserializeOwned>(value: Value) -> Result<T, Unreadable> {
    T::deserialize(Reader { value, form: Form::Json })
}

/// Takes a struct's fields out of parameters, each a list of texts or an object of such lists, and leaves the others.
pub fn from_parameters<T: DeserializeOwned>(parameters: &mut Map<String, Value>) -> Result<T, Unreadable> {
    T::deserialize(Taking { parameters })
}

/// Why a value cannot be read; at which place in it is put together on the way out.
#[derive(Debug)]
pub struct Unreadable {
    /// Innermost first.
    place: Vec<Step>,
    /// Reads on from the field's name.
    problem: String,
}

impl Unreadable {
    fn new(problem: impl Into<String>) -> Self {
        Self { place: Vec::new(), problem: problem.into() }
    }

    fn within(mut self, step: Step) -> Self {
        self.place.push(step);
        self
    }

    fn at(member: &str, problem: &str) -> Self {
        Self::new(problem).within(Step::Member(member.to_owned()))
    }

    /// What is wrong; `whole` names the value where it is at fault as a whole.
    pub fn into_input(mut self, whole: &str) -> InvalidInput {
        self.place.reverse();
        InvalidInput::new(print(&self.place).unwrap_or_else(|| whole.to_owned()), self.problem)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Unreadable {}

impl serde::de::Error for Unreadable {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::new(problem.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(format!("must be {wanted}"))
    }

    fn invalid_value(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(format!("must be {wanted}"))
    }

    fn unknown_variant(_: &str, names: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of {}", names.join(", ")))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::at(field, "is not known here")
    }

    fn missing_field(field: &'static str) -> Self {
        Self::at(field, "must be given")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    /// Every value is a list of texts.
    Parameters,
}

struct Reader {
    value: Value,
    form: Form,
}

impl Reader {
    /// What is to be one value: of a parameter, the only text.
    fn single(self) -> Result<Value, Unreadable> {
        match (self.form, self.value) {
            (Form::Parameters, Value::Array(mut texts)) if texts.len() == 1 => Ok(texts.remove(0)),
            (Form::Parameters, Value::Array(_)) => Err(Unreadable::new("is given more than once")),
            (_, value) => Ok(value),
        }
    }

    fn text(self) -> Result<String, Unreadable> {
        match self.single()? {
            Value::String(text) => Ok(text),
            _ => Err(Unreadable::new("must be a string")),
        }
    }
}

impl<'de> Deserializer<'de> for Reader {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.form == Form::Parameters {
            return self.deserialize_str(visitor);
        }
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_i64(number),
                (_, Some(number), _) => visitor.visit_u64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let form = self.form;
        match self.single()? {
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(text) if form == Form::Parameters && text == "true" => visitor.visit_bool(true),
            Value::String(text) if form == Form::Parameters && text == "false" => visitor.visit_bool(false),
            _ => Err(Unreadable::new("must be true or false")),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let form = self.form;
        let number = match self.single()? {
            Value::Number(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
            Value::String(text) if form == Form::Parameters => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => visitor.visit_i32(number),
            None => Err(Unreadable::new(format!("must be a whole number from {} to {}", i32::MIN, i32::MAX))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.value {
            Value::Array(list) => visitor.visit_seq(Elements { list: list.into_iter(), read: 0, form: self.form }),
            _ => Err(Unreadable::new("must be a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.value {
            Value::Object(object) => {
                visitor.visit_map(Members { object: object.into_iter(), value: None, form: self.form })
            }
            _ => Err(Unreadable::new("must be an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_enum(self.text()?.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Elements {
    list: std::vec::IntoIter<Value>,
    read: usize,
    form: Form,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unreadable> {
        let Some(value) = self.list.next() else { return Ok(None) };
        let number = self.read;
        self.read += 1;
        let read = seed.deserialize(Reader { value, form: self.form });
        read.map(Some).map_err(|error| error.within(Step::Element(number)))
    }
}

struct Members {
    object: serde_json::map::IntoIter,
    /// Of the member whose name was read last.
    value: Option<(String, Value)>,
    form: Form,
}

impl<'de> MapAccess<'de> for Members {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unreadable> {
        let Some((member, value)) = self.object.next() else { return Ok(None) };
        self.value = Some((member.clone(), value));
        seed.deserialize(member.into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Unreadable> {
        let Some((member, value)) = self.value.take() else { return Err(Unreadable::new("has no value")) };
        let read = seed.deserialize(Reader { value, form: self.form });
        read.map_err(|error| error.within(Step::Member(member)))
    }
}

struct Taking<'p> {
    parameters: &'p mut Map<String, Value>,
}

impl<'de> Deserializer<'de> for Taking<'_> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unreadable> {
        Err(Unreadable::new("can only be read into a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let taken: Map<_, _> = fields.iter().filter_map(|field| self.parameters.remove_entry(*field)).collect();
        visitor.visit_map(Members { object: taken.into_iter(), value: None, form: Form::Parameters })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::domain::Severity;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Sample {
        some_text: String,
        severity: Option<Severity>,
        numbers: Option<Vec<i32>>,
        flag: Option<bool>,
        labels: Option<Map<String, Value>>,
    }

    #[test]
    fn what_fits_is_read() {
        let sample = Sample {
            some_text: "t".to_owned(),
            severity: Some(Severity::P1),
            numbers: Some(vec![1, -2]),
            flag: Some(true),
            labels: json!({ "a": "b" }).as_object().cloned(),
        };
        let value =
            json!({ "someText": "t", "severity": "P1", "numbers": [1, -2], "flag": true, "labels": { "a": "b" } });
        assert_eq!(from_json::<Sample>(value).unwrap(), sample);
        let parameters = json!({ "someText": ["t"], "severity": ["P1"], "numbers": ["1", "-2"], "flag": ["true"],
            "labels": { "a": ["b"] }, "other": ["o"] });
        let mut parameters = parameters.as_object().cloned().unwrap();
        assert_eq!(from_parameters::<Sample>(&mut parameters).unwrap(), sample);
        assert_eq!(Value::Object(parameters), json!({ "other": ["o"] }));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (value, field, problem) in [
            (json!([]), "body", "must be an object"),
            (json!({}), "someText", "must be given"),
            (json!({ "someText": 7 }), "someText", "must be a string"),
            (json!({ "someText": null }), "someText", "must be a string"),
            (json!({ "someText": "t", "colour": "red" }), "colour", "is not known here"),
            (json!({ "someText": "t", "severity": "P9" }), "severity", "must be one of P0, P1, P2, P3, P4"),
            (json!({ "someText": "t", "severity": {} }), "severity", "must be a string"),
            (json!({ "someText": "t", "numbers": 1 }), "numbers", "must be a list"),
            (json!({ "someText": "t", "flag": "true" }), "flag", "must be true or false"),
            (
                json!({ "someText": "t", "numbers": [1, 2_147_483_648_i64] }),
                "numbers[1]",
                "must be a whole number from -2147483648 to 2147483647",
            ),
            (
                json!({ "someText": "t", "numbers": [1.5] }),
                "numbers[0]",
                "must be a whole number from -2147483648 to 2147483647",
            ),
        ] {
            let refused = from_json::<Sample>(value.clone()).unwrap_err().into_input("body");
            assert_eq!((&*refused.field, &*refused.problem), (field, problem), "{value}");
        }
        let refused = from_json::<Vec<Sample>>(json!([{ "someText": "t" }, {}])).unwrap_err().into_input("body");
        assert_eq!(refused.field, "[1].someText");
        let mut twice = json!({ "someText": ["a", "b"] }).as_object().cloned().unwrap();
        let refused = from_parameters::<Sample>(&mut twice).unwrap_err().into_input("query");
        assert_eq!((&*refused.field, &*refused.problem), ("someText", "is given more than once"));
    }
}
