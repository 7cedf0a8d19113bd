//! What it costs to answer a row at an exit, as a number from 0 to 1.

use anyhow::{Context, Result};
use badge_core::calibration::{LossKind, LossRange, LossSum};
use badge_tasks::{LabelSpace, Target};

use crate::replay::DevOutputs;

/// The loss of every row at every exit.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTable {
    kind: LossKind,
    scale: Option<f64>,
    exits: usize,
    values: Vec<f64>,
}

impl LossTable {
    /// The losses of a dev split. `target_range` is needed for regression, where losses are shares
    /// of it and what exceeds it counts as 1.
    ///
    /// # Errors
    /// When a row has no label, or the range of the targets is missing or empty.
    pub fn new(dev: &DevOutputs, kind: LossKind, target_range: Option<f64>) -> Result<Self> {
        let mut scale = None;
        if *dev.subject().labels == LabelSpace::Regression {
            scale = target_range.filter(|range| *range > 0.0);
            scale.context("the training targets do not vary: no loss can be scaled")?;
        }
        let truth = dev.subject().split.targets()?;
        Ok(Self::of_answers(
            (kind, scale),
            &dev.outputs().answers,
            &truth,
        ))
    }

    /// The losses of answers, exit by exit for every row; `scale` is for regression.
    pub(super) fn of_answers(
        (kind, scale): (LossKind, Option<f64>),
        answers: &[Vec<Target>],
        truth: &[Target],
    ) -> Self {
        let losses = answers.iter().zip(truth).flat_map(|(answers, truth)| {
            let full = answers.last().expect("a model has an exit");
            let scale = scale.unwrap_or(1.0);
            let of = move |answer| (loss(kind, answer, full, truth) / scale).min(1.0);
            answers.iter().map(of)
        });
        Self {
            kind,
            scale,
            exits: answers.first().map_or(0, Vec::len),
            values: losses.collect(),
        }
    }

    /// A table of rows drawn from this one.
    #[cfg(test)]
    pub(super) fn of_drawn(&self, rows: &[usize]) -> Self {
        let row = |row: &usize| &self.values[row * self.exits..][..self.exits];
        Self {
            values: rows.iter().flat_map(row).copied().collect(),
            ..*self
        }
    }

    /// The values that a loss can have.
    pub fn range(&self) -> LossRange {
        match self.scale {
            None => LossRange::ZERO_OR_ONE,
            Some(_) => LossRange::up_to(1.0),
        }
    }

    /// For regression what a loss of 1 stands for.
    pub fn scale(&self) -> Option<f64> {
        self.scale
    }

    /// Whether the loss is 0 for the deepest exit's own answer.
    pub fn is_relative(&self) -> bool {
        self.kind != LossKind::Error
    }

    /// The losses of these rows, each left at its place in the plan; `places` has all rows.
    pub fn of_rows(&self, rows: &[usize], places: &[usize]) -> Vec<f64> {
        let loss = |row: &usize| self.values[row * self.exits + places[*row]];
        rows.iter().map(loss).collect()
    }

    /// Their sum.
    pub fn sum(&self, rows: &[usize], places: &[usize]) -> LossSum {
        LossSum::of(&self.of_rows(rows, places))
    }
}

/// The loss in rows, or in units of the target.
fn loss(kind: LossKind, answer: &Target, full: &Target, truth: &Target) -> f64 {
    if let (Target::Value(answer), Target::Value(full), Target::Value(truth)) =
        (answer, full, truth)
    {
        let [answer, full, truth] = [*answer, *full, *truth].map(f64::from);
        let (own, fulls) = ((answer - truth).abs(), (full - truth).abs());
        return match kind {
            LossKind::Excess => (own - fulls).max(0.0),
            LossKind::Error => own,
            LossKind::Disagreement => (answer - full).abs(),
        };
    }
    f64::from(match kind {
        LossKind::Excess => answer != truth && full == truth,
        LossKind::Error => answer != truth,
        LossKind::Disagreement => answer != full,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_what_their_names_say() {
        use LossKind::{Disagreement, Error, Excess};
        let [a, b, c] = [Target::Class(0), Target::Class(1), Target::Class(2)];
        // (answer, full model's answer, truth)
        for (answers, losses) in [
            ((&a, &a, &a), [0.0, 0.0, 0.0]),
            ((&b, &a, &a), [1.0, 1.0, 1.0]), // broken
            ((&a, &b, &a), [0.0, 0.0, 1.0]), // mended
            ((&b, &b, &a), [0.0, 1.0, 0.0]), // wrong either way
            ((&b, &c, &a), [0.0, 1.0, 1.0]), // wrong in two ways
        ] {
            let (answer, full, truth) = answers;
            let found = [Excess, Error, Disagreement].map(|kind| loss(kind, answer, full, truth));
            assert_eq!(found, losses, "{answers:?}");
        }
        let value = |answer: f32, full: f32, truth: f32| {
            let targets = [answer, full, truth].map(Target::Value);
            [Excess, Error, Disagreement]
                .map(|kind| loss(kind, &targets[0], &targets[1], &targets[2]))
        };
        assert_eq!(value(4.0, 2.0, 1.0), [2.0, 3.0, 2.0]);
        assert_eq!(value(1.5, 3.0, 1.0), [0.0, 0.5, 1.5]);
        let sets = [vec![true, false], vec![true, true]].map(Target::Classes);
        assert_eq!(loss(Excess, &sets[0], &sets[1], &sets[1]), 1.0);
    }
}
