//! Operating points of divergence-based exiting, chosen on the dev split.

use std::path::Path;

use anyhow::{Context, Result};
use badge_core::policy::{DivergenceBased, PolicySpec};
use badge_tasks::file;
use badge_train::evaluate::ExitLogits;
use serde::{Deserialize, Serialize};

use crate::evaluation::Subject;
use crate::frontier::frontier;
use crate::inference::Provenance;

/// The file in a model directory that holds the chosen operating point.
pub const CALIBRATION_FILE: &str = "exit_calibration.json";

/// Thresholds that are tried. Cross-entropy agrees on the label for sure only below ln 2 = 0.69,
/// whatever the number of classes; larger ones are of use with many classes.
const TAUS: [f64; 15] = [
    0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.69, 1.0,
];

/// One operating point on the dev split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// The policy.
    pub policy: PolicySpec,
    /// Its score.
    pub score: f64,
    /// M / mean exit.
    pub layer_speedup: f64,
}

/// A chosen operating point with the frontier it was chosen from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Version of this description.
    pub version: u32,
    /// The chosen policy.
    pub policy: PolicySpec,
    /// Points that no other point beats in both score and speed-up, the slowest first.
    pub frontier: Vec<OperatingPoint>,
    /// The task.
    pub data_set: String,
    /// The split the points were measured on.
    pub split: String,
    /// Its content hash.
    pub split_sha256: String,
    /// Its number of rows.
    pub n: usize,
    /// Score of the deepest exit on the same rows.
    pub full_score: f64,
    /// The largest loss of score that was allowed.
    pub max_drop: f64,
    /// The confidence with which the point was certified; none for a point that was only chosen.
    pub confidence: Option<f64>,
    /// The code that computed the logits.
    pub engine: String,
    /// The number format it computed in.
    pub precision: String,
}

impl Calibration {
    /// Chooses, among divergence-based policies, the one with the largest layer speed-up whose
    /// score on the subject's rows lies at most `max_drop` below the deepest exit's.
    ///
    /// The choice is not certified: on other rows the loss can be larger.
    ///
    /// # Errors
    /// When a policy does not fit the model, or rows have no labels.
    pub fn choose(
        subject: &Subject,
        (logits, computed_by): (&ExitLogits, &Provenance),
        data_set: &str,
        max_drop: f64,
    ) -> Result<Self> {
        let outputs = subject.outputs(logits)?;
        let point = |spec: PolicySpec| -> Result<OperatingPoint> {
            let (score, layer_speedup) = subject.score_and_speedup(&spec, &outputs)?;
            Ok(OperatingPoint {
                policy: spec,
                score,
                layer_speedup,
            })
        };
        let full = point(PolicySpec::Full)?;
        let mut points = vec![full.clone()];
        for t in 1..logits.exits {
            for tau in TAUS {
                points.push(point(PolicySpec::from(DivergenceBased::new(tau, t)?))?);
            }
        }
        let chosen = points
            .iter()
            .filter(|point| point.score >= full.score - max_drop)
            .max_by(|a, b| {
                (a.layer_speedup, a.score)
                    .partial_cmp(&(b.layer_speedup, b.score))
                    .expect("scores and speed-ups are finite")
            })
            .context("the full model is one of the points")?;
        Ok(Self {
            version: 1,
            policy: chosen.policy.clone(),
            frontier: frontier_of(&points),
            data_set: data_set.to_owned(),
            split: subject.split.name.to_string(),
            split_sha256: subject.split.sha256.clone(),
            n: subject.split.len(),
            full_score: full.score,
            max_drop,
            confidence: None,
            engine: computed_by.name.clone(),
            precision: computed_by.precision.clone(),
        })
    }

    /// Writes `exit_calibration.json` into a model directory.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(file::write_atomic(
            &directory.join(CALIBRATION_FILE),
            &bytes,
        )?)
    }

    /// Reads a model directory's calibration, if it has one.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(CALIBRATION_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let calibration = serde_json::from_slice(&file::read_bytes(&path)?);
        Ok(Some(
            calibration.with_context(|| format!("{}", path.display()))?,
        ))
    }
}

fn frontier_of(points: &[OperatingPoint]) -> Vec<OperatingPoint> {
    let places = points
        .iter()
        .map(|point| (point.layer_speedup, point.score));
    let kept = frontier(&places.collect::<Vec<_>>()).into_iter();
    kept.map(|index| points[index].clone()).collect()
}
