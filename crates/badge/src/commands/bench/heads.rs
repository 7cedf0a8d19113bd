//! `badge bench heads`: what every form of exit costs.

use std::collections::BTreeMap;

use anyhow::Result;
use badge_lab::bench::check_lengths;
use badge_lab::bench::heads::{Form, heads};
use badge_lab::bench::shape::Shape;
use badge_lab::bench::timing::Repeats;
use clap::Args;
use serde_json::json;

use super::{Bench, OutArgs, Provenance, check_out, shapes};

/// Flags of `badge bench heads`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench heads --shape 12x384 --lengths 32,128 --threads 1\n\n\
    The trainer's model computes, for the engine does not know all forms; what exits cost there is \
    told by badge bench latency --exits all."
)]
pub(crate) struct HeadsArgs {
    /// Sizes of the backbone, whose weights are random
    #[arg(long, default_value = "albert-base", value_parser = shapes())]
    shape: String,
    /// Tokens of the row; several joined by commas
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_values_t = [32, 128])]
    lengths: Vec<usize>,
    /// Timed runs of each form, after three that are not
    #[arg(long, value_name = "N", default_value_t = 15)]
    runs: usize,
    #[command(flatten)]
    out: OutArgs,
}

pub(super) fn run(args: &HeadsArgs, bench: &Bench) -> Result<()> {
    let session = bench.session;
    check_out(&args.out)?;
    let repeats = Repeats::new("--runs", args.runs)?;
    let shape = Shape::ALL.into_iter().find(|s| s.name() == args.shape);
    let config = shape.expect("clap lets no other name through").config();
    check_lengths("--lengths", &args.lengths, &config)?;
    let total = Form::ALL.len() * args.lengths.len();
    let bar = session.console.bar(total as u64, "heads");
    let on = (repeats, session.seed);
    let measured = heads(&config, &args.lengths, on, &mut || bar.inc(1))?;
    bar.finish_and_clear();
    let report = bench.report("bench heads", None, measured);
    let text = report.measured.to_text();
    let provenance = Provenance {
        configuration: json!({
            "shape": args.shape, "lengths": args.lengths, "runs": args.runs,
        }),
        precisions: vec!["f32"],
        data: BTreeMap::new(),
        out: &args.out,
    };
    bench.finish(&report, &text, provenance)
}
