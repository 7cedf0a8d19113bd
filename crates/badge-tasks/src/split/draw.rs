//! Drawing rows out of a pool with a seed.

use super::source::Pool;
use super::{Split, SplitName, content_sha256};
use crate::error::{Error, Result};
use crate::hash::sha256_hex;
use crate::shuffle::{generator, permutation};
use crate::task::Task;

/// Streams of the split seed, one per kind of draw, so that one never decides the other.
const HALVE_STREAM: u64 = 1;
const HOLD_OUT_STREAM: u64 = 2;

/// Chosen rows of a pool.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pool: Pool,
    /// In ascending order: a split keeps the order of its files.
    rows: Vec<usize>,
    /// The seed, when the rows are not all there are.
    seed: Option<u64>,
}

impl Drawn {
    /// All rows.
    pub(super) fn all(pool: Pool) -> Self {
        let rows = (0..pool.rows()).collect();
        Self {
            pool,
            rows,
            seed: None,
        }
    }

    /// The split these rows make.
    pub(super) fn split(self, name: SplitName) -> Split {
        let examples: Vec<_> = self
            .rows
            .iter()
            .map(|row| self.pool.examples[*row].clone())
            .collect();
        Split {
            name,
            sha256: content_sha256(&examples),
            rows_sha256: self.rows_sha256(),
            origin: self.origin(),
            parts: self.pool.part_sizes(&self.rows),
            examples,
            files: self.pool.files,
        }
    }

    fn rows_sha256(&self) -> String {
        let mut list = String::new();
        for row in &self.rows {
            let (file, position) = self.pool.origins[*row];
            let path = &self.pool.files[file].path;
            list.push_str(&path.file_name().unwrap_or_default().to_string_lossy());
            list.push(':');
            list.push_str(&position.to_string());
            list.push('\n');
        }
        sha256_hex(list.as_bytes())
    }

    fn origin(&self) -> String {
        let (chosen, all) = (self.rows.len(), self.pool.rows());
        let names = self.pool.file_names();
        let mut origin = match self.seed {
            None => format!("all {all} rows of {names}"),
            Some(seed) => format!("{chosen} of {all} rows of {names}, drawn with seed {seed}"),
        };
        for note in &self.pool.notes {
            origin.push_str("; ");
            origin.push_str(note);
        }
        origin
    }
}

/// Two halves of a pool, the smaller first.
pub(super) fn halve(task: &Task, pool: &Pool, seed: u64) -> Result<[Drawn; 2]> {
    check_rows(task, pool, 2)?;
    let order = permutation(pool.rows(), &mut generator(seed, HALVE_STREAM));
    let (first, second) = order.split_at(pool.rows() / 2);
    Ok([first, second].map(|rows| chosen(pool, rows, seed)))
}

/// Two disjoint draws of the given sizes, and the rows that remain.
pub(super) fn draw(task: &Task, pool: &Pool, counts: [usize; 2], seed: u64) -> Result<[Drawn; 3]> {
    check_rows(task, pool, counts[0] + counts[1] + 1)?;
    let order = permutation(pool.rows(), &mut generator(seed, HOLD_OUT_STREAM));
    let (first, others) = order.split_at(counts[0]);
    let (second, remaining) = others.split_at(counts[1]);
    Ok([first, second, remaining].map(|rows| chosen(pool, rows, seed)))
}

fn chosen(pool: &Pool, rows: &[usize], seed: u64) -> Drawn {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    Drawn {
        pool: pool.clone(),
        rows,
        seed: Some(seed),
    }
}

fn check_rows(task: &Task, pool: &Pool, needed: usize) -> Result<()> {
    if pool.rows() >= needed {
        return Ok(());
    }
    Err(Error::SplitTooSmall {
        task: task.name.clone(),
        rows: pool.rows(),
        origin: pool.file_names(),
        needed,
    })
}
