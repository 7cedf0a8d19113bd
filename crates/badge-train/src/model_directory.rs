//! The directory a run writes: Hugging Face's layout with our keys beside the standard ones.

use std::path::Path;

use badge_core::checkpoint::{Checkpoint, MODELING_BADGE};
use badge_core::config::{CONFIG_FILE, ModelConfig};
use badge_tasks::file::Staged;
use badge_tasks::{Tokenizer, file};

use crate::error::Result;
use crate::framework::Device;
use crate::model::MultiExitModel;
use crate::weights::{SAFETENSORS_FILE, read_checkpoint, read_config};

/// The module that gives every exit's logits in `transformers`.
const MODELING_FILE: &str = "modeling_badge.py";

/// Files of the pre-trained tokeniser that `transformers` likes to find and we only pass on.
const TOKENIZER_EXTRAS: [&str; 3] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
];

/// Writes everything of a model directory except the weights.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write_description(
    directory: &Path,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    tokenizer_source: Option<&Path>,
) -> Result<()> {
    file::create_folder(directory)?;
    tokenizer.save(directory)?;
    for name in TOKENIZER_EXTRAS {
        if let Some(path) = tokenizer_source
            .map(|source| source.join(name))
            .filter(|p| p.is_file())
        {
            file::write_atomic(&directory.join(name), &file::read_bytes(&path)?)?;
        }
    }
    file::write_atomic(&directory.join(MODELING_FILE), MODELING_BADGE.as_bytes())?;
    file::write_atomic(&directory.join(CONFIG_FILE), &config.to_json())?;
    Ok(())
}

/// Writes the weights to the disk without replacing those that are there.
///
/// # Errors
/// Names the file that cannot be written.
pub fn stage_weights(directory: &Path, weights: &Checkpoint) -> Result<Staged> {
    Ok(file::stage(
        &directory.join(SAFETENSORS_FILE),
        &weights.to_safetensors(),
    )?)
}

/// Reads a model directory; every tensor must fit `config.json` exactly.
///
/// A plain Hugging Face classifier, without an `early_exit` key, is a model with one exit.
///
/// # Errors
/// Names the file, key or tensor that is wrong.
pub fn read_model(directory: &Path, device: &Device) -> Result<MultiExitModel> {
    let config = read_config(directory)?;
    MultiExitModel::new(config, &read_checkpoint(directory)?, device)
}
