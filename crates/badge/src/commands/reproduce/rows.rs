//! Where the rows and encoders of a grid come from.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use badge_lab::reproduce::experiment::{BackboneAxis, SplitOfTask, TaskAxis};
use badge_lab::reproduce::{Sources, TaskRows, tasks};
use badge_tasks::split::{SPLIT_SEED, official_test};
use badge_tasks::{Task, load};

use crate::commands::sources;
use crate::console::Console;

/// Folders on the disk, and the hub for what is not there.
pub(super) struct FilesAndHub {
    /// The folder with one folder per task.
    pub(super) data: Option<PathBuf>,
    pub(super) console: Console,
}

impl FilesAndHub {
    fn folder(&self, task: &Task, axis: &TaskAxis) -> Result<Option<PathBuf>> {
        let Some(data) = &self.data else {
            let folder = sources::data_folder(task, None, self.console)?;
            let has_rows = folder.is_some() || task.folder.is_some();
            ensure!(
                has_rows,
                "its rows are on no hub; give their folder with --data"
            );
            return Ok(folder);
        };
        let named = axis.folder.as_ref().map(|folder| data.join(folder));
        let found = named.filter(|folder| folder.is_dir());
        // A task file has its rows beside it.
        Ok(found.or_else(|| task.folder.is_none().then(|| data.clone())))
    }
}

impl Sources for FilesAndHub {
    fn task(&self, axis: &TaskAxis) -> Result<TaskRows> {
        let task = tasks::open(&axis.task)?;
        let read = || {
            let folder = self.folder(&task, axis)?;
            let data = load(&task, folder.as_deref(), SPLIT_SEED)?;
            let official = if axis.splits.contains(&SplitOfTask::OfficialTest) {
                official_test(&task, folder.as_deref())?
            } else {
                None
            };
            Ok(TaskRows { data, official })
        };
        let rows: Result<_> = read();
        rows.with_context(|| format!("task {}", axis.task))
    }

    fn backbone(&self, axis: &BackboneAxis) -> Result<PathBuf> {
        sources::model_directory(&axis.source, self.console)
    }
}
