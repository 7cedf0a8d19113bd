//! Rows as every format delivers them, before they are checked against a task.

use std::path::Path;

use super::Labels;
use crate::error::{Error, Result};
use crate::task::Layout;

/// What a reader is to look for, and where it reports from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) path: &'a Path,
    pub(super) layout: &'a Layout,
    pub(super) labels: Labels,
    /// Inputs for prediction may be single texts although the column of a pair is known.
    pub(super) pair_may_be_absent: bool,
}

/// A cell with the type its format gives it; TSV and CSV know texts only.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Missing,
    Text(String),
    Integer(i64),
    Number(f64),
    Flag(bool),
    List(Vec<Cell>),
}

impl Cell {
    /// A few words for an error message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Missing => "nothing".to_owned(),
            Self::Text(text) => format!("the text `{}`", shorten(text)),
            Self::Integer(value) => format!("the number {value}"),
            Self::Number(value) => format!("the number {value}"),
            Self::Flag(value) => format!("the truth value {value}"),
            Self::List(items) => format!("a list of {}", items.len()),
        }
    }
}

/// The cells of a row that the task needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RawRow {
    /// From 0, without the header.
    pub(super) position: usize,
    /// From 1, as an editor shows it; for Parquet the row.
    pub(super) line: usize,
    pub(super) text: Cell,
    pub(super) pair: Option<Cell>,
    pub(super) label: Cell,
}

/// All rows of a file, and what the columns they were taken from are called.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RawTable {
    pub(super) rows: Vec<RawRow>,
    /// Ragged rows left out.
    pub(super) skipped: usize,
    pub(super) text_column: String,
    pub(super) pair_column: String,
    pub(super) label_column: String,
}

/// Which of a file's columns are which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) text: usize,
    pub(super) pair: Option<usize>,
    pub(super) label: Option<usize>,
}

impl Selection {
    /// Finds the task's columns among those of the file.
    pub(super) fn find(columns: &[String], request: &Request<'_>) -> Result<Self> {
        let wanted = &request.layout.columns;
        let missing = |names: String| Error::MissingColumn {
            path: request.path.to_path_buf(),
            wanted: names,
            found: list_columns(columns),
        };
        let text = wanted
            .text
            .position(columns)
            .ok_or_else(|| missing(wanted.text.wanted()))?;
        let pair = match &wanted.pair {
            None => None,
            Some(pair) => {
                // The same name may serve as text in one data set and as pair in the next.
                let found = pair.position(columns).filter(|position| *position != text);
                if found.is_none() && !request.pair_may_be_absent {
                    return Err(missing(pair.wanted()));
                }
                found
            }
        };
        let label = match request.labels {
            Labels::Ignored => None,
            Labels::Optional => wanted.label.position(columns),
            Labels::Required => {
                let position = wanted.label.position(columns);
                Some(position.ok_or_else(|| missing(wanted.label.wanted()))?)
            }
        };
        Ok(Self { text, pair, label })
    }

    /// A table without rows yet.
    pub(super) fn table(self, columns: &[String]) -> RawTable {
        let name = |position: Option<usize>| position.map(|at| columns[at].clone());
        RawTable {
            text_column: columns[self.text].clone(),
            pair_column: name(self.pair).unwrap_or_default(),
            label_column: name(self.label).unwrap_or_default(),
            ..RawTable::default()
        }
    }

    /// A row out of text fields; `fields` has as many as the header.
    pub(super) fn row(self, fields: &[&str], position: usize, line: usize) -> RawRow {
        let cell = |at: usize| Cell::Text(fields[at].to_owned());
        RawRow {
            position,
            line,
            text: cell(self.text),
            pair: self.pair.map(cell),
            label: self.label.map_or(Cell::Missing, cell),
        }
    }
}

/// The first characters of a text, for a message.
pub(super) fn shorten(text: &str) -> String {
    const LIMIT: usize = 40;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Names for a message.
pub(super) fn list_columns(columns: &[String]) -> String {
    let quoted: Vec<_> = columns
        .iter()
        .map(|name| format!("`{}`", shorten(name)))
        .collect();
    quoted.join(", ")
}
