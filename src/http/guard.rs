//! Keeps other sites' pages away: a browser tells where a request comes from (`Origin`) and which name it was sent to
//! (`Host`). A page that has had its name's address changed to ours (DNS rebinding) is known by the second.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower_http::cors::CorsLayer;

use super::AppState;
use super::problem::Problem;
use crate::config::AuthMode;
use crate::graphql::Code;

/// With which an event stream goes on where it was (HTML standard, section 9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long a browser may keep what a preflight was told; Chromium keeps nothing longer.
const PREFLIGHT_AGE: Duration = Duration::from_hours(2);

/// From where requests may come.
#[derive(Debug)]
pub struct Guard {
    /// Names under which the service may be reached, beside IP addresses and `localhost`. None: whichever it has.
    hosts: Option<HashSet<String>>,
    /// Beside the service's own.
    origins: Vec<HeaderValue>,
}

impl Guard {
    /// Whoever has to present a credential may ask under any name, unless there is a list: a page that has got hold of a name
    /// has no credential.
    pub fn new(auth: AuthMode, hosts: &[String], origins: Vec<HeaderValue>) -> Self {
        let is_any = auth == AuthMode::Required && hosts.is_empty();
        let hosts = (!is_any).then(|| hosts.iter().map(|name| name.to_ascii_lowercase()).collect());
        Self { hosts, origins }
    }

    /// Tells browsers which pages of other origins may read answers (Fetch standard, section 3.3); none where none may.
    pub fn cors(&self) -> Option<CorsLayer> {
        if self.origins.is_empty() {
            return None;
        }
        let cors = CorsLayer::new()
            .allow_origin(self.origins.clone())
            .allow_methods([Method::GET, Method::POST, Method::PATCH])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, LAST_EVENT_ID])
            .expose_headers([header::LINK, header::LOCATION, header::RETRY_AFTER, header::WWW_AUTHENTICATE])
            .max_age(PREFLIGHT_AGE);
        Some(cors)
    }

    fn serves(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let host = host.to_ascii_lowercase();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || hosts.contains(&host)
    }
}

/// Middleware over every route.
pub async fn check(State(state): State<AppState>, request: Request, next: Next) -> Response {
    match refusal(request.headers(), &state.guard) {
        None => next.run(request).await,
        Some(detail) => Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail).into_response(),
    }
}

/// Why a request with these headers is not answered.
fn refusal(headers: &HeaderMap, guard: &Guard) -> Option<&'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()));
    let host = match host {
        Some(None) => return Some("the Host header cannot be read"),
        Some(Some(_)) if hosts.next().is_some() => return Some("there are several Host headers"),
        Some(Some(host)) if !guard.serves(host.host()) => {
            return Some("this Host is not served; name it in --allowed-hosts if it is the service's own");
        }
        // HTTP/1.0, as load balancers' checks speak it; browsers always send one
        host => host.flatten(),
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next()?;
    if origins.next().is_some() {
        return Some("there are several Origin headers");
    }
    if guard.origins.contains(origin) {
        return None;
    }
    let own = host.is_some_and(|host| {
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")))
            .is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str()))
    });
    if own { None } else { Some("pages of this origin may not ask; name it in --allowed-origins if they are meant to") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &[&str] = &["Incidents.example"];

    fn refused(host: Option<&str>, origin: Option<&str>) -> bool {
        refused_where((AuthMode::Off, HOSTS), host, origin)
    }

    fn refused_where((auth, hosts): (AuthMode, &[&str]), host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        refusal(&headers, &Guard::new(auth, &hosts, vec!["https://board.example".parse().unwrap()])).is_some()
    }

    #[test]
    fn hosts_are_addresses_localhost_or_named() {
        for host in
            ["127.0.0.1:8080", "[::1]:8080", "192.0.2.1", "localhost:8080", "LOCALHOST", "incidents.example:443"]
        {
            assert!(!refused(Some(host), None), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "", "a b"] {
            assert!(refused(Some(host), None), "{host}");
        }
        assert!(!refused(None, None), "a check by HTTP/1.0");
    }

    #[test]
    fn where_everybody_is_asked_any_host_will_do_unless_some_are_named() {
        let (any, named) = ((AuthMode::Required, &[][..]), (AuthMode::Required, HOSTS));
        for host in ["elsewhere.example", "incidents.example:8443", "localhost", "192.0.2.1"] {
            assert!(!refused_where(any, Some(host), None), "{host}");
            assert_eq!(refused_where(named, Some(host), None), host == "elsewhere.example", "{host}");
        }
        assert!(refused_where(any, Some("a b"), None), "it can be read");
        assert!(!refused_where(any, Some("incidents.example"), Some("https://incidents.example")));
        assert!(refused_where(any, Some("incidents.example"), Some("https://elsewhere.example")));
        assert!(refused_where((AuthMode::Off, &[]), Some("elsewhere.example"), None));
    }

    #[test]
    fn an_origin_is_our_own() {
        assert!(!refused(Some("localhost:8080"), Some("http://localhost:8080")));
        assert!(!refused(Some("incidents.example"), Some("https://Incidents.example")));
        assert!(!refused(Some("localhost:8080"), Some("https://board.example")), "or named");
        for origin in [
            "http://board.example",
            "https://board.example:8443",
            "http://localhost",
            "http://localhost:8081",
            "http://evil.example",
            "null",
            "file://",
            "",
        ] {
            assert!(refused(Some("localhost:8080"), Some(origin)), "{origin}");
        }
        assert!(refused(None, Some("http://localhost:8080")));
    }
}
