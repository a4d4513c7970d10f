//! Settings of `watch`.

use std::str::FromStr as _;

use clap::{Args, ValueEnum};
use url::Url;
use uuid::Uuid;

use super::Secret;

/// Path of the public WebSocket, for addresses that name none.
const WEBSOCKET_PATH: &str = "/graphql/ws";

/// Settings of `watch`. Words of the schema are passed on as they are, so that a newer service may know more of them.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct WatchConfig {
    /// The service: a ws, wss, http or https URL, or host:port
    #[arg(long, env = "INCIDENT_MANAGER_URL", default_value = "ws://127.0.0.1:8080/graphql/ws", value_parser = websocket_url)]
    pub url: Url,

    /// Token or API key, where the service asks for one; in the variable no other user of the machine sees it
    #[arg(long, env = "INCIDENT_MANAGER_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = Secret::from_str)]
    pub token: Option<Secret>,

    /// Only these severities, before or after the change: P0, P1, P2, P3, P4
    #[arg(long, env = "INCIDENT_MANAGER_WATCH_SEVERITY", value_delimiter = ',', value_parser = word, conflicts_with = "alerts")]
    pub severity: Vec<String>,

    /// Only these incidents
    #[arg(
        long,
        env = "INCIDENT_MANAGER_WATCH_INCIDENT",
        value_delimiter = ',',
        value_name = "UUID",
        conflicts_with = "alerts"
    )]
    pub incident: Vec<Uuid>,

    /// Only these changes: CREATED, UPDATED, STATE_CHANGED, RESOLVED, ASSIGNED, COMMENT_ADDED
    #[arg(long = "type", env = "INCIDENT_MANAGER_WATCH_TYPE", value_delimiter = ',', value_parser = word, conflicts_with = "alerts")]
    pub update_type: Vec<String>,

    /// Only incidents that were active before or after the change
    #[arg(long, env = "INCIDENT_MANAGER_WATCH_ACTIVE_ONLY", conflicts_with = "alerts")]
    pub active_only: bool,

    /// Follow alerts as they come in, instead of incidents
    #[arg(long, env = "INCIDENT_MANAGER_WATCH_ALERTS")]
    pub alerts: bool,

    /// Only alerts of these sources
    #[arg(long, env = "INCIDENT_MANAGER_WATCH_SOURCE", value_delimiter = ',', requires = "alerts")]
    pub source: Vec<String>,

    /// Print the data of each result as it came, one JSON object a line
    #[arg(long, env = "INCIDENT_MANAGER_WATCH_JSON")]
    pub json: bool,

    /// Show heartbeats too
    #[arg(long, env = "INCIDENT_MANAGER_WATCH_HEARTBEATS", conflicts_with = "alerts")]
    pub heartbeats: bool,

    /// Whether lines are coloured; `auto`: at a terminal, unless NO_COLOR is set
    #[arg(long, env = "INCIDENT_MANAGER_COLOR", default_value = "auto", value_enum)]
    pub color: ColorChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// At a terminal
    Auto,
    Always,
    Never,
}

/// A word of the schema, in either case: `p0`, `state_changed`.
fn word(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_uppercase();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err("must be words, separated by commas".to_owned());
    }
    Ok(text)
}

/// Completes an address to the URL of the public WebSocket.
fn websocket_url(text: &str) -> Result<Url, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("ws://{text}") };
    let mut url = Url::parse(&with_scheme).map_err(|error| error.to_string())?;
    let scheme = match url.scheme() {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => return Err("must be a ws, wss, http or https URL, or host:port".to_owned()),
    };
    let fits = url.set_scheme(scheme);
    debug_assert!(fits.is_ok(), "all four are special schemes");
    if url.path() == "/" {
        url.set_path(WEBSOCKET_PATH);
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_completed_to_the_websocket() {
        for (given, completed) in [
            ("ws://127.0.0.1:8080/graphql/ws", "ws://127.0.0.1:8080/graphql/ws"),
            ("localhost:9000", "ws://localhost:9000/graphql/ws"),
            ("incidents.example", "ws://incidents.example/graphql/ws"),
            ("[::1]:8080", "ws://[::1]:8080/graphql/ws"),
            ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/graphql/ws"),
            ("https://incidents.example", "wss://incidents.example/graphql/ws"),
            ("https://example/incidents/ws#top", "wss://example/incidents/ws"),
        ] {
            assert_eq!(websocket_url(given).unwrap().as_str(), completed, "{given}");
        }
        for bad in ["", "ftp://example", "http://", "localhost:port", "postgres://localhost/db"] {
            assert!(websocket_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_of_the_schema_may_be_lower_case() {
        assert_eq!(word(" state_changed").unwrap(), "STATE_CHANGED");
        assert!(word("").is_err());
        assert!(word("P0;P1").is_err());
    }
}
