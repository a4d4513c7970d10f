//! What a client presents, and what the service checks it by, is told to nobody: whatever is logged, answered or counted.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::support::access::{SECRET, Signer, now};
use crate::support::{Socket, TestDatabase, eventually};

/// The binary, which writes down everything that it can log.
struct Process {
    _child: Child,
    address: SocketAddr,
    output: tempfile::TempDir,
}

impl Process {
    async fn start(database: &TestDatabase, format: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let output = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(File::create(output.path().join(name)).unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_incident-manager"))
            .args(["serve", "--listen", &address.to_string(), "--log", "trace", "--log-format", format])
            .env_clear()
            .env("DATABASE_URL", database.url())
            .env("INCIDENT_MANAGER_JWT_HS256_SECRET", SECRET)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://{address}/health/ready");
        eventually("it is ready", || async { reqwest::get(&url).await.is_ok_and(|ready| ready.status() == 200) }).await;
        Self { _child: child, address, output }
    }

    fn logged(&self) -> String {
        ["stdout", "stderr"].map(|name| std::fs::read_to_string(self.output.path().join(name)).unwrap()).concat()
    }

    async fn get(&self, path: &str, bearer: &str) -> String {
        let request = reqwest::Client::new().get(format!("http://{}{path}", self.address));
        let response = request.header(AUTHORIZATION, format!("Bearer {bearer}")).send().await.unwrap();
        format!("{:?} {}", response.headers().clone(), response.text().await.unwrap())
    }

    /// Presents it in every way that there is: all that is answered.
    async fn present(&self, bearer: &str) -> String {
        let mut answers = Vec::new();
        for path in ["/graphql?query=%7Bviewer%7Bsubject%7D%7D", "/v1/incidents", "/graphql/stream", "/metrics"] {
            answers.push(self.get(path, bearer).await);
        }
        if let Ok(mut socket) = Socket::open(self.address, Some(bearer)).await {
            socket.send(json!({ "type": "connection_init" })).await;
            answers.push(format!("{:?}", socket.receive_or_end().await));
        }
        let mut socket = Socket::open(self.address, None).await.unwrap();
        socket
            .send(json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {bearer}") } }))
            .await;
        if let Ok(acknowledged) = socket.receive_or_end().await {
            socket.send(json!({ "type": "ping", "payload": { "token": bearer } })).await;
            answers.push(format!("{acknowledged} {:?}", socket.receive_or_end().await));
        }
        answers.concat()
    }

    async fn graphql(&self, bearer: &str, query: &str) -> Value {
        let request = reqwest::Client::new().post(format!("http://{}/graphql", self.address));
        let request = request.header(AUTHORIZATION, format!("Bearer {bearer}")).json(&json!({ "query": query }));
        request.send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn nothing_of_a_credential_is_logged_answered_or_counted() {
    let database = TestDatabase::new().await;
    for format in ["text", "json"] {
        let process = Process::start(&database, format).await;
        let good = Signer::secret(SECRET).token(json!({ "roles": ["admin"] }));
        let create = r#"mutation { createApiKey(input: { name: "planted", permissions: ["incidents.read", "alerts.submit"] }) { id secret } }"#;
        let made = process.graphql(&good, create).await["data"]["createApiKey"].take();
        let key = made["secret"].as_str().unwrap().to_owned();
        let wrong = Signer::secret("another secret, which nobody has told the service").token(json!({}));
        let expired = Signer::secret(SECRET).token(json!({ "exp": now() - 3600 }));
        let wrong_key = format!("{}{}", &key[..16], key[16..].chars().rev().collect::<String>());
        let presented = [good.clone(), wrong, expired, wrong_key, "nonsense-that-was-planted".to_owned(), key.clone()];
        let mut answers = String::new();
        for bearer in &presented {
            answers.push_str(&process.present(bearer).await);
        }
        let list = "{ apiKeys { id name prefix permissions sources createdAt expiresAt revokedAt lastUsedAt } }";
        answers.push_str(&process.graphql(&good, list).await.to_string());
        let revoke = format!("mutation {{ revokeApiKey(id: {}) }}", made["id"]);
        answers.push_str(&process.graphql(&good, &revoke).await.to_string());
        answers.push_str(&process.present(&key).await);

        let logged = process.logged();
        assert!(logged.contains("DEBUG"), "everything is logged");
        // of a key, what finds it may be seen; of a token, its claims are no secret to who has its signature
        let secrets = presented.iter().map(|bearer| bearer.rsplit(['.', '_']).next().unwrap()).chain([SECRET]);
        for secret in secrets {
            for (where_, text) in [("the log", &logged), ("an answer", &answers)] {
                let line = text.lines().find(|line| line.contains(secret));
                assert!(line.is_none(), "{format}: {secret} is in {where_}: {line:?}");
            }
        }
    }
}
