//! The `badge` command: parse, run, report.

mod args;
mod commands;
mod console;
mod failure;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::console::Console;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(&cli.global);
    match commands::run(cli, console) {
        Ok(verdict) => verdict.into(),
        Err(error) => failure::report(&error),
    }
}
