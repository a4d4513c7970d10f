//! A WebSocket on a client's TCP connection. The library reads frames, and answers those that are its protocol's own; what
//! is written is collected here and goes out together, and then takes no memory any more.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::protocol::Close;
use crate::http::socket::Socket;

/// Bytes that are read at a time. The library's default would cost every connection 128 KiB.
const READ_BUFFER_BYTES: usize = 512;

/// What a WebSocket is spoken on.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub struct WebSocket {
    stream: Box<dyn Stream>,
    context: WebSocketContext,
    outgoing: Outgoing,
    /// Nothing can be read any more.
    ended: bool,
}

impl WebSocket {
    /// Waits for the answer to the handshake to be out. `None`: the connection was over before that.
    pub async fn upgraded(upgrade: OnUpgrade, max_message_bytes: usize) -> Option<Self> {
        let (stream, read): (Box<dyn Stream>, Vec<u8>) = match upgrade.await.ok()?.downcast::<TokioIo<Socket>>() {
            // copied, if anything: the buffer that it is in has 8 KiB
            Ok(parts) => (Box::new(parts.io.into_inner()), parts.read_buf.to_vec()),
            // within TLS
            Err(upgraded) => (Box::new(TokioIo::new(upgraded)), Vec::new()),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            // each frame of its own comes to us at once
            .write_buffer_size(0)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let context = WebSocketContext::from_partially_read(read, Role::Server, Some(config));
        Some(Self { stream, context, outgoing: Outgoing::default(), ended: false })
    }

    /// The next message. Pings, and a close, have been answered in what is to be written.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        if self.ended {
            return Poll::Ready(Err(Error::AlreadyClosed));
        }
        let mut frames = Frames { stream: &mut *self.stream, context, outgoing: &mut self.outgoing };
        let read = match self.context.read(&mut frames) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            read => read,
        };
        if let Ok(Message::Ping(_) | Message::Close(_)) = read {
            // writes the answer; after a close its error says no more than that this is the end
            let _ = self.context.flush(&mut frames);
        }
        self.ended = read.is_err();
        Poll::Ready(read)
    }

    /// Queues a text message, which `write` appends to what it is given.
    pub fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.outgoing.text(write);
    }

    /// Makes room for so many bytes at once.
    pub fn reserve(&mut self, bytes: usize) {
        self.outgoing.bytes.reserve(bytes);
    }

    /// Whether what was queued has to be flushed.
    pub fn wants_flush(&self) -> bool {
        !self.outgoing.bytes.is_empty()
    }

    /// Bytes that wait for the client.
    pub fn queued(&self) -> usize {
        self.outgoing.bytes.len() - self.outgoing.written
    }

    /// Writes what is queued, to the end.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outgoing = &mut self.outgoing;
        while let rest @ [_, ..] = &outgoing.bytes[outgoing.written..] {
            match ready!(Pin::new(&mut *self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => outgoing.written += written,
            }
        }
        ready!(Pin::new(&mut *self.stream).poll_flush(context))?;
        *outgoing = Outgoing::default();
        Poll::Ready(Ok(()))
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Sends a close frame behind what is queued, and reads until the client has answered it, or its network stack would
    /// throw it away with the connection.
    pub async fn close(&mut self, close: Close) -> io::Result<()> {
        let mut frame = Some(CloseFrame { code: close.code.into(), reason: close.reason.into() });
        poll_fn(|context| {
            if frame.is_some() {
                let mut frames = Frames { stream: &mut *self.stream, context, outgoing: &mut self.outgoing };
                // it is over already
                let _ = self.context.close(&mut frames, frame.take());
            }
            self.poll_flush(context)
        })
        .await?;
        poll_fn(|context| {
            while ready!(self.poll_read(context)).is_ok() {}
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// Frames on their way to a client.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them the system has taken.
    written: usize,
}

/// Bytes before the payload of an unmasked frame of 126 to 65,535 bytes, as nearly all are.
const HEAD: usize = 4;

impl Outgoing {
    /// Appends a text frame (RFC 6455, section 5.2) whose payload `write` appends.
    fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        const FINAL_TEXT: u8 = 0x81;
        let bytes = &mut self.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(&[FINAL_TEXT, 126, 0, 0]);
        write(bytes);
        let length = bytes.len() - start - HEAD;
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..126), _) => {
                bytes[start + 1] = length;
                bytes.drain(start + 2..start + HEAD);
            }
            (_, Ok(length)) => bytes[start + 2..start + HEAD].copy_from_slice(&length.to_be_bytes()),
            _ => {
                bytes[start + 1] = 127;
                bytes.splice(start + 2..start + HEAD, (length as u64).to_be_bytes());
            }
        }
    }
}

/// What the library reads from, and writes its frames to.
struct Frames<'s, 'c, 'w> {
    stream: &'s mut dyn Stream,
    context: &'c mut Context<'w>,
    outgoing: &'s mut Outgoing,
}

impl Read for Frames<'_, '_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer) {
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
        }
    }
}

impl Write for Frames<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio_tungstenite::tungstenite::protocol::WebSocket as Library;

    use super::*;

    #[test]
    fn frames_of_any_length_are_read_as_they_were_written() {
        let lengths = [0, 1, 125, 126, 127, 300, 65_535, 65_536, 100_000];
        let mut outgoing = Outgoing::default();
        for length in lengths {
            outgoing.text(|text| text.resize(text.len() + length, b'x'));
        }
        let mut client = Library::from_raw_socket(Cursor::new(outgoing.bytes), Role::Client, None);
        for length in lengths {
            assert_eq!(client.read().unwrap(), Message::text("x".repeat(length)));
        }
    }
}
