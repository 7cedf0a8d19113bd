//! One file per command.

pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod eval;
mod facts;
pub(crate) mod fetch;
pub(crate) mod inspect;
pub(crate) mod predict;
mod sources;
pub(crate) mod train;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::args::{Cli, Command, DEFAULT_SEED, GlobalArgs};
use crate::commands::doctor::DoctorArgs;
use crate::console::Console;

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
    pub(crate) threads: usize,
}

/// Carries out the command.
pub(crate) fn run(cli: Cli, console: Console) -> Result<Verdict> {
    let threads = use_threads(&cli.global)?;
    let seed = cli.global.seed.unwrap_or(DEFAULT_SEED);
    let context = Session {
        console,
        seed,
        threads,
    };
    match cli.command {
        Command::Train(args) => train::run(*args, context),
        Command::Eval(args) => eval::run(&args, context),
        Command::Predict(args) => predict::run(&args, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Fetch(args) => fetch::run(&args, context),
        Command::Doctor(DoctorArgs {}) => doctor::run(context),
        Command::Completions(args) => completions::run(args, context),
    }
}

/// Sizes the pool that all tensor operations share.
fn use_threads(global: &GlobalArgs) -> Result<usize> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = global.threads.unwrap_or(available);
    ensure!(
        (1..=1024).contains(&threads),
        "--threads: {threads} does not lie in 1..=1024"
    );
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("the thread pool cannot be started")?;
    Ok(threads)
}
