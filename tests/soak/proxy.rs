//! The network between two processes, in our hands: it can be cut, stalled, slowed down and delayed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What is read at once.
const CHUNK: usize = 4096;

/// What becomes of bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Clear,
    /// Connections end, and new ones at once.
    Cut,
    /// Nothing passes, and nobody is told.
    Stalled,
    /// Each chunk takes so long.
    Delayed(Duration),
    /// So many bytes a second pass of what the target sends.
    Narrow(usize),
}

/// Listens for one process, and connects it with the other.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    target: RwLock<SocketAddr>,
    weather: watch::Sender<Weather>,
    /// Counts the times that all connections were cut.
    cuts: watch::Sender<usize>,
    /// How many bytes of what the target sends a new connection lives for.
    life: Box<dyn Fn() -> usize + Send + Sync>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        Self::mortal(target, || usize::MAX).await
    }

    /// Each connection is cut after so many bytes as `life` says for it, wherever in a message that may be.
    pub async fn mortal(target: SocketAddr, life: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target: RwLock::new(target),
            weather: watch::Sender::new(Weather::Clear),
            cuts: watch::Sender::new(0),
            life: Box::new(life),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    pub fn set(&self, weather: Weather) {
        self.state.weather.send_replace(weather);
        if weather == Weather::Cut {
            self.cut();
        }
    }

    /// Cuts the connections that there are.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Connections that are made from now on lead somewhere else; those that there are, are cut.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.state.target.write() = target;
        self.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Weather::Cut);
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((near, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let mut cuts = state.cuts.subscribe();
            let target = *state.target.read();
            if *state.weather.borrow() == Weather::Cut {
                return;
            }
            let Ok(far) = connect(target).await else { return };
            let life = (state.life)();
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = pass(near_read, far_write, state.weather.subscribe(), usize::MAX, false) => {}
                () = pass(far_read, near_write, state.weather.subscribe(), life, true) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// With a small buffer, so that what a slow reader leaves waits with the sender.
async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 << 10)?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Passes bytes on until either side ends, or so many have passed.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    mut life: usize,
    narrow: bool,
) {
    let mut buffer = vec![0; CHUNK];
    while life > 0 {
        let now = *weather.borrow_and_update();
        let room = match now {
            Weather::Stalled => {
                if weather.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Weather::Narrow(rate) if narrow => CHUNK.min(rate / 10),
            _ => CHUNK,
        };
        let read = tokio::select! {
            read = from.read(&mut buffer[..room.min(life)]) => read.unwrap_or(0),
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        };
        if read == 0 {
            return;
        }
        // what had been read when the weather changed waits too
        while *weather.borrow_and_update() == Weather::Stalled {
            if weather.changed().await.is_err() {
                return;
            }
        }
        let now = *weather.borrow();
        match now {
            // what it held back does not come through after all
            Weather::Cut => return,
            Weather::Delayed(by) => sleep(by).await,
            Weather::Narrow(_) if narrow => sleep(Duration::from_millis(100)).await,
            _ => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        life -= read;
    }
}
