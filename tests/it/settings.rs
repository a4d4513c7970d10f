//! The binary's exit codes, and what it says of its settings.

use std::process::{Command, Output, Stdio};

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_incident-manager"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn a_bad_setting_is_one_line_and_exit_code_2() {
    for (args, env, named) in [
        (&["--listen", "nowhere"][..], None, "--listen"),
        (&["serve"], Some(("INCIDENT_MANAGER_LISTEN", "nowhere")), "INCIDENT_MANAGER_LISTEN"),
        (&[], Some(("DATABASE_URL", "nowhere")), "DATABASE_URL"),
        (&["--demo"], Some(("DATABASE_URL", "postgres://localhost/prod")), "--demo"),
        (&["--listen", "0.0.0.0:0"], None, "--auth off"),
        (&["watch", "--severity", "!"], None, "--severity"),
        (&["explode"], None, "explode"),
    ] {
        let output = run(args, env.as_slice());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(named) && said.lines().count() == 1, "{args:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for args in [&["--help"][..], &["--version"], &["watch", "--help"], &["serve", "-h"]] {
        let output = run(args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_failure_is_one_line_with_its_cause_and_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["--listen", &address], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("in use") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_incident-manager"))
        .args(["schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}
