//! Policies over what every exit has said already, and what the rows behind it may be used for.
//!
//! Operating points are chosen on dev and reported on test. [`SplitOutputs`] holds a split's answers
//! together with its role as a type: [`calibrate`](crate::calibration::calibrate) takes
//! [`DevOutputs`] alone, and a test split cannot be made into them.

use std::marker::PhantomData;

use anyhow::{Result, ensure};
use badge_core::cost::ExitHistogram;
use badge_core::policy::{ExitPoint, Observation, Policy, PolicySpec};
use badge_tasks::split::SplitName;
use badge_train::evaluate::ExitLogits;
use rayon::prelude::*;

use crate::evaluation::{ExitOutputs, Subject};

/// Rows that one thread replays in a go: a row takes a microsecond, waking a thread several.
const ROWS_TOGETHER: usize = 256;

/// Where each row leaves under a policy, from what every exit says about it.
///
/// The rows are shared among threads; each is decided by itself, so that their number changes
/// nothing.
///
/// # Panics
/// When the policy was built for another model.
pub fn exit_points(policy: &Policy, outputs: &ExitOutputs) -> Vec<ExitPoint> {
    let rows: Vec<usize> = (0..outputs.predictions.len()).collect();
    let of_chunk = |chunk: &[usize]| {
        let mut state = policy.start();
        let point = |row: &usize| {
            let said = outputs.predictions[*row].iter();
            let said = said.zip(&outputs.continuations[*row]);
            let observations = said.map(|(prediction, continuation)| Observation {
                prediction,
                continue_probability: *continuation,
            });
            policy.replay(&mut state, observations)
        };
        chunk.iter().map(point).collect::<Vec<_>>()
    };
    if rows.len() <= ROWS_TOGETHER {
        return of_chunk(&rows);
    }
    rows.par_chunks(ROWS_TOGETHER)
        .flat_map_iter(of_chunk)
        .collect()
}

/// What the rows of a split may be used for.
pub trait Role {
    /// The one split that has it.
    const SPLIT: SplitName;
}

/// Rows that operating points are chosen on.
#[derive(Debug, Clone, Copy)]
pub enum Dev {}

/// Rows that nothing is chosen on, and that figures are reported from.
#[derive(Debug, Clone, Copy)]
pub enum Test {}

impl Role for Dev {
    const SPLIT: SplitName = SplitName::Dev;
}

impl Role for Test {
    const SPLIT: SplitName = SplitName::Test;
}

/// What every exit says about every row of a split, and what the rows are for.
///
/// Test rows do not go where dev rows are asked for:
///
/// ```compile_fail,E0308
/// use badge_lab::calibration::{Request, Search, calibrate};
/// use badge_lab::replay::TestOutputs;
///
/// fn choose(test: &TestOutputs, request: &Request) -> Search {
///     calibrate(test, request).unwrap()
/// }
/// ```
///
/// ```
/// use badge_lab::calibration::{Request, Search, calibrate};
/// use badge_lab::replay::DevOutputs;
///
/// fn choose(dev: &DevOutputs, request: &Request) -> Search {
///     calibrate(dev, request).unwrap()
/// }
/// ```
#[derive(Debug)]
pub struct SplitOutputs<'a, R> {
    subject: Subject<'a>,
    outputs: ExitOutputs,
    role: PhantomData<R>,
}

/// Those of a dev split, for choosing.
pub type DevOutputs<'a> = SplitOutputs<'a, Dev>;

/// Those of a test split, for reporting.
pub type TestOutputs<'a> = SplitOutputs<'a, Test>;

/// A policy on the rows of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Where each row left, as a place in the plan, from 0.
    pub places: Vec<usize>,
    /// The score S.
    pub score: f64,
    /// Mean depth at which rows left.
    pub mean_exit: f64,
    /// M / mean exit.
    pub layer_speedup: f64,
}

impl<'a, R: Role> SplitOutputs<'a, R> {
    /// Reads stored logits of the split that has this role.
    ///
    /// # Errors
    /// When it is another split, a logit is not finite, or a row has no label.
    pub fn new(subject: Subject<'a>, logits: &ExitLogits) -> Result<Self> {
        let (found, needed) = (subject.split.name, R::SPLIT);
        ensure!(
            found == needed,
            "these are rows of the {found} split, where those of {needed} are needed: operating \
             points are chosen on dev and reported on test"
        );
        subject.split.targets()?;
        Ok(Self {
            outputs: subject.outputs(logits)?,
            subject,
            role: PhantomData,
        })
    }

    /// The rows and the model.
    pub fn subject(&self) -> &Subject<'a> {
        &self.subject
    }

    /// What every exit says.
    pub fn outputs(&self) -> &ExitOutputs {
        &self.outputs
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.outputs.answers.len()
    }

    /// Replays a policy over the rows.
    ///
    /// # Errors
    /// When the policy does not fit the model.
    pub fn replay(&self, spec: &PolicySpec) -> Result<Replayed> {
        let policy = self.subject.policy(spec)?;
        let points = exit_points(&policy, &self.outputs);
        let rows = self.outputs.answers.iter().zip(&points);
        let answers: Vec<_> = rows
            .map(|(answers, at)| answers[at.position].clone())
            .collect();
        let depths = points.iter().map(|point| point.depth);
        let histogram = ExitHistogram::of(policy.plan(), depths);
        let speedup = histogram.layer_speedup();
        Ok(Replayed {
            places: points.iter().map(|point| point.position).collect(),
            score: self.subject.split.score(self.subject.metric, &answers)?,
            mean_exit: histogram.mean_depth().unwrap_or(0.0),
            layer_speedup: speedup.map_or(1.0, |speedup| speedup.0),
        })
    }
}
