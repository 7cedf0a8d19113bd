//! Benchmarks of engine and training: how fast a model runs or learns here, beside how fast the
//! machine is.
//!
//! [`timing`] takes the times, [`machine`] the machine's peaks, [`work`] counts what was computed.
//! One module an experiment: [`latency`], [`throughput`], [`exit_shares`] and [`load`] on a
//! [`Subject`], [`training`] and [`heads`] on the trainer's model, [`kernels`] without one. Each
//! gives rows, which a [`Report`] holds with the machine they come from.

pub mod exit_shares;
pub mod heads;
pub mod kernels;
pub mod latency;
pub mod load;
pub mod machine;
pub mod memory;
pub mod shape;
pub mod throughput;
pub mod timing;
pub mod training;
pub mod work;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use badge_core::config::{CONFIG_FILE, ModelConfig};
use badge_core::policy::{ModelExits, Policy, PolicySpec};
use badge_engine::{Engine, EngineOptions, TokenIds};
use badge_tasks::{Encoding, file};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use machine::{BenchMachine, Peaks, Rates};

/// What a benchmark answers: rows, and the machine they come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report<M> {
    /// The command, such as `bench latency`.
    pub command: &'static str,
    /// Where it ran.
    pub machine: BenchMachine,
    /// The machine's measured peaks, where rows refer to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peaks: Option<Peaks>,
    /// `rows`, and further lists where more was asked for.
    #[serde(flatten)]
    pub measured: M,
}

/// The engine under test.
#[derive(Debug)]
pub struct Subject {
    engine: Engine,
    setting: Setting,
    /// What as many threads of the machine can do at most in this precision, in G a second.
    peak: Option<f64>,
}

/// What all rows of one engine share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The numbers that are multiplied: `f32`, `bf16` or `int8`.
    pub precision: String,
    /// Threads that compute.
    pub threads: usize,
}

impl Subject {
    /// Loads the model in `directory`.
    ///
    /// # Errors
    ///
    /// When the model cannot be read or is not one that the engine runs.
    pub fn load(directory: &Path, options: EngineOptions, peaks: &Rates) -> Result<Self> {
        let setting = Setting {
            precision: options.precision.to_string(),
            threads: options.threads,
        };
        Ok(Self {
            peak: peaks.of(options.precision),
            engine: Engine::load(directory, options)?,
            setting,
        })
    }

    /// The model.
    pub fn config(&self) -> &ModelConfig {
        self.engine.config()
    }

    fn share_of_peak(&self, gflops: f64) -> Option<f64> {
        self.peak.map(|peak| gflops / peak)
    }

    fn policy(&self, spec: &PolicySpec) -> Result<Arc<Policy>> {
        Ok(Arc::new(self.engine.policy(spec)?))
    }
}

/// Reads a model's configuration, and nothing else of it.
///
/// # Errors
///
/// When the file cannot be read or holds an impossible value.
pub fn read_config(directory: &Path) -> Result<ModelConfig> {
    let bytes = file::read_bytes(&directory.join(CONFIG_FILE))?;
    Ok(ModelConfig::from_json(&bytes)?)
}

/// A policy for a model.
///
/// # Errors
///
/// When it does not fit the model's exits.
pub fn policy(config: &ModelConfig, spec: &PolicySpec) -> Result<Policy> {
    Ok(spec.build_for(&ModelExits::of(config))?)
}

/// Checks that a model can take inputs of these lengths; `origin` names the flag or file they
/// come from.
///
/// # Errors
///
/// When there is none, or one that is 0 or longer than the model's positions.
pub fn check_lengths(origin: &str, lengths: &[usize], config: &ModelConfig) -> Result<()> {
    ensure!(!lengths.is_empty(), "{origin}: no length is given");
    let positions = config.backbone.positions;
    for length in lengths {
        ensure!(
            (1..=positions).contains(length),
            "{origin}: {length} does not lie in 1..={positions}, the positions of the model"
        );
    }
    Ok(())
}

/// Random token ids, one input a length. The same seed gives the same ids.
pub fn random_inputs(config: &ModelConfig, lengths: &[usize], seed: u64) -> Vec<Encoding> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let vocabulary = config.backbone.vocabulary as u32;
    let mut input = |length: usize| Encoding {
        ids: (0..length)
            .map(|_| random.random_range(0..vocabulary))
            .collect(),
        type_ids: vec![0; length],
    };
    lengths.iter().map(|length| input(*length)).collect()
}

/// The inputs as the engine reads them.
fn token_ids(inputs: &[Encoding]) -> Vec<TokenIds<'_>> {
    let inputs = inputs.iter().map(|input| TokenIds {
        ids: &input.ids,
        type_ids: &input.type_ids,
    });
    inputs.collect()
}

/// A share as percent, for a table.
fn percent_or_dash(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        let config = serde_json::json!({
            "model_type": "albert", "vocab_size": 7, "hidden_size": 8, "num_hidden_layers": 3,
            "num_attention_heads": 2, "intermediate_size": 5, "max_position_embeddings": 20,
        });
        ModelConfig::from_json(config.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn lengths_beyond_the_positions_are_refused_by_their_origin() {
        let refused = |lengths: &[usize]| {
            let error = check_lengths("--lengths", lengths, &config());
            error.unwrap_err().to_string()
        };
        assert!(check_lengths("--lengths", &[1, 20], &config()).is_ok());
        assert_eq!(
            refused(&[4, 21]),
            "--lengths: 21 does not lie in 1..=20, the positions of the model"
        );
        assert!(refused(&[0]).contains("0 does not lie"));
        assert!(refused(&[]).contains("no length"));
    }

    #[test]
    fn random_tokens_follow_from_the_seed_and_lie_in_the_vocabulary() {
        let ids = |seed| -> Vec<Vec<u32>> {
            let inputs = random_inputs(&config(), &[3, 19], seed);
            inputs.into_iter().map(|input| input.ids).collect()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        assert_eq!(ids(1).iter().map(Vec::len).collect::<Vec<_>>(), [3, 19]);
        assert!(ids(1).concat().iter().all(|id| *id < 7));
    }
}
