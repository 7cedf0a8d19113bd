//! Where models and data come from: a local directory or the hub.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use badge_core::config::ModelConfig;
use badge_tasks::hub::{Hub, HubEnvironment, Progress};
use badge_tasks::split::SPLIT_SEED;
use badge_tasks::tokenizer::cache::Origin;
use badge_tasks::{Task, TaskData, TokenCache};
use clap::Args;

use crate::console::Console;

/// The flag that does without the token cache.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct CacheArgs {
    /// Tokenise the rows anew, and keep no token ids in BADGE_CACHE or the user's cache folder
    #[arg(long)]
    no_cache: bool,
}

impl CacheArgs {
    /// Where token ids are kept.
    pub(crate) fn tokens(self) -> TokenCache {
        if self.no_cache {
            TokenCache::off()
        } else {
            TokenCache::from_env()
        }
    }
}

/// Tells where token ids came from: to those who ask, or to all when something is wrong.
pub(crate) fn tell_origin(split: &str, origin: &Origin, console: Console) {
    let text = format!("{split}: {origin}");
    if origin.is_remarkable() {
        console.note(&text);
    } else {
        console.detail(&text);
    }
}

/// The hub as the environment describes it.
pub(crate) fn hub() -> Hub {
    Hub::new(HubEnvironment::from_env())
}

/// A bar that follows a download.
pub(crate) fn with_download_bar<R>(
    console: Console,
    download: impl FnOnce(&mut dyn FnMut(Progress<'_>)) -> badge_tasks::Result<R>,
) -> Result<R> {
    let bar = console.bar(0, "downloading");
    let mut on_progress = |progress: Progress<'_>| {
        bar.set_length(progress.total.unwrap_or(progress.received) / 1024);
        bar.set_position(progress.received / 1024);
        bar.set_message(format!("KiB · {}", progress.file));
    };
    let result = download(&mut on_progress);
    bar.finish_and_clear();
    Ok(result?)
}

/// The directory of a model: as it is, or from the hub.
pub(crate) fn model_directory(name: &str, console: Console) -> Result<PathBuf> {
    if Path::new(name).is_dir() {
        return Ok(PathBuf::from(name));
    }
    with_download_bar(console, |on_progress| hub().resolve(name, on_progress))
        .with_context(|| format!("`{name}` is no directory here; as a hub id"))
}

/// A model's name without the folders it lies in: paths of one machine say nothing on another.
pub(crate) fn label(name: &str) -> String {
    let path = Path::new(name);
    let last = path.file_name().filter(|_| path.is_dir());
    last.map_or_else(
        || name.to_owned(),
        |last| last.to_string_lossy().into_owned(),
    )
}

/// The task and its splits, from `--data` or the hub.
pub(crate) fn task_data(
    task: &str,
    data: Option<&Path>,
    console: Console,
) -> Result<(TaskData, Option<PathBuf>)> {
    let task = Task::open(task)?;
    let folder = data_folder(&task, data, console)?;
    let loaded = badge_tasks::load(&task, folder.as_deref(), SPLIT_SEED)
        .with_context(|| format!("task {}", task.name))?;
    Ok((loaded, folder))
}

/// The folder of a task's files, from the hub where none is given and the hub has them.
pub(super) fn data_folder(
    task: &Task,
    data: Option<&Path>,
    console: Console,
) -> Result<Option<PathBuf>> {
    match data {
        Some(folder) => Ok(Some(folder.to_owned())),
        None if task.hub_files().is_empty() => Ok(None),
        None => Ok(Some(with_download_bar(console, |on_progress| {
            hub().glue(task, on_progress)
        })?)),
    }
}

/// The longest input: as typed, or as the model was trained, or 128 tokens; never more than the
/// backbone has positions for.
pub(crate) fn max_length(config: &ModelConfig, typed: Option<usize>) -> usize {
    let trained = config.exits().max_length;
    typed
        .or(trained)
        .unwrap_or(128)
        .min(config.backbone.positions)
}
