//! `badge calibrate`: an operating point, chosen on dev, and what is promised of it.

mod asked;
mod report;

use std::time::Instant;

use anyhow::Result;
use badge_core::calibration::temperature::Temperature;
use badge_core::calibration::{ExitCalibration, LossKind, Method};
use badge_lab::calibration::cache::{Inputs, LogitsCache};
use badge_lab::calibration::{
    self, CALIBRATION_RECORD_FILE, Origin, Outcome, Refusal, Search, calibrate, temperatures,
};
use badge_lab::inference::Provenance;
use badge_lab::record::now;
use badge_lab::replay::DevOutputs;
use badge_tasks::hash::model_sha256;
use badge_train::evaluate::ExitLogits;
use clap::{ArgGroup, Args};
use serde::Serialize;

use self::asked::Asked;
use super::held_out::{HeldOut, HeldOutArgs};
use super::sweep::{ALL, runnable};
use super::{Session, Verdict};

/// Flags of `badge calibrate`.
#[derive(Debug, Clone, Args)]
#[command(
    group(ArgGroup::new("goal").required(true).args(["target_speedup", "max_drop", "min_score"])),
    after_help = "Example:\n  badge calibrate --model runs/mrpc --task mrpc --data glue/MRPC \
    --max-drop 0.02 --confidence 0.95"
)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    held_out: HeldOutArgs,
    /// The best score at this layer speed-up or more: 2 runs half of the blocks
    #[arg(long, value_name = "X")]
    target_speedup: Option<f64>,
    /// The fastest policy that scores at most this much below the full model: 0.01 is one point
    #[arg(long, value_name = "D")]
    max_drop: Option<f64>,
    /// The fastest policy with at least this score: 0.85 is 85 percent
    #[arg(long, value_name = "S")]
    min_score: Option<f64>,
    /// Certify the choice: the promise holds with this probability over the draw of the dev rows
    #[arg(long, value_name = "P")]
    confidence: Option<f64>,
    /// How to certify: ltt (learn then test) with --confidence, or crc (conformal risk control),
    /// whose promise holds in expectation [default: ltt with --confidence]
    #[arg(long, value_name = "ltt|crc")]
    method: Option<Method>,
    /// What the promise bounds: excess (wrong where the full model is right), disagreement
    /// (answers otherwise than the full model) or, with --min-score, error [default: excess]
    #[arg(long, value_name = "LOSS")]
    loss: Option<LossKind>,
    /// Policies to try, separated by commas: dge, entropy, maxprob, patience, lte,
    /// pcee, flexible-patience, vote, fixed; or all that the model can run
    #[arg(long, value_name = "all|NAMES", default_value = ALL)]
    policies: String,
    /// dev, and no other: points are chosen on dev and reported on test
    #[arg(long, default_value = "dev")]
    split: String,
}

/// What the command answers.
#[derive(Debug, Serialize)]
struct Answer {
    task: String,
    split: String,
    split_sha256: String,
    metric: String,
    rows: usize,
    computed_by: Provenance,
    /// Whether the logits were at hand, and how long replaying all policies took.
    logits_from_cache: bool,
    search_seconds: f64,
    policies_tried: usize,
    full_score: f64,
    temperatures: Vec<ExitTemperature>,
    calibration: Option<ExitCalibration>,
    promise: Option<String>,
    refusal: Option<Refused>,
}

#[derive(Debug, Serialize)]
struct ExitTemperature {
    exit: usize,
    temperature: f64,
    nll_before: f64,
    nll_after: f64,
}

#[derive(Debug, Serialize)]
struct Refused {
    #[serde(flatten)]
    refusal: Refusal,
    text: String,
}

pub(crate) fn run(args: &CalibrateArgs, session: Session) -> Result<Verdict> {
    let started = now();
    let mut asked = Asked::of(args)?;
    let mut held_out = HeldOut::describe(args.held_out.wanted(&args.split), session)?;
    let subject = held_out.subject();
    asked.families = runnable(&args.policies, asked.families, (&subject, session))?;
    let request = asked.request(&held_out, session)?;
    let model_sha256 = model_sha256(&held_out.directory)?;
    let computed_by = args
        .held_out
        .computing
        .options(session)
        .provenance(&held_out.config)?;
    let inputs = Inputs {
        model_sha256: &model_sha256,
        rows_sha256: &subject.encoded.sha256(),
        computed_by: &computed_by,
    };
    let (logits, cached) = args.logits(&held_out, inputs, session)?;
    let fitted = temperatures(&logits, &subject.split.targets()?, subject.labels);
    // A promise rests on rows that had no part in making the policies it is tested on.
    if request.promise.is_none() {
        held_out.set_temperatures(&fitted)?;
    }
    let subject = held_out.subject();
    let dev = DevOutputs::new(subject, &logits)?;
    let clock = Instant::now();
    let search = calibrate(&dev, &request)?;
    let origin = Origin {
        task: &held_out.data.task.name,
        model_sha256: &model_sha256,
        computed_by: &computed_by,
        temperatures: &fitted,
        max_length: held_out.max_length,
    };
    let calibration = search.calibration(&dev, origin);
    if let Some(calibration) = &calibration {
        calibration::write(calibration, &held_out.directory)?;
    }
    let answer = Answer {
        task: origin.task.to_owned(),
        split: held_out.split_name(),
        split_sha256: subject.split.sha256.clone(),
        metric: subject.metric.name().to_owned(),
        rows: dev.rows(),
        computed_by: computed_by.clone(),
        logits_from_cache: cached,
        search_seconds: clock.elapsed().as_secs_f64(),
        policies_tried: search.candidates().count(),
        full_score: search.full.replayed.score,
        temperatures: exit_temperatures(&held_out, &fitted),
        promise: promise(&search),
        refusal: refused(&search),
        calibration,
    };
    if answer.calibration.is_some() {
        let mut record = held_out.record("calibrate", session, &computed_by)?;
        record = record.started(started);
        record.configuration = args.configuration(&asked);
        record.results = serde_json::to_value(&answer)?;
        let path = held_out.directory.join(CALIBRATION_RECORD_FILE);
        record.finished(now()).write(&path)?;
    }
    session
        .console
        .result(&answer, &report::text(&answer, &search, args))?;
    Ok(match search.outcome {
        Outcome::Chosen(..) => Verdict::Done,
        Outcome::Refused(_) => Verdict::No,
    })
}

impl CalibrateArgs {
    fn configuration(&self, asked: &Asked) -> serde_json::Value {
        self.held_out.configuration(serde_json::json!({
            "split": self.split, "goal": asked.goal, "confidence": self.confidence,
            "method": self.method, "loss": self.loss, "policies": asked.families,
        }))
    }

    /// The logits of every exit: from the model directory if they are there, else computed and
    /// kept there. Says which it was.
    fn logits(
        &self,
        held_out: &HeldOut,
        inputs: Inputs<'_>,
        session: Session,
    ) -> Result<(ExitLogits, bool)> {
        let cache = LogitsCache::new(&held_out.directory, inputs);
        if let Some(logits) = cache.read(held_out.split().len(), &held_out.config) {
            return Ok((logits, true));
        }
        let mut model = self.held_out.computing.open(&held_out.directory, session)?;
        let (_, logits) = held_out.evaluate(&mut *model, session)?;
        cache.write(&logits)?;
        Ok((logits, false))
    }
}

fn exit_temperatures(held_out: &HeldOut, fitted: &[Temperature]) -> Vec<ExitTemperature> {
    let plan = held_out.config.exits().exits;
    let exits = plan.depths().iter().zip(fitted);
    let of_exit = |(depth, fitted): (&badge_core::exit::Depth, &Temperature)| ExitTemperature {
        exit: depth.0,
        temperature: fitted.value,
        nll_before: fitted.nll_before,
        nll_after: fitted.nll_after,
    };
    exits.map(of_exit).collect()
}

fn promise(search: &Search) -> Option<String> {
    match &search.outcome {
        Outcome::Chosen(_, Some(certificate)) => Some(certificate.promise()),
        _ => None,
    }
}

fn refused(search: &Search) -> Option<Refused> {
    match &search.outcome {
        Outcome::Chosen(..) => None,
        Outcome::Refused(refusal) => Some(Refused {
            refusal: *refusal,
            text: calibration::refusal_text(refusal, search.goal),
        }),
    }
}
