//! Tab-separated fields without quoting: a `"` is a character like any other, as in GLUE's files.

use super::row::{RawTable, Request, Selection};
use crate::error::{Error, Result};
use crate::task::{Header, Malformed};

pub(super) fn parse(text: &str, request: &Request<'_>) -> Result<RawTable> {
    // `split` rather than `lines`: the latter would also hide a stray `\r` at the end.
    let body = text.trim_end_matches(['\r', '\n']);
    let mut lines = body
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .peekable();
    let first: Vec<&str> = match lines.peek() {
        Some(line) if !line.is_empty() => line.split('\t').collect(),
        _ => {
            return Err(Error::NoRows {
                path: request.path.to_path_buf(),
            });
        }
    };
    let (columns, has_header) = columns(&first, request);
    let selection = Selection::find(&columns, request)?;
    let mut table = selection.table(&columns);
    for (index, line) in lines.enumerate().skip(usize::from(has_header)) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() == columns.len() {
            let position = index - usize::from(has_header);
            table.rows.push(selection.row(&fields, position, index + 1));
        } else if request.layout.malformed == Malformed::Skip {
            table.skipped += 1;
        } else {
            return Err(Error::RaggedRow {
                path: request.path.to_path_buf(),
                line: index + 1,
                expected: columns.len(),
                found: fields.len(),
            });
        }
    }
    Ok(table)
}

/// The names of the columns, and whether the first line holds them.
pub(super) fn columns(first: &[&str], request: &Request<'_>) -> (Vec<String>, bool) {
    let has_header = match request.layout.header {
        Header::FirstLine => true,
        Header::Absent => false,
        Header::Detect => {
            let names = &request.layout.columns.text.names;
            names
                .iter()
                .filter(|name| !is_position(name))
                .any(|name| first.contains(&name.as_str()))
        }
    };
    let names = if has_header {
        first.iter().map(ToString::to_string).collect()
    } else {
        (1..=first.len())
            .map(|position| position.to_string())
            .collect()
    };
    (names, has_header)
}

fn is_position(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}
