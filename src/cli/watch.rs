//! `watch`: live updates in the terminal, a line each, through the public WebSocket and nothing else. After any break it goes
//! on where it was.

mod backoff;
mod client;
mod line;
mod protocol;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::Instant;

use self::backoff::Backoff;
use self::client::Client;
use self::protocol::End;
use crate::config::{ColorChoice, WatchConfig};

/// A connection that held for so long was a success: the next failure is a new one.
const SETTLED: Duration = Duration::from_secs(5);

/// How often a reader that has gone is looked for, while there is nothing to write to it.
const READER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("{0}")]
    Refused(String),
    #[error("cannot write to the standard output")]
    WriteOutput(#[source] io::Error),
    #[error("cannot listen for signals")]
    ListenForSignals(#[source] io::Error),
}

/// Shows updates until it is interrupted, nobody reads them any more, or the service refuses for good.
pub async fn run(config: WatchConfig) -> Result<(), WatchError> {
    tokio::select! {
        followed = follow(&config) => match followed {
            Err(WatchError::WriteOutput(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        },
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(WatchError::ListenForSignals),
        () = reader_gone() => Ok(()),
    }
}

async fn follow(config: &WatchConfig) -> Result<(), WatchError> {
    let colour = match config.color {
        ColorChoice::Auto => io::stdout().is_terminal(),
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    };
    let show = |data: &str| {
        if !config.heartbeats && line::is_heartbeat(data) {
            return Ok(());
        }
        let line = if config.json { data.to_owned() } else { line::line(data, colour) };
        let mut output = io::stdout().lock();
        writeln!(output, "{line}")?;
        output.flush()
    };
    let mut backoff = Backoff::default();
    let mut seen = None;
    loop {
        let end = match Client::connect(&config.url, config.token.as_ref()).await {
            Ok(mut client) => {
                notice(&format!("watching {}", config.url));
                let begun = Instant::now();
                let subscribe = protocol::subscribe(config, seen.as_deref());
                // of one that goes on behind a cursor this says nothing
                seen = seen.or(client.begun.take());
                let end = client.follow(subscribe, &mut seen, show).await;
                if begun.elapsed() >= SETTLED {
                    backoff.reset();
                }
                end.map_err(WatchError::WriteOutput)?
            }
            Err(end) => end,
        };
        let reason = match end {
            End::Final(reason) => return Err(WatchError::Refused(line::escaped(&reason))),
            End::Expired(reason) => {
                seen = None;
                format!("updates are missing from here on: {reason}")
            }
            End::Again(reason) => reason,
        };
        let wait = backoff.next(&mut rand::rng());
        notice(&format!("{reason}; trying again in {:.1} s", wait.as_secs_f64()));
        tokio::time::sleep(wait).await;
    }
}

/// Says something about the connection, apart from the updates. Nobody has to read it.
fn notice(text: &str) {
    let _ = writeln!(io::stderr(), "incident-manager: {}", line::escaped(text));
}

/// Waits until the standard output is a pipe whose reader has gone, so that `watch | head -1` ends with `head`.
async fn reader_gone() {
    loop {
        tokio::time::sleep(READER_CHECK_INTERVAL).await;
        let output = io::stdout();
        let mut polled = [PollFd::new(&output, PollFlags::empty())];
        let found = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        if found.is_ok() && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return;
        }
    }
}
