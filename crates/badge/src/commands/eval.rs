//! `badge eval`: the score of every exit, and what a policy saves.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use badge_core::policy::PolicySpec;
use badge_lab::agreement::{Agreement, Computed, exit_agreement_table, point_agreement_table};
use badge_lab::evaluation::{Evaluation, PolicyEvaluation};
use badge_lab::inference::{Inference, Provenance};
use badge_lab::record::{RECORD_FILE, now};
use badge_lab::tables::{exit_table, policy_table};
use badge_train::evaluate::ExitLogits;
use clap::Args;
use serde::Serialize;

use super::computing::Yardstick;
use super::held_out::{HeldOut, HeldOutArgs, LogitsFile, check_out, write_logits};
use super::{Session, Verdict};

/// Flags of `badge eval`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge eval --model runs/rte --task rte --data glue/RTE \
    --split test --policy dge:tau=0.3,t=2 --policy fixed:6"
)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    held_out: HeldOutArgs,
    /// dev, test, train, or official-test where the corpus has a labelled one
    #[arg(long, default_value = "test")]
    split: String,
    /// A policy to run row by row at batch size 1, such as dge:tau=0.3,t=2; may be given again
    #[arg(long, value_name = "SPEC")]
    policy: Vec<PolicySpec>,
    /// Replay policies over the logits of all exits instead of running them row by row: fast, but
    /// without wall-clock figures
    #[arg(long)]
    replay: bool,
    /// Compute the rows a second time, by the engine in another precision or by the trainer, and
    /// tell how far labels, exits and scores agree
    #[arg(long, value_name = "f32|bf16|int8|trainer")]
    compare: Option<Yardstick>,
    /// Folder to write record.json and the logits of every exit to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    task: String,
    split: String,
    split_sha256: String,
    metric: String,
    computed_by: Provenance,
    evaluation: Evaluation,
    policies: Vec<PolicyEvaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<Agreement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<LogitsFile>,
}

pub(crate) fn run(args: &EvalArgs, session: Session) -> Result<Verdict> {
    let started = now();
    if let Some(out) = &args.out {
        check_out(out)?;
    }
    let (mut held_out, mut model) = HeldOut::open(args.held_out.wanted(&args.split), session)?;
    if args.policy.iter().any(PolicySpec::needs_calibration) {
        held_out.use_calibration()?;
    }
    let subject = held_out.subject();
    for spec in &args.policy {
        for caveat in subject.policy(spec)?.caveats() {
            session.console.note(&format!("note: {spec}: {caveat}"));
        }
    }
    let (evaluation, logits) = held_out.evaluate(&mut *model, session)?;
    let policies = if args.replay {
        args.policy
            .iter()
            .map(|spec| subject.replay(spec, &logits))
            .collect::<Result<_>>()?
    } else {
        args.run_policies(&held_out, (&mut *model, &logits), session)?
    };
    let mut outcome = Outcome {
        task: held_out.data.task.name.clone(),
        split: held_out.split_name(),
        split_sha256: subject.split.sha256.clone(),
        metric: subject.metric.name().to_owned(),
        computed_by: model.provenance(),
        evaluation,
        policies,
        agreement: args.agreement(&held_out, &logits, session)?,
        logits: None,
    };
    if let Some(out) = &args.out {
        outcome.logits = Some(write_logits(out, &logits, &outcome.split)?);
        let record = held_out.record("eval", session, &outcome.computed_by)?;
        let mut record = record.started(started);
        record.configuration = args.configuration();
        record.results = serde_json::to_value(&outcome)?;
        record.finished(now()).write(&out.join(RECORD_FILE))?;
    }
    session.console.result(&outcome, &report(&outcome))?;
    Ok(Verdict::Done)
}

impl EvalArgs {
    fn configuration(&self) -> serde_json::Value {
        self.held_out.configuration(serde_json::json!({
            "split": self.split, "replay": self.replay, "policies": self.policy,
            "compare": self.compare.map(|yardstick| yardstick.to_string()),
        }))
    }

    fn run_policies(
        &self,
        held_out: &HeldOut,
        (model, logits): (&mut dyn Inference, &ExitLogits),
        session: Session,
    ) -> Result<Vec<PolicyEvaluation>> {
        let subject = held_out.subject();
        let rows = self.policy.len() * subject.split.len();
        let bar = session.console.bar(rows as u64, "policies");
        let mut on_row = |rows| bar.inc(rows as u64);
        let policies = self.policy.iter();
        let policies = policies
            .map(|spec| subject.run(&mut *model, (spec, logits), &mut on_row))
            .collect();
        bar.finish_and_clear();
        policies
    }

    /// The same rows computed by the yardstick, if one was named.
    fn agreement(
        &self,
        held_out: &HeldOut,
        logits: &ExitLogits,
        session: Session,
    ) -> Result<Option<Agreement>> {
        let Some(yardstick) = self.compare else {
            return Ok(None);
        };
        let mut model = yardstick.computing().open(&held_out.directory, session)?;
        let (_, reference) = held_out.evaluate(&mut *model, session)?;
        let computed = Computed {
            logits,
            reference: &reference,
        };
        let by = model.provenance();
        Agreement::of(&held_out.subject(), computed, &self.policy, by).map(Some)
    }
}

fn report(outcome: &Outcome) -> String {
    let Outcome {
        task,
        split,
        metric,
        computed_by,
        evaluation,
        policies,
        ..
    } = outcome;
    let rows = evaluation.rows;
    let mut text = format!(
        "{task}, {split} split, {rows} rows, {metric} in percent; computed by {computed_by}\n\n"
    );
    text += &exit_table(evaluation).to_text();
    if !policies.is_empty() {
        text += "\n";
        text += &policy_table(policies).to_text();
    }
    if let Some(agreement) = &outcome.agreement {
        let _ = writeln!(text, "\nHeld against {}:\n", agreement.reference);
        text += &exit_agreement_table(agreement).to_text();
        text += "\n";
        text += &point_agreement_table(agreement).to_text();
    }
    text
}
