//! The binary: settings in, exit code out. 0 is done, 1 is failed, 2 is a bad setting.

use std::process::ExitCode;

use incident_manager::{cli, config};

const FAILED: u8 = 1;
const BAD_SETTING: u8 = 2;

fn main() -> ExitCode {
    let (line, code) = match config::from_process() {
        Ok(command) => match cli::run(command) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (cli::with_causes(&error), if error.is_of_setting() { BAD_SETTING } else { FAILED }),
        },
        Err(config::Stop::Shown(text)) => match cli::print(&text) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (error.to_string(), FAILED),
        },
        Err(config::Stop::BadSetting(line)) => (line, BAD_SETTING),
    };
    cli::complain(&line);
    code.into()
}
