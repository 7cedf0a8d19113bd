//! `exit_calibration.json`: a chosen operating point, the others worth having, and what is promised.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::distribution::PredictionKind;
use crate::error::{Error, Result};
use crate::exit::ExitPlan;
use crate::policy::PolicySpec;

/// The file in a model directory that holds an [`ExitCalibration`].
pub const CALIBRATION_FILE: &str = "exit_calibration.json";

/// A model's operating point, with all that a reader needs to choose another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitCalibration {
    /// The layout: [`Self::VERSION`].
    pub version: u32,
    /// The chosen policy; it is one of the points.
    pub policy: PolicySpec,
    /// What was asked for.
    pub goal: Goal,
    /// What is promised of the certified points; none where points were only chosen.
    pub certificate: Option<Certificate>,
    /// Points that no other one beats in both score and speed, the slowest first; with a
    /// certificate also those that no other certified one beats, and the chosen one.
    pub points: Vec<OperatingPoint>,
    /// One temperature per exit that makes its probabilities likeliest on these rows, in the order
    /// of the exits; none for regression.
    pub temperatures: Vec<f64>,
    /// The task.
    pub data_set: String,
    /// The split the points were measured on: `dev`.
    pub split: String,
    /// Its content hash.
    pub split_sha256: String,
    /// Its number of rows.
    pub n: usize,
    /// The tokens after which a row was cut; none in files of a time when they did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// The score S.
    pub metric: String,
    /// Score of the deepest exit on the same rows.
    pub full_score: f64,
    /// SHA-256 of the model's weights and configuration.
    pub model_sha256: String,
    /// The code that computed the logits.
    pub engine: String,
    /// The number format it computed in.
    pub precision: String,
    /// The vector instructions it used.
    pub instruction_set: String,
}

/// What an operating point was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The fastest point whose score lies at most this much below the deepest exit's.
    MaxDrop(f64),
    /// The fastest point with at least this score.
    MinScore(f64),
    /// The best score at this layer speed-up or more.
    TargetSpeedup(f64),
}

/// A policy with what it does on the rows it was measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatingPoint {
    /// The policy.
    pub policy: PolicySpec,
    /// Its score.
    pub score: f64,
    /// Mean depth at which rows left.
    pub mean_exit: f64,
    /// M / mean exit.
    pub layer_speedup: f64,
    /// Whether the certificate speaks of it.
    pub certified: bool,
}

/// A promise about rows that nobody has seen, drawn as those of the split were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// How it was come by.
    pub method: Method,
    /// The loss that it bounds.
    pub loss: LossKind,
    /// For regression what a loss of 1 stands for: the range of the training targets, in their
    /// unit. None for labels, where a row has gone wrong or has not.
    pub loss_scale: Option<f64>,
    /// The expected loss that is not exceeded: a share of the rows, or of `loss_scale`.
    pub epsilon: f64,
    /// The probability, over the draw of the split, with which the promise holds; none for a
    /// promise in expectation.
    pub confidence: Option<f64>,
    /// Rows that the promise rests on; the others chose what was to be tested.
    pub rows: usize,
    /// Chains of policies that shared the confidence.
    pub chains: usize,
    /// Mean loss of the chosen policy on those rows.
    pub mean_loss: f64,
}

/// How a promise is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Learn then test: with a probability, for every certified policy at once.
    #[default]
    Ltt,
    /// Conformal risk control: in expectation, for the chosen policy.
    Crc,
}

/// What is lost when a policy answers in the place of the deepest exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// The policy is wrong where the deepest exit is right; for regression how much further from
    /// the truth it is.
    Excess,
    /// The policy is wrong; for regression its distance from the truth.
    Error,
    /// The policy answers otherwise than the deepest exit, right or wrong; for regression the
    /// distance between the two.
    Disagreement,
}

impl ExitCalibration {
    /// The layout that is written and read.
    pub const VERSION: u32 = 2;

    /// Reads the bytes of a `file`, and checks all that can be checked without the model.
    ///
    /// # Errors
    /// [`Error::Json`] for what is no calibration, [`Error::ConfigKey`] for another version or an
    /// impossible value.
    pub fn from_json(file: &str, bytes: &[u8]) -> Result<Self> {
        let json = |source| Error::Json {
            file: file.to_owned(),
            source,
        };
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
        // The version first: another layout has other keys.
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(Self::VERSION)) {
            let found = version.map_or("missing".to_owned(), |version| version.to_string());
            let expected = Self::VERSION;
            let problem = format!("it is {found}, this program reads {expected}; calibrate again");
            return Err(key_error(file, "version", problem));
        }
        // From the text again, so that messages have line and column.
        let calibration: Self = serde_json::from_slice(bytes).map_err(json)?;
        match calibration.problem() {
            None => Ok(calibration),
            Some((key, problem)) => Err(key_error(file, key, problem)),
        }
    }

    /// The text of the file: indented, with a final line break.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("its keys are strings");
        bytes.push(b'\n');
        bytes
    }

    /// Refuses a calibration of a model with other exits.
    ///
    /// # Errors
    /// [`Error::Policy`] for a policy that does not fit, [`Error::ConfigKey`] for a number of
    /// temperatures other than that of the exits.
    pub fn check(&self, file: &str, plan: &ExitPlan, kind: PredictionKind) -> Result<()> {
        for point in &self.points {
            point.policy.build(plan, kind)?;
        }
        let (found, exits) = (self.temperatures.len(), plan.count());
        if found > 0 && found != exits {
            let problem = format!("there are {found}, but the model has {exits} exits");
            return Err(key_error(file, "temperatures", problem));
        }
        Ok(())
    }

    /// The chosen point.
    ///
    /// # Panics
    /// When it is not among the points, which [`from_json`](Self::from_json) refuses.
    pub fn chosen(&self) -> &OperatingPoint {
        let mut points = self.points.iter();
        let chosen = points.find(|point| point.policy == self.policy);
        chosen.expect("the chosen policy is one of the points")
    }

    /// The points that may be used in each other's place: the certified ones where there is a
    /// certificate, else all.
    pub fn usable(&self) -> impl Iterator<Item = &OperatingPoint> {
        let all = self.certificate.is_none();
        let points = self.points.iter();
        points.filter(move |point| all || point.certified)
    }

    /// The usable point of the best score among those with at least this layer speed-up.
    pub fn at_speedup(&self, least: f64) -> Option<&OperatingPoint> {
        let points = self.usable().filter(|point| point.layer_speedup >= least);
        points.max_by(|a, b| {
            let by_score = a.score.total_cmp(&b.score);
            by_score.then(a.layer_speedup.total_cmp(&b.layer_speedup))
        })
    }

    /// The key that holds something impossible, and what is wrong with it.
    fn problem(&self) -> Option<(&'static str, String)> {
        if self.split != "dev" {
            let problem = format!("points are chosen on dev, never on `{}`", self.split);
            return Some(("split", problem));
        }
        if self.n == 0 {
            return Some(("n", "no rows".to_owned()));
        }
        if !self.points.iter().any(|point| point.policy == self.policy) {
            let problem = format!("`{}` is not among the points", self.policy);
            return Some(("policy", problem));
        }
        let point = |point: &OperatingPoint| {
            point.score.is_finite() && point.mean_exit >= 1.0 && point.layer_speedup >= 1.0
        };
        if let Some(wrong) = self.points.iter().find(|found| !point(found)) {
            let problem = format!("`{}` has an impossible score or speed", wrong.policy);
            return Some(("points", problem));
        }
        if let Some(wrong) = self.temperatures.iter().find(|t| !positive(**t)) {
            return Some(("temperatures", format!("{wrong} is not a positive number")));
        }
        self.certificate_problem()
    }

    fn certificate_problem(&self) -> Option<(&'static str, String)> {
        let certified = |point: &&OperatingPoint| point.certified;
        let Some(certificate) = &self.certificate else {
            let point = self.points.iter().find(certified)?;
            let problem = format!("`{}` is certified without a certificate", point.policy);
            return Some(("points", problem));
        };
        if !self.chosen().certified {
            return Some(("policy", format!("`{}` is not certified", self.policy)));
        }
        let range = 0.0..=1.0;
        if !(range.contains(&certificate.epsilon) && certificate.loss_scale.is_none_or(positive)) {
            let problem = "`epsilon` lies in 0..=1 and `loss_scale` above 0".to_owned();
            return Some(("certificate", problem));
        }
        let sound = match (certificate.method, certificate.confidence) {
            (Method::Ltt, Some(confidence)) => confidence > 0.0 && confidence < 1.0,
            (Method::Crc, None) => true,
            _ => false,
        };
        (!sound).then(|| {
            let problem = "ltt has a `confidence` between 0 and 1, crc has none".to_owned();
            ("certificate", problem)
        })
    }
}

fn positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}

fn key_error(file: &str, key: &str, problem: String) -> Error {
    Error::ConfigKey {
        file: file.to_owned(),
        key: key.to_owned(),
        problem,
    }
}

impl Certificate {
    /// The promise in one sentence.
    pub fn promise(&self) -> String {
        let percent = |share: f64| {
            let text = format!("{:.3}", 100.0 * share);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let how_sure = match self.confidence {
            Some(confidence) => format!("With {} % confidence", percent(confidence)),
            None => "In expectation".to_owned(),
        };
        let what = match (self.loss, self.loss_scale) {
            (LossKind::Excess, None) => "is wrong where the full model is right",
            (LossKind::Error, None) => "is wrong",
            (LossKind::Disagreement, None) => "answers otherwise than the full model",
            (LossKind::Excess, _) => "is further from the truth than the full model",
            (LossKind::Error, _) => "is off the truth",
            (LossKind::Disagreement, _) => "differs from the full model",
        };
        let how_much = match self.loss_scale {
            None => format!("on at most {} % of new rows", percent(self.epsilon)),
            Some(scale) => format!(
                "by at most {:.4} in the mean of new rows",
                self.epsilon * scale
            ),
        };
        format!("{how_sure} the policy {what} {how_much}.")
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxDrop(drop) => write!(f, "at most {:.2} points lost", 100.0 * drop),
            Self::MinScore(score) => write!(f, "a score of at least {:.2}", 100.0 * score),
            Self::TargetSpeedup(speedup) => write!(f, "a layer speed-up of at least {speedup}"),
        }
    }
}

impl Method {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ltt => "ltt",
            Self::Crc => "crc",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = [Self::Ltt, Self::Crc]
            .into_iter()
            .find(|m| m.name() == name);
        found.ok_or_else(|| format!("`{name}` is neither ltt nor crc"))
    }
}

impl LossKind {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Excess => "excess",
            Self::Error => "error",
            Self::Disagreement => "disagreement",
        }
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LossKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Excess, Self::Error, Self::Disagreement];
        let found = all.into_iter().find(|loss| loss.name() == name);
        found.ok_or_else(|| format!("`{name}` is none of excess, error, disagreement"))
    }
}
