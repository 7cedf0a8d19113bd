//! Comma-separated fields with quoting; a quoted field may hold commas and line breaks.

use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::row::{RawTable, Request, Selection};
use super::tsv;
use crate::error::{Error, Result};
use crate::task::Malformed;

pub(super) fn parse(text: &str, request: &Request<'_>) -> Result<RawTable> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut record = StringRecord::new();
    if !read_record(&mut reader, &mut record, request)? {
        return Err(Error::NoRows {
            path: request.path.to_path_buf(),
        });
    }
    let first: Vec<&str> = record.iter().collect();
    let (columns, has_header) = tsv::columns(&first, request);
    let selection = Selection::find(&columns, request)?;
    let mut table = selection.table(&columns);
    let mut more = if has_header {
        read_record(&mut reader, &mut record, request)?
    } else {
        true
    };
    let mut position = 0;
    while more {
        let (start, line) = record
            .position()
            .map_or((0, 0), |at| (at.byte() as usize, at.line() as usize));
        // The library takes the end of the file for the end of a quoted field.
        let is_last = reader.position().byte() as usize >= text.len();
        if is_last && ends_in_quotes(&text[start..]) {
            return Err(Error::MalformedRow {
                path: request.path.to_path_buf(),
                line,
                problem: "a quoted field of this row is not closed; add the missing `\"`"
                    .to_owned(),
            });
        }
        if record.len() == columns.len() {
            let fields: Vec<&str> = record.iter().collect();
            table.rows.push(selection.row(&fields, position, line));
        } else if request.layout.malformed == Malformed::Skip {
            table.skipped += 1;
        } else {
            return Err(Error::RaggedRow {
                path: request.path.to_path_buf(),
                line,
                expected: columns.len(),
                found: record.len(),
            });
        }
        position += 1;
        more = read_record(&mut reader, &mut record, request)?;
    }
    Ok(table)
}

/// Whether a record's text stops inside a quoted field.
fn ends_in_quotes(record: &str) -> bool {
    let mut quoted = false;
    let mut at_start = true;
    let mut letters = record.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
            }
            '"' if quoted => quoted = false,
            '"' if at_start => quoted = true,
            _ => {}
        }
        at_start = !quoted && matches!(letter, ',' | '\n' | '\r');
    }
    quoted
}

fn read_record(
    reader: &mut csv::Reader<&[u8]>,
    record: &mut StringRecord,
    request: &Request<'_>,
) -> Result<bool> {
    reader.read_record(record).map_err(|error| {
        let line = error
            .position()
            .map_or(0, |position| position.line() as usize);
        let problem = match error.kind() {
            ErrorKind::Utf8 { err, .. } => format!("not UTF-8 in field {}", err.field() + 1),
            _ => error.to_string(),
        };
        Error::MalformedRow {
            path: request.path.to_path_buf(),
            line,
            problem,
        }
    })
}
