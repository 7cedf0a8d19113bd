//! `badge bench load`: milliseconds to load a model, and the memory it takes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use badge_engine::{EngineOptions, Precision};
use badge_lab::bench::load::{Load, load};
use badge_lab::bench::timing::Repeats;
use badge_lab::bench::{check_lengths, read_config};
use clap::Args;
use serde_json::json;

use super::super::sources;
use super::{Bench, EngineArgs, check_out};

/// Flags of `badge bench load`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench load --model runs/rte --precision int8\n\n\
    Each precision is loaded by a process of its own, so that memory is told apart."
)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Room in the workspace for so many tokens at once
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    tokens: usize,
    /// Timed loads
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
}

pub(super) fn run(args: &LoadArgs, bench: &Bench) -> Result<()> {
    let session = bench.session;
    check_out(&args.engine.out)?;
    let repeats = Repeats::new("--runs", args.runs)?;
    let directory = sources::model_directory(&args.engine.model, session.console)?;
    let config = read_config(&directory)?;
    check_lengths("--tokens", &[args.tokens], &config)?;
    let precisions = args.engine.precisions.all();
    let bar = session.console.bar(precisions.len() as u64, "load");
    let mut measured = Load { rows: Vec::new() };
    if let [precision] = precisions[..] {
        let options = EngineOptions {
            tokens_max: args.tokens,
            sequences_max: 1,
            ..args.engine.options(precision, bench)
        };
        measured
            .rows
            .push(load(&directory, &options, (repeats, session.seed))?);
    } else {
        for precision in precisions {
            measured
                .rows
                .extend(args.alone(&directory, precision, bench)?.rows);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let report = bench.report("bench load", None, measured);
    let text = report.measured.to_text();
    let provenance = args.engine.provenance(&directory, args.configuration())?;
    bench.finish(&report, &text, provenance)
}

impl LoadArgs {
    /// Measures one precision in a new process, whose memory holds nothing else.
    fn alone(&self, directory: &Path, precision: Precision, bench: &Bench) -> Result<Load> {
        let program = std::env::current_exe().context("the program's own path is not known")?;
        let output = Command::new(program)
            .args(["bench", "load", "--json", "--quiet", "--model"])
            .arg(directory)
            .args(["--precision", precision.name()])
            .args(["--tokens", &self.tokens.to_string()])
            .args(["--runs", &self.runs.to_string()])
            .args(["--threads", &bench.session.threads.to_string()])
            .args(["--seed", &bench.session.seed.to_string()])
            .output()
            .context("the program cannot start itself")?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            let told = told.trim();
            bail!("{}", told.strip_prefix("error: ").unwrap_or(told));
        }
        let loaded: Load = serde_json::from_slice(&output.stdout)
            .context("the program's own result cannot be read")?;
        ensure!(
            loaded.rows.len() == 1,
            "{precision}: {} rows",
            loaded.rows.len()
        );
        Ok(loaded)
    }

    fn configuration(&self) -> serde_json::Value {
        json!({
            "model": sources::label(&self.engine.model), "precision": self.engine.precisions.names(),
            "cls_first": self.engine.cls_first.name(), "exits_wait": self.engine.exits_wait.name(),
            "tokens": self.tokens, "runs": self.runs,
        })
    }
}
