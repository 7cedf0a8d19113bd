//! Operating points, chosen on dev, and what is promised of them.
//!
//! [`calibrate`] replays the [`chains()`] of policies over stored logits and chooses for a [`Goal`].
//! With a [`Promise`] the choice is certified by the bounds of [`badge_core::calibration`]; what
//! each promise says, and of which rows, stands in `docs/calibration.md`.

pub mod cache;
mod certify;
pub mod chains;
mod losses;
mod presentation;
mod temperatures;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use badge_core::calibration::temperature::Temperature;
use badge_core::calibration::{
    CALIBRATION_FILE, Certificate, ExitCalibration, Goal, LossKind, OperatingPoint,
};
use badge_core::config::ModelConfig;
use badge_core::policy::{ModelExits, PolicySpec};
use badge_tasks::file;
use badge_tasks::hash::model_sha256;
use rayon::prelude::*;
use serde::Serialize;

use self::certify::Trial;
use self::chains::{Exits, chains};
use crate::frontier::frontier;
use crate::inference::Provenance;
use crate::replay::{DevOutputs, Replayed};
use crate::sweep::Family;

pub use losses::LossTable;
pub use presentation::{point_table, refusal_text};
pub use temperatures::temperatures;

/// The record of the run that made a model directory's calibration, beside it.
pub const CALIBRATION_RECORD_FILE: &str = "exit_calibration.record.json";

/// What is asked of a calibration.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Which operating point.
    pub goal: Goal,
    /// What is to be promised of it; none to choose by the dev rows alone.
    pub promise: Option<Promise>,
    /// The policies to try.
    pub families: &'a [Family],
    /// For regression the range of the training targets, which losses are shares of.
    pub target_range: Option<f64>,
    /// Decides which rows choose what the others test, where a promise needs both.
    pub seed: u64,
}

/// What is to be promised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// How sure it is to be.
    pub guarantee: Guarantee,
    /// The loss that is bounded.
    pub loss: LossKind,
}

/// How sure a promise is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Guarantee {
    /// With this probability over the draw of the dev rows (learn then test).
    Confidence(f64),
    /// In expectation (conformal risk control).
    Expectation,
}

/// A policy that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The policy.
    pub spec: PolicySpec,
    /// What it does on all dev rows.
    pub replayed: Replayed,
    /// Whether the promise holds for it.
    pub certified: bool,
}

/// Everything that was tried, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// What was asked for.
    pub goal: Goal,
    /// `full`, which all are compared with.
    pub full: Candidate,
    /// The others, chain by chain, the most conservative first.
    pub chains: Vec<Vec<Candidate>>,
    /// The choice, or why there is none.
    pub outcome: Outcome,
}

/// What came of a search.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A policy, with its certificate if one was asked for.
    Chosen(PolicySpec, Option<Certificate>),
    /// None.
    Refused(Refusal),
}

/// Why no policy was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refusal {
    /// No policy does on these rows what was asked for, or none of the certified ones.
    Unreachable {
        /// The best score, or layer speed-up, that there is.
        best: f64,
    },
    /// No policy that saves anything could be certified.
    NotCertified {
        /// Rows that the promise would rest on.
        rows: usize,
        /// The smallest bound on the loss that these rows could certify of any such policy; none
        /// where no policy saves anything.
        least_epsilon: Option<f64>,
        /// Dev rows that would do for the bound that was asked for, if losses stayed what they
        /// are; none where they are too large for any number.
        rows_needed: Option<usize>,
    },
}

/// What a calibration is of.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The task.
    pub task: &'a str,
    /// SHA-256 of the model's weights and configuration.
    pub model_sha256: &'a str,
    /// What computed the logits.
    pub computed_by: &'a Provenance,
    /// One temperature per exit, or none.
    pub temperatures: &'a [Temperature],
    /// The tokens after which rows were cut.
    pub max_length: usize,
}

/// Tries the policies of the request on dev and chooses one.
///
/// # Errors
/// When there are too few rows to speak of, or a loss cannot be measured.
pub fn calibrate(dev: &DevOutputs, request: &Request) -> Result<Search> {
    ensure!(dev.rows() > 0, "the dev split holds no rows");
    // A promise rests on rows that had no part in making the policies it is tested on.
    ensure!(
        request.promise.is_none() || dev.subject().model_exits.temperatures().is_none(),
        "temperatures that were fitted on the dev rows cannot be certified on them"
    );
    let model = dev.subject().model_exits;
    let exits = Exits {
        model,
        target_range: request.target_range,
    };
    let mut search = Search {
        goal: request.goal,
        full: candidate(dev, &PolicySpec::Full)?,
        chains: chains(request.families, exits)?
            .par_iter()
            .map(|chain| {
                chain
                    .specs
                    .par_iter()
                    .map(|spec| candidate(dev, spec))
                    .collect()
            })
            .collect::<Result<_>>()?,
        outcome: Outcome::Refused(Refusal::Unreachable { best: 0.0 }),
    };
    search.outcome = match &request.promise {
        None => search.choose(None),
        Some(promise) => {
            let losses = LossTable::new(dev, promise.loss, request.target_range)?;
            let trial = Trial {
                losses: &losses,
                depths: model.plan().depths(),
                promise: *promise,
                seed: request.seed,
            };
            trial.certify(&mut search)?
        }
    };
    Ok(search)
}

fn candidate(dev: &DevOutputs, spec: &PolicySpec) -> Result<Candidate> {
    Ok(Candidate {
        spec: spec.clone(),
        replayed: dev.replay(spec)?,
        certified: false,
    })
}

impl Candidate {
    fn saves(&self) -> bool {
        self.replayed.layer_speedup > 1.0
    }

    /// Score and layer speed-up meet the goal on the dev rows.
    fn meets(&self, goal: Goal, full: &Self) -> bool {
        // A score that is as low as allowed may miss it by its last digit.
        const ROUNDING: f64 = 1e-12;
        let Replayed {
            score,
            layer_speedup,
            ..
        } = self.replayed;
        match goal {
            Goal::MaxDrop(drop) => score >= full.replayed.score - drop - ROUNDING,
            Goal::MinScore(least) => score >= least - ROUNDING,
            Goal::TargetSpeedup(least) => layer_speedup >= least - ROUNDING,
        }
    }

    /// By speed, and of equals by score.
    fn by_speed(&self, other: &Self) -> std::cmp::Ordering {
        let (own, others) = (&self.replayed, &other.replayed);
        let by_speed = own.layer_speedup.total_cmp(&others.layer_speedup);
        by_speed.then(own.score.total_cmp(&others.score))
    }

    /// By score, and of equals by speed.
    fn by_score(&self, other: &Self) -> std::cmp::Ordering {
        let (own, others) = (&self.replayed, &other.replayed);
        let by_score = own.score.total_cmp(&others.score);
        by_score.then(own.layer_speedup.total_cmp(&others.layer_speedup))
    }
}

impl Search {
    /// Every policy that was tried, `full` first.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        std::iter::once(&self.full).chain(self.chains.iter().flatten())
    }

    /// The best candidate for the goal: among all, or among those that save something and that the
    /// certificate speaks of.
    fn choose(&self, certificate: Option<Certificate>) -> Outcome {
        let eligible = |candidate: &&Candidate| match certificate {
            None => true,
            Some(_) => candidate.certified && candidate.saves(),
        };
        let fit = self
            .candidates()
            .filter(eligible)
            .filter(|candidate| candidate.meets(self.goal, &self.full));
        let best = match self.goal {
            Goal::TargetSpeedup(_) => fit.max_by(|a, b| a.by_score(b)),
            Goal::MaxDrop(_) | Goal::MinScore(_) => fit.max_by(|a, b| a.by_speed(b)),
        };
        if let Some(candidate) = best {
            return Outcome::Chosen(candidate.spec.clone(), certificate);
        }
        let value = |candidate: &Candidate| match self.goal {
            Goal::TargetSpeedup(_) => candidate.replayed.layer_speedup,
            Goal::MaxDrop(_) | Goal::MinScore(_) => candidate.replayed.score,
        };
        let values = self.candidates().filter(eligible).map(value);
        Outcome::Refused(Refusal::Unreachable {
            best: values.fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// The chosen candidate.
    pub fn chosen(&self) -> Option<&Candidate> {
        let Outcome::Chosen(chosen, _) = &self.outcome else {
            return None;
        };
        self.candidates()
            .find(|candidate| candidate.spec == *chosen)
    }

    /// The points worth having, the slowest first: those that no other candidate beats in both
    /// score and speed, of the certified ones those that no other certified one beats, and the
    /// chosen one.
    pub fn points(&self) -> Vec<OperatingPoint> {
        let candidates: Vec<_> = self.candidates().collect();
        let certified: Vec<_> = candidates.iter().copied().filter(|c| c.certified).collect();
        let mut kept = on_frontier(&candidates);
        for candidate in on_frontier(&certified).into_iter().chain(self.chosen()) {
            if !kept.iter().any(|other| other.spec == candidate.spec) {
                kept.push(candidate);
            }
        }
        kept.sort_by(|a, b| a.by_speed(b));
        let point = |candidate: &Candidate| OperatingPoint {
            policy: candidate.spec.clone(),
            score: candidate.replayed.score,
            mean_exit: candidate.replayed.mean_exit,
            layer_speedup: candidate.replayed.layer_speedup,
            certified: candidate.certified,
        };
        kept.into_iter().map(point).collect()
    }

    /// What a model directory keeps of it; none where nothing was chosen.
    pub fn calibration(&self, dev: &DevOutputs, origin: Origin<'_>) -> Option<ExitCalibration> {
        let Outcome::Chosen(policy, certificate) = &self.outcome else {
            return None;
        };
        let (split, provenance) = (dev.subject().split, origin.computed_by);
        Some(ExitCalibration {
            version: ExitCalibration::VERSION,
            policy: policy.clone(),
            goal: self.goal,
            certificate: certificate.clone(),
            points: self.points(),
            temperatures: origin
                .temperatures
                .iter()
                .map(|fitted| fitted.value)
                .collect(),
            data_set: origin.task.to_owned(),
            split: split.name.to_string(),
            split_sha256: split.sha256.clone(),
            n: split.len(),
            max_length: Some(origin.max_length),
            metric: dev.subject().metric.name().to_owned(),
            full_score: self.full.replayed.score,
            model_sha256: origin.model_sha256.to_owned(),
            engine: provenance.name.clone(),
            precision: provenance.precision.clone(),
            instruction_set: provenance.instruction_set.clone(),
        })
    }
}

fn on_frontier<'a>(candidates: &[&'a Candidate]) -> Vec<&'a Candidate> {
    let place = |candidate: &&Candidate| {
        let replayed = &candidate.replayed;
        (replayed.layer_speedup, replayed.score)
    };
    let places: Vec<_> = candidates.iter().map(place).collect();
    frontier(&places)
        .into_iter()
        .map(|index| candidates[index])
        .collect()
}

/// Writes `exit_calibration.json` into a model directory.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write(calibration: &ExitCalibration, directory: &Path) -> Result<()> {
    let path = directory.join(CALIBRATION_FILE);
    Ok(file::write_atomic(&path, &calibration.to_json())?)
}

/// Reads a model directory's calibration, if it has one.
///
/// # Errors
/// Names the file that cannot be read, or what is wrong in it.
pub fn read(directory: &Path) -> Result<Option<ExitCalibration>> {
    let path = directory.join(CALIBRATION_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = file::read_bytes(&path)?;
    let calibration = ExitCalibration::from_json(CALIBRATION_FILE, &bytes);
    Ok(Some(
        calibration.with_context(|| format!("{}", directory.display()))?,
    ))
}

/// The exits of the model in `directory` with the temperatures of its calibration, if it has one.
///
/// # Errors
/// When the calibration cannot be read or is that of another model.
pub fn calibrated_exits(directory: &Path, config: &ModelConfig) -> Result<ModelExits> {
    let exits = ModelExits::of(config);
    let Some(calibration) = read(directory)? else {
        return Ok(exits);
    };
    ensure!(
        calibration.model_sha256 == model_sha256(directory)?,
        "{}: it is the calibration of another model; calibrate again",
        directory.join(CALIBRATION_FILE).display()
    );
    if calibration.temperatures.is_empty() {
        return Ok(exits);
    }
    Ok(exits.with_temperatures(calibration.temperatures)?)
}
