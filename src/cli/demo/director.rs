//! Decides what happens next: which story begins, which goes on, and by which mutation.

use std::collections::VecDeque;

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::{Value, json};

use super::story::{RESPONDERS, STORIES, Story};

/// More open stories than fit on a screen say less.
const MAX_OPEN: usize = 8;

/// Below so many, a new one begins at once.
const MIN_OPEN: usize = 3;

/// A mutation or query to send.
pub struct Request {
    pub document: &'static str,
    pub variables: Value,
}

/// A story on its way; every one ends CLOSED.
struct Plot {
    /// None for what an earlier demo left open.
    story: Option<(&'static Story, &'static str)>,
    severity: &'static str,
    /// Distinguishes its alerts from those of other plots.
    key: String,
    incident: Option<String>,
    steps: VecDeque<Step>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The alert of one replica begins or ends.
    Alert {
        replica: u8,
        firing: bool,
    },
    Create,
    Acknowledge,
    Assign(&'static str),
    Transition(&'static str),
    Raise(&'static str),
    Comment(&'static str),
    Resolve,
}

#[derive(Default)]
pub struct Director {
    plots: Vec<Plot>,
    /// The plot whose step was sent last.
    current: usize,
}

impl Director {
    /// Incidents that an earlier demo left open, to be ended before new ones begin.
    pub const LEFTOVERS: &str = "query($sources: [String!]) { incidents(filter: { sources: $sources, activeOnly: true }, \
        first: 100) { nodes { id } } }";

    pub fn leftovers() -> Request {
        let sources: Vec<_> = STORIES.iter().map(|story| story.source).collect();
        Request { document: Self::LEFTOVERS, variables: json!({ "sources": sources }) }
    }

    pub fn end_leftovers(&mut self, data: &Value) {
        for incident in data["incidents"]["nodes"].as_array().into_iter().flatten() {
            self.plots.push(Plot {
                story: None,
                severity: "P4",
                key: String::new(),
                incident: incident["id"].as_str().map(ToOwned::to_owned),
                steps: [Step::Resolve, Step::Transition("CLOSED")].into(),
            });
        }
    }

    /// The next thing that happens.
    pub fn next(&mut self, rng: &mut impl Rng) -> Request {
        let open = self.plots.len();
        if open < MIN_OPEN || (open < MAX_OPEN && rng.random_ratio(1, 6)) {
            self.begin(rng);
            self.current = self.plots.len() - 1;
        } else {
            self.current = rng.random_range(0..open);
        }
        let plot = &self.plots[self.current];
        plot.request(*plot.steps.front().expect("a plot without steps is removed"))
    }

    /// The answer to the last request: its data, or None where the service refused it, as when somebody else has dealt
    /// with the incident.
    pub fn answered(&mut self, data: Option<&Value>) {
        let plot = &mut self.plots[self.current];
        if let Some(data) = data {
            plot.steps.pop_front();
            let incident = data.pointer("/createIncident/id").or_else(|| data.pointer("/submitAlert/incident/id"));
            let incident = incident.and_then(Value::as_str).map(ToOwned::to_owned);
            plot.incident = plot.incident.take().or(incident);
        }
        if data.is_none() || plot.steps.is_empty() || plot.incident.is_none() {
            self.plots.swap_remove(self.current);
        }
    }

    fn begin(&mut self, rng: &mut impl Rng) {
        // There are more subjects than plots may be open, so that this ends.
        let (story, subject) = loop {
            let story = STORIES.choose(rng).expect("there are stories");
            let subject = *story.subjects.choose(rng).expect("a story has subjects");
            let open = |plot: &Plot| plot.story.is_some_and(|(open, of)| open.title == story.title && of == subject);
            if !self.plots.iter().any(open) {
                break (story, subject);
            }
        };
        let severity = *story.severities.choose(rng).expect("a story has severities");
        let key = format!("demo-{:016x}", rng.random::<u64>());
        let steps = script(story, severity, rng);
        self.plots.push(Plot { story: Some((story, subject)), severity, key, incident: None, steps });
    }
}

/// The steps of a story, with what differs from one time to the next.
fn script(story: &'static Story, severity: &'static str, rng: &mut impl Rng) -> VecDeque<Step> {
    let replicas = if story.by_alert { rng.random_range(1..=3) } else { 0 };
    let mut steps = VecDeque::new();
    match replicas {
        0 => steps.push_back(Step::Create),
        _ => steps.extend((0..replicas).map(|replica| Step::Alert { replica, firing: true })),
    }
    steps.push_back(Step::Acknowledge);
    steps.push_back(Step::Assign(RESPONDERS.choose(rng).expect("somebody is on call")));
    if severity == "P2" && rng.random_ratio(1, 3) {
        steps.push_back(Step::Raise("P1"));
    }
    steps.push_back(Step::Transition("INVESTIGATING"));
    steps.extend(story.findings.iter().map(|finding| Step::Comment(finding)));
    if rng.random_ratio(3, 4) {
        steps.push_back(Step::Transition("REMEDIATING"));
    }
    // The end of the last alert would resolve the incident too; a responder says why it is over.
    steps.push_back(Step::Resolve);
    steps.extend((0..replicas).map(|replica| Step::Alert { replica, firing: false }));
    steps.push_back(Step::Transition("CLOSED"));
    steps
}

impl Plot {
    fn request(&self, step: Step) -> Request {
        let id = &self.incident;
        let (document, variables) = match step {
            Step::Alert { replica, firing } => (
                "mutation($input: SubmitAlertInput!) { submitAlert(input: $input) { status incident { id } } }",
                json!({ "input": self.alert(replica, firing) }),
            ),
            Step::Create => (
                "mutation($input: CreateIncidentInput!) { createIncident(input: $input) { id } }",
                json!({ "input": self.new_incident() }),
            ),
            Step::Acknowledge => ("mutation($id: UUID!) { acknowledgeIncident(id: $id) { id } }", json!({ "id": id })),
            Step::Assign(assignee) => (
                "mutation($id: UUID!, $assignee: String) { assignIncident(id: $id, assignee: $assignee) { id } }",
                json!({ "id": id, "assignee": assignee }),
            ),
            Step::Transition(to) => (
                "mutation($id: UUID!, $to: IncidentState!) { transitionIncident(id: $id, to: $to) { id } }",
                json!({ "id": id, "to": to }),
            ),
            Step::Raise(severity) => (
                "mutation($id: UUID!, $input: UpdateIncidentInput!) { updateIncident(id: $id, input: $input) { id } }",
                json!({ "id": id, "input": { "severity": severity } }),
            ),
            Step::Comment(body) => (
                "mutation($id: UUID!, $body: String!) { addComment(incidentId: $id, body: $body) { id } }",
                json!({ "id": id, "body": body }),
            ),
            Step::Resolve => (
                "mutation($id: UUID!, $resolution: String, $rootCause: String) { \
                 resolveIncident(id: $id, resolution: $resolution, rootCause: $rootCause) { id } }",
                json!({
                    "id": id,
                    "resolution": self.story.map_or("Ended with the demo that made it up.", |(story, _)| story.resolution),
                    "rootCause": self.story.map(|(story, _)| story.root_cause),
                }),
            ),
        };
        Request { document, variables }
    }

    fn alert(&self, replica: u8, firing: bool) -> Value {
        let Some((story, subject)) = self.story else { return Value::Null };
        json!({
            "externalId": format!("{}-{replica}", self.key),
            "fingerprint": self.key,
            "source": story.source,
            "title": story.title.replace("{}", subject),
            "description": story.description,
            "severity": self.severity,
            "alertType": story.incident_type,
            "labels": { "demo": "true", "replica": format!("{subject}-{replica}") },
            "affectedServices": [subject],
            "firing": firing,
        })
    }

    fn new_incident(&self) -> Value {
        let Some((story, subject)) = self.story else { return Value::Null };
        json!({
            "source": story.source,
            "title": story.title.replace("{}", subject),
            "description": story.description,
            "severity": self.severity,
            "incidentType": story.incident_type,
            "labels": { "demo": "true" },
            "affectedResources": [subject],
            "fingerprint": self.key,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// What the service would hold: state by incident, and how many alerts fire.
    #[derive(Default)]
    struct Service {
        states: HashMap<String, &'static str>,
        by_fingerprint: HashMap<String, String>,
        titles: HashMap<String, String>,
    }

    impl Service {
        /// Answers as the service would; panics where it would refuse.
        fn answer(&mut self, request: &Request) -> Value {
            let input = &request.variables["input"];
            if request.document.contains("createIncident") || request.document.contains("submitAlert") {
                assert_eq!(input["labels"]["demo"], "true");
                assert!(input["source"].as_str().unwrap().starts_with("demo/"));
                assert!(!input["title"].as_str().unwrap().contains("{}"));
                let next = format!("incident-{}", self.states.len());
                let fingerprint = input["fingerprint"].as_str().unwrap().to_owned();
                let id = self.by_fingerprint.entry(fingerprint).or_insert(next).clone();
                self.states.entry(id.clone()).or_insert("DETECTED");
                self.titles.insert(id.clone(), input["title"].to_string());
                return json!({ "createIncident": { "id": id }, "submitAlert": { "incident": { "id": id } } });
            }
            let id = request.variables["id"].as_str().expect("the incident is known by now");
            let state = self.states.get_mut(id).expect("the incident exists");
            let order = ["DETECTED", "TRIAGED", "INVESTIGATING", "REMEDIATING", "RESOLVED", "CLOSED"];
            let rank = |state: &str| order.iter().position(|other| *other == state).unwrap();
            let to = if request.document.contains("acknowledgeIncident") {
                "TRIAGED"
            } else if request.document.contains("resolveIncident") {
                "RESOLVED"
            } else if let Some(to) = request.variables["to"].as_str() {
                order[rank(to)]
            } else {
                assert_ne!(*state, "CLOSED", "{}", request.document);
                return json!({});
            };
            assert!(rank(to) > rank(state), "{state} to {to}");
            assert!(to != "CLOSED" || *state == "RESOLVED");
            *state = to;
            json!({})
        }

        fn open(&self) -> Vec<&str> {
            let open = self.states.iter().filter(|(_, state)| **state != "CLOSED");
            open.map(|(id, _)| self.titles[id].as_str()).collect()
        }
    }

    #[test]
    fn every_story_is_legal_and_ends_and_few_are_open() {
        for seed in 0..20 {
            let (mut director, mut service) = (Director::default(), Service::default());
            let mut rng = StdRng::seed_from_u64(seed);
            for _ in 0..2_000 {
                let request = director.next(&mut rng);
                let answer = service.answer(&request);
                director.answered(Some(&answer));
                let mut open = service.open();
                assert!(open.len() <= MAX_OPEN);
                open.sort_unstable();
                assert!(open.windows(2).all(|two| two[0] != two[1]), "two of a kind are open: {open:?}");
            }
            assert!(service.states.len() > 50, "stories come and go");
        }
    }

    #[test]
    fn a_seed_tells_the_same_stories_again() {
        let told = |seed| {
            let (mut director, mut service) = (Director::default(), Service::default());
            let mut rng = StdRng::seed_from_u64(seed);
            let mut told = String::new();
            for _ in 0..50 {
                let request = director.next(&mut rng);
                director.answered(Some(&service.answer(&request)));
                told += &request.variables.to_string();
            }
            told
        };
        assert_eq!(told(1), told(1));
        assert_ne!(told(1), told(2));
    }

    #[test]
    fn a_refused_step_ends_its_story_alone() {
        let (mut director, mut rng) = (Director::default(), StdRng::seed_from_u64(3));
        for _ in 0..100 {
            director.next(&mut rng);
            director.answered(None);
            assert!(director.plots.is_empty());
        }
    }

    #[test]
    fn what_an_earlier_demo_left_is_ended() {
        let mut director = Director::default();
        director.end_leftovers(&json!({ "incidents": { "nodes": [{ "id": "a" }, { "id": "b" }, { "id": "c" }] } }));
        let (mut rng, mut ended) = (StdRng::seed_from_u64(4), 0);
        for _ in 0..200 {
            let request = director.next(&mut rng);
            let id = request.variables["id"].as_str().unwrap_or("new");
            ended += i32::from(["a", "b", "c"].contains(&id) && request.variables["to"] == "CLOSED");
            let answer = json!({ "createIncident": { "id": "new" }, "submitAlert": { "incident": { "id": "new" } } });
            director.answered(Some(&answer));
        }
        assert_eq!(ended, 3);
    }
}
