//! `badge bench throughput`: tokens per second of batches of ragged lengths.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use badge_core::config::ModelConfig;
use badge_core::policy::PolicySpec;
use badge_lab::bench::exit_shares::ExitShares;
use badge_lab::bench::throughput::{Batches, Throughput};
use badge_lab::bench::timing::Repeats;
use badge_lab::bench::{Subject, policy, random_inputs, read_config};
use badge_tasks::split::SplitName;
use badge_tasks::{Encoding, Tokenizer};
use badge_train::data::EncodedSplit;
use clap::Args;
use serde_json::json;

use super::super::{Session, sources};
use super::{Bench, EngineArgs, check_out, read_lengths};

/// Flags of `badge bench throughput`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench throughput --model runs/mrpc --task mrpc --batch 32\n  \
    badge bench throughput --model runs/mrpc --lengths-file lengths.json --exit-shares 0.5@6"
)]
pub(crate) struct ThroughputArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Inputs of a batch
    #[arg(long, value_name = "INPUTS", default_value_t = 32)]
    batch: usize,
    /// JSON list of lengths in tokens; their ids are random
    #[arg(long, value_name = "FILE", conflicts_with = "task")]
    lengths_file: Option<PathBuf>,
    /// A built-in task or a task.toml, whose rows are the inputs
    #[arg(long)]
    task: Option<String>,
    /// Folder with the task's files [default: fetched from the hub]
    #[arg(long, value_name = "DIR", requires = "task")]
    data: Option<PathBuf>,
    /// dev, test or train
    #[arg(long, default_value = "test", requires = "task")]
    split: String,
    #[command(flatten)]
    cache: sources::CacheArgs,
    /// When to leave the network, such as dge:tau=0.3,t=2
    #[arg(long, value_name = "SPEC", default_value_t = PolicySpec::Full)]
    policy: PolicySpec,
    /// Timed rounds over all batches, after three that are not
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Also let shares of each batch leave at given depths, whatever they answer: 0.25@3,0.25@6
    #[arg(long, value_name = "SHARE@DEPTH,..")]
    exit_shares: Option<ExitShares>,
}

/// What is run, and how it is known again.
struct Inputs {
    rows: Vec<Encoding>,
    name: String,
    sha256: String,
}

pub(super) fn run(args: &ThroughputArgs, bench: &Bench) -> Result<()> {
    let session = bench.session;
    check_out(&args.engine.out)?;
    let repeats = Repeats::new("--rounds", args.rounds)?;
    let directory = sources::model_directory(&args.engine.model, session.console)?;
    let config = read_config(&directory)?;
    policy(&config, &args.policy)?;
    if let Some(shares) = &args.exit_shares {
        shares.check(&config).context("--exit-shares")?;
    }
    let inputs = args.inputs(&directory, &config, session)?;
    let batches = Batches::new(inputs.rows, args.batch)?;
    let precisions = args.engine.precisions.all();
    let peaks = bench.peaks_of(&precisions);
    let mut measured = Throughput::new();
    let bar = session.console.bar(precisions.len() as u64, "throughput");
    for precision in precisions {
        let room = batches.room(&args.engine.options(precision, bench));
        let mut subject = Subject::load(&directory, room, &peaks.all_threads)?;
        let row = subject.throughput(&batches, &args.policy, repeats)?;
        measured.rows.push(row);
        if let Some(shares) = &args.exit_shares {
            let row = subject.exit_shares(&batches, shares, (repeats, session.seed))?;
            measured.exit_shares.push(row);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = bench.report("bench throughput", Some(peaks), measured);
    let text = report.measured.to_text();
    let mut provenance = args.engine.provenance(&directory, args.configuration())?;
    provenance.data.insert(inputs.name, inputs.sha256);
    bench.finish(&report, &text, provenance)
}

impl ThroughputArgs {
    /// The rows of the task, or random ids of the given lengths.
    fn inputs(&self, directory: &Path, config: &ModelConfig, session: Session) -> Result<Inputs> {
        match (&self.lengths_file, &self.task) {
            (Some(path), _) => {
                let (lengths, sha256) = read_lengths(path, config)?;
                Ok(Inputs {
                    rows: random_inputs(config, &lengths, session.seed),
                    name: "lengths".to_owned(),
                    sha256,
                })
            }
            (None, Some(task)) => self.rows_of(task, directory, (config, session)),
            (None, None) => bail!("--lengths-file or --task is missing: what is to be run?"),
        }
    }

    fn rows_of(
        &self,
        task: &str,
        directory: &Path,
        (config, session): (&ModelConfig, Session),
    ) -> Result<Inputs> {
        let tokenizer = Tokenizer::from_directory(directory)?;
        let name: SplitName = self.split.parse().context("--split")?;
        let (data, _) = sources::task_data(task, self.data.as_deref(), session.console)?;
        let split = data
            .split(name)
            .with_context(|| format!("--split: {} has no {name} rows", data.task.name))?;
        let max_length = sources::max_length(config, None);
        let encoded = EncodedSplit::new(split, &tokenizer, max_length, &self.cache.tokens())?;
        encoded.check(&config.backbone, "--split")?;
        Ok(Inputs {
            rows: encoded.encodings().to_vec(),
            name: name.to_string(),
            sha256: split.sha256.clone(),
        })
    }

    fn configuration(&self) -> serde_json::Value {
        json!({
            "model": sources::label(&self.engine.model), "precision": self.engine.precisions.names(),
            "cls_first": self.engine.cls_first.name(), "exits_wait": self.engine.exits_wait.name(),
            "batch": self.batch, "rounds": self.rounds, "policy": self.policy, "task": self.task,
            "split": self.task.as_ref().map(|_| &self.split),
            "exit_shares": self.exit_shares,
        })
    }
}
