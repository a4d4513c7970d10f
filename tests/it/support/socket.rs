//! A client of graphql-transport-ws, as small as can be.

use std::net::SocketAddr;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::PATIENCE;

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    /// Connects and has its connection acknowledged.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_as(address, None).await
    }

    /// The same with a token, which is presented as browsers have to.
    pub async fn connect_as(address: SocketAddr, token: Option<&str>) -> Self {
        let mut socket = Self::open(address, None).await.expect("an upgrade");
        let payload = token.map(|token| json!({ "Authorization": format!("Bearer {token}") }));
        socket.send(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.receive().await.unwrap()["type"], "connection_ack");
        socket
    }

    /// Upgrades, with a token in the header if there is one; else with which status that is refused.
    pub async fn open(address: SocketAddr, token: Option<&str>) -> Result<Self, u16> {
        Self::open_from(address, token, None).await
    }

    /// The same as a page of this origin does.
    pub async fn open_from(address: SocketAddr, token: Option<&str>, origin: Option<&str>) -> Result<Self, u16> {
        let mut request = format!("ws://{address}/graphql/ws").into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        match connect_async(request).await {
            Ok((stream, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], "graphql-transport-ws");
                Ok(Self { stream })
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, message: Value) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Subscribes, and waits until the stream is open: the server answers messages in order, but opens a stream only after
    /// it has answered what had come by then; so the second answer is behind that.
    pub async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        let payload = json!({ "query": query, "variables": variables });
        self.send(json!({ "id": id, "type": "subscribe", "payload": payload })).await;
        for _ in 0..2 {
            self.send(json!({ "type": "ping" })).await;
            let answer = self.receive().await.unwrap();
            assert_eq!(answer["type"], "pong", "{answer}");
        }
    }

    /// The next message; `None` when the connection is over.
    pub async fn receive(&mut self) -> Option<Value> {
        self.receive_or_close().await.ok()
    }

    /// The next message, or with which code the connection was closed; with none if it just ended.
    pub async fn receive_or_close(&mut self) -> Result<Value, Option<u16>> {
        self.receive_or_end().await.map_err(|end| end.map(|(code, _)| code))
    }

    /// The next message, or with which code and reason the connection was closed.
    pub async fn receive_or_end(&mut self) -> Result<Value, Option<(u16, String)>> {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.expect("a message in time") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map(|frame| (frame.code.into(), frame.reason.to_string())));
                }
                None | Some(Err(_)) => return Err(None),
                Some(Ok(_)) => {}
            }
        }
    }

    /// The data of the next result, under its root field.
    pub async fn next(&mut self, field: &str) -> Value {
        let mut message = self.receive().await.expect("the connection is open");
        assert_eq!(message["type"], "next", "{message}");
        assert!(message["payload"].get("errors").is_none(), "{message}");
        message["payload"]["data"][field].take()
    }
}
