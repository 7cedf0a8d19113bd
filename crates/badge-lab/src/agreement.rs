//! How far the answers of two computations of one model agree: bf16 or int8 with f32, or the
//! engine with the trainer.

use anyhow::Result;
use badge_core::policy::PolicySpec;
use badge_tasks::LabelSpace;
use badge_train::evaluate::ExitLogits;
use serde::{Deserialize, Serialize};

use crate::evaluation::{Subject, share_of_equals};
use crate::inference::Provenance;
use crate::table::{Column, Table};
use crate::tables::percent;

/// One computation held against another on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// What the reference was computed by.
    pub reference: Provenance,
    /// Number of rows.
    pub rows: usize,
    /// Exit by exit, every row answered there.
    pub exits: Vec<ExitAgreement>,
    /// Policy by policy, replayed over the logits of each.
    pub points: Vec<PointAgreement>,
}

/// Agreement at one exit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitAgreement {
    /// The exit's depth.
    pub depth: usize,
    /// Its score.
    pub score: f64,
    /// Its score in the reference.
    pub reference_score: f64,
    /// Share of rows with the same answer; none for regression, whose answers are numbers.
    pub label_agreement: Option<f64>,
    /// The largest absolute difference of a logit.
    pub largest_difference: f32,
    /// The mean absolute difference of a logit.
    pub mean_difference: f64,
}

/// Agreement under one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointAgreement {
    /// The policy.
    pub policy: PolicySpec,
    /// Its score.
    pub score: f64,
    /// Its score in the reference.
    pub reference_score: f64,
    /// Share of rows with the same answer; none for regression.
    pub label_agreement: Option<f64>,
    /// Share of rows that left at the same exit.
    pub exit_agreement: f64,
    /// M / mean exit.
    pub layer_speedup: f64,
    /// The same in the reference.
    pub reference_layer_speedup: f64,
}

/// The logits of every exit on the same rows, computed twice.
#[derive(Debug, Clone, Copy)]
pub struct Computed<'a> {
    /// By what is examined.
    pub logits: &'a ExitLogits,
    /// By the reference.
    pub reference: &'a ExitLogits,
}

impl Agreement {
    /// Compares two computations exit by exit and under `full` and the given policies.
    ///
    /// # Errors
    /// When a policy does not fit the model, a logit is not finite or a row has no label.
    ///
    /// # Panics
    /// When the two do not hold logits of the same rows and exits.
    pub fn of(
        subject: &Subject,
        computed: Computed<'_>,
        policies: &[PolicySpec],
        reference: Provenance,
    ) -> Result<Self> {
        let Computed {
            logits,
            reference: expected,
        } = computed;
        assert_eq!(logits.values.len(), expected.values.len());
        let exits = (0..logits.exits).map(|exit| computed.at_exit(subject, exit));
        Ok(Self {
            reference,
            rows: logits.rows(),
            exits: exits.collect::<Result<_>>()?,
            points: computed.under(subject, policies)?,
        })
    }
}

impl Computed<'_> {
    fn at_exit(self, subject: &Subject, exit: usize) -> Result<ExitAgreement> {
        let Self { logits, reference } = self;
        let answers = logits.answers(exit, subject.labels);
        let expected = reference.answers(exit, subject.labels);
        let differences = (0..logits.rows()).flat_map(|row| {
            let pairs = logits.logits(row, exit).iter();
            pairs
                .zip(reference.logits(row, exit))
                .map(|(found, expected)| (found - expected).abs())
        });
        let count = logits.rows() * logits.outputs;
        let sum: f64 = differences.clone().map(f64::from).sum();
        Ok(ExitAgreement {
            depth: subject.config.exits().exits.depths()[exit].0,
            score: subject.split.score(subject.metric, &answers)?,
            reference_score: subject.split.score(subject.metric, &expected)?,
            label_agreement: of_labels(subject, &answers, &expected),
            largest_difference: differences.fold(0.0, f32::max),
            mean_difference: sum / count as f64,
        })
    }

    fn under(self, subject: &Subject, policies: &[PolicySpec]) -> Result<Vec<PointAgreement>> {
        let outputs = subject.outputs(self.logits)?;
        let expected = subject.outputs(self.reference)?;
        let full = PolicySpec::Full;
        let others = policies.iter().filter(|spec| **spec != full);
        let point = |spec: &PolicySpec| {
            let policy = subject.policy(spec)?;
            let (found, expected) = (outputs.replay(&policy), expected.replay(&policy));
            let score = |answers: &[_]| subject.split.score(subject.metric, answers);
            Ok(PointAgreement {
                policy: spec.clone(),
                score: score(&found.answers)?,
                reference_score: score(&expected.answers)?,
                label_agreement: of_labels(subject, &found.answers, &expected.answers),
                exit_agreement: share_of_equals(&found.depths, &expected.depths),
                layer_speedup: subject.cost(&policy, &found.depths).layer_speedup(),
                reference_layer_speedup: subject.cost(&policy, &expected.depths).layer_speedup(),
            })
        };
        std::iter::once(&full).chain(others).map(point).collect()
    }
}

/// Share of rows with the same answer, where answers are labels.
fn of_labels<T: PartialEq>(subject: &Subject, found: &[T], expected: &[T]) -> Option<f64> {
    let counts = *subject.labels != LabelSpace::Regression;
    counts.then(|| share_of_equals(found, expected))
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", 100.0 * share))
}

/// One row per exit.
pub fn exit_agreement_table(agreement: &Agreement) -> Table {
    let mut table = Table::new([
        Column::number("exit"),
        Column::number("score"),
        Column::number("reference"),
        Column::number("same label"),
        Column::number("largest difference"),
        Column::number("mean difference"),
    ]);
    for exit in &agreement.exits {
        table.push([
            exit.depth.to_string(),
            percent(exit.score),
            percent(exit.reference_score),
            share(exit.label_agreement),
            format!("{:.1e}", exit.largest_difference),
            format!("{:.1e}", exit.mean_difference),
        ]);
    }
    table
}

/// One row per policy.
pub fn point_agreement_table(agreement: &Agreement) -> Table {
    let mut table = Table::new([
        Column::text("policy"),
        Column::number("score"),
        Column::number("reference"),
        Column::number("same label"),
        Column::number("same exit"),
        Column::number("layer speed-up"),
        Column::number("reference"),
    ]);
    for point in &agreement.points {
        table.push([
            point.policy.to_string(),
            percent(point.score),
            percent(point.reference_score),
            share(point.label_agreement),
            share(Some(point.exit_agreement)),
            format!("{:.2}x", point.layer_speedup),
            format!("{:.2}x", point.reference_layer_speedup),
        ]);
    }
    table
}
