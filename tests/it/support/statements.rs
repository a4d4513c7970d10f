//! Stands between the service and the database, and writes down every statement that the service runs and, where the
//! database is told to say them, the plans that it runs them by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use incident_manager::config::DatabaseUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::TestDatabase;

/// The statements that went through, in their order.
pub struct Statements {
    url: DatabaseUrl,
    seen: Arc<Mutex<Vec<String>>>,
    plans: Arc<Mutex<Vec<String>>>,
}

impl Statements {
    /// Listens before a database.
    pub async fn of(database: &TestDatabase) -> Self {
        let mut url = url::Url::parse(database.url()).unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        url.query_pairs_mut().append_pair("sslmode", "disable");
        let (seen, plans) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        tokio::spawn({
            let (seen, plans) = (Arc::clone(&seen), Arc::clone(&plans));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let server = TcpStream::connect(server.clone()).await.unwrap();
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::spawn(backward(from_server, to_client, Arc::clone(&plans)));
                    tokio::spawn(forward(from_client, to_server, Arc::clone(&seen)));
                }
            }
        });
        Self { url: DatabaseUrl::from(url.to_string()), seen, plans }
    }

    /// What the service is to connect to.
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// The statements since the last call that are about incidents and what hangs on them.
    pub fn take(&self) -> Vec<String> {
        let mut taken = std::mem::take(&mut *self.seen.lock().unwrap());
        taken.retain(|sql| {
            sql.contains(" incident_manager.") && !["event_", "sequence_events"].iter().any(|own| sql.contains(own))
        });
        taken
    }

    /// All statements since the last call of this or of [`Self::take`].
    pub fn take_all(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// All plans since the last call of this or of [`Self::take_plans`].
    pub fn take_explained(&self) -> Vec<String> {
        std::mem::take(&mut *self.plans.lock().unwrap())
    }

    /// The plans since the last call, of the same statements; see [`say_plans`].
    pub fn take_plans(&self) -> Vec<String> {
        let mut taken = std::mem::take(&mut *self.plans.lock().unwrap());
        taken.retain(|plan| plan.contains(" incident_manager.") && !plan.contains("event_"));
        taken
    }
}

/// Has new connections to a database say the plan of every statement, by `auto_explain`.
pub async fn say_plans(database: &TestDatabase) {
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_level = notice",
    ] {
        database.execute(&format!("alter database {} set {setting}", database.name())).await;
    }
}

/// Of the server's messages, `NoticeResponse` carries the plan.
async fn backward(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, plans: Arc<Mutex<Vec<String>>>) -> Option<()> {
    loop {
        let (kind, length) = (server.read_u8().await.ok()?, server.read_u32().await.ok()?);
        let mut message = vec![kind];
        message.extend(length.to_be_bytes());
        message.resize(length as usize + 1, 0);
        server.read_exact(&mut message[5..]).await.ok()?;
        if kind == b'N' {
            let fields = message[5..].split(|byte| *byte == 0).filter_map(|field| field.split_first());
            let text = fields.filter(|(name, _)| **name == b'M').map(|(_, text)| String::from_utf8_lossy(text));
            plans.lock().unwrap().extend(text.filter(|text| text.contains("Query Text:")).map(String::from));
        }
        client.write_all(&message).await.ok()?;
    }
}

/// Of the client's messages, Parse names a statement and Bind runs it (PostgreSQL's documentation, chapter 55.7).
async fn forward(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, seen: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut prepared: HashMap<String, String> = HashMap::new();
    let startup = client.read_u32().await.ok()?;
    let mut body = vec![0; startup as usize - 4];
    client.read_exact(&mut body).await.ok()?;
    server.write_u32(startup).await.ok()?;
    server.write_all(&body).await.ok()?;
    loop {
        let (kind, length) = (client.read_u8().await.ok()?, client.read_u32().await.ok()?);
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await.ok()?;
        let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        match kind {
            b'P' => {
                let name = texts.next().unwrap_or_default();
                prepared.insert(name, texts.next().unwrap_or_default());
            }
            b'B' => {
                let statement = texts.nth(1).unwrap_or_default();
                seen.lock().unwrap().push(prepared.get(&statement).cloned().unwrap_or_default());
            }
            _ => {}
        }
        let mut message = vec![kind];
        message.extend(length.to_be_bytes());
        message.extend(body);
        server.write_all(&message).await.ok()?;
    }
}
