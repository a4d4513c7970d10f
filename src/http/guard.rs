//! Keeps other sites' pages away: a browser tells where a request comes from (`Origin`) and which name it was sent to
//! (`Host`). A page that has had its name's address changed to ours (DNS rebinding) is known by the second.

use std::collections::HashSet;
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::AppState;
use super::problem::Problem;
use crate::graphql::Code;

/// The names under which the service may be reached, beside IP addresses and `localhost`.
#[derive(Debug, Default)]
pub struct AllowedHosts(HashSet<String>);

impl AllowedHosts {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    fn contains(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.0.contains(&host)
    }
}

/// Middleware over every route.
pub async fn check(State(state): State<AppState>, request: Request, next: Next) -> Response {
    match refusal(request.headers(), &state.allowed_hosts) {
        None => next.run(request).await,
        Some(detail) => Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail).into_response(),
    }
}

/// Why a request with these headers is not answered.
fn refusal(headers: &HeaderMap, allowed: &AllowedHosts) -> Option<&'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()));
    let host = match host {
        Some(None) => return Some("the Host header cannot be read"),
        Some(Some(_)) if hosts.next().is_some() => return Some("there are several Host headers"),
        Some(Some(host)) if !allowed.contains(host.host()) => {
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
    let own = host.is_some_and(|host| {
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")))
            .is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str()))
    });
    if own { None } else { Some("pages of another origin may not ask") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        refusal(&headers, &AllowedHosts::new(["Incidents.example".to_owned()])).is_some()
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
    fn an_origin_is_our_own() {
        assert!(!refused(Some("localhost:8080"), Some("http://localhost:8080")));
        assert!(!refused(Some("incidents.example"), Some("https://Incidents.example")));
        for origin in ["http://localhost", "http://localhost:8081", "http://evil.example", "null", "file://", ""] {
            assert!(refused(Some("localhost:8080"), Some(origin)), "{origin}");
        }
        assert!(refused(None, Some("http://localhost:8080")));
    }
}
