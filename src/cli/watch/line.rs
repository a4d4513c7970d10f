//! A result as one line for people.

use std::fmt::Write as _;

use chrono::{DateTime, Local, Utc};
use serde::Deserialize;

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";

/// Width of the longest word of the schema, so that columns line up: `STATE_CHANGED`, `INVESTIGATING`.
const WORD_WIDTH: usize = 13;

/// The data of a result, of either subscription. Words are not parsed, so that a newer service may know more of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Data {
    IncidentUpdates(Update),
    Alerts(Alert),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    #[serde(rename = "updateType")]
    kind: String,
    timestamp: DateTime<Utc>,
    incident: Option<Incident>,
    changed_fields: Vec<String>,
    actor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incident {
    id: String,
    title: String,
    severity: String,
    state: String,
    source: String,
    assigned_to: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    id: String,
    source: String,
    title: String,
    severity: String,
    #[serde(rename = "alertType")]
    kind: String,
    firing: bool,
    received_at: DateTime<Utc>,
    deduplicated: bool,
    incident: Option<AlertIncident>,
}

#[derive(Deserialize)]
struct AlertIncident {
    id: String,
}

/// Whether a result's data is a heartbeat.
pub fn is_heartbeat(data: &str) -> bool {
    matches!(serde_json::from_str(data), Ok(Data::IncidentUpdates(update)) if update.kind == "HEARTBEAT")
}

/// The line of a result's data; what is not understood is shown as it came.
pub fn line(data: &str, colour: bool) -> String {
    match serde_json::from_str(data) {
        Ok(Data::IncidentUpdates(update)) => update_line(&update, colour),
        Ok(Data::Alerts(alert)) => alert_line(&alert, colour),
        Err(_) => escaped(data),
    }
}

fn update_line(update: &Update, colour: bool) -> String {
    let mut line = Line::new(update.timestamp, colour);
    let Some(incident) = &update.incident else {
        line.part(DIM, &update.kind);
        return line.text;
    };
    line.part(severity_style(&incident.severity), &incident.severity);
    let style = match update.kind.as_str() {
        "CREATED" => YELLOW,
        "RESOLVED" => GREEN,
        _ => "",
    };
    line.word(style, &update.kind);
    line.word("", &incident.state);
    line.part(BOLD, &incident.title);
    line.part(DIM, &format!("[{}]", incident.source));
    if let Some(actor) = &update.actor {
        line.part("", &format!("by {actor}"));
    }
    if update.changed_fields.iter().any(|field| field == "assignedTo") {
        line.part("", &format!("to {}", incident.assigned_to.as_deref().unwrap_or("nobody")));
    }
    if !update.changed_fields.is_empty() {
        line.part(DIM, &format!("changed {}", update.changed_fields.join(", ")));
    }
    line.part(DIM, &incident.id);
    line.text
}

fn alert_line(alert: &Alert, colour: bool) -> String {
    let mut line = Line::new(alert.received_at, colour);
    line.part(severity_style(&alert.severity), &alert.severity);
    let (style, firing) = if alert.firing { (YELLOW, "FIRING") } else { (GREEN, "OVER") };
    line.word(style, firing);
    line.word("", &alert.kind);
    line.part(BOLD, &alert.title);
    line.part(DIM, &format!("[{}]", alert.source));
    if let Some(incident) = &alert.incident {
        let verb = if alert.deduplicated { "joined" } else { "in" };
        line.part("", &format!("{verb} incident {}", incident.id));
    }
    line.part(DIM, &alert.id);
    line.text
}

fn severity_style(severity: &str) -> &'static str {
    match severity {
        "P0" => "\x1b[1;31m",
        "P1" => "\x1b[31m",
        "P2" => YELLOW,
        "P3" => "\x1b[36m",
        _ => "",
    }
}

struct Line {
    text: String,
    colour: bool,
}

impl Line {
    fn new(at: DateTime<Utc>, colour: bool) -> Self {
        let mut line = Self { text: String::new(), colour };
        line.part(DIM, &at.with_timezone(&Local).format("%H:%M:%S%.3f").to_string());
        line
    }

    fn part(&mut self, style: &str, text: &str) {
        if !self.text.is_empty() {
            self.text.push_str("  ");
        }
        let text = escaped(text);
        let _ = if self.colour && !style.is_empty() {
            write!(self.text, "{style}{text}{RESET}")
        } else {
            write!(self.text, "{text}")
        };
    }

    /// A word of the schema, in a column.
    fn word(&mut self, style: &str, word: &str) {
        self.part(style, &format!("{word:WORD_WIDTH$}"));
    }
}

/// Escapes what would steer the terminal rather than be read: whoever can send an alert chooses its title.
///
/// Beside control characters these are the ones that break lines, reorder text or hide in it.
pub fn escaped(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2025-11-12T20:30:45.123456Z";

    fn update(changes: &Value) -> String {
        let mut update = json!({
            "updateType": "STATE_CHANGED", "incidentId": "7", "timestamp": AT, "cursor": "c", "actor": "ana",
            "changedFields": ["state", "acknowledgedAt"],
            "incident": {
                "id": "7", "title": "Latency of chat completions", "severity": "P1", "state": "TRIAGED",
                "source": "demo/gateway", "assignedTo": null, "version": 2
            }
        });
        for (name, value) in changes.as_object().unwrap() {
            update[name] = value.clone();
        }
        json!({ "incidentUpdates": update }).to_string()
    }

    /// The line without its time, which depends on where the test runs.
    fn after_time(data: &str) -> String {
        let line = line(data, false);
        let (time, rest) = line.split_once("  ").unwrap();
        assert!(time.ends_with(":45.123"), "{line}");
        rest.to_owned()
    }

    #[test]
    fn an_update_is_one_line() {
        insta::assert_snapshot!(
            after_time(&update(&json!({}))),
            @"P1  STATE_CHANGED  TRIAGED        Latency of chat completions  [demo/gateway]  by ana  changed state, acknowledgedAt  7"
        );
        insta::assert_snapshot!(
            after_time(&update(&json!({ "updateType": "CREATED", "changedFields": [], "actor": null }))),
            @"P1  CREATED        TRIAGED        Latency of chat completions  [demo/gateway]  7"
        );
        insta::assert_snapshot!(
            after_time(&update(&json!({ "updateType": "ASSIGNED", "changedFields": ["assignedTo"] }))),
            @"P1  ASSIGNED       TRIAGED        Latency of chat completions  [demo/gateway]  by ana  to nobody  changed assignedTo  7"
        );
    }

    #[test]
    fn a_heartbeat_is_told_from_a_change() {
        let heartbeat = update(&json!({ "updateType": "HEARTBEAT", "incident": null, "incidentId": null }));
        assert!(is_heartbeat(&heartbeat));
        assert_eq!(after_time(&heartbeat), "HEARTBEAT");
        assert!(!is_heartbeat(&update(&json!({}))));
        assert!(!is_heartbeat("{}"));
    }

    #[test]
    fn an_alert_is_one_line() {
        let alert = |firing: bool, incident: &Value| {
            let alert = json!({
                "id": "a1", "source": "demo/gpu", "title": "GPU pool exhausted", "severity": "P2", "receivedAt": AT,
                "alertType": "INFRASTRUCTURE", "firing": firing, "deduplicated": true, "incident": incident
            });
            json!({ "alerts": alert }).to_string()
        };
        insta::assert_snapshot!(
            after_time(&alert(true, &json!({ "id": "7" }))),
            @"P2  FIRING         INFRASTRUCTURE  GPU pool exhausted  [demo/gpu]  joined incident 7  a1"
        );
        insta::assert_snapshot!(
            after_time(&alert(false, &Value::Null)),
            @"P2  OVER           INFRASTRUCTURE  GPU pool exhausted  [demo/gpu]  a1"
        );
    }

    #[test]
    fn colour_goes_around_what_was_escaped() {
        let line = line(&update(&json!({})), true);
        assert!(line.contains("\x1b[31mP1\x1b[0m") && line.contains("\x1b[1mLatency of chat completions\x1b[0m"));
    }

    #[test]
    fn no_text_of_others_steers_the_terminal() {
        let nasty = "\x1b]0;owned\x07 a\nb\r\u{9b}31m \u{202e}txt\u{200b}\u{2028}\t ü 漢 🦀";
        let mut incident: Value = serde_json::from_str(&update(&json!({}))).unwrap();
        for field in ["id", "title", "severity", "state", "source"] {
            incident["incidentUpdates"]["incident"][field] = json!(nasty);
        }
        incident["incidentUpdates"]["actor"] = json!(nasty);
        incident["incidentUpdates"]["changedFields"] = json!([nasty]);
        for text in [line(&incident.to_string(), false), line(&format!("{{\"x\": \"{nasty}\"}}"), false)] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert!(!text.contains(['\u{202e}', '\u{200b}', '\u{2028}']), "{text:?}");
            assert!(text.contains("\\u{1b}]0;owned") && text.contains("ü 漢 🦀"), "{text:?}");
        }
    }
}
