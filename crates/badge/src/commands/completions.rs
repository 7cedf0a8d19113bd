//! `badge completions`: a script that completes commands and flags in a shell.

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde::Serialize;

use super::{Session, Verdict};
use crate::args::Cli;

/// Flags of `badge completions`.
#[derive(Debug, Clone, Copy, Args)]
#[command(
    after_help = "Example:\n  badge completions bash > ~/.local/share/bash-completion/completions/badge"
)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete in
    shell: Shell,
}

#[derive(Serialize)]
struct Outcome<'a> {
    shell: String,
    script: &'a str,
}

pub(crate) fn run(args: CompletionsArgs, session: Session) -> Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "badge", &mut script);
    let script = String::from_utf8(script).context("the script is not UTF-8")?;
    let outcome = Outcome {
        shell: args.shell.to_string(),
        script: &script,
    };
    session.console.result(&outcome, &script)?;
    Ok(Verdict::Done)
}
