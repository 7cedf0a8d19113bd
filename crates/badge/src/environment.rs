//! The environment that tensor libraries read before the first line of ours runs.
//!
//! The framework sizes its thread pool from `RAYON_NUM_THREADS` at first use, and glibc reads its
//! allocator settings when the process starts. Changing the variables of a running process is not
//! safe once there are threads, so the command starts itself again with the right ones, once.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::args::{Cli, Command as CommandName};

/// Set in the second start; its presence ends the recursion.
const PREPARED: &str = "BADGE_PREPARED";
const THREADS: &str = "RAYON_NUM_THREADS";

/// Large tensors come and go in training: without these glibc hands their pages back to the kernel
/// every time, to ask for them again in the next step.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// The number of threads that the command computes with.
///
/// # Errors
/// When `--threads` asks for none or for more than any machine has.
pub(crate) fn threads(cli: &Cli) -> Result<usize> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match (&cli.command, cli.global.threads) {
        (_, Some(threads)) => threads,
        // Its matrices are so small that handing work to a second thread costs more than it saves.
        (CommandName::Quickstart(_), None) => 1,
        // The variable belongs to the framework, which takes no part.
        (CommandName::Bench(args), None) if !args.trains() => available,
        (CommandName::Serve(_), None) => available,
        (_, None) => env::var(THREADS)
            .ok()
            .and_then(|n| n.parse().ok())
            // Zero is rayon's way to say "what there is".
            .filter(|n| *n > 0)
            .unwrap_or(available),
    };
    ensure!(
        (1..=1024).contains(&threads),
        "--threads: {threads} does not lie in 1..=1024"
    );
    Ok(threads)
}

/// Starts the command again with the environment it needs; `None` when it is there already.
///
/// Benchmarks of the engine run as they are: it has threads of its own, and memory is to be
/// measured under the allocator's usual settings.
///
/// # Errors
/// When the program cannot start itself.
pub(crate) fn prepare(cli: &Cli, threads: usize) -> Result<Option<ExitCode>> {
    let computes = match &cli.command {
        CommandName::Bench(args) => args.trains(),
        CommandName::Completions(_)
        | CommandName::Fetch(_)
        | CommandName::Inspect(_)
        | CommandName::Replay(_)
        | CommandName::Serve(_) => false,
        _ => true,
    };
    if !computes || env::var_os(PREPARED).is_some() {
        return Ok(None);
    }
    let program = env::current_exe().context("the program's own path is not known")?;
    let mut again = Command::new(program);
    again
        .args(env::args_os().skip(1))
        .env(PREPARED, "1")
        .env(THREADS, threads.to_string());
    for (name, value) in ALLOCATOR {
        if env::var_os(name).is_none() {
            again.env(name, value);
        }
    }
    start(again)
        .context("the program cannot start itself")
        .map(Some)
}

/// Replaces this process, so that signals and exit code are the new one's.
#[cfg(unix)]
fn start(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    Err(command.exec().into())
}

/// Waits for the new process and hands on its exit code.
#[cfg(not(unix))]
fn start(mut command: Command) -> Result<ExitCode> {
    let code = command.status()?.code().unwrap_or(2);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}
