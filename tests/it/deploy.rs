//! The files for containers and systemd say what the program and the repository have.

use std::fs;
use std::path::Path;

use incident_manager::config::{Command, parse};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What follows a word at the start of a line, line by line.
fn after<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(word)).map(str::trim).collect()
}

#[test]
fn the_image_is_built_with_the_toolchain_that_the_crate_asks_for() {
    let dockerfile = file("Dockerfile");
    let bases = after(&dockerfile, "FROM ");
    let rust = format!("rust:{}.", env!("CARGO_PKG_RUST_VERSION"));
    assert!(bases[0].starts_with(&rust), "{bases:?}");
    for base in bases {
        let tag = base.split_whitespace().next().and_then(|image| image.split_once(':')).expect(base).1;
        assert!(tag.split('-').next().unwrap_or_default().contains('.'), "{base} names no exact release");
    }
}

#[test]
fn the_image_runs_as_nobody_and_asks_itself_for_its_health() {
    let dockerfile = file("Dockerfile");
    let user = after(&dockerfile, "USER ");
    assert!(user.len() == 1 && !user[0].starts_with("0:") && user[0].contains(':'), "{user:?}");
    let check = dockerfile.split("HEALTHCHECK ").nth(1).expect("a health check").lines().next().unwrap();
    assert!(check.ends_with(r#"CMD ["incident-manager", "health"]"#), "{check}");
    assert!(matches!(parse(["health".into()], |_| None), Ok(Command::Health(_))));
}

#[test]
fn what_the_build_reads_is_sent_to_it() {
    let ignored = file(".dockerignore");
    let sent = after(&ignored, "!");
    let manifest = file("Cargo.toml");
    let paths = after(&manifest, "path = ").into_iter().map(|path| path.trim_matches('"').split('/').next().unwrap());
    let build = file("build.rs");
    let watched = build.split("rerun-if-changed=").skip(1).map(|rest| rest.split('"').next().unwrap());
    for needed in ["Cargo.lock", "src", "build.rs", "sqlx.toml", ".sqlx"].into_iter().chain(paths).chain(watched) {
        assert!(sent.contains(&needed), ".dockerignore keeps {needed} out");
    }
    for path in sent {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "there is no {path}");
    }
}

#[test]
fn containers_are_published_on_loopback_alone_and_each_has_a_health_check() {
    let compose = file("docker-compose.yml");
    let (_, ports) = compose.split_once("ports:\n").expect("published ports");
    let ports: Vec<_> = ports.lines().map_while(|line| line.trim_start().strip_prefix("- ")).collect();
    assert!(!ports.is_empty() && ports.iter().all(|port| port.starts_with("\"127.0.0.1:")), "{ports:?}");
    assert_eq!(compose.matches("ports:").count(), 1);
    assert_eq!(compose.matches("healthcheck:").count(), after(&compose, "restart:").len());
}

#[test]
fn the_unit_starts_the_program_and_leaves_bad_settings_alone() {
    let unit = file("deploy/incident-manager.service");
    let start = after(&unit, "ExecStart=");
    let args = start[0].strip_prefix("/usr/local/bin/incident-manager ").expect("where the unit's comment puts it");
    assert!(matches!(parse(args.split(' ').map(Into::into), |_| None), Ok(Command::Serve(_))));
    assert_eq!(after(&unit, "RestartPreventExitStatus="), ["2"]);
}
