//! A client of event streams, as a browser's `EventSource` is one.

use serde_json::Value;
use tokio::time::timeout;

use super::{PATIENCE, Service};

/// Reads blocks of an event stream.
pub struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    pub async fn open(service: &Service, query: &str) -> Self {
        Self::resume(service, query, "").await
    }

    /// As a browser's `EventSource` comes back.
    pub async fn resume(service: &Service, query: &str, last_event_id: &str) -> Self {
        let url = url::Url::parse_with_params(&service.url("/graphql/stream"), [("query", query)]).unwrap();
        let request = service.http().get(url).header("accept", "text/event-stream");
        let response = request.header("last-event-id", last_event_id).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        Self { response, text: String::new() }
    }

    /// The next block that is no comment: its fields.
    pub async fn next(&mut self) -> Option<Vec<(String, String)>> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let fields: Vec<_> = block
                    .lines()
                    .filter(|line| !line.is_empty() && !line.starts_with(':'))
                    .map(|line| line.split_once(':').unwrap_or((line, "")))
                    .map(|(name, value)| (name.to_owned(), value.trim_start().to_owned()))
                    .collect();
                if !fields.is_empty() {
                    return Some(fields);
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("in time");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }

    /// The next result, and its cursor.
    pub async fn next_result(&mut self) -> (Value, String) {
        loop {
            let fields = self.next().await.expect("the stream goes on");
            if field(&fields, "event") == "next" {
                return (serde_json::from_str(field(&fields, "data")).unwrap(), field(&fields, "id").to_owned());
            }
        }
    }
}

/// A field of a block; empty where there is none.
pub fn field<'f>(fields: &'f [(String, String)], name: &str) -> &'f str {
    fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}
