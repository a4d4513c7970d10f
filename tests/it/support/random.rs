//! Random GraphQL documents: most of them such as the schema allows, some nearly so, with values that are fit, odd or wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// Numbers from which everything random is made; used up, it goes on with zeros, which make the simplest of everything.
pub struct Dice<'a>(pub &'a [u32]);

impl Dice<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first as usize % bound
    }

    /// True once in `of` times.
    fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == of - 1
    }

    fn one_of<'v, T: ?Sized>(&mut self, values: &[&'v T]) -> &'v T {
        values[self.below(values.len())]
    }
}

/// What introspection says of a service.
pub struct Schema {
    types: BTreeMap<String, Value>,
    /// Of things that there are.
    pub ids: Vec<String>,
}

pub const INTROSPECTION: &str = "{ __schema { types { kind name enumValues { name }
    inputFields { name type { ...Ref } }
    fields { name args { name type { ...Ref } } type { ...Ref } } } } }
  fragment Ref on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

/// A value as a literal of GraphQL, and as JSON.
struct Written {
    literal: String,
    json: String,
}

impl Written {
    fn same(text: &str) -> Self {
        Self { literal: text.to_owned(), json: text.to_owned() }
    }
}

/// A document in the making.
struct Draft<'s, 'd> {
    schema: &'s Schema,
    dice: Dice<'d>,
    /// Nothing that the schema does not allow; one mistake is enough to have a document refused before it is executed.
    careful: bool,
    /// `$name: Type`, and the JSON of the value.
    variables: Vec<(String, String)>,
    aliases: usize,
}

impl Schema {
    pub fn new(introspected: &Value, ids: Vec<String>) -> Self {
        let types = introspected["__schema"]["types"].as_array().unwrap();
        let types = types.iter().map(|of| (of["name"].as_str().unwrap().to_owned(), of.clone())).collect();
        Self { types, ids }
    }

    /// The body of a request.
    pub fn request(&self, dice: Dice<'_>) -> String {
        let mut draft = Draft { schema: self, dice, careful: true, variables: Vec::new(), aliases: 0 };
        draft.careful = !draft.dice.once_in(4);
        let (keyword, root) = match draft.dice.below(16) {
            0..9 => ("query", "Query"),
            9..15 => ("mutation", "Mutation"),
            _ => ("subscription", "Subscription"),
        };
        let selection = draft.selection(root, 4);
        let declared: Vec<String> =
            draft.variables.iter().enumerate().map(|(n, (of, _))| format!("$v{n}: {of}")).collect();
        let declared = if declared.is_empty() { String::new() } else { format!("({})", declared.join(", ")) };
        let mut document = format!("{keyword} Random{declared} {selection}");
        draft.damage(&mut document);
        let values: Vec<String> =
            draft.variables.iter().enumerate().map(|(n, (_, json))| format!(r#""v{n}":{json}"#)).collect();
        let variables = match draft.dice.below(24) {
            23 => "null".to_owned(),
            22 => "{}".to_owned(),
            _ => format!("{{{}}}", values.join(",")),
        };
        format!(r#"{{"query":{},"variables":{variables}}}"#, Value::String(document))
    }
}

impl Draft<'_, '_> {
    /// A mistake, once in `of` times.
    fn slips(&mut self, of: usize) -> bool {
        self.dice.once_in(of) && !self.careful
    }

    /// A literal that is one in JSON too: one that the type allows, or another.
    fn literal(&mut self, allowed: &[&str], others: &[&str]) -> Written {
        let all = [allowed, others].concat();
        Written::same(self.dice.one_of(if self.careful { allowed } else { &all }))
    }

    fn selection(&mut self, of: &str, depth: usize) -> String {
        let fields = self.schema.types[of]["fields"].as_array().cloned().unwrap_or_default();
        let mut selection = "{".to_owned();
        for _ in 0..=self.dice.below(4) {
            let field = &fields[self.dice.below(fields.len())];
            let kind = named(&field["type"]);
            let composite = self.schema.types[kind]["kind"] == "OBJECT";
            if composite && depth == 0 {
                selection.push_str(" __typename");
                continue;
            }
            self.aliases += 1;
            let name = field["name"].as_str().unwrap();
            let unknown = if self.slips(60) { "x" } else { "" };
            // an alias keeps fields of the same name and other arguments apart
            let _ = write!(selection, " a{}: {name}{unknown}", self.aliases);
            let arguments = self.arguments(&field["args"]);
            selection.push_str(&arguments);
            if self.slips(30) {
                selection.push_str(self.dice.one_of(&["@include(if: true)", "@skip(if: 1)", "@include", "@unknown"]));
            }
            if composite != self.slips(80) {
                let inner = self.selection(if composite { kind } else { of }, depth.saturating_sub(1));
                selection.push_str(&inner);
            }
        }
        selection + " }"
    }

    fn arguments(&mut self, declared: &Value) -> String {
        let mut given = Vec::new();
        for argument in declared.as_array().unwrap() {
            let needed = argument["type"]["kind"] == "NON_NULL";
            if if needed { self.slips(30) } else { self.dice.below(2) == 0 } {
                continue;
            }
            let (name, of) = (argument["name"].as_str().unwrap(), &argument["type"]);
            let value = self.value(of, 0);
            if self.dice.below(2) == 0 {
                given.push(format!("{name}: {}", value.literal));
            } else {
                let of = if self.slips(30) { "String".to_owned() } else { printed(of) };
                given.push(format!("{name}: $v{}", self.variables.len()));
                self.variables.push((of, value.json));
            }
        }
        if self.slips(60) {
            given.push("unknown: 1".to_owned());
        }
        if given.is_empty() { String::new() } else { format!("({})", given.join(", ")) }
    }

    fn value(&mut self, of: &Value, depth: usize) -> Written {
        if self.slips(25) {
            return Written::same(self.dice.one_of(&["null", "[]", "{}", "-1", "\"\"", "true", "[[1]]", "1e400"]));
        }
        match of["kind"].as_str().unwrap() {
            "NON_NULL" => self.value(&of["ofType"], depth),
            "LIST" => {
                let items: Vec<Written> =
                    (0..self.dice.below(3)).map(|_| self.value(&of["ofType"], depth + 1)).collect();
                let all =
                    |of: fn(&Written) -> &str| format!("[{}]", items.iter().map(of).collect::<Vec<_>>().join(","));
                Written { literal: all(|item| &item.literal), json: all(|item| &item.json) }
            }
            "INPUT_OBJECT" => self.object(of["name"].as_str().unwrap(), depth),
            "ENUM" => {
                let names = self.schema.types[of["name"].as_str().unwrap()]["enumValues"].as_array().unwrap();
                let name = names[self.dice.below(names.len())]["name"].as_str().unwrap();
                let name = if self.slips(20) { "NONE_OF_THEM" } else { name };
                Written { literal: name.to_owned(), json: format!("\"{name}\"") }
            }
            _ => self.scalar(of["name"].as_str().unwrap()),
        }
    }

    fn object(&mut self, name: &str, depth: usize) -> Written {
        let fields = self.schema.types[name]["inputFields"].as_array().unwrap();
        let (mut literals, mut jsons) = (Vec::new(), Vec::new());
        for field in fields {
            let needed = field["type"]["kind"] == "NON_NULL";
            if if needed { self.slips(40) } else { self.dice.below(3) == 0 } {
                continue;
            }
            let value = self.value(&field["type"], depth + 1);
            let name = field["name"].as_str().unwrap();
            literals.push(format!("{name}: {}", value.literal));
            jsons.push(format!("\"{name}\":{}", value.json));
        }
        if self.slips(40) {
            literals.push("unknown: 1".to_owned());
            jsons.push("\"unknown\":1".to_owned());
        }
        Written { literal: format!("{{{}}}", literals.join(", ")), json: format!("{{{}}}", jsons.join(",")) }
    }

    fn scalar(&mut self, name: &str) -> Written {
        match name {
            "Int" => self.literal(
                &["1", "2", "50", "100", "0", "101", "-1", "2147483647"],
                &["2147483648", "-2147483649", "9223372036854775808", "1.5", "1e3", "\"1\""],
            ),
            "Float" => self.literal(&["0.5", "1", "-0.0", "1e308"], &["1e309"]),
            "Boolean" => self.literal(&["true", "false"], &["1", "\"true\""]),
            "DateTime" => self.literal(
                &[
                    "\"2026-01-01T00:00:00Z\"",
                    "\"2026-01-01T00:00:00.123456789+14:00\"",
                    "\"0001-01-01T00:00:00Z\"",
                    "\"0001-01-01T00:00:00+14:00\"",
                    "\"9999-12-31T23:59:59.999999999Z\"",
                    "\"9999-12-31T23:59:59-14:00\"",
                ],
                &[
                    "\"0000-12-31T23:59:59Z\"",
                    "\"+262142-12-31T23:59:59Z\"",
                    "\"2026-02-30T00:00:00Z\"",
                    "\"infinity\"",
                    "\"\"",
                    "5",
                ],
            ),
            "UUID" => {
                let known = self.schema.ids[self.dice.below(self.schema.ids.len())].clone();
                let known = format!("\"{known}\"");
                self.literal(
                    &[&known, &known, &known, &known, "\"00000000-0000-0000-0000-000000000000\""],
                    &["\"not-a-uuid\"", "\"{C3087C12-FF0F-4A2B-A0F0-7BA1B2C3D4E5}\"", "\"\"", "7"],
                )
            }
            "Map" | "JSON" => self.json(),
            _ => self.string(),
        }
    }

    fn string(&mut self) -> Written {
        match self.dice.below(14) {
            0..6 => Written::same(self.dice.one_of(&["\"a\"", "\"gateway\"", "\"a\"", "\"Latency\"", "\"cause-1\""])),
            6 => Written::same("\"\""),
            7 => Written::same("\"é 😀 \u{202e}\u{feff}\""),
            8 => Written::same(r#""\u0000""#),
            9 => Written::same(self.dice.one_of(&[r#""\ud800""#, r#""\udc00\ud800""#, r#""\uD83D\uDE00""#])),
            10 => Written::same(&format!("\"{}\"", "x".repeat(501))),
            11 => Written::same(&format!("\"{}\"", "é".repeat(40_000))),
            12 => {
                Written { literal: "\"\"\"a\n  \"b\" \\ \"\"\"".to_owned(), json: r#""a\n\"b\" \\ \u0007""#.to_owned() }
            }
            _ => Written::same(self.dice.one_of(&["1", "{}", "[\"a\"]", r#""'; drop table x --""#, r#""%_\\""#])),
        }
    }

    fn json(&mut self) -> Written {
        let (literal, json) = match self.dice.below(12) {
            0 => ("{}".to_owned(), "{}".to_owned()),
            1..4 => ("{service: \"a\", _b: \"\"}".to_owned(), r#"{"service":"a","":"b"}"#.to_owned()),
            4 => ("{a: [1, null, {b: true}]}".to_owned(), r#"{"a":[1,null,{"b":true}]}"#.to_owned()),
            5 => ("{a: 1e400}".to_owned(), r#"{"a":1e400}"#.to_owned()),
            6 => ("{a: 12345678901234567890123}".to_owned(), r#"{"a":[-0,1.7976931348623157e308]}"#.to_owned()),
            7 => nested(40),
            8 => nested(300),
            9 => ("{a: \"\\u0000\"}".to_owned(), r#"{"\u0000":"a"}"#.to_owned()),
            10 => ("{a: 1, a: 2}".to_owned(), r#"{"a":1,"a":2}"#.to_owned()),
            _ => (format!("{{a: \"{}\"}}", "x".repeat(20_000)), r#"{"a":"\ud800"}"#.to_owned()),
        };
        Written { literal, json }
    }

    /// Sometimes, something in the text itself.
    fn damage(&mut self, document: &mut String) {
        if !self.slips(12) {
            return;
        }
        let at = self.dice.below(document.len());
        let at = (at..=document.len()).find(|at| document.is_char_boundary(*at)).unwrap();
        match self.dice.below(4) {
            0 => document.truncate(at),
            1 => {
                document.insert_str(at, self.dice.one_of(&["{", "}", "\"", "\u{0}", "\u{feff}", "#", "...", "$", "é"]));
            }
            2 => document.push_str(" query Other { __typename }"),
            _ => document.push_str(" fragment Loop on Query { ...Loop }"),
        }
    }
}

fn nested(levels: usize) -> (String, String) {
    let of = |open: &str| open.repeat(levels) + "1" + &"}".repeat(levels);
    (of("{a: "), of("{\"a\":"))
}

/// The type behind lists and non-nulls.
fn named(of: &Value) -> &str {
    let mut of = of;
    while !of["ofType"].is_null() {
        of = &of["ofType"];
    }
    of["name"].as_str().unwrap()
}

fn printed(of: &Value) -> String {
    match of["kind"].as_str().unwrap() {
        "NON_NULL" => printed(&of["ofType"]) + "!",
        "LIST" => format!("[{}]", printed(&of["ofType"])),
        _ => of["name"].as_str().unwrap().to_owned(),
    }
}
