//! One JSON object per line; the keys are the columns, and may differ from line to line.

use serde_json::{Map, Value};

use super::Labels;
use super::row::{Cell, RawRow, RawTable, Request, list_columns};
use crate::error::{Error, Result};
use crate::task::Column;

pub(super) fn parse(text: &str, request: &Request<'_>) -> Result<RawTable> {
    let columns = &request.layout.columns;
    let name = |column: &Column| column.names.first().cloned().unwrap_or_default();
    let mut table = RawTable {
        text_column: name(&columns.text),
        pair_column: columns.pair.as_ref().map(name).unwrap_or_default(),
        label_column: name(&columns.label),
        ..RawTable::default()
    };
    let body = text.trim_end();
    if body.is_empty() {
        return Err(Error::NoRows {
            path: request.path.to_path_buf(),
        });
    }
    for (position, line) in body.lines().enumerate() {
        table.rows.push(row(line, position, request)?);
    }
    Ok(table)
}

fn row(line: &str, position: usize, request: &Request<'_>) -> Result<RawRow> {
    let malformed = |problem: String| Error::MalformedRow {
        path: request.path.to_path_buf(),
        line: position + 1,
        problem,
    };
    let object: Map<String, Value> = serde_json::from_str(line)
        .map_err(|error| malformed(format!("not a JSON object: {error}")))?;
    let cell = |column: &Column| {
        let found = column
            .names
            .iter()
            .find_map(|name| object.get(name).map(|value| (name, value)));
        found.map(|(name, value)| {
            convert(value).ok_or_else(|| malformed(format!("key `{name}` holds an object")))
        })
    };
    let missing = |column: &Column| {
        let keys: Vec<String> = object.keys().cloned().collect();
        malformed(format!(
            "no key {}; the keys are {}",
            column.wanted(),
            list_columns(&keys)
        ))
    };
    let columns = &request.layout.columns;
    let text = cell(&columns.text).ok_or_else(|| missing(&columns.text))??;
    let pair = match &columns.pair {
        None => None,
        Some(pair) if request.pair_may_be_absent => cell(pair).transpose()?,
        Some(pair) => Some(cell(pair).ok_or_else(|| missing(pair))??),
    };
    let label = match request.labels {
        Labels::Ignored => Cell::Missing,
        Labels::Optional => cell(&columns.label).transpose()?.unwrap_or(Cell::Missing),
        Labels::Required => cell(&columns.label).ok_or_else(|| missing(&columns.label))??,
    };
    Ok(RawRow {
        position,
        line: position + 1,
        text,
        pair,
        label,
    })
}

/// A JSON value as a cell; an object is none.
fn convert(value: &Value) -> Option<Cell> {
    Some(match value {
        Value::Null => Cell::Missing,
        Value::Bool(flag) => Cell::Flag(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Cell::Integer(integer),
            None => Cell::Number(number.as_f64()?),
        },
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(items) => Cell::List(items.iter().map(convert).collect::<Option<_>>()?),
        Value::Object(_) => return None,
    })
}
