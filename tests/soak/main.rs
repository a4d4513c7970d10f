//! Faults while writers keep committing: does every client hear everything once, and in order?
//!
//! Without arguments, as in `script/test`, each proof runs in a short form, some side by side. `script/soak` runs all of
//! them in full, one by one, and then faults at random. Services, servers and poolers are processes of their own; the network
//! between them is ours.

mod client;
mod cluster;
mod ledger;
mod proofs;
mod proxy;
mod random;
mod replica;
mod scene;
mod waiting;
mod writers;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::proofs::{PROOFS, Proof};
use crate::scene::Counts;

/// Short forms that run at the same time: most of a proof is waiting.
const SIDE_BY_SIDE: usize = 4;

#[derive(Parser)]
#[command(args_override_self = true)]
struct Arguments {
    /// Only the proofs whose names contain one of these
    names: Vec<String>,
    /// Each proof in full, one after the other
    #[arg(long)]
    full: bool,
    /// Then faults at random, for so long
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// Which faults at random [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// An older program, to stand beside the one of this build
    #[arg(long)]
    old_program: Option<PathBuf>,
    /// Print the names of the proofs
    #[arg(long)]
    list: bool,
    /// As in other test programs; here nothing is captured
    #[arg(long, hide = true)]
    nocapture: bool,
}

/// What a proof has to work with.
struct Stage {
    /// For those that leave the server as it is.
    cluster: Arc<Cluster>,
    pub full: bool,
    pub seed: u64,
    pub old_program: Option<PathBuf>,
}

impl Stage {
    /// The one or the other, as the proof is run in full or not.
    pub fn scale<T>(&self, short: T, full: T) -> T {
        if self.full { full } else { short }
    }
}

/// What a proof has shown.
enum Outcome {
    /// What came of it, and what was measured on the way.
    Shown { counts: Counts, note: String },
    /// Nothing, and why not.
    NotHere(&'static str),
}

impl From<Counts> for Outcome {
    fn from(counts: Counts) -> Self {
        Self::Shown { counts, note: String::new() }
    }
}

/// An address on loopback that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("the first");
    let chosen: Vec<Proof> = PROOFS
        .iter()
        .filter(|proof| arguments.names.is_empty() || arguments.names.iter().any(|name| proof.name.contains(name)))
        .copied()
        .collect();
    if arguments.list {
        for proof in chosen {
            println!("{}: test", proof.name);
        }
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("\nproofs under faults: {}, seed {seed}", chosen.len());
    // what failed is said by the proof
    std::panic::set_hook(Box::new(|_| {}));
    let stage = Arc::new(Stage {
        cluster: Cluster::start().await,
        full: arguments.full,
        seed,
        old_program: arguments.old_program,
    });
    let at_once = if arguments.full { 1 } else { SIDE_BY_SIDE };
    let runs = futures::stream::iter(chosen).map(|proof| run(proof, Arc::clone(&stage))).buffer_unordered(at_once);
    let failed: Vec<&str> = runs.filter_map(|(name, passed)| async move { (!passed).then_some(name) }).collect().await;
    let mut passed = failed.is_empty();
    if arguments.minutes > 0.0 && arguments.names.is_empty() {
        passed &= random::run(&stage, Duration::from_secs_f64(arguments.minutes * 60.0)).await;
    }
    if passed {
        println!("all proven");
        return ExitCode::SUCCESS;
    }
    println!("FAILED, seed {seed}: {}", failed.join(", "));
    ExitCode::FAILURE
}

async fn run(proof: Proof, stage: Arc<Stage>) -> (&'static str, bool) {
    let began = Instant::now();
    let result = tokio::spawn((proof.run)(stage)).await;
    let seconds = began.elapsed().as_secs_f64();
    let (passed, text) = match result {
        Ok(Outcome::Shown { counts, note }) => {
            let note = if note.is_empty() { note } else { format!("\n    {note}") };
            (counts.are_clean(), format!("{counts}{note}"))
        }
        Ok(Outcome::NotHere(why)) => (true, format!("NOT SHOWN: {why}")),
        Err(error) => (false, panic_of(error)),
    };
    println!("proof {} ... {} ({seconds:.1} s)\n    {text}", proof.name, if passed { "ok" } else { "FAILED" });
    (proof.name, passed)
}

fn panic_of(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "cancelled".to_owned() };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "panicked".to_owned(), |text| (*text).to_owned()),
    }
}
