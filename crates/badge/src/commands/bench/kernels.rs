//! `badge bench kernels`: each kernel, beside the machine's measured peaks.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use badge_engine::kernels::threads::Pool;
use badge_lab::bench::kernels::{BlockSizes, KernelBench, Kernels};
use badge_lab::bench::machine::Peaks;
use badge_lab::bench::read_config;
use badge_lab::bench::timing::Repeats;
use clap::Args;
use serde_json::json;

use super::super::{Session, sources};
use super::{Bench, OutArgs, PrecisionArgs, Provenance, check_out};

/// Flags of `badge bench kernels`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench kernels --threads 1 --rows 32,128\n\n\
    The environment variable BADGE_ISA (scalar, avx2, avx512, amx) forces an instruction set."
)]
pub(crate) struct KernelsArgs {
    /// Measure the machine alone: multiply-adds in each precision, reading from memory
    #[arg(long)]
    peaks_only: bool,
    /// Model whose sizes to take [default: those of ALBERT-base and of 12 blocks of size 384]
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: Option<String>,
    #[command(flatten)]
    precisions: PrecisionArgs,
    /// Tokens that a kernel is given; several joined by commas
    #[arg(long, value_name = "ROWS", value_delimiter = ',', default_values_t = [1, 16, 32, 64, 128])]
    rows: Vec<usize>,
    /// Timed runs of each kernel, after three that are not
    #[arg(long, value_name = "N", default_value_t = 30)]
    runs: usize,
    #[command(flatten)]
    out: OutArgs,
}

pub(super) fn run(args: &KernelsArgs, bench: &Bench) -> Result<()> {
    let session = bench.session;
    check_out(&args.out)?;
    let repeats = Repeats::new("--runs", args.runs)?;
    for rows in &args.rows {
        ensure!(
            (1..=65_536).contains(rows),
            "--rows: {rows} does not lie in 1..=65536"
        );
    }
    let sizes = args.sizes(session)?;
    let peaks = Peaks::measure(bench.isa, session.threads);
    let mut measured = Kernels::default();
    if !args.peaks_only {
        let pool = Pool::new(bench.isa, session.threads);
        let kernels = KernelBench {
            pool: &pool,
            peaks: &peaks,
            repeats,
            precisions: &args.precisions.all(),
        };
        let bar = session
            .console
            .bar((sizes.len() * args.rows.len()) as u64, "kernels");
        for sizes in &sizes {
            for rows in &args.rows {
                measured.rows.extend(kernels.block(sizes, *rows));
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
    }
    let text = if args.peaks_only {
        String::new()
    } else {
        measured.to_text()
    };
    let report = bench.report("bench kernels", Some(peaks), measured);
    let provenance = Provenance {
        configuration: args.configuration(),
        precisions: args.precisions.names(),
        data: BTreeMap::new(),
        out: &args.out,
    };
    bench.finish(&report, &text, provenance)
}

impl KernelsArgs {
    fn sizes(&self, session: Session) -> Result<Vec<BlockSizes>> {
        let Some(model) = &self.model else {
            return Ok(BlockSizes::references());
        };
        let directory = sources::model_directory(model, session.console)?;
        let config = read_config(&directory)?;
        Ok(vec![BlockSizes::of(sources::label(model), &config)])
    }

    fn configuration(&self) -> serde_json::Value {
        json!({
            "model": self.model.as_deref().map(sources::label), "rows": self.rows, "runs": self.runs,
            "precision": self.precisions.names(), "peaks_only": self.peaks_only,
        })
    }
}
