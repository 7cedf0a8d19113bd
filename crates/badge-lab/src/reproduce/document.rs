//! `docs/reproduction.md`: what was run, on what, how long, and what holds of the paper.
//!
//! The page is a function of the records under one folder, which has a folder per experiment as
//! `badge reproduce` leaves it. A test makes it again and compares; another looks up every record
//! that it names.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use badge_tasks::file;

use super::claims::Judgement;
use super::experiment::Experiment;
use super::store::Store;
use super::summary::Summary;
use super::{builtin, names};

/// The experiment as it was run, beside its cells.
pub const EXPERIMENT_FILE: &str = "experiment.toml";

/// Writes the experiment beside its cells.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(experiment: &Experiment, out: &Path) -> Result<()> {
    file::create_folder(out)?;
    let text = toml::to_string(experiment).context("an experiment is a table of keys")?;
    Ok(file::write_atomic(
        &out.join(EXPERIMENT_FILE),
        text.as_bytes(),
    )?)
}

/// The experiment that was run into a folder, if one was.
///
/// # Errors
/// When its file is damaged.
pub fn kept(name: &str, out: &Path) -> Result<Option<Experiment>> {
    let path = out.join(EXPERIMENT_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = file::read_text(&path)?;
    Experiment::parse(name, &text, &path.display().to_string()).map(Some)
}

/// The page, from the records under a folder; `place` is what the page calls that folder, from
/// the root of the repository.
///
/// # Errors
/// When a record is damaged.
pub fn document(records: &Path, place: &str) -> Result<String> {
    let mut text = String::from(HEAD);
    let mut details = String::new();
    text += "| experiment | asks | runs done | claims: hold | do not | cannot tell | open |\n\
             |---|---|--:|--:|--:|--:|--:|\n";
    for name in names() {
        let folder = records.join(name);
        let experiment = match kept(name, &folder)? {
            Some(experiment) => experiment,
            None => builtin(name)?,
        };
        let summary = Summary::of(&experiment, &Store::new(&folder))?;
        let _ = writeln!(text, "{}", overview(&summary));
        if summary.cells.done > 0 {
            details += &section(&summary, &format!("{place}/{name}"));
        }
    }
    Ok(text + &details)
}

const HEAD: &str = "\
# Reproduction

<!-- Made by `badge reproduce --document`; a test compares it with the records. Do not edit. -->

What `badge reproduce` has run of the paper's tables and figures, and what its claims come to. A claim *holds* where the 95 %
interval of the difference lies on its side of 0, *does not hold* where it lies on the other, and otherwise, or with fewer than
three seeds, these runs *cannot tell*. Intervals are over other test rows (paired bootstrap) and other seeds (Student's t). Each
stands for itself: of so many claims some come out wrong by chance alone.

Epochs and operating points were chosen on dev. So were hyper-parameters where an experiment searches; where it does not, all
methods share those of its `experiment.toml`, which may suit one better than another.

The paper's figures stand beside ours as it reports them. They were measured on its own splits, encoders and, for three of
six tasks, proprietary data; ours are on what each section names. What has not run is empty.

## Overview

";

fn overview(summary: &Summary) -> String {
    let claims = || summary.tables.iter().flat_map(|table| &table.claims);
    let count = |judgement| {
        claims()
            .filter(|claim| claim.judgement == judgement)
            .count()
    };
    format!(
        "| {} | {} | {} of {} | {} | {} | {} | {} |",
        summary.experiment,
        summary.title,
        summary.cells.done,
        summary.cells.cells,
        count(Judgement::Holds),
        count(Judgement::DoesNotHold),
        count(Judgement::CannotTell),
        count(Judgement::NotRun) + count(Judgement::OutOfReach),
    )
}

/// An experiment's tables, one level below the page's own headings, and its records.
fn section(summary: &Summary, place: &str) -> String {
    let mut text = String::from("\n");
    for line in summary.to_markdown().lines() {
        let deeper = if line.starts_with('#') { "#" } else { "" };
        let _ = writeln!(text, "{deeper}{line}");
    }
    text += "\n<details><summary>Records</summary>\n\n| record | SHA-256 |\n|---|---|\n";
    let lines = summary.tables.iter().flat_map(|table| &table.lines);
    let mut records: Vec<_> = lines.flat_map(|line| &line.records).collect();
    records.sort_by(|a, b| a.file.cmp(&b.file));
    records.dedup();
    for record in records {
        let _ = writeln!(text, "| {place}/{} | {} |", record.file, record.sha256);
    }
    text + "\n</details>\n"
}

/// The records that a page names: file, from the root of the repository, and SHA-256.
pub fn records_named(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter_map(|line| {
        let (file, sha256) = line
            .strip_prefix("| ")?
            .strip_suffix(" |")?
            .split_once(" | ")?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then_some((file, sha256))
    });
    rows.collect()
}
