//! Reading data files: TSV, CSV, JSONL, Parquet and plain lines become [`Example`]s, strictly.
//!
//! A file is refused with its line rather than read in part: a row that was dropped or shifted in
//! silence is a wrong number later. Blank lines at the end, `\r\n` and a byte order mark are fine.

mod csv;
mod jsonl;
mod label;
mod lines;
mod parquet;
mod row;
mod tsv;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::file;
use crate::hash::sha256_hex;
use crate::task::{Column, Columns, Example, Header, LabelSpace, Layout, Malformed};

use self::row::{Cell, RawRow, RawTable, Request};

/// The longest text in bytes; a text beyond it is refused, for no model reads that far.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// The format of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One text per line, nothing else.
    Lines,
    /// Tab-separated fields without quoting, as GLUE's files are.
    Tsv,
    /// Comma-separated fields with `"` quoting (RFC 4180).
    Csv,
    /// One JSON object per line.
    Jsonl,
    /// Apache Parquet, uncompressed or Snappy.
    Parquet,
}

impl Format {
    /// Every format there is.
    pub const ALL: [Self; 5] = [
        Self::Lines,
        Self::Tsv,
        Self::Csv,
        Self::Jsonl,
        Self::Parquet,
    ];

    /// Its name in a task file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Tsv => "tsv",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }

    /// The format that a file's extension tells.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFormat`] for any other extension.
    pub fn of_path(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("txt") => Ok(Self::Lines),
            Some("tsv" | "tab") => Ok(Self::Tsv),
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(Error::UnknownFormat {
                path: path.to_path_buf(),
            }),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| Error::UnknownName {
                what: "format",
                found: name.to_owned(),
                allowed: Self::ALL.map(Self::name).join(", "),
            })
    }
}

/// Whether rows must carry labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// Every row has one.
    Required,
    /// The column may be absent, a cell empty or -1: such rows are unlabelled.
    Optional,
    /// Labels are not looked at.
    Ignored,
}

/// The rows of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// The examples in the order of the file.
    pub examples: Vec<Example>,
    /// Each example's row in the file, counted from 0 without the header.
    pub positions: Vec<usize>,
    /// Broken rows left out ([`Malformed::Skip`]).
    pub skipped: usize,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Reads a file of a task.
///
/// # Errors
///
/// Names the file, the line and the column of the first thing that is wrong.
pub fn read(path: &Path, layout: &Layout, space: &LabelSpace, labels: Labels) -> Result<Rows> {
    let request = Request {
        path,
        layout,
        labels,
        pair_may_be_absent: false,
    };
    let (table, sha256) = load_table(&request)?;
    let mut rows = Rows {
        examples: Vec::new(),
        positions: Vec::new(),
        skipped: table.skipped,
        sha256,
    };
    for row in &table.rows {
        match example(row, &table, &request, space) {
            Ok(example) => {
                rows.examples.push(example);
                rows.positions.push(row.position);
            }
            Err(Error::EmptyText { .. }) if layout.malformed == Malformed::Skip => {
                rows.skipped += 1;
            }
            Err(error) => return Err(error),
        }
    }
    if rows.examples.is_empty() {
        return Err(Error::NoRows {
            path: path.to_path_buf(),
        });
    }
    Ok(rows)
}

/// Reads the texts of a file, without labels; the second column of a pair may be absent.
///
/// # Errors
///
/// As [`read`].
pub fn read_inputs(path: &Path, columns: &Columns, format: Option<Format>) -> Result<Vec<Example>> {
    let layout = input_layout(columns, format);
    let request = Request {
        path,
        layout: &layout,
        labels: Labels::Ignored,
        pair_may_be_absent: true,
    };
    examples_of(&load_table(&request)?.0, &request)
}

/// Reads the texts of content that is in memory already, such as standard input.
///
/// `name` stands for it in messages. Parquet, whose index is at its end, can only be read from a
/// file.
///
/// # Errors
///
/// As [`read`].
///
/// # Example
///
/// ```
/// use badge_tasks::dataset::{Format, common_columns, parse_inputs};
///
/// let content = b"sentence1\tsentence2\nIt rains.\tIt is wet.\n";
/// let name = std::path::Path::new("standard input");
/// let examples = parse_inputs(name, content, &common_columns(), Format::Tsv)?;
/// assert_eq!(examples[0].pair.as_deref(), Some("It is wet."));
/// # Ok::<(), badge_tasks::Error>(())
/// ```
pub fn parse_inputs(
    name: &Path,
    content: &[u8],
    columns: &Columns,
    format: Format,
) -> Result<Vec<Example>> {
    let layout = input_layout(columns, Some(format));
    let request = Request {
        path: name,
        layout: &layout,
        labels: Labels::Ignored,
        pair_may_be_absent: true,
    };
    if format == Format::Parquet {
        let problem = "it must be a file, not a stream".to_owned();
        return Err(Error::Parquet {
            path: name.to_path_buf(),
            problem,
        });
    }
    examples_of(
        &parse_text(format, file::decode(name, content)?, &request)?,
        &request,
    )
}

/// The columns that texts and pairs of texts usually lie in.
pub fn common_columns() -> Columns {
    Columns {
        text: Column::any_of(&[
            "text",
            "sentence1",
            "premise",
            "question1",
            "question",
            "query",
            "sentence",
        ]),
        pair: Some(Column::any_of(&[
            "pair",
            "text_pair",
            "sentence2",
            "hypothesis",
            "question2",
            "document",
            "sentence",
        ])),
        label: Column::any_of(&["label"]),
    }
}

/// All labels that occur in a file: in the order of their values if all are whole numbers, of
/// their names otherwise.
pub(crate) fn read_labels(path: &Path, layout: &Layout, space: &LabelSpace) -> Result<Vec<String>> {
    let request = Request {
        path,
        layout,
        labels: Labels::Required,
        pair_may_be_absent: false,
    };
    let (table, _) = load_table(&request)?;
    let mut names = BTreeSet::new();
    for row in &table.rows {
        names.extend(label::names(row, &table, &request, space)?);
    }
    let mut names: Vec<String> = names.into_iter().collect();
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    Ok(names)
}

fn input_layout(columns: &Columns, format: Option<Format>) -> Layout {
    Layout {
        format,
        header: Header::FirstLine,
        columns: columns.clone(),
        label_delimiter: ',',
        malformed: Malformed::Refuse,
    }
}

fn load_table(request: &Request<'_>) -> Result<(RawTable, String)> {
    let format = match request.layout.format {
        Some(format) => format,
        None => match Format::of_path(request.path)? {
            // Lines have no labels: a task's `.txt` is a table, as MRPC's original files are.
            Format::Lines if request.labels != Labels::Ignored => Format::Tsv,
            format => format,
        },
    };
    let bytes = file::read_bytes(request.path)?;
    let sha256 = sha256_hex(&bytes);
    let table = if format == Format::Parquet {
        drop(bytes);
        parquet::read(request)?
    } else {
        parse_text(format, file::decode(request.path, &bytes)?, request)?
    };
    Ok((table, sha256))
}

fn parse_text(format: Format, text: &str, request: &Request<'_>) -> Result<RawTable> {
    match format {
        Format::Lines => Ok(lines::parse(text)),
        Format::Tsv => tsv::parse(text, request),
        Format::Csv => csv::parse(text, request),
        Format::Jsonl => jsonl::parse(text, request),
        Format::Parquet => unreachable!("Parquet is not text; the callers have dealt with it"),
    }
}

fn examples_of(table: &RawTable, request: &Request<'_>) -> Result<Vec<Example>> {
    if table.rows.is_empty() {
        return Err(Error::NoRows {
            path: request.path.to_path_buf(),
        });
    }
    // Labels are ignored, so any label space does.
    let space = LabelSpace::Regression;
    table
        .rows
        .iter()
        .map(|row| example(row, table, request, &space))
        .collect()
}

fn example(
    row: &RawRow,
    table: &RawTable,
    request: &Request<'_>,
    space: &LabelSpace,
) -> Result<Example> {
    let text = text(&row.text, row.line, &table.text_column, request)?;
    let pair = match &row.pair {
        Some(cell) => Some(self::text(cell, row.line, &table.pair_column, request)?),
        None => None,
    };
    let target = match request.labels {
        Labels::Ignored => None,
        _ => label::target(row, table, request, space)?,
    };
    Ok(Example { text, pair, target })
}

fn text(cell: &Cell, line: usize, column: &str, request: &Request<'_>) -> Result<String> {
    let (path, column) = (request.path.to_path_buf(), column.to_owned());
    match cell {
        Cell::Missing => Err(Error::EmptyText { path, line, column }),
        Cell::Text(text) if text.trim().is_empty() => Err(Error::EmptyText { path, line, column }),
        Cell::Text(text) if text.len() > TEXT_BYTES_MAX => {
            let (bytes, limit) = (text.len(), TEXT_BYTES_MAX);
            Err(Error::TextTooLong {
                path,
                line,
                column,
                bytes,
                limit,
            })
        }
        Cell::Text(text) => Ok(text.clone()),
        other => Err(Error::CellKind {
            path,
            line,
            column,
            expected: "a text",
            found: other.describe(),
        }),
    }
}

#[cfg(test)]
mod tests;
