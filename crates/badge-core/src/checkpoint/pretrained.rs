//! Pre-trained checkpoints as they are met in the wild, brought to the names of this crate.

use super::layout::TensorSpec;
use super::{Checkpoint, names};
use crate::config::{BackboneConfig, Family};
use crate::error::{Error, Result};

/// A pre-trained checkpoint under our names, and what it did not say.
#[derive(Debug)]
pub struct Pretrained {
    /// The tensors the model can use.
    pub tensors: Checkpoint,
    /// Backbone tensors that the model needs and the file lacks; only a pooler may be absent.
    pub missing: Vec<String>,
    /// Tensors of the file that the model has no use for, such as language-model heads.
    pub unused: Vec<String>,
}

/// Prefixes under which files keep the backbone; the empty one is a bare encoder.
const PREFIXES: [&str; 3] = ["albert.", "bert.", "elasticbert."];

/// Renames a checkpoint's tensors and holds them against the layout of the model to be trained.
///
/// Accepted are files with or without the family's prefix, TensorFlow's `gamma` and `beta`, and
/// ElasticBERT's pooler per block. Exits, bypasses and classifiers that the file does not hold
/// start fresh; everything else of the backbone must be there, except its pooler.
///
/// # Errors
/// When a backbone tensor is missing or has another shape.
pub fn adapt(
    source: Checkpoint,
    config: &BackboneConfig,
    layout: &[TensorSpec],
) -> Result<Pretrained> {
    let mut renamed = Checkpoint::default();
    let source = source.set;
    for (name, dtype) in source.integers {
        let origin = source.files.get(&name).map_or("", String::as_str);
        renamed.set.skip(origin, canonical(&name, config), dtype);
    }
    for (name, tensor) in source.tensors {
        let origin = source.files.get(&name).map_or("", String::as_str);
        let mut one = Checkpoint::default();
        one.set.insert(origin, canonical(&name, config), tensor);
        renamed.extend(one)?;
    }
    let mut tensors = Checkpoint::default();
    let mut missing = Vec::new();
    for spec in layout {
        let origin = renamed.set.file_of(&spec.name);
        match renamed.take(&spec.name, &spec.shape) {
            Ok(Some(tensor)) => tensors.insert(&origin, spec.name.clone(), tensor)?,
            Ok(None) if may_start_fresh(config, &spec.name) => missing.push(spec.name.clone()),
            Ok(None) => return Err(renamed.set.absent(&spec.name)),
            // Another task's classifier is no error: this task starts its own.
            Err(Error::TensorShape { .. }) if spec.name.contains("classifier") => {
                missing.push(spec.name.clone());
            }
            Err(error) => return Err(error),
        }
    }
    let unused = renamed.set.tensors.into_keys().collect();
    Ok(Pretrained {
        tensors,
        missing,
        unused,
    })
}

fn may_start_fresh(config: &BackboneConfig, name: &str) -> bool {
    let pooler = names::backbone_pooler(config.family);
    !name.starts_with(names::prefix(config.family))
        || name == pooler.weight()
        || name == pooler.bias()
}

/// Our name for a tensor of a pre-trained file.
fn canonical(name: &str, config: &BackboneConfig) -> String {
    let name = modern_norm(name);
    let prefix = names::prefix(config.family);
    let bare = PREFIXES
        .iter()
        .find_map(|p| name.strip_prefix(p))
        .unwrap_or(&name);
    if config.family == Family::ElasticBert
        && let Some(ours) = elastic_pooler(bare, config)
    {
        return ours;
    }
    let of_backbone = ["embeddings.", "encoder.", "pooler."]
        .iter()
        .any(|p| bare.starts_with(p));
    if of_backbone {
        format!("{prefix}{bare}")
    } else {
        name
    }
}

/// TensorFlow calls a LayerNorm's weight gamma and its bias beta.
fn modern_norm(name: &str) -> String {
    if let Some(stem) = name.strip_suffix("LayerNorm.gamma") {
        format!("{stem}LayerNorm.weight")
    } else if let Some(stem) = name.strip_suffix("LayerNorm.beta") {
        format!("{stem}LayerNorm.bias")
    } else if let Some(stem) = name.strip_suffix("layer_norm.gamma") {
        format!("{stem}layer_norm.weight")
    } else if let Some(stem) = name.strip_suffix("layer_norm.beta") {
        format!("{stem}layer_norm.bias")
    } else {
        name.to_owned()
    }
}

/// `encoder.pooler.{m}.dense.*` of ElasticBERT as the own pooler of exit m.
fn elastic_pooler(bare: &str, config: &BackboneConfig) -> Option<String> {
    let (block, tensor) = bare
        .strip_prefix("encoder.pooler.")?
        .split_once(".dense.")?;
    let block: usize = block.parse().ok()?;
    let module = names::exit_pooler(config, block);
    match tensor {
        "weight" => Some(module.weight()),
        "bias" => Some(module.bias()),
        _ => None,
    }
}
