//! What lies in the directory: files, and tensors held against `config.json`.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use badge_core::checkpoint::layout::{Part, TensorSpec};
use badge_core::checkpoint::{Checkpoint, layout, pretrained};
use badge_core::config::ModelConfig;
use badge_tasks::{file, hash};
use badge_train::weights::read_checkpoint;
use serde::Serialize;

/// A file by its content.
#[derive(Debug, Serialize)]
pub(super) struct FileFacts {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// What the weights are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Written by `badge train`: several exits.
    MultiExit,
    /// A plain Hugging Face classifier: one exit.
    Classifier,
    /// Pre-trained, to be fine-tuned.
    Backbone,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MultiExit => "multi-exit model",
            Self::Classifier => "classifier",
            Self::Backbone => "pre-trained backbone",
        }
    }
}

/// Weights that passed every check.
#[derive(Debug, Serialize)]
pub(super) struct Weights {
    #[serde(skip)]
    pub(super) kind: Kind,
    pub(super) tensors: usize,
    pub(super) parameters: Parameters,
    /// Tensors that a fine-tuning run starts fresh; only a backbone has such.
    pub(super) missing: Vec<String>,
    /// Tensors of a backbone's file that nothing here uses.
    pub(super) unused: Vec<String>,
}

/// Numbers of trainable values.
#[derive(Debug, Default, Serialize)]
pub(super) struct Parameters {
    /// The pooler that exits share counts here.
    backbone: usize,
    exits: usize,
    bypasses: usize,
    /// Of one bypass.
    #[serde(skip_serializing_if = "Option::is_none")]
    bypass: Option<usize>,
    /// Of one exit's attention, the classifier left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_head: Option<usize>,
    /// What global past-future adds to the exits.
    past_future: usize,
    learning_to_exit: usize,
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |count: Option<usize>, what: &str| {
            count.map_or(String::new(), |count| format!(" ({what}{count} each)"))
        };
        let total =
            self.backbone + self.exits + self.bypasses + self.past_future + self.learning_to_exit;
        write!(
            f,
            "{total}: backbone {}, exits {}{}, bypasses {}{}",
            self.backbone,
            self.exits,
            each(self.exit_head, "attention "),
            self.bypasses,
            each(self.bypass, ""),
        )?;
        for (name, count) in [
            ("past-future", self.past_future),
            ("learning to exit", self.learning_to_exit),
        ] {
            if count > 0 {
                write!(f, ", {name} {count}")?;
            }
        }
        Ok(())
    }
}

impl Parameters {
    /// Those of the layout that a checkpoint holds.
    fn of(config: &ModelConfig, layout: &[TensorSpec], tensors: &Checkpoint) -> Self {
        let (exits, d) = (config.exits(), config.backbone.hidden);
        let mut parameters = Self {
            bypass: exits.bypass.map(|bypass| bypass.parameters(d)),
            exit_head: exits.exit_head.map(|head| head.parameters(d)),
            ..Self::default()
        };
        let held = layout
            .iter()
            .filter(|spec| tensors.get(&spec.name).is_some());
        for spec in held {
            let count = match spec.part {
                Part::Backbone => &mut parameters.backbone,
                Part::Exit(_) => &mut parameters.exits,
                Part::Bypass(_) => &mut parameters.bypasses,
                Part::PastFuture => &mut parameters.past_future,
                Part::LearningToExit => &mut parameters.learning_to_exit,
            };
            *count += spec.shape.iter().product::<usize>();
        }
        parameters
    }
}

impl Weights {
    /// Reads all weights and refuses what is missing, extra, misshapen or not finite.
    pub(super) fn read(directory: &Path, config: &ModelConfig) -> Result<Self> {
        let checkpoint = read_checkpoint(directory)?;
        let layout = layout::of_model(config);
        let kind = if config.early_exit.is_some() {
            Kind::MultiExit
        } else if checkpoint.get("classifier.weight").is_some() {
            Kind::Classifier
        } else {
            Kind::Backbone
        };
        if kind != Kind::Backbone {
            checkpoint.check(&layout)?;
            return Ok(Self {
                kind,
                tensors: checkpoint.iter().count(),
                parameters: Parameters::of(config, &layout, &checkpoint),
                missing: Vec::new(),
                unused: Vec::new(),
            });
        }
        let adapted = pretrained::adapt(checkpoint, &config.backbone, &layout)?;
        Ok(Self {
            kind,
            tensors: adapted.tensors.iter().count(),
            parameters: Parameters::of(config, &layout, &adapted.tensors),
            missing: adapted.missing,
            unused: adapted.unused,
        })
    }
}

/// The files of a directory in the order of their names, those in sub-folders left out.
pub(super) fn files_of(directory: &Path) -> Result<Vec<FileFacts>> {
    let failed = |source| file::read_error(directory, source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Snapshots of the hub are links: the metadata must be that of what they point at.
        if !path.is_file() {
            continue;
        }
        let bytes = file::read_bytes(&path)?;
        let name = path.file_name().unwrap_or_default();
        files.push(FileFacts {
            name: name.to_string_lossy().into_owned(),
            bytes: bytes.len() as u64,
            sha256: hash::sha256_hex(&bytes),
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
