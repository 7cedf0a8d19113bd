//! The `README.md` of a model directory: what the model is, how it was trained, how it does.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use badge_core::config::ModelConfig;
use badge_tasks::{TaskData, file};
use badge_train::checkpoint::Progress;
use badge_train::trainer::TrainConfig;

use crate::table::{Column, Table};

/// What a card speaks of.
#[derive(Debug, Clone, Copy)]
pub struct ModelCard<'a> {
    /// Name of the backbone that was fine-tuned.
    pub backbone: &'a str,
    /// The model.
    pub config: &'a ModelConfig,
    /// Its task.
    pub data: &'a TaskData,
    /// Its training.
    pub training: &'a TrainConfig,
    /// How the training went.
    pub progress: &'a Progress,
}

impl ModelCard<'_> {
    /// Writes `README.md` into the model directory.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        Ok(file::write_atomic(
            &directory.join("README.md"),
            self.to_markdown().as_bytes(),
        )?)
    }

    /// The card's text.
    pub fn to_markdown(&self) -> String {
        let exits = self.config.exits();
        let task = &self.data.task;
        let bypass = match &exits.bypass {
            None => "none".to_owned(),
            Some(b) => format!("rank {}, {}", b.rank, b.activation),
        };
        let mut text = format!(
            "---\nlibrary_name: badge\npipeline_tag: text-classification\ntags:\n- early-exit\n---\n\n\
             # {} fine-tuned on {} with {} exits\n\n\
             Every exit answers on its own; a policy such as `dge:tau=0.3,t=2` decides per input \
             where to stop.\n\n\
             ```sh\nbadge predict --model . --policy dge:tau=0.3,t=2 texts.txt\n```\n\n",
            self.backbone,
            task.name,
            exits.exits.count(),
        );
        let TrainConfig {
            learning_rate,
            batch_size,
            accumulation,
            epochs_max,
            seed,
            ..
        } = self.training;
        let _ = write!(
            text,
            "- bypasses: {bypass}\n- epochs: {} of at most {epochs_max}\n\
             - learning rate {learning_rate}, batch {}, seed {seed}\n\
             - train rows {} (`{}`), dev rows {} (`{}`)\n\n",
            self.progress.epochs,
            batch_size * accumulation,
            self.data.train.len(),
            short(&self.data.train.sha256),
            self.data.dev.len(),
            short(&self.data.dev.sha256),
        );
        if let Some(best) = &self.progress.best {
            let mut table = Table::new([
                Column::number("exit"),
                Column::number(format!("dev {}", task.metric)),
            ]);
            for (depth, score) in exits.exits.depths().iter().zip(&best.scores.exits) {
                table.push([depth.to_string(), format!("{:.1}", 100.0 * score)]);
            }
            table.push([
                "S-avg".to_owned(),
                format!("{:.1}", 100.0 * best.scores.average),
            ]);
            table.push([
                "S-best".to_owned(),
                format!("{:.1}", 100.0 * best.scores.best),
            ]);
            text += &table.to_markdown();
        }
        text
    }
}

/// The beginning of a hash: enough to tell two apart by eye.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
