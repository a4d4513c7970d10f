//! What each field and route needs of a credential: each says so, and the documents do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use incident_manager::domain::{Permission, Role};

use crate::support::document::SECURITY;
use crate::support::rules::{Field, ROOTS, routes, rules, schema};

/// Kinds of things: a field that leads from one to another has a rule of its own.
const KINDS: [&str; 6] = ["Incident", "Alert", "Comment", "TimelineEntry", "Playbook", "ApiKey"];
/// Parts of answers: what leads through them is covered by a rule on the way.
const PARTS: [&str; 22] = [
    "AlertConnection",
    "AlertEdge",
    "AlertResult",
    "CommentConnection",
    "CommentEdge",
    "CreatedApiKey",
    "IncidentConnection",
    "IncidentEdge",
    "IncidentStateChange",
    "IncidentUpdate",
    "PageInfo",
    "PlaybookConnection",
    "PlaybookEdge",
    "PlaybookStep",
    "RelatedIncident",
    "StreamPosition",
    "TimelineConnection",
    "TimelineEdge",
    "Viewer",
    // of numbers alone
    "IncidentStats",
    "DurationStats",
    "SeverityCount",
];

#[test]
fn every_root_field_and_every_way_from_one_kind_to_another_has_a_rule() {
    fn walk(schema: &BTreeMap<String, Vec<Field>>, of: &str, way: &str, ruled: bool, found: &mut Vec<String>) {
        for field in &schema[of] {
            let way = format!("{way}.{}", field.name);
            let ruled = ruled || field.rule.is_some();
            if KINDS.contains(&field.leads_to.as_str()) {
                found.extend((!ruled).then_some(way));
            } else if schema.contains_key(&field.leads_to) {
                walk(schema, &field.leads_to, &way, ruled, found);
            }
        }
    }
    let schema = schema();
    for name in schema.keys().map(String::as_str) {
        let known = ROOTS.contains(&name) || KINDS.contains(&name) || PARTS.contains(&name);
        assert!(known, "{name} is neither a kind of thing nor a part of an answer");
    }
    let mut without = Vec::new();
    for root in ROOTS {
        let fields = schema[root].iter().filter(|field| field.rule.is_none());
        without.extend(fields.map(|field| format!("{root}.{}", field.name)));
    }
    for kind in KINDS.into_iter().filter(|kind| schema.contains_key(*kind)) {
        walk(&schema, kind, kind, false, &mut without);
    }
    assert!(without.is_empty(), "without a rule: {without:?}");
}

#[test]
fn the_documents_have_what_each_permission_is_for_and_each_role_has() {
    let (rules, routes) = (rules(), routes());
    let mut wanted = String::from("| Permission | Fields of GraphQL | REST |\n|---|---|---|\n");
    for needed in Permission::ALL.into_iter().map(Some).chain([None]) {
        let named = needed.map_or("any credential".to_owned(), |permission| format!("`{permission}`"));
        let fields = rules.iter().filter(|(_, rule)| **rule == needed).map(|(field, _)| format!("`{field}`"));
        let paths = routes.iter().filter(|(_, permission)| Some(**permission) == needed);
        let paths = paths.map(|((method, path), _)| format!("`{method} {path}`"));
        let (fields, paths): (Vec<_>, Vec<_>) = (fields.collect(), paths.collect());
        writeln!(wanted, "| {named} | {} | {} |", fields.join(", "), paths.join(", ")).unwrap();
    }
    wanted.push_str("\n| Role | Permissions |\n|---|---|\n");
    for role in Role::ALL {
        let permissions: Vec<_> = role.permissions().iter().map(|permission| format!("`{permission}`")).collect();
        writeln!(wanted, "| `{}` | {} |", role.as_str(), permissions.join(", ")).unwrap();
    }
    let text = SECURITY.text;
    let between =
        text.split_once("<!-- permissions -->\n\n").and_then(|(_, rest)| rest.split_once("\n<!-- /permissions"));
    assert!(between.is_some_and(|(table, _)| table == wanted), "docs/security.md is to have:\n\n{wanted}");
}
