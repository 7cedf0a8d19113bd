//! `badge fetch`: fills the cache, so that everything else works offline.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use badge_tasks::{HubId, Task};
use clap::Args;
use serde::Serialize;

use super::{Session, Verdict, sources};

/// Flags of `badge fetch`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge fetch albert/albert-base-v2 --task rte\n  \
    HF_HUB_OFFLINE=1 badge train --backbone albert/albert-base-v2 --task rte --out runs/rte"
)]
pub(crate) struct FetchArgs {
    /// A model of the hub: NAME, ORG/NAME or ORG/NAME@REVISION
    #[arg(value_name = "ID", required_unless_present = "task")]
    id: Option<String>,
    /// A GLUE task whose data is fetched too
    #[arg(long)]
    task: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Fetched>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Fetched>,
}

/// What was asked for, and the folder it now lies in.
#[derive(Debug, Serialize)]
struct Fetched {
    name: String,
    path: PathBuf,
}

pub(crate) fn run(args: &FetchArgs, session: Session) -> Result<Verdict> {
    let console = session.console;
    // Both names are checked before anything is downloaded.
    let task = args.task.as_deref().map(glue_task).transpose()?;
    let id = args.id.as_deref().map(hub_id).transpose()?;
    let hub = sources::hub();
    let mut outcome = Outcome::default();
    if let Some(id) = id {
        let path =
            sources::with_download_bar(console, |on_progress| hub.fetch_model(&id, on_progress))?;
        let name = id.to_string();
        outcome.model = Some(Fetched { name, path });
    }
    if let Some(task) = task {
        let path = sources::with_download_bar(console, |on_progress| hub.glue(&task, on_progress))?;
        let name = task.name;
        outcome.task = Some(Fetched { name, path });
    }
    let paths = outcome.model.iter().chain(&outcome.task);
    let lines: Vec<_> = paths
        .map(|fetched| fetched.path.display().to_string())
        .collect();
    console.result(&outcome, &(lines.join("\n") + "\n"))?;
    Ok(Verdict::Done)
}

fn glue_task(name: &str) -> Result<Task> {
    let task = Task::open(name)?;
    ensure!(
        !task.hub_files().is_empty(),
        "--task {name}: only GLUE's tasks ({}) come from the hub",
        Task::builtin_names().join(", ")
    );
    Ok(task)
}

fn hub_id(name: &str) -> Result<HubId> {
    ensure!(
        !Path::new(name).is_dir(),
        "`{name}` is a local directory; there is nothing to fetch"
    );
    Ok(name.parse()?)
}
