//! Reads JSON as strictly as RFC 8259 allows: a member that is given twice means nothing, and is refused.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is no JSON that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The place at fault, where it has a name: `labels.team`, `[3].title`.
    pub field: Option<String>,
    /// For people.
    pub detail: String,
}

impl Malformed {
    /// The same, of a text that is the value of something named.
    pub fn within(self, name: &str) -> Self {
        let field = self.field.map_or_else(|| name.to_owned(), |field| format!("{name}.{field}"));
        Self { field: Some(field), detail: format!("{name}: {}", self.detail) }
    }
}

/// Reads a whole text.
pub fn parse(text: &[u8]) -> Result<Value, Malformed> {
    let place = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = Strict { place: &place }.deserialize(&mut deserializer).and_then(|value| {
        place.borrow_mut().clear();
        deserializer.end()?;
        Ok(value)
    });
    read.map_err(|error| {
        let field = print(&place.borrow());
        let detail = match &field {
            Some(field) if error.is_data() => format!("{field} is given twice"),
            _ => format!("this is no JSON: {error}"),
        };
        Malformed { field, detail }
    })
}

/// A step from a value to one in it.
#[derive(Debug, Clone)]
pub enum Step {
    Member(String),
    Element(usize),
}

/// The name of a place; `None` of the whole.
pub fn print(place: &[Step]) -> Option<String> {
    let mut name = String::new();
    for step in place {
        // writing to a String cannot fail
        let _ = match step {
            Step::Member(member) if name.is_empty() => name.write_str(member),
            Step::Member(member) => write!(name, ".{member}"),
            Step::Element(number) => write!(name, "[{number}]"),
        };
    }
    (!name.is_empty()).then_some(name)
}

/// Reads a value, and leaves the place of what it could not read.
struct Strict<'p> {
    place: &'p RefCell<Vec<Step>>,
}

impl Strict<'_> {
    fn inner(&self) -> Self {
        Self { place: self.place }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.place.borrow_mut().push(Step::Element(list.len()));
            let element = elements.next_element_seed(self.inner())?;
            self.place.borrow_mut().pop();
            match element {
                Some(element) => list.push(element),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(member) = members.next_key::<String>()? {
            self.place.borrow_mut().push(Step::Member(member.clone()));
            if object.contains_key(&member) {
                return Err(A::Error::custom("given twice"));
            }
            object.insert(member, members.next_value_seed(self.inner())?);
            self.place.borrow_mut().pop();
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> Malformed {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_member_that_is_given_twice_is_named() {
        for (text, field) in [
            (r#"{"a": 1, "a": 1}"#, "a"),
            (r#"{"a": {"b": [{}, {"c": 1, "\u0063": 2}]}}"#, "a.b[1].c"),
            (r#"[{"a": 1}, {"a": 1, "b": 2, "a": 3}]"#, "[1].a"),
        ] {
            let detail = format!("{field} is given twice");
            assert_eq!(refused(text), Malformed { field: Some(field.to_owned()), detail });
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_where_it_has_a_name() {
        for (text, field) in [
            (r#"{"a": 1e400}"#, Some("a")),
            (r#"{"a": ["x", "\ud800"]}"#, Some("a[1]")),
            (r#"{"a": 1} {}"#, None),
            ("{", None),
            ("", None),
        ] {
            let refused = refused(text);
            assert_eq!(refused.field.as_deref(), field, "{text}");
            assert!(refused.detail.starts_with("this is no JSON: "), "{text}");
        }
        assert_eq!(parse(b"{\"a\": \"\xff\"}").unwrap_err().field.as_deref(), Some("a"));
        let deep = "[".repeat(10_000);
        assert!(parse(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_another_reader_reads_is_read_alike(text in "[\\[\\]{}:,\"a0-9.e -]{0,40}") {
            if let Ok(read) = parse(text.as_bytes()) {
                prop_assert_eq!(read, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
