use std::collections::HashMap;
use std::ffi::OsString;

use super::*;

fn parse(args: &str, env: &[(&str, &str)]) -> Result<Command, Stop> {
    let env: HashMap<_, _> = env.iter().copied().collect();
    super::parse(args.split_whitespace().map(OsString::from), |name| env.get(name).map(OsString::from))
}

fn serve(args: &str, env: &[(&str, &str)]) -> ServeConfig {
    match parse(args, env) {
        Ok(Command::Serve(config)) => *config,
        other => panic!("{args}: {other:?}"),
    }
}

fn watch(args: &str, env: &[(&str, &str)]) -> WatchConfig {
    match parse(args, env) {
        Ok(Command::Watch(config)) => *config,
        other => panic!("{args}: {other:?}"),
    }
}

/// The one line that a bad setting gets.
fn refusal(args: &str, env: &[(&str, &str)]) -> String {
    match parse(args, env) {
        Err(Stop::BadSetting(line)) => {
            assert!(!line.contains('\n'), "{line}");
            line
        }
        other => panic!("{args}: {other:?}"),
    }
}

fn shown(args: &str) -> String {
    match parse(args, &[]) {
        Err(Stop::Shown(text)) => text,
        other => panic!("{args}: {other:?}"),
    }
}

#[test]
fn serve_needs_no_subcommand() {
    for args in ["", "serve"] {
        assert_eq!(serve(args, &[]).listen, "127.0.0.1:8080".parse().unwrap());
    }
    for args in ["--listen 127.0.0.1:9", "serve --listen=127.0.0.1:9"] {
        assert_eq!(serve(args, &[]).listen.port(), 9);
    }
}

#[test]
fn other_subcommands_are_found() {
    assert!(matches!(parse("schema", &[]), Ok(Command::Schema)));
    let listen = [("INCIDENT_MANAGER_LISTEN", "127.0.0.1:9")];
    assert!(matches!(parse("health", &listen), Ok(Command::Health(config)) if config.listen.port() == 9));
    assert!(
        matches!(parse("migrate --data-dir /d", &[]), Ok(Command::Migrate(config)) if config.database.data_dir.is_some())
    );
}

#[test]
fn a_variable_stands_for_its_flag_and_the_flag_wins() {
    let env = [("INCIDENT_MANAGER_LISTEN", "127.0.0.1:7"), ("INCIDENT_MANAGER_ALLOWED_HOSTS", "a.example,b.example")];
    let config = serve("", &env);
    assert_eq!(config.listen.port(), 7);
    assert_eq!(config.network.allowed_hosts, ["a.example", "b.example"]);
    assert_eq!(serve("--listen 127.0.0.1:8", &env).listen.port(), 8);
    // A bad one does not matter where its flag is given, nor to a subcommand that does not know it.
    let bad = [("INCIDENT_MANAGER_LISTEN", "nowhere")];
    assert_eq!(serve("--listen 127.0.0.1:8", &bad).listen.port(), 8);
    assert!(parse("watch", &bad).is_ok());
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let empty = [("DATABASE_URL", ""), ("INCIDENT_MANAGER_LISTEN", ""), ("INCIDENT_MANAGER_DEMO", "")];
    let config = serve("", &empty);
    assert!(config.database.database_url.is_none());
    assert_eq!(config.listen.port(), 8080);
    assert!(!config.demo);
}

#[test]
fn a_switch_is_turned_on_and_off_by_its_variable() {
    for (value, on) in [("1", true), ("true", true), ("Yes", true), ("0", false), ("off", false)] {
        assert_eq!(serve("", &[("INCIDENT_MANAGER_DEMO", value)]).demo, on, "{value}");
    }
    let line = refusal("", &[("INCIDENT_MANAGER_DEMO", "maybe")]);
    assert_eq!(line, r#"INCIDENT_MANAGER_DEMO "maybe": must be true or false"#);
}

#[test]
fn a_bad_setting_gets_one_line_that_names_it() {
    for (args, env, line) in [
        ("--listen nowhere", None, r#"--listen "nowhere": invalid socket address syntax"#),
        (
            "",
            Some(("INCIDENT_MANAGER_LISTEN", "no\nwhere")),
            r#"INCIDENT_MANAGER_LISTEN "no\nwhere": invalid socket address syntax"#,
        ),
        ("--auth sometimes", None, r#"--auth "sometimes": must be one of: off, required"#),
        ("--listen", None, "--listen: needs a value"),
        ("--drain-timeout 0s", None, r#"--drain-timeout "0s": must be more than zero"#),
        ("--database-connections 1", None, r#"--database-connections "1": 1 is not in 4..=1000"#),
        ("--demo --demo", None, "--demo: given twice"),
        ("--lisen 127.0.0.1:1", None, r#""--lisen": there is no such setting; did you mean --listen?"#),
        ("explode", None, r#""explode": there is no such subcommand; see --help"#),
        ("serve watch", None, r#""watch": there is no such setting"#),
        ("watch --alerts --severity P0", None, "--alerts does not go with --severity"),
        ("watch --source a", None, "--alerts: needed beside what was given"),
        (
            "watch --alerts",
            Some(("INCIDENT_MANAGER_WATCH_TYPE", "CREATED")),
            "INCIDENT_MANAGER_WATCH_TYPE does not go with --alerts",
        ),
    ] {
        assert_eq!(refusal(args, env.as_slice()), line);
    }
    assert!(refusal("--log a=b=c", &[]).starts_with(r#"--log "a=b=c": "#));
    assert!(refusal("watch --incident 7", &[]).starts_with(r#"--incident "7": "#));
}

#[test]
fn a_bad_database_url_is_not_shown() {
    let secret = "mysql://root:hunter2@db/prod";
    for line in [refusal("", &[("DATABASE_URL", secret)]), refusal(&format!("migrate --database-url {secret}"), &[])] {
        assert!(line.ends_with("must begin with postgres:// or postgresql://"), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let no_text = |name: &str| (name == "INCIDENT_MANAGER_LISTEN").then(|| OsString::from_vec(vec![0xff]));
    let Err(Stop::BadSetting(line)) = super::parse([], no_text) else { panic!("accepted") };
    assert_eq!(line, "INCIDENT_MANAGER_LISTEN: must be UTF-8");
}

#[test]
fn demo_data_never_reaches_a_real_database() {
    let url = "postgres://localhost/prod";
    let line = refusal("--demo", &[("DATABASE_URL", url)]);
    assert!(line.contains("--demo") && line.contains("DATABASE_URL"), "{line}");
    let line = refusal(&format!("--database-url {url}"), &[("INCIDENT_MANAGER_DEMO", "1")]);
    assert!(line.contains("INCIDENT_MANAGER_DEMO") && line.contains("--database-url"), "{line}");
    assert!(serve("--demo", &[]).demo);
}

#[test]
fn callers_are_asked_unless_the_database_is_the_embedded_one() {
    let url = [("DATABASE_URL", "postgres://localhost/prod")];
    assert_eq!(serve("", &[]).auth_mode(), AuthMode::Off);
    assert_eq!(serve("", &url).auth_mode(), AuthMode::Required);
    for (given, mode) in [("off", AuthMode::Off), ("required", AuthMode::Required)] {
        assert_eq!(serve(&format!("--auth {given}"), &[]).auth_mode(), mode);
        assert_eq!(serve(&format!("--auth {given}"), &url).auth_mode(), mode);
    }
    // who has to say who they are may come from anywhere
    assert!(serve("--listen 0.0.0.0:8080", &url).is_open_to_network());
    assert!(serve("--listen 0.0.0.0:8080 --auth required", &[]).is_open_to_network());
    let line = refusal("--demo --auth required", &[]);
    assert!(line.contains("--demo") && line.contains("--auth"), "{line}");
}

#[test]
fn a_secret_has_a_length_and_is_not_shown() {
    let short = [("INCIDENT_MANAGER_JWT_HS256_SECRET", "hunter2")];
    let line = refusal("", &short);
    assert_eq!(line, "INCIDENT_MANAGER_JWT_HS256_SECRET: must have at least 32 bytes");
    let secret = "hunter2 hunter2 hunter2 hunter2 ";
    let config = serve("", &[("INCIDENT_MANAGER_JWT_HS256_SECRET", secret)]);
    assert_eq!(config.auth.jwt_hs256_secret.as_ref().map(Secret::expose), Some(secret));
    assert!(!format!("{config:?}").contains("hunter2"));
    let config = watch("watch", &[("INCIDENT_MANAGER_TOKEN", secret)]);
    assert!(config.token.is_some() && !format!("{config:?}").contains("hunter2"));
    for args in ["--help", "watch --help"] {
        assert!(!shown(args).contains("hunter2"));
    }
    assert!(refusal("--jwt-jwks-url file:///etc/keys", &[]).contains("https://"));
}

#[test]
fn api_keys_have_subcommands_of_their_own_and_variables() {
    let env = [("INCIDENT_MANAGER_API_KEY_NAME", "ci"), ("DATABASE_URL", "postgres://localhost/prod")];
    let created = parse("api-key create --roles viewer --sources a,b --expires-in 90d", &env);
    let Ok(Command::ApiKey(ApiKeyCommand::Create(config))) = created else { panic!("{created:?}") };
    assert_eq!((&*config.name, config.sources), ("ci", Some(vec!["a".to_owned(), "b".to_owned()])));
    assert!(config.database.database_url.is_some());
    let revoked = parse("api-key revoke im_0123456789ab", &env);
    assert!(matches!(revoked, Ok(Command::ApiKey(ApiKeyCommand::Revoke(config))) if config.key == "im_0123456789ab"));
    assert!(matches!(parse("api-key list", &env), Ok(Command::ApiKey(ApiKeyCommand::List(_)))));
    assert_eq!(refusal("api-key create --roles viewer", &[]), "--name: needed beside what was given");
    assert_eq!(refusal("api-key create --name a", &[]), "--permissions: needed beside what was given");
    assert!(shown("api-key create --help").contains("INCIDENT_MANAGER_API_KEY_ROLES"));
}

#[test]
fn beyond_loopback_needs_an_explicit_auth_off() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
        let line = refusal(&format!("--listen {address}"), &[]);
        assert!(line.contains("--listen") && line.contains("--auth off"), "{line}");
        assert!(serve(&format!("--auth off --listen {address}"), &[]).is_open_to_network());
        assert!(
            serve("", &[("INCIDENT_MANAGER_LISTEN", address), ("INCIDENT_MANAGER_AUTH", "off")]).is_open_to_network()
        );
    }
    for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
        assert!(!serve(&format!("--listen {address}"), &[]).is_open_to_network(), "{address}");
    }
}

#[test]
fn watch_takes_its_filters_in_lists() {
    let id = "550e8400-e29b-41d4-a716-446655440000";
    let config = watch(&format!("watch --severity p0,P1 --incident {id} --incident {id} --type created"), &[]);
    assert_eq!(config.severity, ["P0", "P1"]);
    assert_eq!(config.incident.len(), 2);
    assert_eq!(config.update_type, ["CREATED"]);
    let config = watch("watch --alerts --source a,b", &[("INCIDENT_MANAGER_URL", "example:1")]);
    assert_eq!(config.source, ["a", "b"]);
    assert_eq!(config.url.as_str(), "ws://example:1/graphql/ws");
}

#[test]
fn no_color_turns_colour_off_unless_it_is_asked_for() {
    assert_eq!(watch("watch", &[("NO_COLOR", "1")]).color, ColorChoice::Never);
    assert_eq!(watch("watch", &[("TERM", "dumb")]).color, ColorChoice::Never);
    assert_eq!(watch("watch", &[("NO_COLOR", "")]).color, ColorChoice::Auto);
    assert_eq!(watch("watch --color always", &[("NO_COLOR", "1")]).color, ColorChoice::Always);
}

#[test]
fn help_and_version_are_shown() {
    assert_eq!(shown("--version"), concat!("incident-manager ", env!("CARGO_PKG_VERSION"), "\n"));
    for args in ["--help", "-h", "help"] {
        let help = shown(args);
        assert!(help.starts_with("Incidents and alerts") && help.contains("[OPTIONS] [COMMAND]"), "{help}");
        for needed in ["--listen", "INCIDENT_MANAGER_LISTEN", "--database-url", "watch", "migrate", "schema"] {
            assert!(help.contains(needed), "{args} lacks {needed}:\n{help}");
        }
    }
    for args in ["watch --help", "help watch"] {
        let help = shown(args);
        assert!(help.contains("--severity") && help.contains("INCIDENT_MANAGER_URL"), "{help}");
    }
    assert!(shown("--demo --help").contains("--demo"));
}

#[test]
fn every_setting_is_a_flag_with_a_variable_and_a_text() {
    let table = settings_table();
    for row in table.lines().skip(2) {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 5, "{row}");
        assert!(cells[0].starts_with("| `--"), "{row}");
        assert!(cells[1] == "`DATABASE_URL`" || cells[1].starts_with("`INCIDENT_MANAGER_"), "{row}");
        assert!(!cells[3].is_empty(), "{row}");
    }
    // A setting that two subcommands share is one row: the same variable, default and text.
    let mut flags: Vec<_> = table.lines().skip(2).map(|row| row.split('`').nth(1)).collect();
    let rows = flags.len();
    flags.sort_unstable();
    flags.dedup();
    assert_eq!(flags.len(), rows, "{table}");
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let (_, after) = readme.split_once("<!-- settings -->").expect("README.md has the marker <!-- settings -->");
    let (table, _) = after.split_once("<!-- /settings -->").expect("README.md has the marker <!-- /settings -->");
    let wanted = settings_table();
    assert!(table.trim() == wanted.trim(), "between the markers README.md should have:\n\n{wanted}");
}
