//! Milliseconds from files to a ready engine, and the memory it takes.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use badge_core::policy::PolicySpec;
use badge_engine::EngineOptions;
use serde::{Deserialize, Serialize};

use super::machine::Rates;
use super::memory::{Resident, mebibytes};
use super::timing::{Repeats, Times};
use super::{Setting, Subject, random_inputs, read_config, token_ids};
use crate::table::{Column, Table};

/// Everything that `bench load` measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// One row a precision.
    pub rows: Vec<LoadRow>,
}

/// Time and memory of an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRow {
    #[serde(flatten)]
    setting: Setting,
    /// Room for so many tokens at once.
    tokens_max: usize,
    /// Reading and packing, median over loads.
    median_ms: f64,
    min_ms: f64,
    /// The first load of the process.
    first_ms: f64,
    /// The weights as the engine keeps them.
    packed_bytes: u64,
    /// Everything that it computes in.
    workspace_bytes: u64,
    /// Resident memory of the process before the first load and after its first batch.
    resident_before: Option<u64>,
    resident_after: Option<u64>,
    /// `resident_after / (packed + workspace)`, the whole program included.
    resident_ratio: Option<f64>,
    /// `(resident_after - resident_before) / (packed + workspace)`.
    growth_ratio: Option<f64>,
}

/// Loads the model in `directory` as often as `repeats` says, and classifies one full batch with
/// the first engine, so that all of its memory has been touched.
///
/// Allocators keep what they once had: only the first call of a process gives honest memory.
///
/// # Errors
///
/// When the model cannot be loaded.
pub fn load(
    directory: &Path,
    options: &EngineOptions,
    (repeats, seed): (Repeats, u64),
) -> Result<LoadRow> {
    let config = read_config(directory)?;
    let resident_before = Resident::of_this_process().now;
    let (mut subject, first) = timed(directory, options)?;
    let length = options.tokens_max.min(config.backbone.positions);
    let input = random_inputs(&config, &[length], seed);
    let policy = subject.policy(&PolicySpec::Full)?;
    subject.engine.classify(&token_ids(&input), &policy)?;
    let resident_after = Resident::of_this_process().now;
    let (packed, workspace) = (
        subject.engine.packed_bytes() as u64,
        subject.engine.workspace_bytes() as u64,
    );
    let setting = subject.setting.clone();
    drop(subject);
    let mut seconds = vec![first];
    for _ in 1..repeats.runs {
        seconds.push(timed(directory, options)?.1);
    }
    let times = Times::from_seconds(seconds);
    let own = (packed + workspace) as f64;
    let growth = |before: u64| Some(resident_after?.saturating_sub(before) as f64 / own);
    Ok(LoadRow {
        setting,
        tokens_max: options.tokens_max,
        median_ms: 1e3 * times.median(),
        min_ms: 1e3 * times.min(),
        first_ms: 1e3 * first,
        packed_bytes: packed,
        workspace_bytes: workspace,
        resident_before,
        resident_after,
        resident_ratio: resident_after.map(|bytes| bytes as f64 / own),
        growth_ratio: resident_before.and_then(growth),
    })
}

fn timed(directory: &Path, options: &EngineOptions) -> Result<(Subject, f64)> {
    let start = Instant::now();
    let subject = Subject::load(directory, options.clone(), &Rates::default())?;
    Ok((subject, start.elapsed().as_secs_f64()))
}

impl Load {
    /// A table of what was measured, for a terminal.
    pub fn to_text(&self) -> String {
        let mut table = Table::new([
            Column::text("precision"),
            Column::number("threads"),
            Column::number("median ms"),
            Column::number("min ms"),
            Column::number("packed MiB"),
            Column::number("workspace MiB"),
            Column::number("resident MiB"),
            Column::number("grown by MiB"),
            Column::number("resident ratio"),
        ]);
        for row in &self.rows {
            let grown = row.resident_after.zip(row.resident_before);
            let grown = grown.map(|(after, before)| after.saturating_sub(before));
            table.push([
                row.setting.precision.clone(),
                row.setting.threads.to_string(),
                format!("{:.1}", row.median_ms),
                format!("{:.1}", row.min_ms),
                mebibytes(Some(row.packed_bytes)),
                mebibytes(Some(row.workspace_bytes)),
                mebibytes(row.resident_after),
                mebibytes(grown),
                row.resident_ratio
                    .map_or("-".to_owned(), |r| format!("{r:.2}")),
            ]);
        }
        table.to_text()
    }
}
