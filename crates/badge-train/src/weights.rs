//! Weights from a model directory, in each of the formats they come in.

use std::collections::BTreeSet;
use std::path::Path;

use badge_core::checkpoint::pretrained::{self, Pretrained};
use badge_core::checkpoint::{self, Checkpoint, layout};
use badge_core::config::{CONFIG_FILE, ModelConfig};
use badge_tasks::file;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::framework::{DType, Tensor, pickle};

/// The weights that are written, and preferred when read.
pub const SAFETENSORS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
const PYTORCH_FILE: &str = "pytorch_model.bin";
const PYTORCH_INDEX_FILE: &str = "pytorch_model.bin.index.json";

/// Reads a directory's `config.json`.
///
/// # Errors
/// Names the file or the key that is wrong.
pub fn read_config(directory: &Path) -> Result<ModelConfig> {
    let path = directory.join(CONFIG_FILE);
    Ok(ModelConfig::from_json(&file::read_bytes(&path)?)?)
}

/// Reads a directory's weights: `model.safetensors`, its shards, or `pytorch_model.bin`.
///
/// # Errors
/// Names the file or the tensor that is wrong.
pub fn read_checkpoint(directory: &Path) -> Result<Checkpoint> {
    let path = |name| directory.join(name);
    if path(SAFETENSORS_FILE).exists() {
        read_safetensors(&path(SAFETENSORS_FILE))
    } else if path(INDEX_FILE).exists() {
        read_shards(&path(INDEX_FILE), read_safetensors)
    } else if path(PYTORCH_FILE).exists() {
        read_pytorch(&path(PYTORCH_FILE))
    } else if path(PYTORCH_INDEX_FILE).exists() {
        read_shards(&path(PYTORCH_INDEX_FILE), read_pytorch)
    } else {
        Err(Error::NoWeights {
            directory: directory.to_owned(),
        })
    }
}

/// Reads a pre-trained backbone for a model to be fine-tuned: renames what is there and reports
/// what is missing or has no use.
///
/// # Errors
/// Names the file or the tensor that is wrong.
pub fn read_pretrained(directory: &Path, config: &ModelConfig) -> Result<Pretrained> {
    // Names follow from the family of the files, the layout from the model to be trained.
    let mut source = read_config(directory)?;
    // A backbone that is cut has its deepest exit where the files have one among others.
    source.backbone.blocks = config.backbone.blocks;
    let checkpoint = read_checkpoint(directory)?;
    let layout = layout::of_model(config);
    Ok(pretrained::adapt(checkpoint, &source.backbone, &layout)?)
}

fn read_safetensors(path: &Path) -> Result<Checkpoint> {
    let bytes = file::read_bytes(path)?;
    Ok(Checkpoint::from_safetensors(
        &path.display().to_string(),
        &bytes,
    )?)
}

/// Reads every file that an index names.
fn read_shards(path: &Path, read: impl Fn(&Path) -> Result<Checkpoint>) -> Result<Checkpoint> {
    let wrong = |problem: String| Error::ShardIndex {
        file: path.to_owned(),
        problem,
    };
    let index: Value = serde_json::from_slice(&file::read_bytes(path)?)
        .map_err(|e| wrong(format!("not valid JSON: {e}")))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| wrong("has no object `weight_map`".to_owned()))?;
    let mut shards = BTreeSet::new();
    for (tensor, shard) in map {
        // A shard beside the index: anything else would read files the user did not name.
        match shard.as_str() {
            Some(shard) if Path::new(shard).components().count() == 1 && shard != ".." => {
                shards.insert(shard)
            }
            _ => {
                return Err(wrong(format!(
                    "`{tensor}` lies in {shard}, not a file beside it"
                )));
            }
        };
    }
    let mut checkpoint = Checkpoint::default();
    for shard in shards {
        checkpoint.extend(read(&path.with_file_name(shard))?)?;
    }
    Ok(checkpoint)
}

fn read_pytorch(path: &Path) -> Result<Checkpoint> {
    let wrong = |problem: String| Error::PyTorch {
        file: path.to_owned(),
        problem,
    };
    let tensors = pickle::read_all(path).map_err(|e| wrong(e.to_string()))?;
    let mut checkpoint = Checkpoint::default();
    let file = path.display().to_string();
    for (name, tensor) in tensors {
        if !tensor.dtype().is_float() {
            continue;
        }
        let tensor = plain(&tensor).map_err(|e| wrong(format!("tensor `{name}`: {e}")))?;
        checkpoint.insert(&file, name, tensor)?;
    }
    if checkpoint.is_empty() {
        return Err(wrong(
            "holds no tensors; files older than PyTorch 1.6 must be saved again".to_owned(),
        ));
    }
    Ok(checkpoint)
}

fn plain(tensor: &Tensor) -> crate::framework::Result<checkpoint::Tensor> {
    let values = tensor
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(checkpoint::Tensor {
        shape: tensor.dims().to_vec(),
        values,
    })
}
