//! One file per command.

pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod completions;
mod computing;
pub(crate) mod doctor;
pub(crate) mod eval;
mod facts;
pub(crate) mod fetch;
mod held_out;
pub(crate) mod inspect;
pub(crate) mod predict;
pub(crate) mod quickstart;
pub(crate) mod replay;
pub(crate) mod reproduce;
pub(crate) mod serve;
mod sources;
pub(crate) mod sweep;
pub(crate) mod train;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Cli, Command, DEFAULT_SEED};
use crate::commands::doctor::DoctorArgs;
use crate::console::Console;

pub(crate) use sources::tell_origin;

/// What a command that was carried out answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Done,
    /// It is done, and the answer is "no": a check has failed.
    No,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Done => Self::SUCCESS,
            Verdict::No => Self::FAILURE,
        }
    }
}

/// What every command is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    pub(crate) console: Console,
    pub(crate) seed: u64,
    /// The seed as it was typed, which wins over a file's.
    pub(crate) seed_flag: Option<u64>,
    pub(crate) threads: usize,
}

/// Carries out the command.
pub(crate) fn run(cli: Cli, console: Console, threads: usize) -> Result<Verdict> {
    let seed = cli.global.seed.unwrap_or(DEFAULT_SEED);
    let context = Session {
        console,
        seed,
        seed_flag: cli.global.seed,
        threads,
    };
    match cli.command {
        Command::Quickstart(args) => quickstart::run(&args, context),
        Command::Train(args) => train::run(*args, context),
        Command::Eval(args) => eval::run(&args, context),
        Command::Sweep(args) => sweep::run(&args, context),
        Command::Calibrate(args) => calibrate::run(&args, context),
        Command::Reproduce(args) => reproduce::run(&args, context),
        Command::Predict(args) => predict::run(&args, context),
        Command::Serve(args) => serve::run(&args, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Fetch(args) => fetch::run(&args, context),
        Command::Bench(args) => bench::run(&args, context),
        Command::Replay(args) => replay::run(&args, context),
        Command::Doctor(DoctorArgs {}) => doctor::run(context),
        Command::Completions(args) => completions::run(args, context),
    }
}
