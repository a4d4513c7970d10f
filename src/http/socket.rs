//! A client's TCP connection, with bounds on what it may cost: one that takes nothing of what is written to it is given up,
//! and one that we end is given time to read why.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, timeout};
use tracing::debug;

use crate::lifecycle::Lifecycle;

/// How long a client may take to close, once we have.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that the system takes from us beyond those that it may send now: what it would let wait for a client that reads
/// slowly, megabytes otherwise, would stand before each ping. It does not bound what is on its way.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 64 << 10;
/// Bytes of a client that are read at a time, to be thrown away.
const DISCARD_BYTES: usize = 8 << 10;

/// What all sockets share.
pub struct Shared {
    pub write_timeout: Duration,
    pub lifecycle: Lifecycle,
}

/// One connection. Ended by us, it lingers: closed with bytes in it that nobody has read, it would be reset, and with it
/// would go what we have said last.
pub struct Socket {
    /// `None` only while this value is dropped.
    stream: Option<TcpStream>,
    shared: Arc<Shared>,
    /// Running while the client takes nothing of what is written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The client has ended it, or its network has.
    gone: bool,
    place: Option<OwnedSemaphorePermit>,
}

impl Socket {
    /// `place` is given back when the connection is over.
    pub fn new(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, place: OwnedSemaphorePermit) -> Self {
        if let Err(error) = tune(&stream, shared.write_timeout) {
            // it may be over already
            debug!(error = &error as &dyn std::error::Error, %peer, "cannot set the socket's options");
        }
        Self { stream: Some(stream), shared, stalled: None, gone: false, place: Some(place) }
    }

    fn poll_stream<T>(&mut self, poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let polled = poll(Pin::new(stream));
        self.gone |= matches!(polled, Poll::Ready(Err(_)));
        polled
    }

    /// Keeps the time of a write: it is over when nothing was written for too long.
    fn poll_written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.shared.write_timeout)));
        ready!(stalled.as_mut().poll(context));
        self.gone = true;
        if let Some(stream) = &self.stream {
            // what is still in the system's buffers goes too
            let _ = stream.set_zero_linger();
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Sends what is written at once, has the system find out about a client that acknowledges nothing, and bounds what it keeps.
fn tune(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let milliseconds = u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds)?;
        SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    Ok(())
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.poll_stream(|stream| stream.poll_read(context, buffer));
        if matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before && buffer.remaining() > 0 {
            self.gone = true;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.poll_stream(|stream| stream.poll_write(context, bytes));
        self.poll_written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_stream(|stream| stream.poll_write_vectored(context, slices));
        self.poll_written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_stream(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_stream(|stream| stream.poll_shutdown(context))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let lifecycle = &self.shared.lifecycle;
        // without a runtime the process is about to end
        if self.gone || lifecycle.hard().is_cancelled() || Handle::try_current().is_err() {
            return;
        }
        if let (Some(stream), place) = (self.stream.take(), self.place.take()) {
            lifecycle.spawn_connection("closing connection", async move {
                let _place = place;
                // a client that does not close in time is left
                let _ = timeout(LINGER, discard(stream)).await;
            });
        }
    }
}

/// Says that nothing more will be written, and reads to the end.
async fn discard(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut bytes = vec![0; DISCARD_BYTES];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}
