//! The `badge` command: parse, run, report.

mod args;
mod commands;
mod console;
mod environment;
mod failure;
mod progress;

use std::process::ExitCode;

use crate::args::Cli;
use crate::console::Console;

fn main() -> ExitCode {
    let cli = Cli::read();
    match run(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let threads = environment::threads(&cli)?;
    if let Some(code) = environment::prepare(&cli, threads)? {
        return Ok(code);
    }
    let console = Console::new(&cli.global);
    Ok(commands::run(cli, console, threads)?.into())
}
