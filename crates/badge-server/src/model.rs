//! A model that is being served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use badge_core::config::{CONFIG_FILE, ModelConfig};
use badge_core::policy::{ModelExits, PolicySpec};
use badge_engine::{Engine, EngineOptions, TokenIds};
use badge_tasks::{Example, Tokenizer};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::calibrated::{Calibrated, Served};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::operating_points::OperatingPoints;
use crate::runner::{Runner, Station};
use crate::scoring::Activation;
use crate::settings::ModelSettings;

/// A model directory under the name by which requests ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// The name.
    pub name: String,
    /// The directory.
    pub directory: PathBuf,
}

impl ModelSource {
    /// Reads `NAME=DIR`, or a directory that is called by its last folder.
    pub fn parse(text: &str) -> Self {
        if let Some((name, directory)) = text.split_once('=') {
            return Self::new(name, directory);
        }
        Self::of_directory(text)
    }

    /// A directory under a name.
    pub fn new(name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            directory: directory.into(),
        }
    }

    /// A directory that is called by its last folder.
    pub fn of_directory(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        // `.` and `..` have names too, once they are resolved.
        let whole = directory.canonicalize().unwrap_or(directory.clone());
        let name = whole.file_name().map_or_else(
            || "model".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        Self { name, directory }
    }
}

/// A model that is being served. When the last request lets go of it, its thread answers what is
/// left and ends.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) source: ModelSource,
    pub(crate) facts: Facts,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) station: Arc<Station>,
    /// Texts that may still come.
    pub(crate) room: Arc<Semaphore>,
}

/// What is known of a model.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) config: ModelConfig,
    pub(crate) activation: Activation,
    /// Longest input in tokens.
    pub(crate) length_max: usize,
    pub(crate) precision: String,
    pub(crate) instruction_set: &'static str,
    pub(crate) packed_bytes: usize,
    pub(crate) load_time: Duration,
}

impl Model {
    /// Reads and packs a model, runs one text through it and starts its thread.
    ///
    /// # Errors
    /// Names the file, key, tensor or policy that is wrong.
    pub(crate) fn load(
        source: &ModelSource,
        settings: &ModelSettings,
        metrics: &Metrics,
    ) -> Result<Self> {
        let start = Instant::now();
        let directory = &source.directory;
        let config = read_config(directory)?;
        let tokenizer = Tokenizer::from_directory(directory)?;
        let positions = config.backbone.positions;
        let length_trained = config
            .exits()
            .max_length
            .map(|length| length.min(positions));
        let length_max = settings.length_max.or(length_trained).unwrap_or(positions);
        let length_max = length_max.min(positions);
        let options = EngineOptions {
            threads: settings.threads,
            tokens_max: settings.batch_tokens_max.max(length_max),
            sequences_max: settings.batch_requests_max,
            ..EngineOptions::new(settings.precision)
        };
        let failed = |source| Error::Engine {
            directory: directory.clone(),
            source,
        };
        let mut engine = Engine::load(directory, options).map_err(failed)?;
        warm_up(&mut engine, &tokenizer, length_max, directory)?;
        let served = Served {
            precision: settings.precision.to_string(),
            length_max,
            length_trained,
        };
        let points = operating_points(&config, &served, (source, settings))?;
        let activation = activation(&config, directory)?;
        let of_model = metrics.of_model(&source.name, config.exits().exits.depths());
        let station = Arc::new(Station::new(points, of_model));
        let facts = Facts {
            activation,
            length_max,
            precision: served.precision,
            instruction_set: engine.isa().name(),
            packed_bytes: engine.packed_bytes(),
            load_time: start.elapsed(),
            config,
        };
        let runner = Runner::new(engine, Arc::clone(&station));
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || runner.run())
            .map_err(|source| Error::System {
                what: "a thread for an engine",
                source,
            })?;
        Ok(Self {
            source: source.clone(),
            facts,
            tokenizer,
            station,
            room: Arc::new(Semaphore::new(settings.concurrent_requests_max)),
        })
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.station.queue.close();
    }
}

/// The policies that a model may run under, with what its calibration is worth for what is served.
fn operating_points(
    config: &ModelConfig,
    served: &Served,
    (source, settings): (&ModelSource, &ModelSettings),
) -> Result<OperatingPoints> {
    let calibrated = Calibrated::read(&source.directory, served)?;
    if let Some(reason) = calibrated.as_ref().and_then(Calibrated::void) {
        tracing::warn!(model = source.name, %reason, "nothing is certified");
    }
    let impossible = |problem| Error::Policy {
        model: source.name.clone(),
        source: problem,
    };
    let exits = ModelExits::of(config);
    let points = OperatingPoints::new(exits, calibrated, settings.policy.as_ref());
    let points = points.map_err(impossible)?;
    if let Some(slo) = settings.slo {
        let governed = points.govern(slo, settings.accuracy_floor);
        governed.map_err(impossible)?;
    }
    Ok(points)
}

/// Runs one text through every block, so that the first request finds memory and threads awake.
/// It also shows whether tokeniser and backbone belong together.
fn warm_up(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    length_max: usize,
    directory: &Path,
) -> Result<()> {
    let failed = |source| Error::Engine {
        directory: directory.to_owned(),
        source,
    };
    let encoding = tokenizer.encode(&Example::of_text("a text to warm up with"), length_max)?;
    let tokens = TokenIds {
        ids: &encoding.ids,
        type_ids: &encoding.type_ids,
    };
    let policy = engine.policy(&PolicySpec::Full).map_err(failed)?;
    let answers = engine.classify(&[tokens], &Arc::new(policy));
    answers.map(|_| ()).map_err(failed)
}

fn read_config(directory: &Path) -> Result<ModelConfig> {
    let bytes = badge_tasks::file::read_bytes(&directory.join(CONFIG_FILE))?;
    ModelConfig::from_json(&bytes).map_err(|source| Error::Core {
        directory: directory.to_owned(),
        source,
    })
}

/// What becomes of the logits. Whether `problem_type` stands in the file is not in the
/// configuration, which knows what follows from it alone.
fn activation(config: &ModelConfig, directory: &Path) -> Result<Activation> {
    #[derive(Deserialize)]
    struct Named {
        problem_type: Option<String>,
    }
    let bytes = badge_tasks::file::read_bytes(&directory.join(CONFIG_FILE))?;
    let named = serde_json::from_slice::<Named>(&bytes);
    let is_named = named.is_ok_and(|named| named.problem_type.is_some());
    Ok(Activation::of(config.head.problem, is_named))
}
