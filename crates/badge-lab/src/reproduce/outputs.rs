//! What a model answered on every row, kept so that intervals can be drawn without the model.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use badge_core::checkpoint::{Checkpoint, Tensor};
use badge_tasks::{Split, Target, file, hash};
use badge_train::evaluate::ExitLogits;
use serde::{Deserialize, Serialize};

/// A file beside a record, by name and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its name in the record's folder.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// Answers and truth of N rows: classes by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// What each exit answers: E lists of N.
    pub exits: Vec<Vec<usize>>,
    /// The right answers.
    pub truth: Vec<usize>,
}

const ANSWERS: &str = "answers";
const TRUTH: &str = "truth";

/// The number of a target's class.
///
/// # Errors
/// When it is no single label.
pub fn class(target: &Target) -> Result<usize> {
    match target {
        Target::Class(class) => Ok(*class),
        Target::Classes(_) | Target::Value(_) => anyhow::bail!("a row has no single label"),
    }
}

impl Answers {
    /// Of every exit's logits.
    ///
    /// # Errors
    /// When a row has no single label.
    pub fn of(
        logits: &ExitLogits,
        split: &Split,
        labels: &badge_tasks::LabelSpace,
    ) -> Result<Self> {
        let truth = split.targets()?;
        let of_exit = |exit| logits.answers(exit, labels).iter().map(class).collect();
        Ok(Self {
            exits: (0..logits.exits).map(of_exit).collect::<Result<_>>()?,
            truth: truth.iter().map(class).collect::<Result<_>>()?,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.truth.len()
    }

    /// Writes them as safetensors.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<OutputFile> {
        let mut tensors = Checkpoint::default();
        insert(&mut tensors, name, (ANSWERS, &self.exits))?;
        insert(
            &mut tensors,
            name,
            (TRUTH, std::slice::from_ref(&self.truth)),
        )?;
        write(&tensors, folder, name)
    }

    /// Reads them back, and checks that they are what the record speaks of.
    ///
    /// # Errors
    /// Names the file that is missing, damaged or another.
    pub fn read(folder: &Path, output: &OutputFile) -> Result<Self> {
        let (tensors, name) = read(folder, output)?;
        let exits = take(&tensors, &name, ANSWERS)?;
        let truth = take(&tensors, &name, TRUTH)?.into_iter().next();
        Ok(Self {
            exits,
            truth: truth.with_context(|| format!("{name}: no truth"))?,
        })
    }
}

/// Adds a table of whole numbers.
pub(super) fn insert(
    tensors: &mut Checkpoint,
    file: &str,
    (name, rows): (&str, &[Vec<usize>]),
) -> Result<()> {
    let width = rows.first().map_or(0, Vec::len);
    ensure!(width > 0, "{file}: there are no rows to keep");
    // Classes and depths are far below the whole numbers that f32 cannot tell apart.
    let values = rows.iter().flatten().map(|value| *value as f32).collect();
    let tensor = Tensor {
        shape: vec![rows.len(), width],
        values,
    };
    Ok(tensors.insert(file, name.to_owned(), tensor)?)
}

/// Takes a table of whole numbers.
pub(super) fn take(tensors: &Checkpoint, file: &str, name: &str) -> Result<Vec<Vec<usize>>> {
    let tensor = tensors.get(name);
    let tensor = tensor.with_context(|| format!("{file}: no tensor {name}"))?;
    let [_, width] = tensor.shape[..] else {
        anyhow::bail!("{file}: tensor {name} is no table");
    };
    let rows = tensor.values.chunks(width);
    Ok(rows
        .map(|row| row.iter().map(|value| *value as usize).collect())
        .collect())
}

/// Writes tensors and says by which hash they are known.
pub(super) fn write(tensors: &Checkpoint, folder: &Path, name: &str) -> Result<OutputFile> {
    let bytes = tensors.to_safetensors();
    file::write_atomic(&folder.join(name), &bytes)?;
    Ok(OutputFile {
        file: name.to_owned(),
        sha256: hash::sha256_hex(&bytes),
    })
}

/// Reads tensors whose hash is known; also the path for messages.
pub(super) fn read(folder: &Path, output: &OutputFile) -> Result<(Checkpoint, String)> {
    let path = folder.join(&output.file);
    let name = path.display().to_string();
    let bytes = file::read_bytes(&path)?;
    let sha256 = hash::sha256_hex(&bytes);
    ensure!(
        sha256 == output.sha256,
        "{name}: its SHA-256 is {sha256}, but the record beside it speaks of {}",
        output.sha256
    );
    Ok((Checkpoint::from_safetensors(&name, &bytes)?, name))
}
