//! `badge bench latency`: milliseconds of a batch.

use anyhow::{Result, ensure};
use badge_core::policy::PolicySpec;
use badge_engine::{EngineOptions, Profiling};
use badge_lab::bench::latency::{Latency, LatencyBench};
use badge_lab::bench::timing::Repeats;
use badge_lab::bench::{Subject, check_lengths, policy, read_config};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::sources;
use super::{Bench, EngineArgs, check_out};

/// Flags of `badge bench latency`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench latency --model runs/rte --lengths 16,64 --depths --exits all\n\n\
    Inputs are random token ids; what they are changes nothing about the time of a given depth."
)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Tokens of an input; several joined by commas
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_values_t = [16, 32, 64, 128])]
    lengths: Vec<usize>,
    /// Inputs of a batch
    #[arg(long, value_name = "INPUTS", default_value_t = 1)]
    batch: usize,
    /// Timed runs of each point, after three that are not
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// When to leave the network, such as dge:tau=0.3,t=2
    #[arg(long, value_name = "SPEC", default_value_t = PolicySpec::Full)]
    policy: PolicySpec,
    /// Also time every depth, in turns with the full one
    #[arg(long)]
    depths: bool,
    /// `all`: also time the evaluation of every exit, in turns with the plain forward pass
    #[arg(long, value_name = "WHICH")]
    exits: Option<Exits>,
    /// Also take the time of every operation, in runs of their own
    #[arg(long)]
    profile: bool,
}

/// Exits whose cost is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Exits {
    /// Every exit, and a policy that is never satisfied.
    All,
}

pub(super) fn run(args: &LatencyArgs, bench: &Bench) -> Result<()> {
    let session = bench.session;
    check_out(&args.engine.out)?;
    let repeats = Repeats::new("--runs", args.runs)?;
    ensure!(
        (1..=65_536).contains(&args.batch),
        "--batch: {} does not lie in 1..=65536",
        args.batch
    );
    let directory = sources::model_directory(&args.engine.model, session.console)?;
    let config = read_config(&directory)?;
    check_lengths("--lengths", &args.lengths, &config)?;
    policy(&config, &args.policy)?;
    let longest = *args.lengths.iter().max().expect("checked: there is one");
    let precisions = args.engine.precisions.all();
    let peaks = bench.peaks_of(&precisions);
    let mut measured = Latency::new();
    let points = precisions.len() * args.lengths.len();
    let bar = session.console.bar(points as u64, "latency");
    for precision in precisions {
        let mut options = EngineOptions {
            tokens_max: longest * args.batch,
            sequences_max: args.batch,
            ..args.engine.options(precision, bench)
        };
        let mut subject = Subject::load(&directory, options.clone(), &peaks.all_threads)?;
        for length in &args.lengths {
            let batch = (args.batch, *length);
            args.measure(subject.latency(batch, repeats, session.seed), &mut measured)?;
            bar.inc(1);
        }
        if args.profile {
            options.profiling = Profiling::On;
            subject = Subject::load(&directory, options, &peaks.all_threads)?;
            for length in &args.lengths {
                let mut batch = subject.latency((args.batch, *length), repeats, session.seed);
                measured.operations.extend(batch.operations(&args.policy)?);
            }
        }
    }
    bar.finish_and_clear();
    let report = bench.report("bench latency", Some(peaks), measured);
    let text = report.measured.to_text();
    let provenance = args.engine.provenance(&directory, args.configuration())?;
    bench.finish(&report, &text, provenance)
}

impl LatencyArgs {
    fn measure(&self, mut bench: LatencyBench<'_>, measured: &mut Latency) -> Result<()> {
        measured.rows.push(bench.under(&self.policy)?);
        if self.depths {
            measured.depths.extend(bench.at_every_depth()?);
        }
        if self.exits == Some(Exits::All) {
            measured.exits.push(bench.with_all_exits()?);
        }
        Ok(())
    }

    fn configuration(&self) -> serde_json::Value {
        json!({
            "model": sources::label(&self.engine.model), "precision": self.engine.precisions.names(),
            "cls_first": self.engine.cls_first.name(), "exits_wait": self.engine.exits_wait.name(),
            "lengths": self.lengths, "batch": self.batch, "runs": self.runs, "policy": self.policy,
            "depths": self.depths, "exits": self.exits.map(|Exits::All| "all"),
            "profile": self.profile,
        })
    }
}
