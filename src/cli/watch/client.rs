//! One connection to the public WebSocket, from its start to its end.

use std::io;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use url::Url;

use super::protocol::{self, End, Failure, Received};
use crate::cli::with_causes;
use crate::config::Secret;

/// Longest time from the first packet to the service's `connection_ack`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps proxies from closing what they think is idle, most after 60 s, and makes the service show that it lives.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// A connection that has been silent for so long, two pings of ours included, is dead.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);

/// A connection that the service has acknowledged.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Errors that came in place of data: if the operation ends next, they are why.
    errors: Vec<Failure>,
    /// Where the stream was as the service acknowledged.
    pub begun: Option<String>,
}

impl Client {
    /// Connects, and waits for the service to acknowledge.
    pub async fn connect(url: &Url, token: Option<&Secret>) -> Result<Self, End> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let too_slow = |_| End::Again("the service does not answer".to_owned());
        let mut request = url.as_str().into_client_request().map_err(|error| end_of(&error))?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocol::SUBPROTOCOL));
        let connected = timeout_at(deadline, connect_async(request)).await.map_err(too_slow)?;
        let (socket, _) = connected.map_err(|error| end_of(&error))?;
        let mut client = Self { socket, errors: Vec::new(), begun: None };
        client.send(protocol::connection_init(token)).await?;
        let acknowledged = async {
            loop {
                match client.receive().await? {
                    Some(Received::Acknowledged(cursor)) => {
                        client.begun = cursor;
                        return Ok(());
                    }
                    Some(Received::Ping(_)) => client.send(protocol::pong()).await?,
                    Some(Received::Pong) | None => {}
                    Some(other) => return Err(End::Final(format!("the service sent {other:?} unasked"))),
                }
            }
        };
        timeout_at(deadline, acknowledged).await.map_err(too_slow)??;
        Ok(client)
    }

    /// Subscribes, and hands on the data of each result until the connection ends; an error of `on_data`'s ends it
    /// too. `seen` is the cursor behind which to go on the next time.
    pub async fn follow(
        &mut self,
        subscribe: String,
        seen: &mut Option<String>,
        mut on_data: impl FnMut(&str) -> io::Result<()>,
    ) -> io::Result<End> {
        if let Err(end) = self.send(subscribe).await {
            return Ok(end);
        }
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = Instant::now() + SILENCE_LIMIT;
        loop {
            let received = tokio::select! {
                received = self.receive() => received,
                _ = pings.tick() => {
                    if let Err(end) = self.send(protocol::ping()).await {
                        return Ok(end);
                    }
                    continue;
                }
                () = tokio::time::sleep_until(silent_until) => {
                    return Ok(End::Again(format!("nothing came for {} s", SILENCE_LIMIT.as_secs())));
                }
            };
            silent_until = Instant::now() + SILENCE_LIMIT;
            match received {
                Ok(Some(Received::Data(data, cursor))) => {
                    self.errors.clear();
                    on_data(&data)?;
                    *seen = cursor.or(seen.take());
                }
                Ok(Some(Received::Errors(errors))) => self.errors = errors,
                Ok(Some(Received::Refused(errors))) => return Ok(protocol::after_errors(&errors)),
                Ok(Some(Received::Completed)) if self.errors.is_empty() => {
                    return Ok(End::Again("the service ended the subscription".to_owned()));
                }
                Ok(Some(Received::Completed)) => return Ok(protocol::after_errors(&self.errors)),
                Ok(Some(Received::Ping(cursor))) => {
                    *seen = cursor.or(seen.take());
                    if let Err(end) = self.send(protocol::pong()).await {
                        return Ok(end);
                    }
                }
                Ok(Some(Received::Pong | Received::Acknowledged(_)) | None) => {}
                Err(end) => return Ok(end),
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        // A service that takes nothing any more would otherwise hold us here, out of reach of the silence limit.
        match timeout(SILENCE_LIMIT, self.socket.send(Message::text(text))).await {
            Ok(sent) => sent.map_err(|error| end_of(&error)),
            Err(_) => Err(End::Again("the service takes no messages".to_owned())),
        }
    }

    /// The next message; None for what only shows that the other side lives. Nothing is lost if it is dropped.
    async fn receive(&mut self) -> Result<Option<Received>, End> {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => match protocol::receive(&text) {
                Ok(received) => Ok(Some(received)),
                Err(error) => Err(End::Final(with_causes(&error))),
            },
            Some(Ok(Message::Close(Some(frame)))) => Err(protocol::after_close(frame.code.into(), &frame.reason)),
            Some(Ok(Message::Close(None))) | None => Err(End::Again("the service closed the connection".to_owned())),
            Some(Ok(Message::Binary(_))) => Err(End::Final("the service sent binary data".to_owned())),
            // The library answers pings itself, as it next reads or writes.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
            Some(Err(error)) => Err(end_of(&error)),
        }
    }
}

/// What an error of the socket means for the next attempt.
fn end_of(error: &SocketError) -> End {
    match error {
        SocketError::Http(response) => protocol::after_status(response.status().as_u16()),
        SocketError::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            End::Final(format!("the service does not speak {}", protocol::SUBPROTOCOL))
        }
        SocketError::Url(_) | SocketError::HttpFormat(_) => End::Final(with_causes(error)),
        SocketError::Io(error) => End::Again(with_causes(error)),
        other => End::Again(with_causes(other)),
    }
}
