//! The quickstart: a task that needs no download, the model trained on it, and what it shows.

pub mod corpus;
mod presentation;
mod recipe;
pub mod tokenizer;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use badge_core::calibration::{ExitCalibration, Goal};
use badge_core::policy::{DivergenceBased, FixedDepth, ModelExits, PolicySpec};
use badge_tasks::hash::model_sha256;
use badge_tasks::{Example, LabelSpace, MetricKind, TaskData, TokenCache, Tokenizer, score};
use badge_train::Device;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::ExitLogits;
use badge_train::observer::Observer;
use badge_train::trainer::Start;
use serde::Serialize;

use self::corpus::{Corpus, Grade};
use crate::calibration::{self, Origin, Request, calibrate, temperatures};
use crate::evaluation::{Evaluation, PolicyEvaluation, Replay, Subject};
use crate::fine_tune::{FineTuned, Means, Place, fine_tune};
use crate::inference::{Answer, Inference, Provenance};
use crate::replay::DevOutputs;
use crate::sweep::Family;

pub use presentation::{files, grade_table, report, speed_score_plot};
pub use recipe::{TOKENS_MAX, training};

/// How much of the full model's dev accuracy the chosen operating point may cost.
pub(crate) const MAX_DROP: f64 = 0.005;

/// Lines that are classified before the user's eyes, one kind of difficulty after the other. None
/// of them is drawn from the corpus: they are written by hand in its words.
pub const SHOWN_LINES: [&str; 6] = [
    "The music was wonderful and the ending was truly brilliant.",
    "The dessert was awful.",
    "I agree with Jack who loved the song.",
    "I disagree with Eve who sides with Ann who adored the ending. Iris hated it.",
    "Bob hated the menu. I disagree with Jack who argues with Eve who disagrees with Ann who \
     loved the song.",
    "Jack adored the song. I disagree with Ann who argues with Iris who sides with Eve who \
     disagrees with Bob who disagrees with Leo who hated it.",
];

/// Corpus, splits and tokeniser of the quickstart.
#[derive(Debug)]
pub struct Quickstart {
    /// The splits.
    pub data: TaskData,
    /// How hard each test text is.
    pub grades: Vec<Grade>,
    tokenizer_json: Vec<u8>,
    seed: u64,
}

/// What the trained model can do.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Score of every exit on the test split.
    pub test: Evaluation,
    /// Accuracy on each grade's test rows, by exit.
    pub by_grade: Vec<GradeScores>,
    /// The chosen operating point.
    pub calibration: ExitCalibration,
    /// Policies on the test split, row by row at batch size 1; the chosen one is the last.
    pub policies: Vec<PolicyEvaluation>,
    /// Divergence-based exiting on the test split for many thresholds: (layer speed-up, score).
    pub curve: Vec<(f64, f64)>,
    /// A fixed exit for all rows, by depth: (layer speed-up, score).
    pub fixed_curve: Vec<(f64, f64)>,
}

/// One grade's row of the table.
#[derive(Debug, Serialize)]
pub struct GradeScores {
    /// The grade's name.
    pub grade: &'static str,
    /// Test rows of the grade.
    pub rows: usize,
    /// Accuracy of every exit on them.
    pub exits: Vec<f64>,
    /// Accuracy under the chosen policy.
    pub policy_score: f64,
    /// Mean exit under the chosen policy.
    pub mean_exit: f64,
}

/// One line that was classified live.
#[derive(Debug, Serialize)]
pub struct ShownLine {
    /// The text.
    pub text: &'static str,
    /// The answer.
    pub label: String,
    /// Its probability.
    pub probability: f32,
    /// Where it left.
    pub exit: usize,
    /// Why.
    pub reason: String,
    /// How long it took.
    pub milliseconds: f64,
}

impl Quickstart {
    /// Makes the corpus.
    ///
    /// # Errors
    /// Never for the corpus as it is.
    pub fn new(seed: u64) -> Result<Self> {
        let corpus = Corpus::generate(seed);
        let grades = corpus.test.iter().map(|example| example.grade).collect();
        let tokenizer_json = tokenizer::tokenizer_json().into_bytes();
        Ok(Self {
            data: recipe::task_data(&corpus, seed),
            grades,
            tokenizer_json,
            seed,
        })
    }

    /// The tokeniser that knows the corpus's words.
    ///
    /// # Errors
    /// Never for the vocabulary as it is.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(Tokenizer::from_bytes(self.tokenizer_json.clone())?)
    }

    /// Trains the model and writes its directory; dev is scored on so many threads.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn train(
        &self,
        directory: &Path,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<FineTuned> {
        let backbone = recipe::backbone(self.tokenizer()?, self.seed)?;
        let place = Place {
            directory,
            tokenizer_source: None,
            start: Start::Fresh,
        };
        let means = Means {
            threads,
            tokens: &TokenCache::off(),
            device: &Device::Cpu,
        };
        let config = training(self.seed);
        fine_tune(backbone, &self.data, &config, (place, means), observer)
    }

    /// Calibrates on dev, then evaluates on test.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn evaluate(
        &self,
        model: &mut dyn Inference,
        directory: &Path,
        on_row: &mut dyn FnMut(usize),
    ) -> Result<Results> {
        let (tokenizer, config) = (self.tokenizer()?, model.config().clone());
        let (metric, labels) = (self.data.task.metric, &self.data.task.label_space);
        let encoded = |split| EncodedSplit::new(split, &tokenizer, TOKENS_MAX, &TokenCache::off());
        let dev_rows = encoded(&self.data.dev)?;
        let exits = ModelExits::of(&config);
        let dev = Subject {
            config: &config,
            model_exits: &exits,
            split: &self.data.dev,
            encoded: &dev_rows,
            metric,
            labels,
        };
        let (_, dev_logits) = dev.evaluate(model, &mut |_| {})?;
        let calibration = self.calibrate(dev, (&dev_logits, &model.provenance()), directory)?;
        let rows = encoded(&self.data.test)?;
        let test = Subject {
            encoded: &rows,
            split: &self.data.test,
            ..dev
        };
        let (evaluation, logits) = test.evaluate(model, &mut |_| {})?;
        let chosen = &calibration.policy;
        let policies = [
            PolicySpec::Full,
            PolicySpec::from(FixedDepth::new(2)?),
            chosen.clone(),
        ];
        let policies = policies
            .iter()
            .map(|spec| test.run(model, (spec, &logits), on_row))
            .collect::<Result<Vec<_>>>()?;
        Ok(Results {
            by_grade: self.by_grade(&test, &logits, chosen)?,
            curve: dge_curve(&test, &logits)?,
            fixed_curve: fixed_curve(&evaluation),
            test: evaluation,
            calibration,
            policies,
        })
    }

    /// Chooses the fastest policy of DGE within the allowed loss, and keeps it with the model.
    fn calibrate(
        &self,
        dev: Subject,
        (logits, computed_by): (&ExitLogits, &Provenance),
        directory: &Path,
    ) -> Result<ExitCalibration> {
        let temperatures = temperatures(logits, &dev.split.targets()?, dev.labels);
        let dev = DevOutputs::new(dev, logits)?;
        let request = Request {
            goal: Goal::MaxDrop(MAX_DROP),
            promise: None,
            families: &[Family::Dge],
            target_range: None,
            seed: self.seed,
        };
        let origin = Origin {
            task: &self.data.task.name,
            model_sha256: &model_sha256(directory)?,
            computed_by,
            temperatures: &temperatures,
            max_length: TOKENS_MAX,
        };
        let calibration = calibrate(&dev, &request)?.calibration(&dev, origin);
        let calibration = calibration.expect("the full model loses nothing against itself");
        calibration::write(&calibration, directory)?;
        Ok(calibration)
    }

    /// Number of rows that [`evaluate`](Self::evaluate) runs one by one.
    pub fn timed_rows(&self) -> usize {
        3 * self.data.test.len()
    }

    fn by_grade(
        &self,
        subject: &Subject,
        logits: &ExitLogits,
        chosen: &PolicySpec,
    ) -> Result<Vec<GradeScores>> {
        let truth = subject.split.targets()?;
        let Replay { depths, answers } = subject.exits(chosen, logits)?;
        let rows_of = |grade| -> Vec<usize> {
            (0..truth.len())
                .filter(|row| self.grades[*row] == grade)
                .collect()
        };
        let accuracy = |rows: &[usize], answers: &[badge_tasks::Target]| {
            let of = |from: &[badge_tasks::Target]| {
                rows.iter()
                    .map(|row| from[*row].clone())
                    .collect::<Vec<_>>()
            };
            score(MetricKind::Accuracy, &of(answers), &of(&truth))
        };
        let by_exit: Vec<_> = (0..logits.exits)
            .map(|exit| logits.answers(exit, subject.labels))
            .collect();
        Ok(Grade::ALL
            .into_iter()
            .map(|grade| {
                let rows = rows_of(grade);
                let blocks: usize = rows.iter().map(|row| depths[*row].0).sum();
                GradeScores {
                    grade: grade.name(),
                    rows: rows.len(),
                    exits: by_exit
                        .iter()
                        .map(|answers| accuracy(&rows, answers))
                        .collect(),
                    policy_score: accuracy(&rows, &answers),
                    mean_exit: blocks as f64 / rows.len() as f64,
                }
            })
            .collect())
    }

    /// Classifies the lines that are shown.
    ///
    /// # Errors
    /// When a line does not fit the model.
    pub fn show(&self, model: &mut dyn Inference, policy: &PolicySpec) -> Result<Vec<ShownLine>> {
        let tokenizer = self.tokenizer()?;
        let config = model.config();
        let policy = Arc::new(policy.build_for(&ModelExits::of(config))?);
        let labels = &self.data.task.label_space;
        SHOWN_LINES
            .into_iter()
            .map(|text| {
                let encoding = tokenizer.encode(&Example::of_text(text), TOKENS_MAX)?;
                let answer = model.classify_one(&encoding, &policy)?;
                Ok(shown(text, &answer, labels))
            })
            .collect()
    }
}

fn shown(text: &'static str, (answer, seconds): &(Answer, f64), labels: &LabelSpace) -> ShownLine {
    let probability = match &answer.prediction {
        badge_core::distribution::Prediction::SingleLabel(p) => p.max_probability(),
        _ => f32::NAN,
    };
    ShownLine {
        text,
        label: labels.describe(&answer.target()),
        probability,
        exit: answer.depth.0,
        reason: answer.reason.to_string(),
        milliseconds: 1e3 * seconds,
    }
}

/// Divergence-based exiting with patience 1 over the range of useful thresholds.
fn dge_curve(subject: &Subject, logits: &ExitLogits) -> Result<Vec<(f64, f64)>> {
    let outputs = subject.outputs(logits)?;
    let mut points = Vec::new();
    for step in 1..=24 {
        let tau = std::f64::consts::LN_2 * f64::from(step) / 24.0;
        let spec = PolicySpec::from(DivergenceBased::new(tau, 1)?);
        let (score, speedup) = subject.score_and_speedup(&spec, &outputs)?;
        points.push((speedup, 100.0 * score));
    }
    Ok(points)
}

fn fixed_curve(evaluation: &Evaluation) -> Vec<(f64, f64)> {
    let deepest = evaluation.depths.last().copied().unwrap_or(1) as f64;
    let scores = evaluation.depths.iter().zip(&evaluation.scores.exits);
    scores
        .map(|(depth, score)| (deepest / *depth as f64, 100.0 * score))
        .collect()
}
