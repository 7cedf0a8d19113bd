//! A trained model and the labelled rows it is held against: what `eval`, `sweep` and
//! `calibrate` begin with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use badge_core::calibration::temperature::Temperature;
use badge_core::checkpoint::{Checkpoint, Tensor};
use badge_core::config::{CONFIG_FILE, ModelConfig};
use badge_core::policy::ModelExits;
use badge_lab::calibration::calibrated_exits;
use badge_lab::evaluation::{Evaluation, Subject};
use badge_lab::fine_tune::label_space_of;
use badge_lab::inference::{Inference, Provenance};
use badge_lab::record::Record;
use badge_tasks::split::{SplitName, official_test};
use badge_tasks::{LabelSpace, Split, TaskData, Tokenizer, file, hash};
use badge_train::data::EncodedSplit;
use badge_train::evaluate::ExitLogits;
use badge_train::weights::{SAFETENSORS_FILE, read_config};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::computing::{ComputingArgs, machine};
use super::{Session, sources};

/// Flags of commands that hold a model against labelled rows.
#[derive(Debug, Clone, Args)]
pub(super) struct HeldOutArgs {
    /// Model directory or hub id
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub(super) model: String,
    /// A built-in task (rte, mrpc, sst2, ...) or a task.toml
    #[arg(long)]
    pub(super) task: String,
    /// Folder with the task's files [default: fetched from the hub]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    pub(super) computing: ComputingArgs,
    /// Longest input in tokens [default: what the model was trained on, else 128]
    #[arg(long, value_name = "TOKENS")]
    pub(super) max_length: Option<usize>,
    #[command(flatten)]
    cache: sources::CacheArgs,
}

impl HeldOutArgs {
    /// What a record says of these flags, together with `more`.
    pub(super) fn configuration(&self, more: Value) -> Value {
        let mut all = json!({
            "task": self.task, "max_length": self.max_length, "model": sources::label(&self.model),
            "engine": self.computing.engine(), "precision": self.computing.precision.to_string(),
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        all
    }

    /// The same with a split.
    pub(super) fn wanted<'a>(&'a self, split: &'a str) -> Wanted<'a> {
        Wanted {
            model: &self.model,
            task: &self.task,
            data: self.data.as_deref(),
            split,
            max_length: self.max_length,
            cache: self.cache,
            computing: &self.computing,
        }
    }
}

/// What a command's flags ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) model: &'a str,
    pub(super) task: &'a str,
    pub(super) data: Option<&'a Path>,
    pub(super) split: &'a str,
    pub(super) max_length: Option<usize>,
    pub(super) cache: sources::CacheArgs,
    pub(super) computing: &'a ComputingArgs,
}

/// The rows, the model's description and its directory.
#[derive(Debug)]
pub(super) struct HeldOut {
    pub(super) directory: PathBuf,
    pub(super) config: ModelConfig,
    pub(super) data: TaskData,
    split_name: SplitName,
    /// The test rows of the corpus, where they were asked for.
    official: Option<Split>,
    labels: LabelSpace,
    encoded: EncodedSplit,
    /// The tokens after which rows were cut.
    pub(super) max_length: usize,
    model_exits: ModelExits,
}

/// The file that holds the logits of every exit, `[rows, exits, outputs]`.
#[derive(Debug, Serialize)]
pub(super) struct LogitsFile {
    file: String,
    sha256: String,
}

impl HeldOut {
    /// Reads model, tokeniser and rows, and checks that they belong together.
    pub(super) fn open(wanted: Wanted<'_>, session: Session) -> Result<(Self, Box<dyn Inference>)> {
        let directory = sources::model_directory(wanted.model, session.console)?;
        let model = wanted.computing.open(&directory, session)?;
        let config = model.config().clone();
        Ok((Self::read((directory, config), wanted, session)?, model))
    }

    /// The same without the weights, for logits that may be at hand already.
    pub(super) fn describe(wanted: Wanted<'_>, session: Session) -> Result<Self> {
        let directory = sources::model_directory(wanted.model, session.console)?;
        let config = read_config(&directory)?;
        Self::read((directory, config), wanted, session)
    }

    fn read(
        (directory, config): (PathBuf, ModelConfig),
        wanted: Wanted<'_>,
        session: Session,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_directory(&directory)?;
        let split_name: SplitName = wanted.split.parse().context("--split")?;
        let (data, folder) = sources::task_data(wanted.task, wanted.data, session.console)?;
        let mut official = None;
        if data.split(split_name).is_none() {
            let rows = official_test(&data.task, folder.as_deref())?;
            let name = &data.task.name;
            official =
                Some(rows.with_context(|| format!("--split: {name} has no {split_name} rows"))?);
        }
        let split = official.as_ref().or(data.split(split_name));
        let split = split.expect("one of the two was found");
        let labels = label_space_of(&config.head)?;
        check_labels(&labels, &data.task.label_space)?;
        let max_length = sources::max_length(&config, wanted.max_length);
        let encoded = EncodedSplit::new(split, &tokenizer, max_length, &wanted.cache.tokens())?;
        sources::tell_origin(wanted.split, encoded.origin(), session.console);
        encoded.check(&config.backbone, "--split")?;
        Ok(Self {
            model_exits: ModelExits::of(&config),
            directory,
            config,
            data,
            split_name,
            official,
            labels,
            encoded,
            max_length,
        })
    }

    /// The rows.
    pub(super) fn split(&self) -> &Split {
        let drawn = self.data.split(self.split_name);
        let split = self.official.as_ref().or(drawn);
        split.expect("`open` has found one of the two")
    }

    /// The rows as experiments take them.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            config: &self.config,
            model_exits: &self.model_exits,
            split: self.split(),
            encoded: &self.encoded,
            metric: self.data.task.metric,
            labels: &self.labels,
        }
    }

    /// Lets policies use the temperatures of the model's calibration.
    pub(super) fn use_calibration(&mut self) -> Result<()> {
        self.model_exits = calibrated_exits(&self.directory, &self.config)?;
        Ok(())
    }

    /// Lets policies use these temperatures of the exits; none where there are none.
    pub(super) fn set_temperatures(&mut self, fitted: &[Temperature]) -> Result<()> {
        if !fitted.is_empty() {
            let temperatures = fitted.iter().map(|of_exit| of_exit.value).collect();
            self.model_exits = self.model_exits.clone().with_temperatures(temperatures)?;
        }
        Ok(())
    }

    /// Computes every exit on every row, under a progress bar.
    pub(super) fn evaluate(
        &self,
        model: &mut dyn Inference,
        session: Session,
    ) -> Result<(Evaluation, ExitLogits)> {
        let bar = session.console.bar(self.split().len() as u64, "exits");
        let subject = self.subject();
        let result = subject.evaluate(model, &mut |rows| bar.inc(rows as u64));
        bar.finish_and_clear();
        result
    }

    /// The name of the split.
    pub(super) fn split_name(&self) -> String {
        self.split_name.to_string()
    }

    /// A record that knows the machine, the model's weights and the rows.
    pub(super) fn record(
        &self,
        command: &str,
        session: Session,
        provenance: &Provenance,
    ) -> Result<Record> {
        let mut record = Record::new(command, session.seed, machine(session, provenance));
        let weights = self.directory.join(SAFETENSORS_FILE);
        if weights.exists() {
            let sha256 = hash::sha256_hex(&file::read_bytes(&weights)?);
            record.data.insert(SAFETENSORS_FILE.to_owned(), sha256);
        }
        let split = self.split();
        record
            .data
            .insert(split.name.to_string(), split.sha256.clone());
        Ok(record)
    }
}

/// A model's logits mean the task's labels only when both list the same ones in the same order.
fn check_labels(model: &LabelSpace, task: &LabelSpace) -> Result<()> {
    ensure!(
        model == task,
        "the model answers {model} ({}), but the task asks for {task} ({})",
        model.labels().join(", "),
        task.labels().join(", "),
    );
    Ok(())
}

/// Refuses to write a record over that of a model's training.
pub(super) fn check_out(out: &Path) -> Result<()> {
    if out.exists() && !out.is_dir() {
        bail!("--out: {} is a file; name a folder", out.display());
    }
    if out.join(CONFIG_FILE).exists() {
        bail!(
            "--out: {} is a model directory, whose record.json speaks of its training; \
             name another folder",
            out.display()
        );
    }
    Ok(())
}

/// Writes the logits of every exit beside a record.
pub(super) fn write_logits(out: &Path, logits: &ExitLogits, split: &str) -> Result<LogitsFile> {
    file::create_folder(out)?;
    let mut checkpoint = Checkpoint::default();
    let shape = vec![logits.rows(), logits.exits, logits.outputs];
    let tensor = Tensor {
        shape,
        values: logits.values.clone(),
    };
    checkpoint.insert("logits", "logits".to_owned(), tensor)?;
    let bytes = checkpoint.to_safetensors();
    let name = format!("logits-{split}.safetensors");
    file::write_atomic(&out.join(&name), &bytes)?;
    Ok(LogitsFile {
        file: name,
        sha256: hash::sha256_hex(&bytes),
    })
}
