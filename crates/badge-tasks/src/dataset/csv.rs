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
        let line = record
            .position()
            .map_or(0, |position| position.line() as usize);
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
