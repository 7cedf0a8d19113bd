//! Where output goes: results to standard output, everything else to standard error.

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::GlobalArgs;

/// What a failure to print says first.
const NO_OUTPUT: &str = "cannot write to standard output";

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    /// Results as one JSON document.
    pub(crate) json: bool,
    quiet: bool,
    verbose: u8,
}

impl Console {
    pub(crate) fn new(args: &GlobalArgs) -> Self {
        Self {
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
        }
    }

    /// Prints the result: `text` for people, or `value` as JSON with `--json`.
    pub(crate) fn result(self, value: &impl Serialize, text: &str) -> Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        let mut print = || {
            if self.json {
                serde_json::to_writer_pretty(&mut out, value)?;
                writeln!(out)?;
            } else {
                write!(out, "{text}")?;
            }
            out.flush()
        };
        print().context(NO_OUTPUT)
    }

    /// Prints one line of a result that comes row by row.
    pub(crate) fn line(text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").context(NO_OUTPUT)
    }

    /// Prints part of a result as it comes, for people only.
    pub(crate) fn say(self, text: &str) -> Result<()> {
        if !self.json && !self.quiet {
            Self::line(text)?;
        }
        Ok(())
    }

    /// Tells what is going on, on standard error.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            // A closed standard error is no reason to stop.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Tells details that `-v` asks for.
    pub(crate) fn detail(self, text: &str) {
        if self.verbose > 0 {
            self.note(text);
        }
    }

    /// What a server's log says, as long as `LOG_LEVEL` does not say otherwise.
    pub(crate) fn log_level(self) -> &'static str {
        match (self.quiet, self.verbose) {
            (true, _) => "warn",
            (false, 0) => "info",
            (false, _) => "debug",
        }
    }

    /// A progress bar on standard error; silent when that is no terminal or `--quiet` is given.
    pub(crate) fn bar(self, length: u64, what: &str) -> ProgressBar {
        let bar = if self.quiet || !io::stderr().is_terminal() {
            ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden())
        } else {
            ProgressBar::new(length)
        };
        let style = "{prefix:>12} {bar:32} {pos}/{len} · {elapsed} · ETA {eta} {msg}";
        let style = ProgressStyle::with_template(style).expect("the template is valid");
        bar.with_style(style.progress_chars("━╸ "))
            .with_prefix(what.to_owned())
    }
}
