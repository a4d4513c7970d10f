//! What lies between the service and its clients: proxies, pages of other origins, TLS.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::header::{ACCEPT, HOST, HeaderMap, ORIGIN};
use reqwest::{Certificate, Method, Response, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::access::{start_required, token_of};
use crate::support::{PATIENCE, Service, Socket, TestDatabase};

const STREAM: &str = "/graphql/stream?query=subscription%7BnewIncidents%7Bid%7D%7D";
const BOARD: &str = "https://board.example";

async fn start_with(flags: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let service = Service::start_with(&database.database_url(), flags).await;
    service.ready().await;
    (database, service)
}

async fn stream_for(service: &Service, forwarded_for: &str) -> Response {
    let request = service.http().get(service.url(STREAM)).header(ACCEPT, "text/event-stream");
    request.header("x-forwarded-for", forwarded_for).send().await.unwrap()
}

#[tokio::test]
async fn behind_a_trusted_proxy_clients_are_told_apart() {
    let flags = ["--max-connections-per-address", "1", "--trusted-proxies", "127.0.0.1,10.0.0.0/8"];
    let (_database, service) = start_with(&flags).await;
    let first = stream_for(&service, "198.51.100.7").await;
    let second = stream_for(&service, "198.51.100.8, 10.1.2.3").await;
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let again = stream_for(&service, "203.0.113.9, 198.51.100.7").await;
    assert_eq!(again.status(), StatusCode::TOO_MANY_REQUESTS, "what a client writes itself is not believed");
    service.stop().await;
}

#[tokio::test]
async fn nobody_else_says_who_a_client_is() {
    let (_database, service) = start_with(&["--max-connections-per-address", "1"]).await;
    let first = stream_for(&service, "198.51.100.7").await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(stream_for(&service, "198.51.100.8").await.status(), StatusCode::TOO_MANY_REQUESTS);
    service.stop().await;
}

/// What a browser asks before a page of another origin may post.
async fn preflight(service: &Service, origin: &str) -> (StatusCode, HeaderMap) {
    let request = service.http().request(Method::OPTIONS, service.url("/graphql")).header(ORIGIN, origin);
    let request = request.header("access-control-request-method", "POST");
    let response = request.header("access-control-request-headers", "authorization,content-type").send().await.unwrap();
    (response.status(), response.headers().clone())
}

#[tokio::test]
async fn pages_of_an_allowed_origin_may_ask() {
    let (_database, service) = start_with(&["--allowed-origins", BOARD]).await;
    let (status, headers) = preflight(&service, BOARD).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["access-control-allow-origin"], BOARD);
    let listed = |name: &str, wanted: &str| headers[name].to_str().unwrap().split(',').any(|one| one == wanted);
    for header in ["authorization", "content-type", "last-event-id"] {
        assert!(listed("access-control-allow-headers", header), "{header}");
    }
    for method in ["GET", "POST", "PATCH"] {
        assert!(listed("access-control-allow-methods", method), "{method}");
    }
    assert!(!headers.contains_key("access-control-allow-credentials"), "there are no cookies");
    let answer = service.http().post(service.url("/graphql")).header(ORIGIN, BOARD);
    let answer = answer.json(&json!({ "query": "{ __typename }" })).send().await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["access-control-allow-origin"]),
        (StatusCode::OK, &BOARD.parse().unwrap())
    );
    let refusal =
        service.http().post(service.url("/v1/incidents")).header(ORIGIN, BOARD).body("{").send().await.unwrap();
    assert_eq!(refusal.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(refusal.headers()["access-control-allow-origin"], BOARD, "a page may read why it was refused");

    let (status, headers) = preflight(&service, "https://elsewhere.example").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!headers.contains_key("access-control-allow-origin"));
    service.stop().await;
}

/// Anybody but a browser writes what it likes there.
#[tokio::test]
async fn an_origin_that_is_allowed_is_no_credential_and_a_credential_is_no_origin() {
    let database = TestDatabase::new().await;
    let service = start_required(&database.database_url(), &["--allowed-origins", BOARD]).await;
    let viewer = token_of(&["viewer"]);
    let ask = |origin: &'static str, token: Option<&str>, path: &str| {
        let request = reqwest::Client::new().get(service.url(path)).header(ORIGIN, origin);
        let request = request.header(ACCEPT, "text/event-stream, */*");
        token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token)).send()
    };
    for path in ["/graphql?query=%7B__typename%7D", "/v1/incidents", STREAM] {
        for (origin, token, status) in [
            (BOARD, None, StatusCode::UNAUTHORIZED),
            (BOARD, Some(&*viewer), StatusCode::OK),
            ("https://elsewhere.example", Some(&*viewer), StatusCode::FORBIDDEN),
            ("https://elsewhere.example", None, StatusCode::FORBIDDEN),
        ] {
            let answer = ask(origin, token, path).await.unwrap();
            assert_eq!(answer.status(), status, "{origin} {path}");
            let may_read = answer.headers().contains_key("access-control-allow-origin");
            assert_eq!(may_read, origin == BOARD, "{origin} {path}");
        }
    }
    let from = |origin, token| Socket::open_from(service.address, token, Some(origin));
    for token in [None, Some(&*viewer)] {
        assert_eq!(from("https://elsewhere.example", token).await.err(), Some(403));
    }
    let mut socket = from(BOARD, None).await.expect("a browser's page says later who it is");
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.receive_or_end().await, Err(Some((4403, "Forbidden".to_owned()))));
    let mut socket = from(BOARD, None).await.expect("an upgrade");
    socket.send(json!({ "type": "connection_init", "payload": { "token": viewer } })).await;
    assert_eq!(socket.receive().await.expect("let in")["type"], "connection_ack");
    service.stop().await;
}

#[tokio::test]
async fn where_no_origin_is_allowed_none_is_answered() {
    let (_database, service) = start_with(&[]).await;
    let (status, headers) = preflight(&service, BOARD).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{headers:?}");
    service.stop().await;
}

/// The status with which the service is reached under a name, by somebody who may.
async fn status_under(service: &Service, name: &str) -> StatusCode {
    service.http().get(service.url("/v1/incidents")).header(HOST, name).send().await.unwrap().status()
}

#[tokio::test]
async fn where_everybody_is_asked_any_name_will_do_unless_some_are_named() {
    let database = TestDatabase::new().await;
    let any = start_required(&database.database_url(), &[]).await;
    let named = start_required(&database.database_url(), &["--allowed-hosts", "incidents.example"]).await;
    for (name, status) in [("incidents.example:8443", StatusCode::OK), ("elsewhere.example", StatusCode::FORBIDDEN)] {
        assert_eq!(status_under(&any, name).await, StatusCode::OK, "{name}");
        assert_eq!(status_under(&named, name).await, status, "{name}");
        // a page that has come under that name is the service's own; it has no credential all the same
        let page = reqwest::Client::new().get(any.url("/v1/incidents")).header(HOST, name);
        let page = page.header(ORIGIN, format!("http://{name}")).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::UNAUTHORIZED, "{name}");
    }
    let page = any.http().get(any.url("/v1/incidents")).header(HOST, "incidents.example");
    let page = page.header(ORIGIN, "https://elsewhere.example").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::FORBIDDEN, "pages of other origins may not ask, whatever they present");
    any.stop().await;
    named.stop().await;
}

#[tokio::test]
async fn answers_are_nothing_but_data_to_a_browser() {
    let (_database, service) = start_with(&[]).await;
    for path in
        ["/graphql?query=%7B__typename%7D", "/v1/incidents", "/v1/incidents?first=0", "/nothing", "/health/ready"]
    {
        let response = service.http().get(service.url(path)).send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{path}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert!(!headers.contains_key("set-cookie"), "{path}");
    }
    service.stop().await;
}

/// A certificate for `localhost` that nobody has signed, in files.
struct Files {
    _directory: TempDir,
    cert: PathBuf,
    key: PathBuf,
    pem: String,
}

impl Files {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = TempDir::new().unwrap();
        let (cert_file, key_file) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        fs::write(&cert_file, cert.pem()).unwrap();
        fs::write(&key_file, signing_key.serialize_pem()).unwrap();
        Self { _directory: directory, cert: cert_file, key: key_file, pem: cert.pem() }
    }

    fn flags(&self) -> [&str; 4] {
        ["--tls-cert", self.cert.to_str().unwrap(), "--tls-key", self.key.to_str().unwrap()]
    }

    /// A client that knows the certificate.
    fn client(&self) -> reqwest::Client {
        let certificate = Certificate::from_pem(self.pem.as_bytes()).unwrap();
        reqwest::Client::builder().tls_built_in_root_certs(false).add_root_certificate(certificate).build().unwrap()
    }
}

async fn start_secure(files: &Files, more: &[&str]) -> (TestDatabase, Service) {
    let database = TestDatabase::new().await;
    let flags: Vec<_> = files.flags().into_iter().chain(more.iter().copied()).collect();
    let service = Service::start_with(&database.database_url(), &flags).await;
    let (client, url) = (files.client(), secure_url(&service, "/health/ready"));
    crate::support::eventually("the service is ready", || async {
        client.get(&url).send().await.is_ok_and(|response| response.status().is_success())
    })
    .await;
    (database, service)
}

fn secure_url(service: &Service, path: &str) -> String {
    format!("https://localhost:{}{path}", service.address.port())
}

#[tokio::test]
async fn watch_and_health_work_over_tls() {
    let files = Files::new();
    let (database, service) = start_secure(&files, &[]).await;
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_incident-manager"));
        command.env_clear().env("SSL_CERT_FILE", &files.cert).stdout(Stdio::piped()).kill_on_drop(true);
        command
    };
    let listen = service.address.to_string();
    let asked = program().args(["health", "--listen", &listen, "--tls-cert"]).arg(&files.cert).output().await.unwrap();
    assert!(asked.status.success(), "{asked:?}");

    let url = format!("wss://localhost:{}/graphql/ws", service.address.port());
    let mut watch = program().args(["watch", "--heartbeats", "--url", &url]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    // it has subscribed once it shows anything: so one is inserted until it does
    let shown = async {
        loop {
            database
                .execute(
                    "insert into incident_manager.incident (title, severity, source) values ('Over TLS', 'P1', 'test')",
                )
                .await;
            if let Ok(line) = timeout(std::time::Duration::from_millis(200), lines.next_line()).await {
                return line.unwrap().unwrap();
            }
        }
    };
    let line = timeout(PATIENCE, shown).await.unwrap();
    assert!(line.contains("Over TLS"), "{line}");
    watch.kill().await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn who_shakes_no_hands_is_not_waited_for() {
    let files = Files::new();
    let (_database, service) = start_secure(&files, &["--read-timeout", "500ms"]).await;
    let mut silent = TcpStream::connect(service.address).await.unwrap();
    let mut plain = TcpStream::connect(service.address).await.unwrap();
    plain.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    for socket in [&mut silent, &mut plain] {
        let mut said = Vec::new();
        // reset or closed: in both cases it is over
        let _ = timeout(PATIENCE, socket.read_to_end(&mut said)).await.expect("the service closes");
        assert!(!said.starts_with(b"HTTP"), "nothing is served in the clear");
    }
    let alive = files.client().get(secure_url(&service, "/health/live")).send().await.unwrap();
    assert_eq!(alive.status(), StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_bad_setting() {
    let (files, other) = (Files::new(), Files::new());
    let (cert, key) = (files.cert.to_str().unwrap(), other.key.to_str().unwrap());
    let database = TestDatabase::new().await;
    for (flags, named) in [
        (["--tls-cert", cert, "--tls-key", key], "--tls-key"),
        (["--tls-cert", cert, "--tls-key", cert], "--tls-key"),
        (["--tls-cert", key, "--tls-key", key], "--tls-cert"),
        (["--tls-cert", "/nothing", "--tls-key", key], "--tls-cert"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_incident-manager"));
        let command = command.arg("serve").args(flags).args(["--listen", "127.0.0.1:0"]).env_clear();
        let ended = command.env("DATABASE_URL", database.url()).output().await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(named), "{flags:?}: {said}");
    }
}
