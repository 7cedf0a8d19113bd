//! `badge bench controller`: the SLO controller against a model of a server.

use std::collections::BTreeMap;

use anyhow::Result;
use badge_lab::simulation::{
    BATCH_MAX, BATCH_SECONDS, PROMISE, Plan, REQUEST_SECONDS, TIGHT_PROMISE, capacity,
};
use clap::Args;
use serde_json::json;

use super::{Bench, OutArgs, Provenance, check_out};

/// Flags of `badge bench controller`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench controller --out simulation.json\n\n\
    Nothing is measured here: server and arrivals are simulated, and the figures are the same on \
    every machine."
)]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    out: OutArgs,
}

pub(super) fn run(args: &ControllerArgs, bench: &Bench) -> Result<()> {
    check_out(&args.out)?;
    let plan = Plan::standard(bench.session.seed);
    let simulation = plan.run()?;
    let text = simulation.to_text();
    let report = bench.report("bench controller", None, simulation);
    let provenance = Provenance {
        configuration: json!({
            "batch_max": BATCH_MAX,
            "batch_seconds": BATCH_SECONDS, "request_seconds": REQUEST_SECONDS,
            "capacity_full": capacity(1.0), "capacity_floor": capacity(PROMISE.floor),
            "capacity_floor_tight": capacity(TIGHT_PROMISE.floor),
        }),
        precisions: Vec::new(),
        data: BTreeMap::new(),
        out: &args.out,
    };
    bench.finish(&report, &text, provenance)
}
