//! Train, dev and test: which rows each holds, where they come from, and hashes that prove it.
//!
//! GLUE's test labels are not public, so the paper makes its own splits (BADGE, Appendix B.3):
//! see [`SplitRule`]. They are drawn with a seed of their own ([`SPLIT_SEED`]), which training
//! seeds do not touch: runs with different seeds are scored on the same rows.

mod draw;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::dataset::Labels;
use crate::error::{Error, Result};
use crate::hash::ContentHasher;
use crate::metric::{MetricKind, score};
use crate::task::{Example, SplitRule, Target, Task};

use self::draw::{Drawn, draw, halve};
use self::source::{Folder, Pool};

/// The seed that splits are drawn with unless another is asked for.
pub const SPLIT_SEED: u64 = 2023;

/// From this many training rows on, the paper takes dev out of them.
const LARGE_ROWS_MIN: usize = 10_000;

/// How many training rows become dev then.
const HELD_OUT_ROWS: usize = 2_000;

/// A task with its data.
#[derive(Debug, Clone)]
pub struct TaskData {
    /// The task, with labels that were taken from the data filled in.
    pub task: Task,
    /// What is trained on.
    pub train: Split,
    /// What checkpoints and operating points are chosen on.
    pub dev: Split,
    /// What is reported.
    pub test: Split,
    /// The seed the splits were drawn with.
    pub seed: u64,
}

/// One part of a task's data.
#[derive(Debug, Clone)]
pub struct Split {
    /// `train`, `dev`, `test` or `official-test`.
    pub name: SplitName,
    /// The rows, in the order of the files they come from.
    pub examples: Vec<Example>,
    /// SHA-256 of all texts and targets in order.
    pub sha256: String,
    /// SHA-256 of the list of `FILE:ROW` that were chosen.
    pub rows_sha256: String,
    /// Where the rows come from, in words.
    pub origin: String,
    /// The files they were read from.
    pub files: Vec<SourceFile>,
    /// Parts scored separately, such as MNLI's matched and mismatched rows; one for other tasks.
    pub parts: Vec<Part>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceFile {
    /// Its path.
    pub path: PathBuf,
    /// Its rows, all of them.
    pub rows: usize,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// A run of rows that is scored by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The file's name without its extension.
    pub name: String,
    /// Its rows; parts follow each other without gaps.
    pub rows: usize,
}

/// What a record keeps of a split: all but the rows themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitRecord {
    /// Which split.
    pub name: SplitName,
    /// Number of rows.
    pub rows: usize,
    /// SHA-256 of all texts and targets in order.
    pub sha256: String,
    /// SHA-256 of the list of chosen rows.
    pub rows_sha256: String,
    /// Where the rows come from, in words.
    pub origin: String,
    /// The files they were read from.
    pub files: Vec<SourceFile>,
    /// Parts scored separately.
    pub parts: Vec<Part>,
}

/// A split by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitName {
    /// `train`
    Train,
    /// `dev`
    Dev,
    /// `test`
    Test,
    /// `official-test`: GLUE's own test rows, unlabelled but for MRPC's ([`official_test`]).
    OfficialTest,
}

impl SplitName {
    /// Every split there is.
    pub const ALL: [Self; 4] = [Self::Train, Self::Dev, Self::Test, Self::OfficialTest];

    /// The name used on the command line and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
            Self::OfficialTest => "official-test",
        }
    }
}

impl fmt::Display for SplitName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SplitName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|split| split.name() == name)
            .ok_or_else(|| Error::UnknownName {
                what: "split",
                found: name.to_owned(),
                allowed: Self::ALL.map(Self::name).join(", "),
            })
    }
}

/// Reads a task's files and makes its splits.
///
/// `data` is the folder of the files, or one with a sub-folder named as the task; without it the
/// task file's own folder is taken. `seed` is used unless the task fixes its own; pass
/// [`SPLIT_SEED`] for the splits that records refer to.
///
/// # Errors
///
/// [`Error::NoDataFolder`], [`Error::MissingSplit`], [`Error::SplitTooSmall`], and whatever is
/// wrong with the files.
pub fn load(task: &Task, data: Option<&Path>, seed: u64) -> Result<TaskData> {
    let folder = Folder::open(task, data)?;
    let task = folder.with_labels(task)?;
    task.metric.check(&task.label_space)?;
    let seed = task.split_seed.unwrap_or(seed);
    let train = folder.required(&task, SplitName::Train, &task.files.train)?;
    let [train, dev, test] = match task.split_rule {
        SplitRule::Paper => paper_splits(&task, &folder, train, seed)?,
        SplitRule::Given { dev, test } => given_splits(&task, &folder, train, [dev, test], seed)?,
    };
    Ok(TaskData {
        task,
        train: train.split(SplitName::Train),
        dev: dev.split(SplitName::Dev),
        test: test.split(SplitName::Test),
        seed,
    })
}

/// The test rows that GLUE itself gives: labelled for MRPC's simplified files, unlabelled
/// otherwise; `None` where there is no such file, as for tasks of a task file, whose test rows
/// [`load`] gives.
///
/// # Errors
///
/// As [`load`].
pub fn official_test(task: &Task, data: Option<&Path>) -> Result<Option<Split>> {
    if task.split_rule != SplitRule::Paper {
        return Ok(None);
    }
    let folder = Folder::open(task, data)?;
    let pool = folder.concatenation(task, &task.files.test, Labels::Optional)?;
    Ok(pool.map(|pool| Drawn::all(pool).split(SplitName::OfficialTest)))
}

impl TaskData {
    /// The split of a name; `None` for [`SplitName::OfficialTest`], which is read on demand.
    pub fn split(&self, name: SplitName) -> Option<&Split> {
        match name {
            SplitName::Train => Some(&self.train),
            SplitName::Dev => Some(&self.dev),
            SplitName::Test => Some(&self.test),
            SplitName::OfficialTest => None,
        }
    }
}

impl Split {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The targets of all rows.
    ///
    /// # Errors
    ///
    /// [`Error::Unlabelled`] at the first row without one.
    pub fn targets(&self) -> Result<Vec<Target>> {
        let target = |(row, example): (usize, &Example)| {
            example.target.clone().ok_or_else(|| Error::Unlabelled {
                split: self.name.to_string(),
                row: row + 1,
            })
        };
        self.examples.iter().enumerate().map(target).collect()
    }

    /// The score of predictions for all rows: the mean of the parts' scores, each part counting
    /// the same, as GLUE averages MNLI's matched and mismatched accuracy.
    ///
    /// # Errors
    ///
    /// [`Error::Unlabelled`] when a row has no target.
    ///
    /// # Panics
    ///
    /// As [`score`].
    pub fn score(&self, metric: MetricKind, predictions: &[Target]) -> Result<f64> {
        let targets = self.targets()?;
        assert_eq!(
            predictions.len(),
            targets.len(),
            "as many predictions as rows"
        );
        let mut sum = 0.0;
        let mut start = 0;
        for part in &self.parts {
            let rows = start..start + part.rows;
            sum += score(metric, &predictions[rows.clone()], &targets[rows]);
            start += part.rows;
        }
        Ok(sum / self.parts.len().max(1) as f64)
    }

    /// What a record keeps of it.
    pub fn record(&self) -> SplitRecord {
        SplitRecord {
            name: self.name,
            rows: self.len(),
            sha256: self.sha256.clone(),
            rows_sha256: self.rows_sha256.clone(),
            origin: self.origin.clone(),
            files: self.files.clone(),
            parts: self.parts.clone(),
        }
    }
}

/// SHA-256 of texts and targets in order.
///
/// # Example
///
/// ```
/// use badge_tasks::{Example, split::content_sha256};
///
/// let one = content_sha256(&[Example::of_text("a"), Example::of_text("b")]);
/// let other = content_sha256(&[Example::of_text("b"), Example::of_text("a")]);
/// assert_ne!(one, other);
/// ```
pub fn content_sha256(examples: &[Example]) -> String {
    let mut hasher = ContentHasher::new();
    for example in examples {
        hasher.update_field(example.text.as_bytes());
        // A missing field is marked, so that it differs from an empty one.
        match &example.pair {
            Some(pair) => hasher.update_field(pair.as_bytes()),
            None => hasher.update(b"-"),
        }
        match &example.target {
            None => hasher.update(b"-"),
            Some(Target::Class(class)) => hasher.update_field(&(*class as u64).to_le_bytes()),
            Some(Target::Classes(set)) => {
                hasher.update_field(&set.iter().map(|holds| u8::from(*holds)).collect::<Vec<_>>());
            }
            Some(Target::Value(value)) => hasher.update_field(&value.to_le_bytes()),
        }
    }
    hasher.finish()
}

/// The splits of BADGE, Appendix B.3.
fn paper_splits(task: &Task, folder: &Folder, train: Pool, seed: u64) -> Result<[Drawn; 3]> {
    let held_out = folder.optional(task, &task.files.held_out, Labels::Required)?;
    let dev = folder.concatenation(task, &task.files.dev, Labels::Required)?;
    let dev = dev.ok_or_else(|| folder.missing(task, SplitName::Dev, &task.files.dev))?;
    if let Some(held_out) = held_out {
        let held_out = held_out.with_note("held out of the training rows beforehand");
        return Ok([Drawn::all(train), Drawn::all(held_out), Drawn::all(dev)]);
    }
    if train.rows() < LARGE_ROWS_MIN {
        let [dev, test] = halve(task, &dev, seed)?;
        return Ok([Drawn::all(train), dev, test]);
    }
    let [held_out, _, train] = draw(task, &train, [HELD_OUT_ROWS, 0], seed)?;
    Ok([train, held_out, Drawn::all(dev)])
}

/// The splits of a task file: what is there, and what is not is drawn.
fn given_splits(
    task: &Task,
    folder: &Folder,
    train: Pool,
    [dev_share, test_share]: [f64; 2],
    seed: u64,
) -> Result<[Drawn; 3]> {
    let dev = folder.concatenation(task, &task.files.dev, Labels::Required)?;
    let test = folder.concatenation(task, &task.files.test, Labels::Required)?;
    let rows = train.rows() as f64;
    let count = |share: f64| ((rows * share).round() as usize).max(1);
    Ok(match (dev, test) {
        (Some(dev), Some(test)) => [Drawn::all(train), Drawn::all(dev), Drawn::all(test)],
        (Some(dev), None) => {
            let [dev, test] = halve(task, &dev, seed)?;
            [Drawn::all(train), dev, test]
        }
        (None, Some(test)) => {
            let [dev, _, train] = draw(task, &train, [count(dev_share), 0], seed)?;
            [train, dev, Drawn::all(test)]
        }
        (None, None) => {
            let counts = [count(dev_share), count(test_share)];
            let [dev, test, train] = draw(task, &train, counts, seed)?;
            [train, dev, test]
        }
    })
}

#[cfg(test)]
mod tests;
