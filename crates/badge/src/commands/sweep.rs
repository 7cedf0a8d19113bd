//! `badge sweep`: the speed-score curves of a model's policies.

use std::path::PathBuf;

use anyhow::{Context, Result};
use badge_lab::evaluation::Subject;
use badge_lab::inference::Inference;
use badge_lab::record::{RECORD_FILE, now};
use badge_lab::sweep::{Family, Origin, Sweep, curve_table};
use clap::Args;
use serde::Serialize;

use super::held_out::{HeldOut, HeldOutArgs, LogitsFile, check_out, write_logits};
use super::{Session, Verdict};

/// What `--policies` says for every policy that the model can run.
pub(super) const ALL: &str = "all";

/// Flags of `badge sweep`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge sweep --model runs/rte --task rte --data glue/RTE --out curves"
)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    held_out: HeldOutArgs,
    /// dev, test, train, or official-test where the corpus has a labelled one
    #[arg(long, default_value = "dev")]
    split: String,
    /// Policies to draw curves of, separated by commas: dge, entropy, maxprob, patience, pcee,
    /// flexible-patience, vote, fixed; or all that the model can run
    #[arg(long, value_name = "all|NAMES", default_value = ALL)]
    policies: String,
    /// Folder to write curve.csv, curve.json, curve.svg, report.html and record.json to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rows to take the time of at batch size 1 under every policy worth it; 0 for none
    #[arg(long, value_name = "ROWS", default_value_t = 200)]
    timed_rows: usize,
}

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    sweep: &'a Sweep,
    logits: LogitsFile,
}

pub(crate) fn run(args: &SweepArgs, session: Session) -> Result<Verdict> {
    let started = now();
    check_out(&args.out)?;
    let named = families(&args.policies).context("--policies")?;
    let (mut held_out, mut model) = HeldOut::open(args.held_out.wanted(&args.split), session)?;
    if let Err(error) = held_out.use_calibration() {
        let without = "maxprob is drawn without temperatures";
        session.console.note(&format!("note: {error:#}; {without}"));
    }
    let subject = held_out.subject();
    let families = runnable(&args.policies, named, (&subject, session))?;
    let (_, logits) = held_out.evaluate(&mut *model, session)?;
    let origin = Origin {
        task: &held_out.data.task.name,
        computed_by: &model.provenance(),
    };
    let mut sweep = Sweep::replay(&subject, &logits, &families, origin)?;
    measure(
        &mut sweep,
        (&held_out, &mut *model),
        args.timed_rows,
        session,
    )?;
    sweep.write(&args.out)?;
    let outcome = Outcome {
        logits: write_logits(&args.out, &logits, &sweep.split)?,
        sweep: &sweep,
    };
    let record = held_out.record("sweep", session, &sweep.computed_by)?;
    let mut record = record.started(started);
    record.configuration = args.configuration(&families);
    record.results = serde_json::to_value(&outcome)?;
    record.finished(now()).write(&args.out.join(RECORD_FILE))?;
    session.console.result(&outcome, &args.report(&sweep))?;
    Ok(Verdict::Done)
}

impl SweepArgs {
    fn configuration(&self, families: &[Family]) -> serde_json::Value {
        self.held_out.configuration(serde_json::json!({
            "split": self.split, "policies": families, "timed_rows": self.timed_rows,
        }))
    }

    fn report(&self, sweep: &Sweep) -> String {
        let Sweep {
            task,
            split,
            rows,
            metric,
            computed_by,
            divergence,
            ..
        } = sweep;
        format!(
            "{task}, {split} split, {rows} rows, {metric} in percent; computed by {computed_by}\n\
             {} policies, dge by divergence {divergence}; those that no other of their kind beats \
             in both\nscore and layer speed-up:\n\n{}\nIn {}: report.html, curve.svg, curve.csv, \
             curve.json, record.json.\n",
            sweep.points.len(),
            curve_table(sweep).to_text(),
            self.out.display(),
        )
    }
}

/// Of the policies named those that the model can run. Each that is named by itself must be one; of
/// all, the others are told of.
pub(super) fn runnable(
    names: &str,
    named: Vec<Family>,
    (subject, session): (&Subject, Session),
) -> Result<Vec<Family>> {
    let exits = subject.model_exits;
    let mut families = Vec::new();
    for family in named {
        match family.check(exits) {
            Ok(()) => families.push(family),
            Err(error) if names == ALL => {
                let console = session.console;
                console.note(&format!("note: {family} is left out: {error}"));
            }
            Err(error) => return Err(error.context("--policies")),
        }
    }
    Ok(families)
}

/// The policies that `--policies` names, each once.
pub(super) fn families(names: &str) -> Result<Vec<Family>> {
    if names == ALL {
        return Ok(Family::CURVES.to_vec());
    }
    let mut families = Vec::new();
    for name in names.split(',') {
        let family = name.trim().parse().map_err(anyhow::Error::msg)?;
        if !families.contains(&family) {
            families.push(family);
        }
    }
    Ok(families)
}

fn measure(
    sweep: &mut Sweep,
    (held_out, model): (&HeldOut, &mut dyn Inference),
    rows_max: usize,
    session: Session,
) -> Result<()> {
    let rows = rows_max.min(held_out.split().len());
    let steps = rows * sweep.worth_timing().len();
    let bar = session.console.bar(steps as u64, "timing");
    let result = sweep.measure(&held_out.subject(), model, rows_max, &mut |rows| {
        bar.inc(rows as u64);
    });
    bar.finish_and_clear();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_named_once_or_all_together() {
        assert_eq!(families("all").unwrap(), Family::CURVES);
        assert_eq!(
            families("fixed, dge,fixed").unwrap(),
            [Family::Fixed, Family::Dge]
        );
        let told = families("psychic").unwrap_err().to_string();
        assert!(
            told.contains("`psychic`") && told.contains("dge, entropy, maxprob"),
            "{told}"
        );
    }
}
