//! A WebSocket client that sends whatever bytes it is given.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// Bytes that begin a frame: all of a message, or a part of one (RFC 6455, section 5.2).
pub mod first {
    pub const FINAL: u8 = 0x80;
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xa;
}

/// A client's frame, with this first byte, under a mask.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = head(first, payload.len() as u64, true);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub fn text(text: &str) -> Vec<u8> {
    frame(first::FINAL | first::TEXT, text.as_bytes())
}

/// What stands before the mask and the payload.
pub fn head(first: u8, length: u64, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut head = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => head.push(mask | length),
        (_, Ok(length)) => {
            head.push(mask + 126);
            head.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            head.push(mask + 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head
}

pub struct RawSocket {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// A request for a WebSocket, up to the last header that every client sends.
pub const HANDSHAKE: &str = "GET /graphql/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: graphql-transport-ws\r\n";

impl From<TcpStream> for RawSocket {
    fn from(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }
}

impl RawSocket {
    /// Connects, without a word of the protocol above.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut socket = Self::from(stream);
        socket.send(format!("{HANDSHAKE}\r\n").as_bytes()).await;
        let head = socket.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    }

    /// Connects and has its connection acknowledged.
    pub async fn acknowledged(address: SocketAddr) -> Self {
        let mut socket = Self::connect(address).await;
        socket.send(&text(r#"{"type":"connection_init"}"#)).await;
        assert_eq!(socket.message().await["type"], "connection_ack");
        socket
    }

    /// Subscribes, as [`super::Socket::subscribe`] does.
    pub async fn subscribe(&mut self, query: &str) {
        let subscribe = json!({ "id": "1", "type": "subscribe", "payload": { "query": query } });
        self.send(&text(&subscribe.to_string())).await;
        for _ in 0..2 {
            self.send(&text(r#"{"type":"ping"}"#)).await;
            assert_eq!(self.message().await["type"], "pong");
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // a server that has heard enough may have closed
        let _ = self.stream.write_all(bytes).await;
    }

    /// The head of a response.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|end| end == b"\r\n\r\n") {
                return String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.more().await, "{}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The next message of the protocol above.
    pub async fn message(&mut self) -> Value {
        let (first, payload) = self.frame().await.expect("the connection is open");
        assert_eq!(first, first::FINAL | first::TEXT, "{}", String::from_utf8_lossy(&payload));
        serde_json::from_slice(&payload).unwrap()
    }

    /// The next frame: its first byte and its payload; `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((from, to)) = self.whole() {
                let (first, payload) = (self.read[0], self.read[from..to].to_vec());
                self.read.drain(..to);
                return Some((first, payload));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// With which code the server closes, whatever it says before; with none, if it just ends.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            let (first, payload) = self.frame().await?;
            if first == first::FINAL | first::CLOSE {
                return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
        }
    }

    /// Reads some more; false at the end.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("something in time");
        read.is_ok_and(|bytes| bytes > 0)
    }

    /// Where the payload of the first frame is, if all of it is there.
    fn whole(&self) -> Option<(usize, usize)> {
        let length = *self.read.get(1)?;
        assert!(length < 128, "a server does not mask");
        let (from, length) = match length {
            126 => (4, u64::from(u16::from_be_bytes(*self.read.get(2..)?.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*self.read.get(2..)?.first_chunk()?)),
            length => (2, u64::from(length)),
        };
        let to = from + usize::try_from(length).unwrap();
        (self.read.len() >= to).then_some((from, to))
    }
}
