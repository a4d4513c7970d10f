//! Incidents and alerts of several sources that have to do with each other, and credentials that are limited to some.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::token;
use super::{Service, TestDatabase};

pub const SOURCES: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];

/// A credential that may do everything, in these sources.
pub fn within(subject: &str, sources: &[&str]) -> String {
    token(json!({ "sub": subject, "roles": ["admin"], "sources": sources }))
}

/// What every text of a source has in it.
pub fn mark(source: &str) -> String {
    format!("of-{source}-")
}

/// Incidents of every source that have to do with each other in every way, with alerts of any of them.
pub async fn fill(database: &TestDatabase, random: &mut StdRng) {
    for source in SOURCES {
        let mark = mark(source);
        database
            .execute(&format!(
                r#"insert into incident_manager.incident
                     (title, description, severity, source, fingerprint, affected_resources, labels, metadata)
                   select '{mark}' || n, '{mark}', 'P' || n % 5, '{source}', 'fingerprint-' || n, array['shared', '{mark}'],
                          '{{"k": "{mark}"}}', '{{"k": "{mark}"}}' from generate_series(1, 4) n;
                   insert into incident_manager.comment (incident_id, body)
                   select id, '{mark}' from incident_manager.incident where source = '{source}'"#
            ))
            .await;
    }
    let ids: Vec<Uuid> = ids(database, "incident").await;
    for _ in 0..40 {
        let (source, id) = (SOURCES.choose(random).unwrap(), ids.choose(random).unwrap());
        let mark = mark(source);
        // as a merge leaves them
        database
            .execute(&format!(
                "insert into incident_manager.alert (source, title, description, severity, incident_id, status)
                 values ('{source}', '{mark}', '{mark}', 'P3', '{id}', 'DEDUPLICATED')"
            ))
            .await;
    }
    for _ in 0..20 {
        let (a, b) = (ids.choose(random).unwrap(), ids.choose(random).unwrap());
        database
            .execute(&format!(
                "insert into incident_manager.incident_link (a, b) select least(a, b), greatest(a, b)
                 from (values ('{a}'::uuid, '{b}'::uuid)) pair(a, b) where a <> b on conflict do nothing"
            ))
            .await;
    }
    for _ in 0..3 {
        let (gone, into) = (ids.choose(random).unwrap(), ids.choose(random).unwrap());
        database
            .execute(&format!(
                "update incident_manager.incident set state = 'CLOSED', merged_into = '{into}'
                 where id = '{gone}' and '{gone}' <> '{into}' and merged_into is null
                   and not exists (select from incident_manager.incident where merged_into = '{gone}')
                   and exists (select from incident_manager.incident where id = '{into}' and merged_into is null)"
            ))
            .await;
    }
}

pub async fn ids(database: &TestDatabase, table: &str) -> Vec<Uuid> {
    database.scalar(&format!("select array_agg(id order by id) from incident_manager.{table}")).await
}

/// Documents at random, in which one thing leads to another.
pub struct Documents<'r> {
    pub random: &'r mut StdRng,
    pub incidents: Vec<Uuid>,
    pub alerts: Vec<Uuid>,
}

impl Documents<'_> {
    pub fn incident(&mut self, depth: usize) -> String {
        let mut fields = vec!["id source title description labels metadata affectedResources".to_owned()];
        if depth > 0 {
            let chosen: Vec<_> = (0..5).filter(|_| self.random.random_ratio(2, 3)).collect();
            fields.extend(chosen.into_iter().map(|field| match field {
                0 => format!("alerts(first: 4) {{ totalCount nodes {{ {} }} }}", self.alert(depth - 1)),
                1 => "comments(first: 3) { totalCount nodes { body } }".to_owned(),
                2 => "timeline(first: 3) { totalCount nodes { summary } }".to_owned(),
                3 => format!("relatedIncidents {{ reason incident {{ {} }} }}", self.incident(depth - 1)),
                _ => "playbook { name }".to_owned(),
            }));
        }
        fields.join(" ")
    }

    pub fn alert(&mut self, depth: usize) -> String {
        if depth == 0 {
            return "id source title description".to_owned();
        }
        format!("id source title description incident {{ {} }}", self.incident(depth - 1))
    }

    pub fn query(&mut self) -> String {
        let (incident, alert) = (self.incidents.choose(self.random).unwrap(), self.alerts.choose(self.random).unwrap());
        let (incident, alert) = (*incident, *alert);
        let named: Vec<_> = SOURCES.into_iter().filter(|_| self.random.random()).collect();
        let sources = json!(named);
        match self.random.random_range(0..5) {
            0 => format!("{{ incident(id: \"{incident}\") {{ {} }} }}", self.incident(2)),
            1 => format!(
                "{{ incidents(first: 12, filter: {{ sources: {sources} }}) {{ totalCount nodes {{ {} }} }} }}",
                self.incident(2)
            ),
            2 => format!("{{ alert(id: \"{alert}\") {{ {} }} }}", self.alert(2)),
            3 => format!("{{ alerts(first: 12, sources: {sources}) {{ totalCount nodes {{ {} }} }} }}", self.alert(2)),
            _ => format!("{{ alerts(incidentId: \"{incident}\") {{ totalCount nodes {{ {} }} }} }}", self.alert(2)),
        }
    }
}

/// Nothing of a source outside is in a text, under no name.
pub fn assert_inside(scope: &[&str], what: &str, text: &str) {
    for outside in SOURCES.iter().filter(|source| !scope.contains(source)) {
        assert!(!text.contains(&mark(outside)), "{scope:?} {what}: {text}");
        assert!(!text.contains(&format!("\"{outside}\"")), "{scope:?} {what}: {text}");
    }
}

pub fn scope(random: &mut StdRng) -> Vec<&'static str> {
    SOURCES.into_iter().filter(|_| random.random_ratio(2, 5)).collect()
}

pub async fn asked(service: &Service, token: &str, query: &str) -> Value {
    let request =
        reqwest::Client::new().post(service.url("/graphql")).bearer_auth(token).json(&json!({ "query": query }));
    request.send().await.unwrap().json().await.unwrap()
}
