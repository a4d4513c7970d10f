//! Takes connections and serves HTTP on them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::client::TrustedProxies;
use super::socket::{Shared, Socket};
use super::tls::Tls;
use crate::config::ConnectionsConfig;
use crate::lifecycle::Lifecycle;

/// Sockets for requests, beside those that WebSocket connections and event streams hold: a service that is full of these
/// still says so, and answers what asks for its health.
const REQUEST_SOCKETS: usize = 1024;
/// Files that are no clients' sockets: connections to the database, and the runtime's own.
const OTHER_FILES: usize = 256;
/// Bytes of a request's head, and of a response that a client has not read yet.
const BUFFER_BYTES: usize = 64 << 10;
/// Before the next attempt when the system has no more sockets for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many sockets there may be. Beyond them connections wait in the system's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// For WebSocket connections and event streams.
    pub held: usize,
    /// For these and for requests.
    pub all: usize,
}

impl Sockets {
    /// Room for `max` connections that are held, or for as many as the limit of open files allows, once it is raised as far
    /// as it may be.
    pub fn allowed(max: usize) -> Self {
        let limit = getrlimit(Resource::Nofile);
        // refused, it stays as it is
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        let files = if raised.is_ok() { limit.maximum } else { limit.current };
        let sockets = Self::within(max, files.and_then(|files| usize::try_from(files).ok()));
        if sockets.held < max {
            let held = sockets.held;
            warn!(
                held,
                wanted = max,
                ?files,
                "the limit of open files allows fewer connections than --max-connections"
            );
        }
        sockets
    }

    fn within(max: usize, files: Option<usize>) -> Self {
        let room = files.map_or(usize::MAX, |files| files.saturating_sub(OTHER_FILES).max(2));
        // where there is little room, most is for what is held all the same
        let requests = REQUEST_SOCKETS.min(room / 4).max(1);
        let held = max.min(room - requests);
        Self { held, all: held.saturating_add(requests).min(Semaphore::MAX_PERMITS) }
    }
}

/// How connections come to the service.
pub struct Transport {
    pub listener: TcpListener,
    pub sockets: Sockets,
    pub bounds: ConnectionsConfig,
    pub proxies: TrustedProxies,
    /// None: in the clear.
    pub tls: Option<Tls>,
}

/// Serves `app` on every connection that comes, until `closing`: from then on no more are taken, and those that there are
/// end with the request that is under way. The hard stage ends them all.
pub async fn serve(transport: Transport, app: Router, lifecycle: Lifecycle, closing: CancellationToken) {
    let Transport { listener, sockets, bounds, proxies, tls } = transport;
    let places = Arc::new(Semaphore::new(sockets.all));
    let shared = Arc::new(Shared { write_timeout: bounds.write_timeout, lifecycle: lifecycle.clone() });
    let mut http = http1::Builder::new();
    // for a WebSocket's handshake, which answers in the client's case
    http.preserve_header_case(true)
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.read_timeout)
        .max_buf_size(BUFFER_BYTES);
    let http = Http { builder: http, app, proxies, handshake_timeout: bounds.read_timeout };
    while let Some((place, stream, peer)) = closing.run_until_cancelled(next(&listener, &places)).await {
        let socket = Socket::new(stream, peer, Arc::clone(&shared), place);
        let (http, tls, closing, hard) = (http.clone(), tls.clone(), closing.clone(), lifecycle.hard().clone());
        lifecycle.spawn_connection("connection", async move {
            let serving = async {
                match tls {
                    None => http.serve(socket, peer, &closing).await,
                    // boxed, so that connections in the clear do not pay for its size
                    Some(tls) => Box::pin(http.secure(&tls, socket, peer, &closing)).await,
                }
            };
            hard.run_until_cancelled(serving).await;
        });
    }
}

/// The next connection, when there is a place for it.
async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { unreachable!("places are not closed") };
        match listener.accept().await {
            Ok((stream, peer)) => return (place, stream, peer),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot take a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether it is one connection's error, of which the next knows nothing.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What connections are served with.
#[derive(Clone)]
struct Http {
    builder: http1::Builder,
    app: Router,
    proxies: TrustedProxies,
    handshake_timeout: Duration,
}

impl Http {
    /// Secures a connection, and serves it to its end.
    async fn secure(self, tls: &Tls, socket: Socket, peer: SocketAddr, closing: &CancellationToken) {
        match timeout(self.handshake_timeout, tls.acceptor().accept(socket)).await {
            Ok(Ok(socket)) => self.serve(socket, peer, closing).await,
            Ok(Err(error)) => broke(&error, peer),
            Err(late) => broke(&late, peer),
        }
    }

    /// Serves one connection to its end.
    async fn serve<S>(self, socket: S, peer: SocketAddr, closing: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { builder, app, proxies, .. } = self;
        let app = TowerToHyperService::new(app);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = proxies.client(peer.ip(), request.headers());
            request.extensions_mut().insert(client);
            app.call(request)
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(socket), service).with_upgrades());
        let mut served = closing.run_until_cancelled(serving.as_mut()).await;
        if served.is_none() {
            serving.as_mut().graceful_shutdown();
            served = Some(serving.await);
        }
        if let Some(Err(error)) = served {
            broke(&error, peer);
        }
    }
}

fn broke(error: &(dyn std::error::Error + 'static), peer: SocketAddr) {
    debug!(error, %peer, "a connection broke");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_fit_into_the_limit_of_open_files() {
        for (max, files, held, all) in [
            (16_384, None, 16_384, 16_384 + 1024),
            (16_384, Some(20_000), 16_384, 16_384 + 1024),
            (1, Some(20_000), 1, 1 + 1024),
            (16_384, Some(16_384), 16_384 - 256 - 1024, 16_384 - 256),
            (16_384, Some(1024), 576, 768),
            (16_384, Some(100), 1, 2),
            (usize::MAX, None, usize::MAX - 1024, Semaphore::MAX_PERMITS),
        ] {
            assert_eq!(Sockets::within(max, files), Sockets { held, all }, "{max} {files:?}");
        }
    }
}
