//! Holds the source to the rules of the house: which module may import which, and what only one of them may do.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Modules that all but `domain` may use.
const FOUNDATION: [&str; 4] = ["config", "clock", "lifecycle", "telemetry"];

/// What else each module may import.
const ROWS: [(&str, &[&str]); 15] = [
    ("domain", &[]),
    ("config", &[]),
    ("clock", &[]),
    ("lifecycle", &[]),
    ("telemetry", &[]),
    ("embedded", &[]),
    ("store", &["domain"]),
    ("auth", &["domain", "store"]),
    ("events", &["domain", "store"]),
    ("graphql", &["domain", "store", "auth", "events"]),
    ("live", &["domain", "auth", "events", "graphql"]),
    ("http", &["domain", "embedded", "store", "auth", "events", "graphql", "live"]),
    ("server", &["domain", "embedded", "store", "auth", "events", "graphql", "live", "http"]),
    ("cli", &["domain", "store", "auth", "embedded", "server"]),
    ("main", &["domain", "store", "auth", "embedded", "server", "cli"]),
];

/// Longer files are two files.
const MAX_LINES: usize = 400;

#[test]
fn every_file_keeps_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 5, "the source is not where it is looked for: {}", root.display());
    let mut breaches = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file can be read");
        breaches.extend(check(file.strip_prefix(&root).expect("it is below the root"), &source));
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder can be read") {
        let path = entry.expect("a folder's entry can be read").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The breaches of one file, a line each; `file` is relative to `src`.
fn check(file: &Path, source: &str) -> Vec<String> {
    let shown = format!("src/{}", file.display());
    let module = module_of(file);
    let mut breaches = Vec::new();
    let lines = source.lines().count();
    if lines > MAX_LINES {
        breaches.push(format!("{shown}: has {lines} lines; more than {MAX_LINES} are two files"));
    }
    let own = module.first().map(String::as_str);
    let row = own.map(|own| ROWS.iter().find(|(name, _)| *name == own).ok_or(own));
    if let Some(Err(unknown)) = row {
        breaches.push(format!("{shown}: the house has no module `{unknown}`"));
    }
    let tokens = TokenStream::from_str(source).expect("a source file is Rust");
    let in_tests = file.file_stem().is_some_and(|stem| stem == "tests");
    let mut paths = Vec::new();
    collect(tokens, &Scope { module: module.clone(), prefix: Vec::new(), in_tests }, &mut paths);
    for path in paths {
        let breach = |text: String| format!("{shown}:{}: {text}", path.line);
        if let (Some(Ok((own, allowed))), Some(imported)) = (row, path.imported_module()) {
            let foundation = *own != "domain" && FOUNDATION.contains(&imported);
            if imported != *own && !foundation && !allowed.contains(&imported) {
                breaches.push(breach(format!("`{own}` may not import `{imported}`")));
            }
        }
        if let Some(text) = path.breach_of_office(own.unwrap_or_default()) {
            breaches.push(breach(text.to_owned()));
        }
    }
    breaches
}

/// `events/hub.rs` is `events::hub`; `lib.rs` is the root, which only declares.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// A path of the source, such as `crate::store::Pool`, and where it stands.
struct SourcePath {
    segments: Vec<String>,
    line: usize,
    module: Vec<String>,
    in_tests: bool,
    /// The literal of a call's first argument: `std::env::var_os("PATH")`.
    argument: Option<String>,
}

impl SourcePath {
    /// The module of the crate that this path leads to, if it leads out of its own file.
    fn imported_module(&self) -> Option<&str> {
        let supers = self.segments.iter().take_while(|segment| *segment == "super").count();
        let rest = match self.segments.first()?.as_str() {
            "crate" | "incident_manager" => &self.segments[1..],
            "super" if supers >= self.module.len() => &self.segments[supers..],
            _ => return None,
        };
        rest.first().map(String::as_str).filter(|name| *name != "*")
    }

    /// What only one module may do, done by another.
    fn breach_of_office(&self, own: &str) -> Option<&'static str> {
        let segments: Vec<_> = self.segments.iter().map(String::as_str).collect();
        match segments[..] {
            ["sqlx", call, ..] if call.starts_with("query") || matches!(call, "raw_sql" | "QueryBuilder") => {
                (own != "store").then_some("SQL belongs into `store`")
            }
            [.., "env", call] if call.starts_with("var") || call.starts_with("args") => {
                let own_path = own == "embedded" && self.argument.as_deref() == Some("\"PATH\"");
                (own != "config" && !own_path && !self.in_tests)
                    .then_some("flags and environment are read by `config` alone")
            }
            ["tokio" | "task", "spawn" | "spawn_local"] | ["tokio", "task", "spawn" | "spawn_local"] => {
                // The embedded database's supervisor outlives every stage of a shutdown, and joins its task itself.
                (!matches!(own, "lifecycle" | "embedded") && !self.in_tests)
                    .then_some("tasks are spawned by `lifecycle` alone")
            }
            _ => None,
        }
    }
}

#[derive(Clone)]
struct Scope {
    module: Vec<String>,
    /// What stands before the braces in `use crate::{store, domain::Severity}`.
    prefix: Vec<String>,
    in_tests: bool,
}

fn collect(tokens: TokenStream, scope: &Scope, paths: &mut Vec<SourcePath>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let ident = |at: usize| match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    let is_colons =
        |at: usize| (at..at + 2).all(|at| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':'));
    let group = |at: usize, delimiter: Delimiter| match tokens.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group.stream()),
        _ => None,
    };
    let mut at = 0;
    let mut test_attribute = false;
    while at < tokens.len() {
        if let Some(attribute) = group(at, Delimiter::Bracket) {
            test_attribute |= attribute.to_string().replace(' ', "") == "cfg(test)";
        }
        if let TokenTree::Group(group) = &tokens[at] {
            collect(group.stream(), scope, paths);
            test_attribute &= group.delimiter() == Delimiter::Bracket;
            at += 1;
            continue;
        }
        let Some(first) = ident(at) else {
            at += 1;
            continue;
        };
        if let (true, Some(name), Some(body)) = (first == "mod", ident(at + 1), group(at + 2, Delimiter::Brace)) {
            let mut inner = scope.clone();
            inner.module.push(name);
            inner.in_tests |= test_attribute;
            collect(body, &inner, paths);
            test_attribute = false;
            at += 3;
            continue;
        }
        if first == "as" && !scope.prefix.is_empty() {
            at += 2;
            continue;
        }
        let line = tokens[at].span().start().line;
        let mut segments = scope.prefix.clone();
        segments.push(first);
        at += 1;
        while is_colons(at) {
            let Some(segment) = ident(at + 2) else { break };
            segments.push(segment);
            at += 3;
        }
        if let (true, Some(list)) = (is_colons(at), group(at + 2, Delimiter::Brace)) {
            collect(list, &Scope { prefix: segments, ..scope.clone() }, paths);
            at += 3;
            continue;
        }
        let argument = group(at, Delimiter::Parenthesis).and_then(|list| match list.into_iter().next() {
            Some(TokenTree::Literal(literal)) => Some(literal.to_string()),
            _ => None,
        });
        paths.push(SourcePath { segments, line, module: scope.module.clone(), in_tests: scope.in_tests, argument });
    }
}

/// Asserts what the checker says of a snippet that would stand in `file`.
fn assert_breaches(file: &str, source: &str, breaches: &[&str]) {
    assert_eq!(check(Path::new(file), source), breaches, "{source}");
}

#[test]
fn a_wrong_import_is_found_however_it_is_written() {
    for source in [
        "use crate::store::Pool;",
        "use crate::{clock::Clock, store};",
        "use crate::{domain::{Severity, State}, store as db};",
        "fn f() -> crate::store::Pool { todo!() }",
        "use super::super::store::Pool;",
        "mod inner { use super::super::super::store::Pool; }",
        "macro_rules! m { () => { $crate::store::pool() } }",
        "fn f() { println!(\"{}\", crate::store::NAME) }",
    ] {
        assert_breaches("live/feed.rs", source, &["src/live/feed.rs:1: `live` may not import `store`"]);
    }
    assert_breaches(
        "domain/cursor.rs",
        "\nuse crate::clock::Clock;",
        &["src/domain/cursor.rs:2: `domain` may not import `clock`"],
    );
    assert_breaches("main.rs", "use incident_manager::http::router;", &["src/main.rs:1: `main` may not import `http`"]);
    assert_breaches("server.rs", "use crate::cli;", &["src/server.rs:1: `server` may not import `cli`"]);
    assert_breaches("store.rs", "use super::events::Hub;", &["src/store.rs:1: `store` may not import `events`"]);
}

#[test]
fn a_right_import_is_let_through() {
    assert_breaches("live/feed.rs", "use crate::{clock::Clock, domain::Severity, live::Subscriber};", &[]);
    assert_breaches("live/feed.rs", "use super::Subscriber; use self::inner::X; pub(crate) fn f() {}", &[]);
    assert_breaches("live/feed.rs", "mod tests { use super::super::Subscriber; use super::*; }", &[]);
    assert_breaches("live/feed.rs", "// crate::store::Pool\nconst A: &str = \"crate::store::Pool\";", &[]);
    assert_breaches("main.rs", "use incident_manager::{cli, config::Command};", &[]);
    assert_breaches("lib.rs", "pub mod store; pub mod live;", &[]);
}

#[test]
fn a_module_that_the_house_does_not_know_is_found() {
    assert_breaches("utils.rs", "fn f() {}", &["src/utils.rs: the house has no module `utils`"]);
}

#[test]
fn sql_outside_the_store_is_found() {
    for source in ["fn f() { sqlx::query!(\"select 1\"); }", "use sqlx::{PgPool, query_as};", "use sqlx::QueryBuilder;"]
    {
        assert_breaches("http/health.rs", source, &["src/http/health.rs:1: SQL belongs into `store`"]);
        assert_breaches("store/incident.rs", source, &[]);
    }
    assert_breaches("server.rs", "use sqlx::PgPool;", &[]);
}

#[test]
fn reading_the_environment_outside_the_settings_is_found() {
    for source in ["fn f() { std::env::var(\"HOME\"); }", "use std::env::{self, vars};", "fn f() { env::args_os(); }"] {
        assert_breaches(
            "cli/watch.rs",
            source,
            &["src/cli/watch.rs:1: flags and environment are read by `config` alone"],
        );
        assert_breaches("config/parse.rs", source, &[]);
    }
    assert_breaches("embedded/binaries.rs", "fn f() { std::env::var_os(\"PATH\"); }", &[]);
    assert_eq!(check(Path::new("embedded/binaries.rs"), "fn f() { std::env::var_os(\"HOME\"); }").len(), 1);
    assert_breaches("cli/watch.rs", "const A: &str = env!(\"CARGO_PKG_VERSION\");", &[]);
}

#[test]
fn a_task_that_nobody_tracks_is_found() {
    for source in
        ["fn f() { tokio::spawn(g()); }", "use tokio::task::{JoinHandle, spawn};", "fn f() { task::spawn(g()); }"]
    {
        assert_breaches("http/ws.rs", source, &["src/http/ws.rs:1: tasks are spawned by `lifecycle` alone"]);
        assert_breaches("lifecycle.rs", source, &[]);
    }
    assert_breaches("http/ws.rs", "#[cfg(test)] mod tests { fn f() { tokio::spawn(g()); } }", &[]);
    assert_breaches("http/ws/tests.rs", "fn f() { tokio::spawn(g()); }", &[]);
}

#[test]
fn a_file_that_is_too_long_is_found() {
    assert_breaches("server.rs", &"\n".repeat(MAX_LINES), &[]);
    let breaches = check(Path::new("server.rs"), &"\n".repeat(MAX_LINES + 1));
    assert_eq!(breaches, ["src/server.rs: has 401 lines; more than 400 are two files"]);
}
