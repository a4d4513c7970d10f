//! From flags and environment to settings, or to one line that names the setting that is wrong.
//!
//! clap does the parsing, but for two things: environment variables are handed to it as flags, so that an empty one
//! counts as absent and a bad one is named; and what it says of an error in several lines becomes one.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::watch::{ColorChoice, WatchConfig};
use super::{ApiKeyCommand, AuthMode, HealthConfig, MigrateConfig, ServeConfig};

const BINARY: &str = "incident-manager";

/// Incidents and alerts in PostgreSQL, live on every screen.
#[derive(Debug, Parser)]
#[command(name = BINARY, version, after_help = "Without a subcommand: serve, whose settings these are.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the process is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve incidents and alerts; what is done without a subcommand
    Serve(Box<ServeConfig>),
    /// Bring the database's schema up to date, and end
    Migrate(MigrateConfig),
    /// Show changes in the terminal as they happen
    Watch(Box<WatchConfig>),
    /// Ask the service on this machine whether it is ready: exit code 0 if so, else 1
    Health(HealthConfig),
    /// Make, show and revoke API keys, in the database itself
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Print the GraphQL schema
    Schema,
}

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Help or version were asked for; this is the text.
    #[error("{0}")]
    Shown(String),
    /// A setting is wrong; one line names it.
    #[error("{0}")]
    BadSetting(String),
}

/// Reads the settings of this process.
pub fn from_process() -> Result<Command, Stop> {
    parse(std::env::args_os().skip(1), |name| std::env::var_os(name))
}

/// Reads settings from arguments (without the program's name) and an environment.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, Stop> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    match args.first().and_then(|arg| arg.to_str()) {
        Some(help @ ("-h" | "--help" | "help")) if args.len() == 1 => return Err(help_on_all(help)),
        Some("-V" | "--version") => {}
        Some(first) if !first.starts_with('-') => {}
        _ => args.insert(0, "serve".into()),
    }
    let (depth, variables) = Variables::read(&args, &env)?;
    // Behind the subcommand, before what was given.
    args.splice(depth..depth, variables.flags());
    let given: Vec<OsString> = [OsString::from(BINARY)].into_iter().chain(args).collect();

    let parsed =
        without_env(Cli::command()).try_get_matches_from(&given).and_then(|matches| Cli::from_arg_matches(&matches));
    let mut command = match parsed {
        Ok(cli) => cli.command,
        // Shown by the definitions that still name the variables.
        Err(error) if !error.use_stderr() => {
            let shown = Cli::command().try_get_matches_from(given).err().unwrap_or(error);
            return Err(Stop::Shown(shown.to_string()));
        }
        Err(error) => return Err(Stop::BadSetting(variables.explain(&error))),
    };
    match &mut command {
        Command::Serve(config) => check_serve(config, &variables).map_err(Stop::BadSetting)?,
        Command::Watch(config) if config.color == ColorChoice::Auto => {
            let set = |name| env(name).is_some_and(|value| !value.is_empty());
            if set("NO_COLOR") || env("TERM").is_some_and(|term| term == "dumb") {
                config.color = ColorChoice::Never;
            }
        }
        Command::Watch(_) | Command::Migrate(_) | Command::Health(_) | Command::ApiKey(_) | Command::Schema => {}
    }
    Ok(command)
}

/// What must hold between the settings of `serve`.
fn check_serve(config: &ServeConfig, variables: &Variables) -> Result<(), String> {
    let name = |flag| variables.name(flag);
    if config.demo && config.database.database_url.is_some() {
        let (demo, url) = (name("--demo"), name("--database-url"));
        return Err(format!("{demo} makes up data, so it goes only with the embedded database, not with {url}"));
    }
    if config.demo && config.network.tls_cert.is_some() {
        let (demo, tls) = (name("--demo"), name("--tls-cert"));
        return Err(format!("{demo} sends its traffic in the clear, so it does not go with {tls}"));
    }
    if config.demo && config.auth_mode() == AuthMode::Required {
        let (demo, auth) = (name("--demo"), name("--auth"));
        return Err(format!("{demo} is traffic without a token, so it does not go with {auth} required"));
    }
    if config.is_open_to_network() && config.auth.auth.is_none() && config.auth_mode() == AuthMode::Off {
        let (listen, address) = (name("--listen"), config.listen);
        return Err(format!(
            "{listen} {address} is beyond loopback and nobody would be asked who they are: if that is meant, give --auth off"
        ));
    }
    Ok(())
}

/// The same definitions, by flags alone.
fn without_env(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.env(Resettable::Reset)).mut_subcommands(without_env)
}

/// The subcommands that do something, each with its name: of `api-key` these are its own.
fn leaves(command: &clap::Command) -> Vec<(String, &clap::Command)> {
    command
        .get_subcommands()
        .flat_map(|sub| {
            let inner = leaves(sub).into_iter().map(|(name, leaf)| (format!("{} {name}", sub.get_name()), leaf));
            let own = (!sub.has_subcommands()).then(|| (sub.get_name().to_owned(), sub));
            inner.chain(own).collect::<Vec<_>>()
        })
        .collect()
}

/// Help for the whole program: its subcommands, and the settings of the one that needs no name.
fn help_on_all(flag: &str) -> Stop {
    let cli = Cli::command();
    let about = cli.get_about().cloned().unwrap_or_default();
    let all = ServeConfig::augment_args(cli).about(about).subcommand_required(false);
    let flag = if flag == "help" { "--help" } else { flag };
    let shown = all.try_get_matches_from([BINARY, flag]).map_or_else(|error| error.to_string(), |_| String::new());
    Stop::Shown(shown)
}

/// The environment variables that stand for flags that were not given.
#[derive(Default)]
struct Variables(Vec<Variable>);

struct Variable {
    name: String,
    flag: String,
    /// None for a switch that it turns on.
    value: Option<OsString>,
}

impl Variables {
    /// And behind how many words the subcommand's flags begin.
    fn read(args: &[OsString], env: impl Fn(&str) -> Option<OsString>) -> Result<(usize, Self), Stop> {
        let cli = Cli::command();
        let (mut subcommand, mut depth) = (&cli, 0);
        while let Some(inner) = args.get(depth).and_then(|name| subcommand.find_subcommand(name)) {
            (subcommand, depth) = (inner, depth + 1);
        }
        let given = &args[depth..];
        let mut variables = Vec::new();
        for arg in subcommand.get_arguments() {
            let (Some(long), Some(name)) = (arg.get_long(), arg.get_env().and_then(OsStr::to_str)) else { continue };
            let flag = format!("--{long}");
            let is_given = given
                .iter()
                .filter_map(|arg| arg.to_str())
                .any(|arg| arg.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')));
            let Some(value) = env(name).filter(|value| !value.is_empty() && !is_given) else { continue };
            let name = name.to_owned();
            let text = value.to_str().ok_or_else(|| Stop::BadSetting(format!("{name}: must be UTF-8")))?;
            match arg.get_action() {
                ArgAction::SetTrue => match text.to_ascii_lowercase().as_str() {
                    "1" | "true" | "yes" | "on" => variables.push(Variable { name, flag, value: None }),
                    "0" | "false" | "no" | "off" => {}
                    _ => return Err(Stop::BadSetting(format!("{name} {text:?}: must be true or false"))),
                },
                _ => variables.push(Variable { name, flag, value: Some(value) }),
            }
        }
        Ok((depth, Self(variables)))
    }

    /// The flags that the variables stand for.
    fn flags(&self) -> impl Iterator<Item = OsString> {
        self.0.iter().map(|variable| {
            let mut flag = OsString::from(&variable.flag);
            if let Some(value) = &variable.value {
                flag.push("=");
                flag.push(value);
            }
            flag
        })
    }

    /// How the user gave a setting: by its variable, or by its flag.
    fn name(&self, flag: &str) -> String {
        // clap names a flag with its value: `--listen <ADDR:PORT>`.
        let flag = flag.split([' ', '=']).next().unwrap_or(flag);
        let variable = self.0.iter().find(|variable| variable.flag == flag);
        variable.map_or_else(|| flag.to_owned(), |variable| variable.name.clone())
    }

    /// An error of clap's as one line.
    fn explain(&self, error: &clap::Error) -> String {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
            _ => None,
        };
        let argument = text(ContextKind::InvalidArg);
        let name = argument.as_deref().map(|argument| self.name(argument)).unwrap_or_default();
        let value = text(ContextKind::InvalidValue).unwrap_or_default();
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        match error.kind() {
            ErrorKind::InvalidValue if value.is_empty() => format!("{name}: needs a value"),
            ErrorKind::InvalidValue => {
                let valid = text(ContextKind::ValidValue).unwrap_or_default();
                format!("{name} {value:?}: must be one of: {valid}")
            }
            ErrorKind::ValueValidation if is_secret(argument.as_deref()) => format!("{name}: {}", one_line(&source)),
            ErrorKind::ValueValidation => format!("{name} {value:?}: {}", one_line(&source)),
            ErrorKind::UnknownArgument => {
                let instead = text(ContextKind::SuggestedArg).map(|arg| format!("; did you mean {arg}?"));
                format!("{:?}: there is no such setting{}", argument.unwrap_or_default(), instead.unwrap_or_default())
            }
            ErrorKind::InvalidSubcommand => {
                let subcommand = text(ContextKind::InvalidSubcommand).unwrap_or_default();
                format!("{subcommand:?}: there is no such subcommand; see --help")
            }
            ErrorKind::ArgumentConflict => {
                let prior = text(ContextKind::PriorArg).map(|prior| self.name(&prior)).unwrap_or_default();
                if prior == name { format!("{name}: given twice") } else { format!("{name} does not go with {prior}") }
            }
            ErrorKind::MissingRequiredArgument => format!("{name}: needed beside what was given"),
            _ => {
                let rendered = error.to_string();
                one_line(rendered.lines().next().unwrap_or_default().trim_start_matches("error: "))
            }
        }
    }
}

/// Whether the value of a flag, as clap names it, must not be shown.
fn is_secret(argument: Option<&str>) -> bool {
    let flag = argument.and_then(|argument| argument.strip_prefix("--")?.split([' ', '=']).next());
    leaves(&Cli::command())
        .into_iter()
        .flat_map(|(_, subcommand)| subcommand.get_arguments())
        .any(|arg| arg.is_hide_env_values_set() && arg.get_long().is_some() && arg.get_long() == flag)
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The settings of all subcommands as a Markdown table, as the README has it.
pub fn settings_table() -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for (name, subcommand) in leaves(&Cli::command()) {
        for arg in subcommand.get_arguments().filter(|arg| !arg.is_positional()) {
            let row = row(arg);
            let name = format!("`{name}`");
            match rows.iter_mut().find(|(existing, _)| *existing == row) {
                Some((_, subcommands)) => subcommands.push(name),
                None => rows.push((row, vec![name])),
            }
        }
    }
    let mut table = "| Flag | Environment variable | Default | What it is | Of |\n|---|---|---|---|---|\n".to_owned();
    for (row, subcommands) in rows {
        let _ = writeln!(table, "{row} {} |", subcommands.join(", "));
    }
    table
}

fn row(arg: &clap::Arg) -> String {
    let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
    let flag = code(&format!("--{}", arg.get_long().unwrap_or_default()));
    let variable = arg.get_env().and_then(OsStr::to_str).map(code).unwrap_or_default();
    let defaults = arg.get_default_values().iter().filter_map(|value| value.to_str());
    let default = match arg.get_action() {
        ArgAction::SetTrue => String::new(),
        _ => defaults.map(code).collect::<Vec<_>>().join(", "),
    };
    let mut what = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values = arg.get_possible_values();
    if !values.is_empty() && !matches!(arg.get_action(), ArgAction::SetTrue) {
        let values: Vec<_> = values.iter().map(|value| code(value.get_name())).collect();
        let _ = write!(what, " ({})", values.join(", "));
    }
    format!("| {flag} | {variable} | {default} | {} |", what.replace('|', "\\|"))
}
