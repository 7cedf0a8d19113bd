//! `badge eval`: the score of every exit, and what a policy saves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use badge_core::checkpoint::{Checkpoint, Tensor};
use badge_core::config::CONFIG_FILE;
use badge_core::policy::PolicySpec;
use badge_lab::evaluation::{Evaluation, PolicyEvaluation, Subject};
use badge_lab::fine_tune::label_space_of;
use badge_lab::record::{Machine, RECORD_FILE, Record, now};
use badge_lab::tables::{exit_table, policy_table};
use badge_tasks::split::{SplitName, official_test};
use badge_tasks::{LabelSpace, Split, Tokenizer, file, hash};
use badge_train::Device;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::ExitLogits;
use badge_train::model_directory::read_model;
use badge_train::weights::SAFETENSORS_FILE;
use clap::Args;
use serde::Serialize;

use super::{Session, Verdict, sources};

/// Flags of `badge eval`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge eval --model runs/rte --task rte --data glue/RTE \
    --split test --policy dge:tau=0.3,t=2 --policy fixed:6"
)]
pub(crate) struct EvalArgs {
    /// Model directory or hub id
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,
    /// A built-in task (rte, mrpc, sst2, ...) or a task.toml
    #[arg(long)]
    task: String,
    /// Folder with the task's files [default: fetched from the hub]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// dev, test, train, or official-test where the corpus has a labelled one
    #[arg(long, default_value = "test")]
    split: String,
    /// A policy to run row by row at batch size 1, such as dge:tau=0.3,t=2; may be given again
    #[arg(long, value_name = "SPEC")]
    policy: Vec<PolicySpec>,
    /// Replay policies over the logits of all exits instead of running them row by row: fast, but
    /// without wall-clock figures
    #[arg(long)]
    replay: bool,
    /// Longest input in tokens [default: what the model was trained on, else 128]
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// Folder to write record.json and the logits of every exit to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    task: String,
    split: String,
    split_sha256: String,
    metric: String,
    evaluation: Evaluation,
    policies: Vec<PolicyEvaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<LogitsFile>,
}

/// The file that holds the logits of every exit, `[rows, exits, outputs]`.
#[derive(Debug, Serialize)]
struct LogitsFile {
    file: String,
    sha256: String,
}

pub(crate) fn run(args: &EvalArgs, session: Session) -> Result<Verdict> {
    let started = now();
    if let Some(out) = args
        .out
        .as_ref()
        .filter(|out| out.join(CONFIG_FILE).exists())
    {
        bail!(
            "--out: {} is a model directory, whose record.json speaks of its training; \
             name another folder",
            out.display()
        );
    }
    let directory = sources::model_directory(&args.model, session.console)?;
    let model = read_model(&directory, &Device::Cpu)?;
    let tokenizer = Tokenizer::from_directory(&directory)?;
    let split_name: SplitName = args.split.parse().context("--split")?;
    let (data, folder) = sources::task_data(&args.task, args.data.as_deref(), session.console)?;
    let official;
    let split = if let Some(split) = data.split(split_name) {
        split
    } else {
        official = official_test(&data.task, folder.as_deref())?
            .with_context(|| format!("--split: {} has no {split_name} rows", data.task.name))?;
        &official
    };
    let labels = label_space_of(&model.config().head)?;
    check_labels(&labels, &data.task.label_space)?;
    let max_length = sources::max_length(model.config(), args.max_length);
    let encoded = EncodedSplit::new(split, &tokenizer, max_length)?;
    encoded.check(&model.config().backbone, "--split")?;
    let metric = data.task.metric;
    let subject = Subject {
        model: &model,
        split,
        encoded: &encoded,
        metric,
        labels: &labels,
    };
    for spec in &args.policy {
        for caveat in subject.policy(spec)?.caveats() {
            session.console.note(&format!("note: {spec}: {caveat}"));
        }
    }
    let (evaluation, logits) = evaluate(&subject, session)?;
    let policies = if args.replay {
        args.policy
            .iter()
            .map(|spec| subject.replay(spec, &logits))
            .collect::<Result<_>>()?
    } else {
        run_policies(&subject, &args.policy, &logits, session)?
    };
    let mut outcome = Outcome {
        task: data.task.name.clone(),
        split: split_name.to_string(),
        split_sha256: split.sha256.clone(),
        metric: metric.name().to_owned(),
        evaluation,
        policies,
        logits: None,
    };
    if let Some(out) = &args.out {
        outcome.logits = Some(write_logits(out, &logits, &outcome.split)?);
        write_record(out, &outcome, (args, &directory, split), (session, started))?;
    }
    session.console.result(&outcome, &report(&outcome))?;
    Ok(Verdict::Done)
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

fn evaluate(subject: &Subject, session: Session) -> Result<(Evaluation, ExitLogits)> {
    let bar = session.console.bar(subject.split.len() as u64, "exits");
    let result = subject.evaluate(&mut |rows| bar.inc(rows as u64));
    bar.finish_and_clear();
    result
}

fn run_policies(
    subject: &Subject,
    specs: &[PolicySpec],
    logits: &ExitLogits,
    session: Session,
) -> Result<Vec<PolicyEvaluation>> {
    let bar = session
        .console
        .bar((specs.len() * subject.split.len()) as u64, "policies");
    let run = |spec| subject.run(spec, logits, &mut |rows| bar.inc(rows as u64));
    let policies = specs.iter().map(run).collect();
    bar.finish_and_clear();
    policies
}

fn write_logits(out: &Path, logits: &ExitLogits, split: &str) -> Result<LogitsFile> {
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

fn write_record(
    out: &Path,
    outcome: &Outcome,
    (args, directory, split): (&EvalArgs, &Path, &Split),
    (session, started): (Session, u64),
) -> Result<()> {
    let machine = Machine::detect(session.threads, "f32");
    let mut record = Record::new("eval", session.seed, machine).started(started);
    record.configuration = serde_json::json!({
        "task": args.task, "split": args.split, "max_length": args.max_length, "replay": args.replay,
        "policies": args.policy, "model": sources::label(&args.model),
    });
    let weights = directory.join(SAFETENSORS_FILE);
    if weights.exists() {
        let sha256 = hash::sha256_hex(&file::read_bytes(&weights)?);
        record.data.insert(SAFETENSORS_FILE.to_owned(), sha256);
    }
    record
        .data
        .insert(split.name.to_string(), split.sha256.clone());
    record.results = serde_json::to_value(outcome)?;
    record.finished(now()).write(&out.join(RECORD_FILE))
}

fn report(outcome: &Outcome) -> String {
    let Outcome {
        task,
        split,
        metric,
        evaluation,
        policies,
        ..
    } = outcome;
    let rows = evaluation.rows;
    let mut text = format!("{task}, {split} split, {rows} rows, {metric} in percent\n\n");
    text += &exit_table(evaluation).to_text();
    if !policies.is_empty() {
        text += "\n";
        text += &policy_table(policies).to_text();
    }
    text
}
