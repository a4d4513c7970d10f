//! What `serve` says when it has started on a database of its own: where it is, and what to try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Facts about the running service.
pub struct Banner {
    /// How a shell finds this program.
    pub program: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The embedded database, as `psql` takes it.
    pub database: String,
    pub demo: bool,
    /// It speaks TLS.
    pub secure: bool,
}

impl Banner {
    /// One screen of plain text.
    pub fn text(&self) -> String {
        let at = reachable(self.address);
        let what = if self.demo { ", with made-up traffic" } else { "" };
        let database = shell_quoted(&self.database);
        let program = shell_quoted(&self.program);
        let (http, ws) = if self.secure { ("https", "wss") } else { ("http", "ws") };
        let option = match (self.secure, self.address.port()) {
            (true, _) => format!(" --url wss://{at}/graphql/ws"),
            (false, 8080) => String::new(),
            (false, _) => format!(" --url {at}"),
        };
        format!(
            r#"
Incident Manager runs on a database of its own{what}.

  GraphQL        {http}://{at}/graphql
  Subscriptions  {ws}://{at}/graphql/ws   (graphql-transport-ws)
  Health         {http}://{at}/health/ready
  Metrics        {http}://{at}/metrics

Watch what happens, in another terminal:

  {program} watch{option}
  {program} watch{option} --severity P0,P1 --json

Open an incident over GraphQL:

  curl -s {http}://{at}/graphql -H 'content-type: application/json' -d '{{"query":
    "mutation {{ createIncident(input: {{ title: \"Hello\", severity: P1, source: \"me\" }}) {{ id state }} }}"}}'

Or with nothing but SQL; subscribers hear of it all the same:

  psql {database} \
    -c "insert into incident_manager.incident (title, severity, source) values ('From SQL', 'P1', 'psql')"

Ctrl-C stops it; the data stays.
"#
        )
    }
}

/// The address under which this machine itself reaches a listener: one on all addresses is reached by loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The service's own GraphQL endpoint.
pub fn graphql_url(address: SocketAddr) -> String {
    format!("http://{}/graphql", reachable(address))
}

/// As a POSIX shell takes it for one word.
fn shell_quoted(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_what_to_type_next() {
        let banner = |address: &str, demo| {
            let database = "postgresql:///incident_manager?host=/home/o'neil/data&user=incident_manager".to_owned();
            let program = "target/debug/incident-manager".to_owned();
            Banner { program, address: address.parse().unwrap(), database, demo, secure: false }.text()
        };
        let text = banner("0.0.0.0:9000", true);
        for needed in [
            "http://127.0.0.1:9000/graphql",
            "ws://127.0.0.1:9000/graphql/ws",
            "  target/debug/incident-manager watch --url 127.0.0.1:9000\n",
            r"host=/home/o'\''neil/data",
            "made-up",
        ] {
            assert!(text.contains(needed), "{needed}\n{text}");
        }
        let text = banner("127.0.0.1:8080", false);
        assert!(text.contains("incident-manager watch\n") && !text.contains("made-up"), "{text}");
        assert!(text.lines().count() <= 28 && text.lines().all(|line| line.len() <= 110), "{text}");
    }

    #[test]
    fn an_endpoint_is_reached_by_loopback() {
        for (listen, url) in [
            ("0.0.0.0:80", "http://127.0.0.1:80/graphql"),
            ("[::]:8080", "http://[::1]:8080/graphql"),
            ("192.0.2.1:8080", "http://192.0.2.1:8080/graphql"),
        ] {
            assert_eq!(graphql_url(listen.parse().unwrap()), url);
        }
    }
}
