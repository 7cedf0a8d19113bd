//! The training checkpoint: everything a killed run needs to go on as if nothing had happened.
//!
//! One safetensors file holds weights and moments; its metadata holds where the run was and a
//! fingerprint of its settings. Data order and dropout follow from seed and position, so no
//! generator state is kept. One file means one rename: a checkpoint is whole or not there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use badge_core::checkpoint::{Checkpoint, read_metadata};
use badge_tasks::file;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::evaluate::ExitScores;
use crate::model::MultiExitModel;
use crate::observer::EpochReport;
use crate::optimizer::AdamW;
use crate::precision::Precision;

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The stage under way and where it began.
    #[serde(default)]
    pub stage: StageStart,
    /// Finished epochs.
    pub epochs: usize,
    /// Optimiser steps taken in the epoch under way.
    pub steps_in_epoch: usize,
    /// Optimiser steps taken in all.
    pub steps: u64,
    /// Forward passes in training, which number the dropout masks.
    pub passes: u64,
    /// Sum of the losses of the epoch under way.
    #[serde(with = "exact")]
    pub loss_sum: f64,
    /// The best epoch of the stage so far.
    pub best: Option<Best>,
    /// Every finished epoch.
    pub history: Vec<EpochReport>,
    /// Seconds of work, interruptions left out.
    pub seconds: f64,
}

/// Where a stage of a run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStart {
    /// Which stage it is, counted from 0.
    pub index: usize,
    /// Epochs finished before it.
    pub epochs: usize,
    /// Optimiser steps taken before it.
    pub steps: u64,
}

/// The epoch whose weights are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Counted from 1.
    pub epoch: usize,
    /// What epochs of its stage are compared by; more is better.
    #[serde(with = "exact")]
    pub value: f64,
    /// Its scores on dev.
    pub scores: ExitScores,
}

/// Numbers as their bits: reading a decimal fraction may miss the last one, and with it tell equal
/// epochs apart.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// The name of the checkpoint in a run's directory; it is removed when the run is finished.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

/// Reads and writes one run's checkpoint file.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    path: PathBuf,
    /// Settings and data of the run; a checkpoint of other ones is refused.
    fingerprint: String,
}

const PROGRESS: &str = "badge.progress";
const FINGERPRINT: &str = "badge.run";

impl CheckpointFile {
    /// The checkpoint of the run that writes into `directory`.
    pub(crate) fn new(directory: &Path, fingerprint: String) -> Self {
        Self {
            path: directory.join(CHECKPOINT_FILE),
            fingerprint,
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    pub(crate) fn save(
        &self,
        model: &MultiExitModel,
        optimizer: &AdamW,
        progress: &Progress,
    ) -> Result<()> {
        let mut tensors = model.parameters().to_checkpoint()?;
        optimizer.save(&mut tensors)?;
        let progress = serde_json::to_string(progress).expect("plain data serialises");
        let metadata = HashMap::from([
            (PROGRESS.to_owned(), progress),
            (FINGERPRINT.to_owned(), self.fingerprint.clone()),
        ]);
        Ok(file::write_atomic(
            &self.path,
            &tensors.to_safetensors_with(metadata),
        )?)
    }

    /// Puts weights and moments back and returns where the run was.
    pub(crate) fn restore(
        &self,
        model: &MultiExitModel,
        optimizer: &mut AdamW,
    ) -> Result<Progress> {
        let name = self.path.display().to_string();
        let bytes = file::read_bytes(&self.path)?;
        let metadata = read_metadata(&name, &bytes)?;
        let wrong = |problem: &str| Error::Checkpoint {
            file: self.path.clone(),
            problem: problem.to_owned(),
        };
        let fingerprint = metadata
            .get(FINGERPRINT)
            .ok_or_else(|| wrong("no run is named"))?;
        if *fingerprint != self.fingerprint {
            let what = difference(fingerprint, &self.fingerprint);
            return Err(Error::OtherRun {
                file: self.path.clone(),
                what,
            });
        }
        let progress = metadata
            .get(PROGRESS)
            .ok_or_else(|| wrong("no progress is recorded"))?;
        let progress: Progress =
            serde_json::from_str(progress).map_err(|e| wrong(&e.to_string()))?;
        let mut tensors = Checkpoint::from_safetensors(&name, &bytes)?;
        model.parameters().set(&mut tensors, &name)?;
        let steps = progress.steps - progress.stage.steps;
        optimizer.restore(&mut tensors, model.parameters(), steps)?;
        Ok(progress)
    }
}

/// The precision of the unfinished run in a directory; none where there is no run, or no readable
/// checkpoint of it.
pub fn precision_of_run(directory: &Path) -> Option<Precision> {
    let path = directory.join(CHECKPOINT_FILE);
    let bytes = file::read_bytes(&path).ok()?;
    let metadata = read_metadata(&path.display().to_string(), &bytes).ok()?;
    let run: Value = serde_json::from_str(metadata.get(FINGERPRINT)?).ok()?;
    run["precision"].as_str()?.parse().ok()
}

/// Removes the checkpoint in a run's directory, if there is one: the run is finished and
/// recorded, or another one takes its place.
///
/// # Errors
/// When the file cannot be removed.
pub fn discard(directory: &Path) -> Result<()> {
    let path = directory.join(CHECKPOINT_FILE);
    if !path.exists() {
        return Ok(());
    }
    let removed = std::fs::remove_file(&path);
    Ok(removed.map_err(|source| file::write_error(&path, source))?)
}

/// The first setting in which two fingerprints, JSON objects, differ.
fn difference(theirs: &str, ours: &str) -> String {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    first_difference("", &parse(theirs), &parse(ours))
        .unwrap_or_else(|| "settings of another version".to_owned())
}

fn first_difference(path: &str, theirs: &Value, ours: &Value) -> Option<String> {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let keys = ours
                .keys()
                .chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
            let inner = |key: &String| match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            let of =
                |object: &Map<String, Value>, key| object.get(key).cloned().unwrap_or_default();
            keys.into_iter()
                .find_map(|key| first_difference(&inner(key), &of(theirs, key), &of(ours, key)))
        }
        _ if theirs == ours => None,
        _ => Some(format!("{path} is {theirs} there and {ours} here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        // The loss of a run that a parser which takes the short way gets wrong by one.
        let loss_sum = 2.265_282_601_118_087_8_f64;
        let progress = Progress {
            loss_sum,
            ..Progress::default()
        };
        let text = serde_json::to_string(&progress).unwrap();
        let read: Progress = serde_json::from_str(&text).unwrap();
        assert_eq!(read.loss_sum.to_bits(), loss_sum.to_bits());
    }

    #[test]
    fn a_difference_is_named_by_its_path_and_both_values() {
        let theirs = r#"{"lr": 1, "model": {"exits": {"rank": 8}}}"#;
        let ours = r#"{"lr": 1, "model": {"exits": {"rank": 16}}}"#;
        assert_eq!(
            difference(theirs, ours),
            "model.exits.rank is 8 there and 16 here"
        );
        assert_eq!(
            difference(r#"{"a": 1}"#, "{}"),
            "a is 1 there and null here"
        );
        assert_eq!(difference("{}", "{}"), "settings of another version");
    }
}
