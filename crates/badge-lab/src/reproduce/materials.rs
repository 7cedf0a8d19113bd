//! What cells are made of: rows with labels, and pre-trained encoders.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use badge_tasks::hash::{model_sha256, sha256_hex};
use badge_tasks::tokenizer::TOKENIZER_FILE;
use badge_tasks::{LabelSpace, Split, TaskData, file};
use badge_train::weights::read_config;

use super::experiment::{BackboneAxis, Experiment, SplitOfTask, TaskAxis};

/// Where tasks and backbones come from: folders, the hub, or the program itself.
pub trait Sources {
    /// The rows of a task.
    ///
    /// # Errors
    /// When they cannot be had.
    fn task(&self, axis: &TaskAxis) -> Result<TaskRows>;

    /// The directory of a backbone.
    ///
    /// # Errors
    /// When it cannot be had.
    fn backbone(&self, axis: &BackboneAxis) -> Result<PathBuf>;
}

/// A task with all rows that experiments touch.
#[derive(Debug)]
pub struct TaskRows {
    /// Task, train, dev and test.
    pub data: TaskData,
    /// The corpus's own test rows, where they have labels.
    pub official: Option<Split>,
}

impl TaskRows {
    /// The rows of a split.
    ///
    /// # Errors
    /// When the corpus has none.
    pub fn split(&self, split: SplitOfTask) -> Result<&Split> {
        match split {
            SplitOfTask::Test => Ok(&self.data.test),
            SplitOfTask::OfficialTest => {
                let name = &self.data.task.name;
                let rows = self.official.as_ref();
                rows.with_context(|| format!("{name} has no labelled official-test rows"))
            }
        }
    }

    fn check(&self, axis: &TaskAxis) -> Result<()> {
        let space = &self.data.task.label_space;
        ensure!(
            matches!(space, LabelSpace::SingleLabel { .. }),
            "experiments compare answers of one label; {} has {space}",
            self.data.task.name
        );
        for split in &axis.splits {
            self.split(*split)?.targets()?;
        }
        Ok(())
    }
}

/// A backbone that is there.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Its directory.
    pub directory: PathBuf,
    /// SHA-256 of its configuration and weights.
    pub sha256: String,
    /// SHA-256 of its tokenizer.
    pub tokenizer: String,
}

/// Everything an experiment may use, and why what is missing is missing.
#[derive(Debug, Default)]
pub struct Materials {
    tasks: BTreeMap<String, Result<TaskRows, String>>,
    backbones: BTreeMap<String, Result<Encoder, String>>,
}

impl Materials {
    /// Looks for every task and backbone.
    ///
    /// # Errors
    /// When there is no task, or no backbone, at all: the first reason is told.
    pub fn gather(
        (tasks, backbones): (&[TaskAxis], &[BackboneAxis]),
        sources: &dyn Sources,
    ) -> Result<Self> {
        let mut materials = Self::default();
        let mut first = None;
        for axis in tasks {
            let found = sources.task(axis).and_then(|rows| {
                rows.check(axis)?;
                Ok(rows)
            });
            let found = found.map_err(|error| {
                let told = format!("{error:#}");
                first.get_or_insert(error);
                told
            });
            materials.tasks.insert(axis.task.clone(), found);
        }
        if !materials.tasks.values().any(Result::is_ok) {
            return Err(first.take().context("an experiment has tasks")?);
        }
        first = None;
        for axis in backbones {
            let found = encoder(axis, sources).map_err(|error| {
                let told = format!("{error:#}");
                first.get_or_insert(error);
                told
            });
            materials.backbones.insert(axis.name.clone(), found);
        }
        if !materials.backbones.values().any(Result::is_ok) {
            return Err(first.context("an experiment has backbones")?);
        }
        Ok(materials)
    }

    /// Refuses variants that cannot be built on a backbone that is there.
    ///
    /// # Errors
    /// Names the experiment's file, the variant and the backbone.
    pub fn check(&self, experiment: &Experiment) -> Result<()> {
        for (name, encoder) in &self.backbones {
            let Ok(encoder) = encoder else { continue };
            let plain = read_config(&encoder.directory)?;
            for variant in experiment.variants() {
                let built = variant.early_exit(&plain, (None, experiment.budget.max_length));
                built.with_context(|| {
                    format!("{}: {variant} on backbone {name}", experiment.file)
                })?;
            }
        }
        Ok(())
    }

    /// The rows of a task, if they could be had.
    pub fn task(&self, name: &str) -> Option<&TaskRows> {
        self.tasks.get(name)?.as_ref().ok()
    }

    /// A backbone, if it could be had.
    pub fn backbone(&self, name: &str) -> Option<&Encoder> {
        self.backbones.get(name)?.as_ref().ok()
    }

    /// What could not be had, by name, with the reason.
    pub fn missing(&self) -> Vec<(String, String)> {
        let tasks = self
            .tasks
            .iter()
            .filter_map(|(name, found)| Some((name.clone(), found.as_ref().err()?.clone())));
        let backbones = self
            .backbones
            .iter()
            .filter_map(|(name, found)| Some((name.clone(), found.as_ref().err()?.clone())));
        tasks.chain(backbones).collect()
    }
}

fn encoder(axis: &BackboneAxis, sources: &dyn Sources) -> Result<Encoder> {
    let directory = sources.backbone(axis)?;
    let blocks = read_config(&directory)?.backbone.blocks;
    ensure!(
        blocks == axis.blocks,
        "backbone {}: {} has {blocks} blocks, not {} as the experiment says",
        axis.name,
        axis.source,
        axis.blocks
    );
    let sha256 = model_sha256(&directory)?;
    let tokenizer = sha256_hex(&file::read_bytes(&directory.join(TOKENIZER_FILE))?);
    Ok(Encoder {
        directory,
        sha256,
        tokenizer,
    })
}
