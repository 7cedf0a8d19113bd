//! Single exits of all depths: one model for every number of blocks, and their scores together.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use badge_lab::record::now;
use badge_train::weights::read_config;
use serde::Serialize;
use serde_json::Value;

use super::{Ran, TrainArgs, train, write_record};
use crate::commands::{Session, sources};

/// All models of a run.
#[derive(Debug, Serialize)]
struct Outcome {
    models: Vec<Model>,
    /// S-avg: the mean of the models' scores on dev.
    average: f64,
    /// S-best: their maximum.
    best: f64,
    seconds: f64,
}

/// One of them.
#[derive(Debug, Serialize)]
struct Model {
    depth: usize,
    /// Its directory in the run's.
    directory: String,
    score: f64,
    best_epoch: u64,
    seconds: f64,
}

/// Trains a model of every depth, each in a directory of its own; those that are finished already
/// are left as they are with `--resume`.
pub(super) fn train_all(args: &TrainArgs, session: Session) -> Result<Ran> {
    let started = now();
    let (backbone, task, out) = args.required()?;
    let blocks = read_config(&sources::model_directory(backbone, session.console)?)?
        .backbone
        .blocks;
    let mut models = Vec::new();
    for depth in 1..=blocks {
        let directory = directory_of(depth);
        session
            .console
            .note(&format!("model {depth} of {blocks}: {directory}"));
        let one = TrainArgs {
            depth: Some(depth),
            out: Some(out.join(&directory)),
            ..args.clone()
        };
        let results = train(&one, session)?.results;
        models.push(Model::of(depth, directory, &results)?);
    }
    let scores = || models.iter().map(|model| model.score);
    let outcome = Outcome {
        average: scores().sum::<f64>() / models.len() as f64,
        best: scores().fold(f64::NEG_INFINITY, f64::max),
        seconds: models.iter().map(|model| model.seconds).sum(),
        models,
    };
    let summary = outcome.summary();
    let config = args.train_config()?;
    let (data, _) = sources::task_data(task, args.data.as_deref(), session.console)?;
    let results = write_record(
        (out, serde_json::to_value(&outcome)?),
        args.resolved(&config, None),
        (&data, started),
        (&config, session.threads),
    )?;
    Ok(Ran { results, summary })
}

/// Where in the run's directory the model of a depth lies.
pub(super) fn directory_of(depth: usize) -> String {
    format!("depth-{depth:02}")
}

impl Model {
    fn of(depth: usize, directory: String, results: &Value) -> Result<Self> {
        let missing = || format!("{directory}/record.json: no scores of a run");
        let score = results["dev"]["best"].as_f64().with_context(missing)?;
        let best_epoch = results["best_epoch"].as_u64().with_context(missing)?;
        let seconds = results["seconds"].as_f64().with_context(missing)?;
        Ok(Self {
            depth,
            directory,
            score,
            best_epoch,
            seconds,
        })
    }
}

impl Outcome {
    fn summary(&self) -> String {
        let mut text = String::new();
        for model in &self.models {
            let _ = writeln!(
                text,
                "depth {:>2}: dev {:.1} ({})",
                model.depth,
                100.0 * model.score,
                model.directory
            );
        }
        let (average, best) = (100.0 * self.average, 100.0 * self.best);
        let _ = writeln!(text, "S-avg {average:.1}, S-best {best:.1}");
        text
    }
}
