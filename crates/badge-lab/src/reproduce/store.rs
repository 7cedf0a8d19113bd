//! What is known of a grid's cells: one directory each, in which a record or a failure lies.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use badge_tasks::{file, hash};
use badge_train::checkpoint::{CHECKPOINT_FILE, discard};
use badge_train::weights::SAFETENSORS_FILE;
use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::plan::{DevScore, Outlook};
use super::run::CellResults;
use crate::record::{RECORD_FILE, Record, now};

/// Where the cells of a grid lie.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What is known of a cell.
#[derive(Debug, Clone, PartialEq)]
pub enum CellState {
    /// It has not run, or not to its end.
    Open,
    /// It ended with a message.
    Failed(Failure),
    /// It is done.
    Done(Box<Finished>),
}

/// A cell that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Its folder.
    pub folder: PathBuf,
    /// Its record.
    pub record: Record,
    /// SHA-256 of the record's file.
    pub sha256: String,
    /// What came out.
    pub results: CellResults,
}

/// Why a cell could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was told.
    pub message: String,
    /// When, in seconds since 1970.
    pub seconds: u64,
}

/// What becomes of trained weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// They stay.
    Keep,
    /// They go once they are scored: tables and figures are made from answers.
    Remove,
}

/// The right to run a cell, which no other process has as long as this lives, or its process does.
#[derive(Debug)]
pub struct CellLock(#[expect(dead_code, reason = "held, not read")] File);

/// Says to others, as long as it lives, that a process works on the grid.
#[derive(Debug)]
pub struct Presence(#[expect(dead_code, reason = "held, not read")] File);

const FAILURE_FILE: &str = "failure.json";

impl CellState {
    /// What a search sees of it.
    pub fn outlook(&self) -> Outlook {
        match self {
            Self::Open => Outlook::Open,
            Self::Failed(_) => Outlook::Failed,
            Self::Done(done) => Outlook::Done(DevScore(done.results.training.dev.average)),
        }
    }
}

impl Store {
    /// The cells of the grid that writes into `out`.
    pub fn new(out: &Path) -> Self {
        Self {
            root: out.to_owned(),
        }
    }

    /// Says that this process works on the grid. If it is the only one, what others that were
    /// killed have left half written is removed.
    ///
    /// # Errors
    /// When the lock, or what was left, cannot be written.
    pub fn enter(&self) -> Result<Presence> {
        let path = self.locks()?.join("grid");
        let failed = |source| file::write_error(&path, source);
        let lock = File::create(&path).map_err(failed)?;
        if lock.try_lock().is_ok() {
            for folder in [".", "figures", "encoder"] {
                file::remove_leftovers(&self.root.join(folder))?;
            }
            lock.unlock().map_err(failed)?;
        }
        lock.lock_shared().map_err(failed)?;
        Ok(Presence(lock))
    }

    fn locks(&self) -> Result<PathBuf> {
        let folder = self.root.join("locks");
        file::create_folder(&folder)?;
        Ok(folder)
    }

    /// The folder of a cell.
    pub fn folder(&self, cell: &Cell) -> PathBuf {
        self.root.join("cells").join(cell.directory())
    }

    /// What is known of a cell.
    ///
    /// # Errors
    /// When its record is damaged, or another cell's.
    pub fn state(&self, cell: &Cell) -> Result<CellState> {
        let folder = self.folder(cell);
        let path = folder.join(RECORD_FILE);
        if path.exists() {
            return Ok(CellState::Done(Box::new(Finished::read(folder, cell)?)));
        }
        let path = folder.join(FAILURE_FILE);
        if !path.exists() {
            return Ok(CellState::Open);
        }
        let failure = serde_json::from_str(&file::read_text(&path)?);
        Ok(CellState::Failed(
            failure.with_context(|| path.display().to_string())?,
        ))
    }

    /// Takes a cell for this process; `None` while another one has it.
    ///
    /// # Errors
    /// When the lock cannot be written.
    pub fn claim(&self, cell: &Cell) -> Result<Option<CellLock>> {
        let path = self.locks()?.join(cell.id());
        let lock = File::create(&path).map_err(|source| file::write_error(&path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(CellLock(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(file::write_error(&path, source).into()),
        }
    }

    /// Keeps the message of a cell that failed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn fail(&self, cell: &Cell, message: String) -> Result<Failure> {
        let folder = self.folder(cell);
        file::create_folder(&folder)?;
        let failure = Failure {
            message,
            seconds: now(),
        };
        let json = serde_json::to_string_pretty(&failure)? + "\n";
        file::write_atomic(&folder.join(FAILURE_FILE), json.as_bytes())?;
        Ok(failure)
    }

    /// Forgets that a cell failed.
    ///
    /// # Errors
    /// When the message cannot be removed.
    pub fn forgive(&self, cell: &Cell) -> Result<()> {
        remove(&self.folder(cell).join(FAILURE_FILE))
    }

    /// Removes what a finished cell needs no longer, unless another process is at it: a checkpoint
    /// that a kill has left behind and, if they are not to be kept, the weights.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn tidy(&self, cell: &Cell, weights: Weights) -> Result<()> {
        let folder = self.folder(cell);
        let model = folder.join(SAFETENSORS_FILE);
        let is_tidy =
            !folder.join(CHECKPOINT_FILE).exists() && (weights == Weights::Keep || !model.exists());
        if is_tidy {
            return Ok(());
        }
        let Some(_lock) = self.claim(cell)? else {
            return Ok(());
        };
        discard(&folder)?;
        match weights {
            Weights::Keep => Ok(()),
            Weights::Remove => remove(&model),
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    Ok(fs::remove_file(path).map_err(|source| file::write_error(path, source))?)
}

impl Finished {
    fn read(folder: PathBuf, cell: &Cell) -> Result<Self> {
        let path = folder.join(RECORD_FILE);
        let name = path.display().to_string();
        let text = file::read_text(&path)?;
        let record = Record::from_json(&text).with_context(|| name.clone())?;
        let theirs: Cell =
            serde_json::from_value(record.configuration.clone()).with_context(|| name.clone())?;
        ensure!(
            theirs == *cell,
            "{name}: the record of another cell, {}",
            theirs.title()
        );
        let results =
            serde_json::from_value(record.results.clone()).with_context(|| name.clone())?;
        Ok(Self {
            folder,
            record,
            sha256: hash::sha256_hex(text.as_bytes()),
            results,
        })
    }

    /// Refuses a record that was made from other data or another backbone than are here now.
    ///
    /// # Errors
    /// Names the record and what differs.
    pub fn check(&self, hashes: &[(String, String)]) -> Result<()> {
        for (name, sha256) in hashes {
            let theirs = self.record.data.get(name);
            ensure!(
                theirs == Some(sha256),
                "{}: it was made with another {name} (SHA-256 {}) than is here now ({sha256}); \
                 choose another --out, or remove the cell's folder to run it anew",
                self.folder.join(RECORD_FILE).display(),
                theirs.map_or("unknown", String::as_str)
            );
        }
        Ok(())
    }
}
