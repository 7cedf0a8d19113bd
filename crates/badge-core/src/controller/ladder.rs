//! The certified settings of a model, from full depth down.

use std::fmt;

use serde::Serialize;

use crate::calibration::{Certificate, ExitCalibration, LossKind};
use crate::policy::PolicySpec;

/// Two relative depths that differ by less are the same.
const DEPTH_TOLERANCE: f64 = 1e-9;

/// Scores that are a mean over rows, so that a bound on a row's loss bounds them (`acc` is
/// accuracy).
const MEANS_OVER_ROWS: [&str; 1] = ["acc"];

/// One certified setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level {
    /// What decides where a sample leaves.
    pub policy: PolicySpec,
    /// Relative depth in (0, 1]: mean exit / M on the rows it was calibrated on.
    pub depth: f64,
    /// The score S on those rows, a_k.
    pub score: f64,
    /// a_k^LB: the full model's score on the calibration's rows less the certified loss. What is
    /// certified is the loss against the full model; that model's own score is measured, not
    /// bounded. None where the certificate bounds something else than S.
    pub certified_score: Option<f64>,
    /// The share of new rows on which it is certified to answer as the full model does; none where
    /// the certificate says nothing of it.
    pub certified_agreement: Option<f64>,
}

/// Θ: the settings that a controller may choose among, level 0 being full depth.
///
/// Only what the calibration has certified stands here, so that every level may be used at any time
/// and exchanged for another while serving. Levels are ordered by depth, and a deeper one scores
/// more; a setting that another one beats in both is left out.
///
/// # Example
/// ```
/// use badge_core::controller::Ladder;
///
/// let ladder = Ladder::full_only();
/// assert_eq!((ladder.levels().len(), ladder.floor()), (1, 1.0));
/// assert_eq!(ladder.at_depth(0.4), 0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ladder {
    levels: Vec<Level>,
    fixed: Option<FixedReason>,
}

/// Why a ladder has no level but full depth.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum FixedReason {
    /// There is no calibration.
    NotCalibrated,
    /// There is one, but nothing is promised of its points.
    NotCertified,
    /// Nothing that saves anything is certified.
    NothingSaves,
    /// The certified score lies below the accuracy floor.
    FloorTooHigh {
        /// The floor.
        floor: f64,
        /// The certified score of the settings that save something.
        certified: f64,
    },
    /// The score is no mean over rows, so that no floor can be compared with it.
    NoMeanOverRows {
        /// The score.
        metric: String,
    },
    /// The certificate was made of answers that were computed with other numbers.
    OtherPrecision {
        /// The numbers of the calibration.
        calibrated: String,
        /// Those that are multiplied now.
        served: String,
    },
    /// The certificate was made of texts that were cut at another length.
    OtherLength {
        /// The longest text of the calibration, in tokens.
        calibrated: usize,
        /// The longest one now.
        served: usize,
    },
}

impl Ladder {
    /// Full depth and nothing else.
    pub fn full_only() -> Self {
        Self {
            levels: vec![full_level(1.0, None)],
            fixed: Some(FixedReason::NotCalibrated),
        }
    }

    /// Full depth and nothing else, of a calibration whose certificate does not hold.
    pub fn void(calibration: &ExitCalibration, reason: FixedReason) -> Self {
        Self {
            levels: vec![full_level(calibration.full_score, None)],
            fixed: Some(reason),
        }
    }

    /// The certified points of a calibration, those below the accuracy `floor` A_min left out.
    ///
    /// A level's certified score is `S_full - ε` where the certificate bounds `excess` or
    /// `disagreement`, and `1 - ε` where it bounds `error`. Its certified agreement with the full
    /// model is `1 - ε` for `disagreement`; for the others `S_full - ε`: where both answer rightly
    /// they agree. Without a floor the certificate itself is the floor.
    pub fn from_calibration(calibration: &ExitCalibration, floor: Option<f64>) -> Self {
        let full = full_level(calibration.full_score, Some(calibration.full_score));
        match certified_levels(calibration, floor) {
            Ok(below) => Self {
                levels: std::iter::once(full).chain(below).collect(),
                fixed: None,
            },
            Err(reason) => Self {
                levels: vec![full],
                fixed: Some(reason),
            },
        }
    }

    /// The levels, full depth first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Why there is only full depth, where that is so.
    pub fn fixed(&self) -> Option<&FixedReason> {
        self.fixed.as_ref()
    }

    /// d_floor: the relative depth of the shallowest level.
    pub fn floor(&self) -> f64 {
        self.levels[self.levels.len() - 1].depth
    }

    /// Θ(d): the shallowest level that is at least as deep as `depth`: between two levels the
    /// deeper one, so that the floor holds.
    pub fn at_depth(&self, depth: f64) -> usize {
        let deep_enough = |level: &Level| level.depth >= depth - DEPTH_TOLERANCE;
        self.levels.iter().rposition(deep_enough).unwrap_or(0)
    }

    /// The shallowest level with at least this certified score; full depth where there is none.
    pub fn at_certified_score(&self, least: f64) -> usize {
        self.last_where(|level| level.certified_score.is_some_and(|score| score >= least))
    }

    /// The shallowest level with at least this measured score; full depth where there is none.
    pub fn at_score(&self, least: f64) -> usize {
        self.last_where(|level| level.score >= least)
    }

    fn last_where(&self, holds: impl Fn(&Level) -> bool) -> usize {
        self.levels.iter().rposition(holds).unwrap_or(0)
    }
}

fn full_level(score: f64, certified_score: Option<f64>) -> Level {
    Level {
        policy: PolicySpec::Full,
        depth: 1.0,
        score,
        certified_score,
        certified_agreement: Some(1.0),
    }
}

/// The levels below full depth, the deepest first.
fn certified_levels(
    calibration: &ExitCalibration,
    floor: Option<f64>,
) -> Result<Vec<Level>, FixedReason> {
    let Some(certificate) = &calibration.certificate else {
        return Err(FixedReason::NotCertified);
    };
    let is_mean = MEANS_OVER_ROWS.contains(&calibration.metric.as_str());
    let score = is_mean.then(|| certified_score(calibration, certificate));
    let agreement = certified_agreement(calibration, certificate, is_mean);
    match (floor, score) {
        (Some(_), None) => {
            let metric = calibration.metric.clone();
            return Err(FixedReason::NoMeanOverRows { metric });
        }
        (Some(floor), Some(certified)) if certified < floor => {
            return Err(FixedReason::FloorTooHigh { floor, certified });
        }
        _ => {}
    }
    let levels = calibration.usable().map(|point| Level {
        policy: point.policy.clone(),
        depth: 1.0 / point.layer_speedup,
        score: point.score,
        certified_score: score,
        certified_agreement: agreement,
    });
    let levels = undominated(levels.filter(|level| level.depth < 1.0 - DEPTH_TOLERANCE));
    if levels.is_empty() {
        return Err(FixedReason::NothingSaves);
    }
    Ok(levels)
}

fn certified_score(calibration: &ExitCalibration, certificate: &Certificate) -> f64 {
    match certificate.loss {
        LossKind::Excess | LossKind::Disagreement => calibration.full_score - certificate.epsilon,
        LossKind::Error => 1.0 - certificate.epsilon,
    }
}

/// For regression there is no agreement: numbers are near each other or far apart.
fn certified_agreement(
    calibration: &ExitCalibration,
    certificate: &Certificate,
    is_mean: bool,
) -> Option<f64> {
    match certificate.loss {
        _ if certificate.loss_scale.is_some() => None,
        LossKind::Disagreement => Some(1.0 - certificate.epsilon),
        LossKind::Excess | LossKind::Error => {
            is_mean.then_some((calibration.full_score - certificate.epsilon).max(0.0))
        }
    }
}

/// Those that no shallower one equals in score, the deepest first.
fn undominated(levels: impl Iterator<Item = Level>) -> Vec<Level> {
    let mut sorted: Vec<Level> = levels.collect();
    sorted.sort_by(|a, b| {
        let by_depth = a.depth.total_cmp(&b.depth);
        by_depth.then(b.score.total_cmp(&a.score))
    });
    let mut kept: Vec<Level> = Vec::new();
    for level in sorted {
        if kept
            .last()
            .is_none_or(|shallower| level.score > shallower.score)
        {
            kept.push(level);
        }
    }
    kept.reverse();
    kept
}

impl fmt::Display for FixedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCalibrated => f.write_str("the model has no calibration"),
            Self::NotCertified => f.write_str(
                "nothing is promised of the calibration's points; run `badge calibrate` with \
                 --confidence",
            ),
            Self::NothingSaves => f.write_str("no certified point leaves before the deepest exit"),
            Self::FloorTooHigh { floor, certified } => write!(
                f,
                "the calibration certifies a score of {certified:.4}, below the floor of {floor}; \
                 lower the floor, or calibrate with a smaller --max-drop"
            ),
            Self::NoMeanOverRows { metric } => write!(
                f,
                "the score `{metric}` is no mean over rows, so that nothing is certified of it; \
                 leave the floor out, and the certificate's own bound is the floor"
            ),
            Self::OtherPrecision { calibrated, served } => write!(
                f,
                "the certificate was made with {calibrated}, and the model computes with {served}; \
                 run `badge calibrate` with --precision {served}, or serve with --precision \
                 {calibrated}"
            ),
            Self::OtherLength { calibrated, served } => write!(
                f,
                "the certificate was made of texts of up to {calibrated} tokens, and those served \
                 have up to {served}; run `badge calibrate` with --max-length {served}, or serve \
                 with --max-length {calibrated}"
            ),
        }
    }
}
