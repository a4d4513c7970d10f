//! The service, in this process, on a port of its own.

use std::net::SocketAddr;
use std::time::Duration;

use incident_manager::config::{Command, DatabaseUrl, ServeConfig, parse};
use incident_manager::lifecycle::Lifecycle;
use incident_manager::server::{self, LogThread};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Socket, eventually};

pub struct Service {
    pub address: SocketAddr,
    lifecycle: Lifecycle,
    task: Option<JoinHandle<()>>,
    http: reqwest::Client,
    /// What sockets present.
    token: Option<String>,
}

/// The settings that these flags make; unless they say otherwise, nobody is asked who they are.
pub fn settings(flags: &[&str]) -> ServeConfig {
    let auth: &[&str] = if flags.contains(&"--auth") { &[] } else { &["--auth", "off"] };
    let arguments = [&["serve"], auth, flags].concat().into_iter().map(Into::into);
    match parse(arguments, |_| None).expect("settings") {
        Command::Serve(config) => *config,
        other => panic!("{other:?} is not serve"),
    }
}

impl Service {
    /// Starts and waits until it is ready.
    pub async fn start(database: &DatabaseUrl) -> Self {
        let service = Self::start_with(database, &[]).await;
        service.ready().await;
        service
    }

    /// Starts with these flags, ready or not.
    pub async fn start_with(database: &DatabaseUrl, flags: &[&str]) -> Self {
        // as the program does when it starts; refused, another test has
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new();
        let (config, database, life) = (settings(flags), database.clone(), lifecycle.clone());
        let task = tokio::spawn(async move {
            let log = LogThread::start().unwrap();
            server::run(config, &database, listener, life, &log).await.expect("the service ends well");
        });
        Self { address, lifecycle, task: Some(task), http: reqwest::Client::new(), token: None }
    }

    /// Everything that is asked of the service from now on is asked with this token or API key.
    pub fn bearing(mut self, token: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        self.http = reqwest::Client::builder().default_headers(headers).build().unwrap();
        self.token = Some(token.to_owned());
        self
    }

    pub async fn ready(&self) {
        eventually("the service is ready", || async { self.status("/health/ready").await == 200 }).await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub async fn status(&self, path: &str) -> u16 {
        self.http.get(self.url(path)).send().await.unwrap().status().as_u16()
    }

    /// Executes an operation: the whole response.
    pub async fn graphql(&self, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables });
        self.http.post(self.url("/graphql")).json(&body).send().await.unwrap().json().await.unwrap()
    }

    /// Executes an operation that is to succeed: its data.
    pub async fn data(&self, query: &str, variables: Value) -> Value {
        let mut response = self.graphql(query, variables).await;
        assert!(response.get("errors").is_none(), "{query}: {response}");
        response["data"].take()
    }

    /// Executes an operation that is to fail: the first error.
    pub async fn error(&self, query: &str, variables: Value) -> Value {
        let mut response = self.graphql(query, variables).await;
        assert!(response["errors"].is_array(), "{query}: {response}");
        response["errors"][0].take()
    }

    /// Sends a request with a body of JSON, or with none where it is null: the status and the body of the answer.
    pub async fn rest(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.http.request(method, self.url(path));
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    pub async fn socket(&self) -> Socket {
        Socket::connect_as(self.address, self.token.as_deref()).await
    }

    /// Subscribes; when this returns, everything that is committed from now on is heard.
    pub async fn subscribe(&self, query: &str) -> Socket {
        let mut socket = self.socket().await;
        socket.subscribe("1", query, json!({})).await;
        socket
    }

    /// Shuts down and waits for the end.
    pub async fn stop(mut self) {
        self.lifecycle.stop();
        if let Some(task) = self.task.take() {
            tokio::time::timeout(Duration::from_mins(1), task).await.expect("ends in time").expect("ends well");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.lifecycle.hard().cancel();
    }
}
