//! `badge quickstart`: the whole way on a corpus of its own, before the user's eyes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use badge_lab::inference::{Code, InferenceOptions, Precision, Provenance, open};
use badge_lab::model_card::ModelCard;
use badge_lab::quickstart::corpus::Grade;
use badge_lab::quickstart::{Quickstart, Results, ShownLine, files, grade_table, training};
use badge_lab::record::{RECORD_FILE, Record, now};
use badge_lab::tables::policy_table;
use badge_train::DeviceName;
use badge_train::checkpoint::{Progress, discard};
use clap::Args;
use serde::Serialize;

use super::{Session, Verdict, computing};
use crate::progress::TrainingProgress;

/// Flags of `badge quickstart`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  badge quickstart --out my-first-model")]
pub(crate) struct QuickstartArgs {
    /// Model directory to write
    #[arg(long, value_name = "DIR", default_value = "badge-quickstart")]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    directory: &'a Path,
    seconds: f64,
    training_seconds: f64,
    computed_by: Provenance,
    results: &'a Results,
    lines: &'a [ShownLine],
}

pub(crate) fn run(args: &QuickstartArgs, session: Session) -> Result<Verdict> {
    let (started, clock) = (now(), Instant::now());
    let (console, out) = (session.console, args.out.as_path());
    let quickstart = Quickstart::new(session.seed)?;
    console.say(&introduction(&quickstart))?;
    let mut progress = TrainingProgress::new(console, "accuracy", (1..=6).collect());
    let tuned = quickstart.train(out, session.threads, &mut progress)?;
    drop(progress);
    let bar = console.bar(quickstart.timed_rows() as u64, "evaluating");
    let options = InferenceOptions {
        code: Code::Engine,
        precision: Precision::F32,
        threads: session.threads,
        device: DeviceName::Cpu,
    };
    let mut model = open(out, &options)?;
    let results = quickstart.evaluate(&mut *model, out, &mut |rows| bar.inc(rows as u64))?;
    bar.finish_and_clear();
    console.say(&scores(&results))?;
    let lines = quickstart.show(&mut *model, &results.calibration.policy)?;
    console.say(&live(&lines))?;
    files(&quickstart, &results, &lines, out)?;
    let card = ModelCard {
        backbone: "A small ALBERT",
        config: tuned.model.config(),
        data: &quickstart.data,
        training: &training(session.seed),
        progress: &tuned.progress,
    };
    card.write(out)?;
    let outcome = Outcome {
        directory: out,
        seconds: clock.elapsed().as_secs_f64(),
        training_seconds: tuned.progress.seconds,
        computed_by: model.provenance(),
        results: &results,
        lines: &lines,
    };
    write_record(&outcome, &quickstart, &tuned.progress, (session, started))?;
    discard(out)?;
    if console.json {
        console.result(&outcome, "")?;
    } else {
        console.say(&ending(&outcome, &results))?;
    }
    Ok(Verdict::Done)
}

fn introduction(quickstart: &Quickstart) -> String {
    let mut text = String::from(
        "BADGE quickstart: who liked it?\n\n\
         A six-block ALBERT with an exit and a bypass at every block learns, from random weights, \
         what\nthe narrator of a short text thinks. The texts are made by the program, in three \
         grades:\n\n",
    );
    for grade in Grade::ALL {
        let _ = writeln!(text, "  {:<7} {}", grade.name(), grade.explanation());
    }
    let data = &quickstart.data;
    text + &format!(
        "\n{} texts to learn from, {} to calibrate on, {} to test on.\n",
        data.train.len(),
        data.dev.len(),
        data.test.len()
    )
}

fn scores(results: &Results) -> String {
    format!(
        "\nCorrect answers at every exit, percent, by how hard the text is. DGE leaves early where \
         exits agree:\n\n{}\nWhat that saves, text by text at batch size 1, against running all \
         blocks:\n\n{}",
        indent(&grade_table(results).to_text()),
        indent(&policy_table(&results.policies).to_text()),
    )
}

fn live(lines: &[ShownLine]) -> String {
    let mut text = String::from("\nLive:\n");
    for line in lines {
        let _ = writeln!(
            text,
            "\n  \"{}\"\n    -> {} ({:.0} %) at exit {} of 6: {}",
            wrapped(line.text),
            line.label,
            100.0 * line.probability,
            line.exit,
            line.reason
        );
    }
    text
}

fn ending(outcome: &Outcome, results: &Results) -> String {
    let directory = outcome.directory.display();
    format!(
        "\nDone in {:.0} s. In {directory}/: the model, report.html, curve.svg, record.json.\n\n\
         Next:\n\
         \x20 badge predict --model {directory} --policy {policy} {directory}/texts.txt\n\
         \x20 badge inspect {directory}\n\
         \x20 badge train --help     your own texts, from a pre-trained BERT or ALBERT\n\n\
         (`badge` is target/release/badge, or: cargo run --release -- ...)",
        outcome.seconds,
        policy = results.calibration.policy,
    )
}

fn indent(text: &str) -> String {
    text.lines().flat_map(|line| ["  ", line, "\n"]).collect()
}

/// Breaks a long text so that it stays within its indentation.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is at least one line");
        if line.len() + word.len() > 88 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n   ")
}

fn write_record(
    outcome: &Outcome,
    quickstart: &Quickstart,
    progress: &Progress,
    (session, started): (Session, u64),
) -> Result<()> {
    let machine = computing::machine(session, &outcome.computed_by);
    let mut record = Record::new("quickstart", session.seed, machine).started(started);
    record.configuration = serde_json::to_value(training(session.seed))?;
    for split in [
        &quickstart.data.train,
        &quickstart.data.dev,
        &quickstart.data.test,
    ] {
        record
            .data
            .insert(split.name.to_string(), split.sha256.clone());
    }
    record.results = serde_json::json!({
        "seconds": outcome.seconds,
        "training_seconds": outcome.training_seconds,
        "history": progress.history,
        "test": outcome.results,
        "lines": outcome.lines,
    });
    record
        .finished(now())
        .write(&outcome.directory.join(RECORD_FILE))
}
