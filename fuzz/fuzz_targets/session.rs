//! Whatever a client sends, the session's rules neither panic nor leak an operation, nor do what the protocol does not allow.
//!
//! ```sh
//! cargo install --locked cargo-fuzz
//! cargo +nightly fuzz run session -- -max_total_time=3600 -dict=fuzz/session.dict
//! ```

#![no_main]

use incident_manager::http::session::protocol::{Action, OperationId, Protocol};
use libfuzzer_sys::fuzz_target;

// Each line is a message; where one is empty, the oldest operation ends of itself.
fuzz_target!(|lines: &str| {
    let mut protocol = Protocol::default();
    let mut acknowledged = false;
    let mut active: Vec<OperationId> = Vec::new();
    for line in lines.lines() {
        if line.is_empty() {
            if !active.is_empty() {
                protocol.ended(&active.remove(0));
            }
            continue;
        }
        match protocol.text(line) {
            Action::Nothing | Action::Pong | Action::Refresh(_) => {}
            Action::Initialise(_) => {
                assert!(!acknowledged);
                protocol.acknowledge(&mut Vec::new(), None);
                acknowledged = true;
            }
            Action::Start(id, _) => {
                assert!(acknowledged && !id.is_empty() && !active.contains(&id));
                active.push(id);
            }
            Action::Stop(id) => {
                let at = active.iter().position(|known| *known == id).expect("only what is active is stopped");
                active.remove(at);
            }
            Action::Close(close) => {
                assert!((4400..4500).contains(&close.code) && close.reason.len() <= 123);
                return;
            }
        }
        assert_eq!(protocol.active(), active.len());
    }
});
