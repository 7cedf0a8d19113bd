//! `badge reproduce`: a table or figure of the paper, from trainings to the page.

mod progress;
mod rows;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use badge_lab::reproduce::document::{EXPERIMENT_FILE, document, keep as keep_experiment, kept};
use badge_lab::reproduce::experiment::BackboneAxis;
use badge_lab::reproduce::store::Weights;
use badge_lab::reproduce::{
    Experiment, Materials, Only, Options, Scheduler, Smoke, Sources, Standing, Store, Summary,
    builtin, names,
};
use badge_tasks::file;
use badge_train::weights::read_config;
use clap::Args;
use serde::Serialize;

use self::progress::GridProgress;
use self::rows::FilesAndHub;
use super::{Session, Verdict, sources};

/// Flags of `badge reproduce`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  badge reproduce table1 --data glue --out runs/table1\n  \
    badge reproduce figure2 --data data --backbone my-bert --tasks mrpc --seeds 1,2,3\n  \
    badge reproduce figure2 --smoke\n\nA grid that was interrupted goes on where it was; several \
    processes may share one --out."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that can be typed"
)]
pub(crate) struct ReproduceArgs {
    /// table1, table2, table3, table6, figure2 or grid (the search of Table 5)
    #[arg(value_name = "NAME", required_unless_present_any = ["config", "document"])]
    name: Option<String>,
    /// An experiment of one's own: a TOML file like those under experiments/
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    config: Option<PathBuf>,
    /// Write the page of all experiments' records, and run nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "config"])]
    document: Option<PathBuf>,
    /// Folder of the page's records, with one folder per experiment
    #[arg(
        long,
        value_name = "DIR",
        default_value = "experiments/reproduction",
        requires = "document"
    )]
    records: PathBuf,
    /// Folder for cells, tables and figures [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder with one folder per task [default: GLUE's are fetched from the hub]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Encoders instead of the experiment's
    #[arg(long, value_name = "DIR|HUB_ID", value_delimiter = ',')]
    backbone: Vec<String>,
    /// Those of the experiment's tasks to run now
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Those of the experiment's methods to run now
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    methods: Vec<String>,
    /// Seeds instead of the experiment's
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Epochs at most instead of the experiment's
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Hours after which no new run begins
    #[arg(long, value_name = "HOURS")]
    hours: Option<f64>,
    /// Try every code path on a small corpus that the program makes, with a tiny encoder
    #[arg(long)]
    smoke: bool,
    /// Make tables and figures of what is done, and run nothing
    #[arg(long)]
    tables_only: bool,
    /// Run cells again that failed
    #[arg(long)]
    retry_failed: bool,
    /// Keep the trained weights, which tables and figures do not need
    #[arg(long)]
    keep_models: bool,
    #[command(flatten)]
    cache: sources::CacheArgs,
}

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    directory: &'a Path,
    /// Nothing with --tables-only.
    standing: Option<&'a Standing>,
    summary: &'a Summary,
}

pub(crate) fn run(args: &ReproduceArgs, session: Session) -> Result<Verdict> {
    if let Some(page) = &args.document {
        ensure!(
            args.records.is_dir() || !page.exists(),
            "--records: there is no folder {}, and {} would lose what it shows",
            args.records.display(),
            page.display()
        );
        let place = args.records.display().to_string();
        let text = document(&args.records, &place)?;
        file::write_atomic(page, text.as_bytes())?;
        let written = serde_json::json!({ "page": page });
        let told = format!("written: {}\n", page.display());
        session.console.result(&written, &told)?;
        return Ok(Verdict::Done);
    }
    let typed = args.experiment(session)?;
    let out = args.out(&typed);
    ensure!(
        !out.exists() || out.is_dir(),
        "--out: {} is a file; name a folder",
        out.display()
    );
    let experiment = args.settle(typed, &out)?;
    let store = Store::new(&out);
    let _presence = store.enter()?;
    let standing = if args.tables_only {
        None
    } else {
        let standing = args.run_cells((&experiment, &store), &out, session)?;
        Some(standing)
    };
    let summary = Summary::of(&experiment, &store)?;
    let written = summary.write(&out)?;
    let outcome = Outcome {
        directory: &out,
        standing: standing.as_ref(),
        summary: &summary,
    };
    let text = report(&outcome, &written)?;
    session.console.result(&outcome, &text)?;
    let has_failed = summary.cells.failed > 0;
    Ok(if has_failed {
        Verdict::No
    } else {
        Verdict::Done
    })
}

fn report(outcome: &Outcome<'_>, written: &[PathBuf]) -> Result<String> {
    let mut text = outcome.summary.to_text()?;
    if let Some(standing) = outcome.standing {
        for (name, reason) in &standing.missing {
            let _ = write!(text, "\nnot run, {name}: {reason}");
        }
        for failed in &standing.failed {
            let _ = write!(
                text,
                "\nfailed, {} (cells/{}): {}",
                failed.cell, failed.folder, failed.message
            );
        }
        if !standing.failed.is_empty() {
            text += "\nrun it again with --retry-failed";
        }
    }
    let names: Vec<_> = written.iter().filter_map(|path| path.file_name()).collect();
    let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    let place = outcome.directory.display();
    let _ = writeln!(text, "\nIn {place}: {}.", names.join(", "));
    Ok(text)
}

impl ReproduceArgs {
    /// The experiment with what was typed in place of what its file says.
    fn experiment(&self, session: Session) -> Result<Experiment> {
        let mut experiment = match (&self.name, &self.config) {
            (_, Some(path)) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let text = file::read_text(path)?;
                Experiment::parse(&name, &text, &path.display().to_string())?
            }
            (Some(name), None) => builtin(name)?,
            (None, None) => anyhow::bail!("name one of {}, or give --config", names().join(", ")),
        };
        if self.smoke {
            experiment = experiment.smoke();
        }
        if let (Some(seed), []) = (session.seed_flag, &self.seeds[..]) {
            experiment.seeds = vec![seed];
        } else if !self.seeds.is_empty() {
            experiment.seeds.clone_from(&self.seeds);
        }
        if let Some(epochs) = self.epochs {
            experiment.budget.epochs = epochs;
        }
        experiment.budget.hours = self.hours.or(experiment.budget.hours);
        if !self.backbone.is_empty() {
            ensure!(!self.smoke, "--backbone: --smoke has an encoder of its own");
            let axes = self.backbone.iter().map(|source| backbone(source, session));
            experiment.backbones = axes.collect::<Result<_>>()?;
        }
        experiment
            .check()
            .context("the experiment as it was typed")?;
        Ok(experiment)
    }

    /// What is tabulated: the experiment that was run into the folder before, or what was typed if
    /// that is all of it, and more.
    fn settle(&self, typed: Experiment, out: &Path) -> Result<Experiment> {
        let Some(earlier) = kept(&typed.name, out)? else {
            return Ok(typed);
        };
        if self.tables_only {
            return Ok(earlier);
        }
        typed.check_covers(&earlier).with_context(|| {
            format!(
                "--out: {} holds another experiment; name another folder, or start it as it was \
                 started before ({})",
                out.display(),
                out.join(EXPERIMENT_FILE).display()
            )
        })?;
        Ok(typed)
    }

    /// The part of the experiment that is run now.
    fn only(&self, experiment: &Experiment) -> Result<Only> {
        let methods = named("--methods", &self.methods, &experiment.methods, |method| {
            method.name()
        })?;
        let tasks = named("--tasks", &self.tasks, &experiment.tasks, |axis| &axis.task)?;
        Ok(Only {
            tasks: tasks.into_iter().map(|axis| axis.task).collect(),
            methods,
        })
    }

    fn out(&self, experiment: &Experiment) -> PathBuf {
        let trial = if self.smoke { "-smoke" } else { "" };
        let default = || PathBuf::from(format!("runs/{}{trial}", experiment.name));
        self.out.clone().unwrap_or_else(default)
    }

    fn run_cells(
        &self,
        (experiment, store): (&Experiment, &Store),
        out: &Path,
        session: Session,
    ) -> Result<Standing> {
        let sources: Box<dyn Sources> = if self.smoke {
            ensure!(self.data.is_none(), "--data: --smoke makes its own rows");
            Box::new(Smoke::new(&out.join("encoder"))?)
        } else {
            Box::new(FilesAndHub {
                data: self.data.clone(),
                console: session.console,
            })
        };
        let only = self.only(experiment)?;
        let mut tasks = experiment.tasks.clone();
        tasks.retain(|axis| only.tasks.is_empty() || only.tasks.contains(&axis.task));
        let axes = (&tasks[..], &experiment.backbones[..]);
        let materials = Materials::gather(axes, &*sources)?;
        materials.check(experiment)?;
        keep_experiment(experiment, out)?;
        let options = Options {
            only,
            threads: session.threads,
            tokens: self.cache.tokens(),
            retry_failed: self.retry_failed,
            weights: if self.keep_models {
                Weights::Keep
            } else {
                Weights::Remove
            },
        };
        for (name, reason) in materials.missing() {
            session
                .console
                .note(&format!("note: {name} is left out: {reason}"));
        }
        let mut progress = GridProgress::new(session.console);
        Scheduler::new((experiment, store), &materials, &options)?.run(&mut progress)
    }
}

/// Those values of an axis that were named.
fn named<T: Clone>(
    flag: &str,
    names: &[String],
    axis: &[T],
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>> {
    let find = |wanted: &String| {
        let found = axis.iter().find(|value| name(value) == wanted);
        found.cloned().with_context(|| {
            let known: Vec<_> = axis.iter().map(&name).collect();
            format!(
                "{flag}: the experiment has no {wanted}; it has {}",
                known.join(", ")
            )
        })
    };
    names.iter().map(find).collect()
}

/// An encoder that was typed, as an axis has it.
fn backbone(source: &str, session: Session) -> Result<BackboneAxis> {
    let directory = sources::model_directory(source, session.console).context("--backbone")?;
    let blocks = read_config(&directory)?.backbone.blocks;
    Ok(BackboneAxis {
        name: sources::label(source),
        source: source.to_owned(),
        blocks,
        paper: None,
    })
}
