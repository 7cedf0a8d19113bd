//! What the flags ask for, once they are known to make sense together.

use anyhow::{Context, Result, bail, ensure};
use badge_core::calibration::{Goal, LossKind, Method};
use badge_lab::calibration::{Guarantee, Promise, Request};
use badge_lab::sweep::Family;
use badge_tasks::split::SplitName;
use badge_tasks::{LabelSpace, Target};

use super::CalibrateArgs;
use crate::commands::held_out::HeldOut;
use crate::commands::{Session, sweep};

/// The flags, checked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) goal: Goal,
    promise: Option<Promise>,
    pub(super) families: Vec<Family>,
}

impl Asked {
    /// # Errors
    /// Names the flag that cannot be meant.
    pub(super) fn of(args: &CalibrateArgs) -> Result<Self> {
        let split: SplitName = args.split.parse().context("--split")?;
        ensure!(
            split == SplitName::Dev,
            "--split: operating points are chosen on dev, never on {split}; to report one on \
             {split} use badge eval --split {split} --policy SPEC"
        );
        let goal = goal(args)?;
        Ok(Self {
            goal,
            promise: promise(args, goal)?,
            families: sweep::families(&args.policies).context("--policies")?,
        })
    }

    /// The same as the library takes it.
    ///
    /// # Errors
    /// When the task has no answers that are right or wrong, and they are asked for.
    pub(super) fn request(&self, held_out: &HeldOut, session: Session) -> Result<Request<'_>> {
        let regression = held_out.data.task.label_space == LabelSpace::Regression;
        if let (true, Some(promise)) = (regression, self.promise) {
            ensure!(
                promise.loss != LossKind::Error,
                "--min-score: no promise can be made of a correlation; use --max-drop, a share of \
                 the targets' range"
            );
        }
        Ok(Request {
            goal: self.goal,
            promise: self.promise,
            families: &self.families,
            target_range: if regression {
                Some(target_range(&held_out.data.train.targets()?))
            } else {
                None
            },
            seed: session.seed,
        })
    }
}

fn goal(args: &CalibrateArgs) -> Result<Goal> {
    let share = |flag: &str, value: f64, example: &str| {
        ensure!(
            (0.0..=1.0).contains(&value),
            "{flag}: {value} does not lie in 0..=1; {example}"
        );
        Ok(value)
    };
    match (args.target_speedup, args.max_drop, args.min_score) {
        (Some(speedup), ..) => {
            ensure!(
                speedup.is_finite() && speedup >= 1.0,
                "--target-speedup: {speedup} is no factor of at least 1; 2 runs half of the blocks"
            );
            Ok(Goal::TargetSpeedup(speedup))
        }
        (_, Some(drop), _) => share("--max-drop", drop, "0.01 is one point").map(Goal::MaxDrop),
        (.., Some(score)) => share("--min-score", score, "0.85 is 85 percent").map(Goal::MinScore),
        (None, None, None) => unreachable!("one of the three is required"),
    }
}

fn promise(args: &CalibrateArgs, goal: Goal) -> Result<Option<Promise>> {
    let guarantee = match (args.method, args.confidence) {
        (None, None) => {
            ensure!(
                args.loss.is_none(),
                "--loss: it says what a promise bounds; add --confidence 0.95 or --method crc"
            );
            return Ok(None);
        }
        (Some(Method::Crc), Some(_)) => bail!(
            "--method crc: its promise holds in expectation and has no confidence; leave \
             --confidence out, or use --method ltt"
        ),
        (Some(Method::Ltt), None) => {
            bail!("--method ltt: its promise needs a probability, such as --confidence 0.95")
        }
        (Some(Method::Crc), None) => {
            ensure!(
                !matches!(goal, Goal::TargetSpeedup(_)),
                "--method crc: it finds a threshold for a given loss, so it takes --max-drop or \
                 --min-score; with --target-speedup use --confidence"
            );
            Guarantee::Expectation
        }
        (None | Some(Method::Ltt), Some(confidence)) => {
            ensure!(
                confidence > 0.0 && confidence < 1.0,
                "--confidence: {confidence} does not lie between 0 and 1; 0.95 is usual"
            );
            Guarantee::Confidence(confidence)
        }
    };
    let loss = match (goal, args.loss) {
        (Goal::MinScore(_), None | Some(LossKind::Error)) => LossKind::Error,
        (Goal::MinScore(_), Some(loss)) => {
            bail!("--loss {loss}: --min-score is about the rows that are wrong, which is error")
        }
        (_, Some(LossKind::Error)) => {
            bail!("--loss error: it goes with --min-score; use excess or disagreement")
        }
        (_, loss) => loss.unwrap_or(LossKind::Excess),
    };
    Ok(Some(Promise { guarantee, loss }))
}

/// From the least to the greatest of these numbers.
fn target_range(targets: &[Target]) -> f64 {
    let numbers = targets.iter().filter_map(|target| match target {
        Target::Value(value) => Some(f64::from(*value)),
        _ => None,
    });
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for number in numbers {
        least = least.min(number);
        greatest = greatest.max(number);
    }
    (greatest - least).max(0.0)
}
