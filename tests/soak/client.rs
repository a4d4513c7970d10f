//! A client that checks everything that it hears, and that comes back from wherever it was cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use incident_manager::domain::Cursor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use crate::ledger::Ledger;
use crate::replica::Addresses;
use crate::waiting::eventually;

/// The one operation of a connection.
const OPERATION: &str = "live";
/// How long a client waits for an answer as it connects.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// After so long without a word one that is not patient goes elsewhere; the service says something every second.
const SILENCE: Duration = Duration::from_secs(6);
/// Between two attempts, at most.
const RETRY_MILLISECONDS: u64 = 200;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wants {
    /// Every change of every incident.
    Changes,
    /// Those of incidents that are urgent before or after the change.
    Urgent,
    /// Every alert.
    Alerts,
}

impl Wants {
    pub const ALL: [Self; 3] = [Self::Changes, Self::Urgent, Self::Alerts];

    fn query(self, after: Cursor) -> String {
        let (field, filter, selection) = match self {
            Self::Changes => ("incidentUpdates", "", "updateType incidentId cursor incident { version description }"),
            Self::Urgent => {
                ("incidentUpdates", "severities: [P0, P1]", "updateType incidentId cursor incident { version title }")
            }
            Self::Alerts => ("alerts", "", "id"),
        };
        format!("subscription {{ {field}({filter} after: \"{}\") {{ {selection} }} }}", after.encode())
    }
}

/// How a client behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub wants: Wants,
    /// It waits for a connection that has gone silent for as long as that is open.
    pub patient: bool,
    /// Being told that its cursor has expired is what it has to expect; otherwise that is a breach.
    pub may_expire: bool,
    /// Which of the addresses it tries first.
    pub home: usize,
}

/// A client in the background.
pub struct Client {
    pub manner: Manner,
    ledger: Arc<Mutex<Ledger>>,
    /// Connections on which it was subscribed.
    subscribed: Arc<AtomicUsize>,
    listens: Arc<AtomicBool>,
    away: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Client {
    /// Starts to hear everything from now on, as soon as [`Self::subscriptions`] is not 0 any more.
    pub fn start(addresses: &Addresses, manner: Manner) -> Self {
        Self::start_from(addresses, manner, Ledger::default())
    }

    /// Starts with a record, from whose cursor it goes on.
    pub fn start_from(addresses: &Addresses, manner: Manner, ledger: Ledger) -> Self {
        let ledger = Arc::new(Mutex::new(ledger));
        let subscribed = Arc::new(AtomicUsize::new(0));
        let (listens, away) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(false));
        let session = Session {
            manner,
            addresses: addresses.clone(),
            ledger: Arc::clone(&ledger),
            subscribed: Arc::clone(&subscribed),
            listens: Arc::clone(&listens),
        };
        let task = tokio::spawn(session.run(away.subscribe()));
        Self { manner, ledger, subscribed, listens, away, task }
    }

    /// How often it has subscribed.
    pub fn subscriptions(&self) -> usize {
        self.subscribed.load(Ordering::Relaxed)
    }

    /// Goes away without a word; when this returns it hears no more.
    pub async fn leave(&self) {
        self.away.send_replace(true);
        eventually("the client is away", || async { !self.listens.load(Ordering::Acquire) }).await;
    }

    /// Comes back; where it was not away, it leaves first.
    pub fn come_back(&self) {
        self.away.send_replace(false);
    }

    pub fn ledger(&self) -> parking_lot::MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Session {
    manner: Manner,
    addresses: Addresses,
    ledger: Arc<Mutex<Ledger>>,
    subscribed: Arc<AtomicUsize>,
    listens: Arc<AtomicBool>,
}

type Socket = WebSocketStream<TcpStream>;

/// What a message means for the connection.
#[derive(PartialEq, Eq)]
enum Then {
    Listen,
    /// The operation is over; a new one goes on from the ledger's cursor.
    ComeBack,
}

impl Session {
    async fn run(self, mut away: watch::Receiver<bool>) {
        let mut turn = self.manner.home;
        loop {
            while *away.borrow_and_update() {
                self.listens.store(false, Ordering::Release);
                if away.changed().await.is_err() {
                    return;
                }
            }
            self.listens.store(true, Ordering::Release);
            if let Some(address) = self.addresses.choose(turn) {
                tokio::select! {
                    () = self.listen(address) => {}
                    _ = away.changed() => {}
                }
            }
            turn += 1;
            sleep(Duration::from_millis(rand::random_range(1..RETRY_MILLISECONDS))).await;
        }
    }

    /// One connection, to its end.
    async fn listen(&self, address: SocketAddr) {
        let Ok(Some(mut socket)) = timeout(CONNECT_DEADLINE, connect(address)).await else { return };
        let init = json!({ "type": "connection_init" });
        if socket.send(Message::text(init.to_string())).await.is_err() {
            return;
        }
        let Ok(Some(acknowledged)) = timeout(CONNECT_DEADLINE, receive(&mut socket)).await else { return };
        if acknowledged["type"] != "connection_ack" {
            return self.breach(format!("instead of an acknowledgement: {acknowledged}"));
        }
        let known = self.ledger.lock().cursor();
        // the first time from the acknowledgement's position on; a replica that has not read the log yet has none
        let Some(after) = known.or_else(|| cursor_of(&acknowledged["payload"]["cursor"])) else { return };
        let query = self.manner.wants.query(after);
        let subscribe = json!({ "id": OPERATION, "type": "subscribe", "payload": { "query": query } });
        if socket.send(Message::text(subscribe.to_string())).await.is_err() {
            return;
        }
        if known.is_none() {
            self.ledger.lock().move_on(after);
        }
        self.subscribed.fetch_add(1, Ordering::Relaxed);
        loop {
            let silence = if self.manner.patient { Duration::MAX } else { SILENCE };
            let Ok(Some(message)) = timeout(silence, receive(&mut socket)).await else { return };
            if message["type"] == "ping" {
                let pong = json!({ "type": "pong" });
                if socket.send(Message::text(pong.to_string())).await.is_err() {
                    return;
                }
            }
            if self.note(&message) == Then::ComeBack {
                return;
            }
        }
    }

    fn note(&self, message: &Value) -> Then {
        let payload = &message["payload"];
        match message["type"].as_str().unwrap_or_default() {
            "next" if payload.get("errors").is_none() => {
                let Some(cursor) = cursor_of(&payload["extensions"]["cursor"]) else {
                    self.breach(format!("a result without a cursor: {message}"));
                    return Then::ComeBack;
                };
                match self.event_of(&payload["data"]) {
                    Some((id, version)) => self.ledger.lock().hear(id, version, cursor),
                    None => self.ledger.lock().move_on(cursor),
                }
                Then::Listen
            }
            "ping" => {
                if let Some(cursor) = cursor_of(&payload["cursors"][OPERATION]) {
                    self.ledger.lock().move_on(cursor);
                }
                Then::Listen
            }
            "closed" => {
                // by our fault, as the service sees it
                if matches!(payload.as_u64(), Some(4400 | 4401 | 4403 | 4409 | 4429)) {
                    self.breach(format!("closed with {payload}"));
                }
                Then::ComeBack
            }
            "error" => self.ended(payload),
            _ => {
                self.breach(format!("unexpected: {message}"));
                Then::ComeBack
            }
        }
    }

    /// The subscription has ended with errors.
    fn ended(&self, errors: &Value) -> Then {
        let extensions = &errors[0]["extensions"];
        match extensions["code"].as_str() {
            Some("CURSOR_EXPIRED") if self.manner.may_expire => match cursor_of(&extensions["oldestCursor"]) {
                Some(oldest) => self.ledger.lock().begin_again(oldest),
                None => self.breach(format!("expired, and nothing to go on from: {errors}")),
            },
            // it was away when the subscription was to be opened
            Some("DATABASE_UNAVAILABLE") => {}
            _ => self.breach(format!("ended by {errors}")),
        }
        Then::ComeBack
    }

    /// The event of a result; `None`: a sign of life.
    fn event_of(&self, data: &Value) -> Option<(Uuid, i32)> {
        let uuid = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        match self.manner.wants {
            Wants::Alerts => Some((uuid(&data["alerts"]["id"])?, 1)),
            Wants::Changes | Wants::Urgent => {
                let update = &data["incidentUpdates"];
                let version = i32::try_from(update["incident"]["version"].as_i64()?).ok()?;
                Some((uuid(&update["incidentId"])?, version))
            }
        }
    }

    fn breach(&self, what: String) {
        self.ledger.lock().breach(what);
    }
}

fn cursor_of(value: &Value) -> Option<Cursor> {
    Cursor::decode(value.as_str()?).ok()
}

async fn connect(address: SocketAddr) -> Option<Socket> {
    let mut request = format!("ws://{address}/graphql/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let stream = TcpStream::connect(address).await.ok()?;
    client_async(request, stream).await.ok().map(|(socket, _)| socket)
}

/// The next message; an end with a code as one of type `closed`; `None`: an end without a word.
async fn receive(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await?.ok()? {
            // a connection that is cut in the middle of a message does not bring it
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(frame) => {
                return frame.map(|frame| json!({ "type": "closed", "payload": u16::from(frame.code) }));
            }
            _ => {}
        }
    }
}
