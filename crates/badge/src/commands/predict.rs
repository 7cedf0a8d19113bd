//! `badge predict`: texts in; label, probabilities, exit and reason out.

mod output;
mod row;

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use badge_core::cost::ExitHistogram;
use badge_core::policy::{ModelExits, Policy, PolicySpec};
use badge_lab::calibration::{self, calibrated_exits};
use badge_lab::fine_tune::label_space_of;
use badge_lab::inference::{Answer, Inference};
use badge_tasks::dataset::{Format, common_columns, parse_inputs, read_inputs};
use badge_tasks::task::{Column, Columns, Example};
use badge_tasks::{Encoding, LabelSpace, Tokenizer};
use badge_train::data::EncodedSplit;
use clap::Args;
use serde::Serialize;

use self::output::{Form, Output};
use self::row::PredictionRow;
use super::computing::ComputingArgs;
use super::{Session, Verdict, sources};
use crate::console::Console;

/// Flags of `badge predict`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge predict --model runs/rte --policy dge:tau=0.3,t=2 pairs.tsv\n  \
    echo 'what a film' | badge predict --model runs/sst2 --json"
)]
pub(crate) struct PredictArgs {
    /// Model directory or hub id
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,
    /// When to leave the network, such as dge:tau=0.3,t=2 or fixed:6 [default: what the model was
    /// calibrated for, else full]
    #[arg(long, value_name = "SPEC")]
    policy: Option<PolicySpec>,
    /// Least layer speed-up: of the points that the model was calibrated for the one of the best
    /// score that is so fast or faster
    #[arg(long, value_name = "TIMES", conflicts_with = "policy")]
    target_speedup: Option<f64>,
    /// The texts; `-` or nothing stands for standard input
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,
    /// lines, tsv, csv, jsonl or parquet [default: by the file's extension; lines on standard
    /// input]
    #[arg(long)]
    format: Option<Format>,
    /// The column of the text [default: one of the usual names, such as text or sentence1]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// The column of the second text of a pair [default: as --text-column, if there is one]
    #[arg(long, value_name = "NAME")]
    pair_column: Option<String>,
    /// Longest input in tokens [default: what the model was trained on, else 128]
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    #[command(flatten)]
    computing: ComputingArgs,
    /// Add the logits of every exit, also of those the policy does not reach
    #[arg(long)]
    logits: bool,
    /// Print every row as it is answered [default: a table on a terminal, tsv elsewhere]
    #[arg(long, value_name = "FORM")]
    output: Option<RowForm>,
}

/// Forms of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RowForm {
    /// One JSON object per line.
    Jsonl,
    /// Tab-separated fields under a header.
    Tsv,
}

/// What the rows have in common.
#[derive(Debug, Serialize)]
struct Summary {
    rows: u64,
    mean_exit: f64,
    layer_speedup: f64,
    /// Rows that left at each depth.
    histogram: Vec<(usize, u64)>,
    ms_per_row: f64,
}

/// Rows that are answered together: enough to keep batches full while rows leave them, few enough
/// that output comes while later rows are still computed.
const ROWS_TOGETHER: usize = 256;

pub(crate) fn run(args: &PredictArgs, session: Session) -> Result<Verdict> {
    let console = session.console;
    args.check()?;
    let form = args.form(console)?;
    let mut predictor = Predictor::open(args, session)?;
    let examples = args.examples(console)?;
    let encoded = predictor.encode(&examples, args.max_length)?;
    let with_pairs = examples.iter().any(|example| example.pair.is_some());
    let labels = predictor.labels.clone();
    let mut output = Output::new(console, form, &labels, with_pairs);
    output.begin()?;
    let bar = console.bar(examples.len() as u64, "predicting");
    let mut histogram = ExitHistogram::new(predictor.policy.plan());
    let mut seconds = 0.0;
    let exits = predictor.policy.plan().deepest();
    let chunks = examples
        .chunks(ROWS_TOGETHER)
        .zip(encoded.encodings().chunks(ROWS_TOGETHER));
    for (examples, encodings) in chunks {
        let start = Instant::now();
        let answers = predictor.answers(encodings)?;
        seconds += start.elapsed().as_secs_f64();
        let mut exit_logits = predictor.exit_logits(encodings, args)?.into_iter();
        for (example, answer) in examples.iter().zip(&answers) {
            histogram.record(answer.depth);
            let mut row = PredictionRow::new(example, answer, exits, &labels);
            row.exit_logits = exit_logits.next();
            bar.suspend(|| output.row(row))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let summary = Summary {
        rows: histogram.samples(),
        mean_exit: histogram.mean_depth().unwrap_or(0.0),
        layer_speedup: histogram.layer_speedup().map_or(1.0, |speedup| speedup.0),
        histogram: histogram.iter().map(|(d, count)| (d.0, count)).collect(),
        ms_per_row: 1e3 * seconds / examples.len() as f64,
    };
    output.finish((&args.model, predictor.policy.spec()), &summary)?;
    Ok(Verdict::Done)
}

/// A model with everything that turns a text into an answer.
struct Predictor {
    model: Box<dyn Inference>,
    tokenizer: Tokenizer,
    labels: LabelSpace,
    policy: Arc<Policy>,
}

impl Predictor {
    fn open(args: &PredictArgs, session: Session) -> Result<Self> {
        let console = session.console;
        let directory = sources::model_directory(&args.model, console)?;
        let model = args.computing.open(&directory, session)?;
        let tokenizer = Tokenizer::from_directory(&directory)?;
        let config = model.config();
        let labels = label_space_of(&config.head)?;
        let spec = args.spec(&directory)?;
        let exits = if spec.needs_calibration() {
            calibrated_exits(&directory, config)?
        } else {
            ModelExits::of(config)
        };
        let policy = spec.build_for(&exits)?;
        for caveat in policy.caveats() {
            console.note(&format!("note: {spec}: {caveat}"));
        }
        Ok(Self {
            model,
            tokenizer,
            labels,
            policy: Arc::new(policy),
        })
    }

    fn answers(&mut self, rows: &[Encoding]) -> Result<Vec<Answer>> {
        self.model.classify(rows, &self.policy)
    }

    /// Token ids of every row, all checked before the first answer is printed.
    fn encode(&self, examples: &[Example], max_length: Option<usize>) -> Result<EncodedSplit> {
        let max_length = sources::max_length(self.model.config(), max_length);
        let encodings = self
            .tokenizer
            .encode_all(examples, max_length)
            .context("the input cannot be tokenised")?;
        let encoded = EncodedSplit::from_encodings(encodings, Vec::new(), self.tokenizer.pad_id());
        encoded.check(&self.model.config().backbone, "the input")?;
        Ok(encoded)
    }

    /// The logits of every exit on each of the rows, in the order of the plan; none if they are
    /// not asked for.
    fn exit_logits(&mut self, rows: &[Encoding], args: &PredictArgs) -> Result<Vec<Vec<Vec<f32>>>> {
        if !args.logits {
            return Ok(Vec::new());
        }
        let rows = EncodedSplit::from_encodings(rows.to_vec(), Vec::new(), self.tokenizer.pad_id());
        let logits = self.model.all_exits(&rows, &mut |_| {})?;
        let of_row = |row| {
            let exits = 0..logits.exits;
            exits
                .map(|exit| logits.logits(row, exit).to_vec())
                .collect()
        };
        Ok((0..rows.len()).map(of_row).collect())
    }
}

impl PredictArgs {
    /// The policy that is asked for, by its text or by its speed, or that of the calibration.
    fn spec(&self, directory: &Path) -> Result<PolicySpec> {
        if let Some(spec) = &self.policy {
            return Ok(spec.clone());
        }
        let calibration = calibration::read(directory)?;
        let Some(least) = self.target_speedup else {
            return Ok(calibration.map_or(PolicySpec::Full, |c| c.policy));
        };
        let calibration = calibration.context(
            "--target-speedup: the model is not calibrated; run badge calibrate, or name a --policy",
        )?;
        let point = calibration.at_speedup(least).with_context(|| {
            let speeds = calibration.usable().map(|point| point.layer_speedup);
            let fastest = speeds.fold(1.0, f64::max);
            format!(
                "--target-speedup: no calibrated point is {least} times as fast; the fastest is \
                 {fastest:.2} times"
            )
        })?;
        Ok(point.policy.clone())
    }

    /// Refuses speeds that nobody can mean, before anything is read.
    fn check(&self) -> Result<()> {
        let least = self.target_speedup.unwrap_or(1.0);
        ensure!(
            least.is_finite() && least >= 1.0,
            "--target-speedup: {least} is no layer speed-up; give 1 or more"
        );
        Ok(())
    }

    fn form(&self, console: Console) -> Result<Form> {
        let form = match self.output {
            Some(_) if console.json => {
                anyhow::bail!("--output: leave it out with --json, which prints one document")
            }
            None if console.json => Form::Document,
            None if io::stdout().is_terminal() => Form::Table,
            Some(RowForm::Jsonl) => Form::JsonLines,
            Some(RowForm::Tsv) | None => Form::Tsv,
        };
        ensure!(
            !self.logits || matches!(form, Form::Document | Form::JsonLines),
            "--logits: only --json and --output jsonl can hold them"
        );
        Ok(form)
    }

    /// Reads every row of the input.
    fn examples(&self, console: Console) -> Result<Vec<Example>> {
        let columns = self.columns()?;
        let file = self.input.as_deref().filter(|path| *path != Path::new("-"));
        let examples = if let Some(path) = file {
            ensure!(
                !path.is_dir(),
                "{}: is a directory; give a file of texts",
                path.display()
            );
            read_inputs(path, &columns, self.format)?
        } else {
            let mut input = io::stdin().lock();
            if input.is_terminal() {
                console.note("reading standard input; Ctrl-D on a line of its own ends it");
            }
            let mut content = Vec::new();
            input
                .read_to_end(&mut content)
                .context("standard input cannot be read")?;
            let format = self.format.unwrap_or(Format::Lines);
            parse_inputs(Path::new("standard input"), &content, &columns, format)?
        };
        // The readers let a pair's column be absent, for the usual names are only guesses.
        if let Some(name) = &self.pair_column
            && let Some(row) = examples.iter().position(|example| example.pair.is_none())
        {
            anyhow::bail!("--pair-column: row {} has no column `{name}`", row + 1);
        }
        Ok(examples)
    }

    fn columns(&self) -> Result<Columns> {
        let usual = common_columns();
        let named = |name: &String| Column::any_of(&[name]);
        if self.format == Some(Format::Lines) {
            let given = self.text_column.is_some() || self.pair_column.is_some();
            ensure!(
                !given,
                "--format lines has no columns; leave --text-column and --pair-column out"
            );
        }
        Ok(Columns {
            pair: match (&self.pair_column, &self.text_column) {
                (Some(pair), _) => Some(named(pair)),
                // Who names the text's column alone means single texts.
                (None, Some(_)) => None,
                (None, None) => usual.pair,
            },
            text: self.text_column.as_ref().map_or(usual.text, named),
            label: usual.label,
        })
    }
}
