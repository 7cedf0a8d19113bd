//! The logits of every exit on dev, kept beside the model: computed once, replayed ever after.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use badge_core::checkpoint::{Checkpoint, Tensor, read_metadata};
use badge_core::config::ModelConfig;
use badge_tasks::file;
use badge_tasks::hash::ContentHasher;
use badge_train::evaluate::ExitLogits;

use crate::inference::Provenance;

/// The file in a model directory.
pub const LOGITS_FILE: &str = "logits-dev.safetensors";

/// The tensor of logits in it, `[rows, exits, outputs]`.
const LOGITS: &str = "logits";

/// That of the learning-to-exit head's probabilities, `[rows, exits]`; absent without that head.
const CONTINUE: &str = "continue_probabilities";

/// Says what the logits were computed from.
const KEY: &str = "badge.key";

/// Everything that logits follow from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// SHA-256 of the model's weights and configuration.
    pub model_sha256: &'a str,
    /// SHA-256 of the rows' token ids.
    pub rows_sha256: &'a str,
    /// What computes.
    pub computed_by: &'a Provenance,
}

/// A place for the logits of one model on one split.
#[derive(Debug)]
pub struct LogitsCache {
    path: PathBuf,
    key: String,
}

impl LogitsCache {
    /// The cache of a model directory for these inputs: what was computed from others, or by
    /// another version of the program, is not found in it.
    pub fn new(directory: &Path, inputs: Inputs<'_>) -> Self {
        let Provenance {
            name,
            precision,
            instruction_set,
        } = inputs.computed_by;
        let mut hasher = ContentHasher::new();
        for field in [
            inputs.model_sha256,
            inputs.rows_sha256,
            name,
            precision,
            instruction_set,
            env!("CARGO_PKG_VERSION"),
            option_env!("BADGE_COMMIT").unwrap_or_default(),
        ] {
            hasher.update_field(field.as_bytes());
        }
        Self {
            path: directory.join(LOGITS_FILE),
            key: hasher.finish(),
        }
    }

    /// The logits, if they are there, for so many rows of a model. A file that is damaged or of
    /// another shape is as good as none.
    pub fn read(&self, rows: usize, config: &ModelConfig) -> Option<ExitLogits> {
        let early = config.exits();
        let (exits, outputs) = (early.exits.count(), config.head.outputs());
        let bytes = fs::read(&self.path).ok()?;
        let metadata = read_metadata(LOGITS_FILE, &bytes).ok()?;
        if metadata.get(KEY) != Some(&self.key) {
            return None;
        }
        let mut stored = Checkpoint::from_safetensors(LOGITS_FILE, &bytes).ok()?;
        let mut take = |name, shape: &[usize]| Some(stored.take(name, shape).ok()??.values);
        Some(ExitLogits {
            exits,
            outputs,
            values: take(LOGITS, &[rows, exits, outputs])?,
            continue_probabilities: if early.lte {
                take(CONTINUE, &[rows, exits])?
            } else {
                Vec::new()
            },
        })
    }

    /// Keeps logits in the place of those that were there.
    ///
    /// # Errors
    /// When a logit is not finite, or the file cannot be written.
    pub fn write(&self, logits: &ExitLogits) -> Result<()> {
        let mut stored = Checkpoint::default();
        let mut keep = |name: &str, shape: &[usize], values: &[f32]| {
            let tensor = Tensor {
                shape: shape.to_vec(),
                values: values.to_vec(),
            };
            stored.insert(LOGITS_FILE, name.to_owned(), tensor)
        };
        let (rows, exits) = (logits.rows(), logits.exits);
        keep(LOGITS, &[rows, exits, logits.outputs], &logits.values)?;
        if !logits.continue_probabilities.is_empty() {
            keep(CONTINUE, &[rows, exits], &logits.continue_probabilities)?;
        }
        let metadata = HashMap::from([(KEY.to_owned(), self.key.clone())]);
        Ok(file::write_atomic(
            &self.path,
            &stored.to_safetensors_with(metadata),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use badge_train::weights::read_config;

    use super::*;

    fn provenance(precision: &str) -> Provenance {
        Provenance {
            name: "engine".to_owned(),
            precision: precision.to_owned(),
            instruction_set: "scalar".to_owned(),
        }
    }

    #[test]
    fn logits_come_back_for_the_same_inputs_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (f32, bf16) = (provenance("f32"), provenance("bf16"));
        let inputs = Inputs {
            model_sha256: "m",
            rows_sha256: "r",
            computed_by: &f32,
        };
        let cache = LogitsCache::new(folder.path(), inputs);
        // Three exits of five logits each.
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity/bert_gelu");
        let config = read_config(&fixture).unwrap();
        assert_eq!(cache.read(2, &config), None);
        let logits = ExitLogits {
            exits: 3,
            outputs: 5,
            values: (0..30).map(|i| 1.5 - 1e-30 * i as f32).collect(),
            continue_probabilities: Vec::new(),
        };
        cache.write(&logits).unwrap();
        assert_eq!(cache.read(2, &config), Some(logits.clone()));
        assert_eq!(cache.read(3, &config), None);
        for other in [
            Inputs {
                model_sha256: "n",
                ..inputs
            },
            Inputs {
                rows_sha256: "s",
                ..inputs
            },
            Inputs {
                computed_by: &bf16,
                ..inputs
            },
        ] {
            assert_eq!(
                LogitsCache::new(folder.path(), other).read(2, &config),
                None
            );
        }
        let path = folder.path().join(LOGITS_FILE);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(cache.read(2, &config), None, "a damaged file");
        // A learning-to-exit head has its say too.
        let mut learning = config;
        learning.early_exit.as_mut().unwrap().lte = true;
        cache.write(&logits).unwrap();
        assert_eq!(cache.read(2, &learning), None);
        let logits = ExitLogits {
            continue_probabilities: vec![0.25; 6],
            ..logits
        };
        cache.write(&logits).unwrap();
        assert_eq!(cache.read(2, &learning), Some(logits));
    }
}
