//! Parquet through its row reader: only the columns a task needs are decoded.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use super::row::{Cell, RawRow, RawTable, Request, Selection};
use crate::error::{Error, Result};
use crate::file::read_error;

pub(super) fn read(request: &Request<'_>) -> Result<RawTable> {
    // The library asserts on some kinds of damage inside a file; for us that is one more bad file.
    // Nothing outlives the closure, so no broken state can be seen.
    catch_unwind(AssertUnwindSafe(|| read_rows(request))).unwrap_or_else(|_| {
        let problem = "its pages or their index are damaged".to_owned();
        Err(Error::Parquet {
            path: request.path.to_path_buf(),
            problem,
        })
    })
}

fn read_rows(request: &Request<'_>) -> Result<RawTable> {
    let file = File::open(request.path).map_err(|source| read_error(request.path, source))?;
    let broken = |error: &ParquetError| Error::Parquet {
        path: request.path.to_path_buf(),
        problem: error.to_string(),
    };
    let reader = SerializedFileReader::new(file).map_err(|error| broken(&error))?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let columns: Vec<String> = schema
        .get_fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    let selection = Selection::find(&columns, request)?;
    let projection = Projection::new(&schema, selection).map_err(|error| broken(&error))?;
    let mut table = selection.table(&columns);
    let rows = reader
        .get_row_iter(Some(projection.schema))
        .map_err(|error| broken(&error))?;
    for (position, row) in rows.enumerate() {
        let row = row.map_err(|error| broken(&error))?;
        let cell = |name: &str| find(&row, name, position, request);
        table.rows.push(RawRow {
            position,
            line: position + 1,
            text: cell(&table.text_column)?,
            pair: if selection.pair.is_some() {
                Some(cell(&table.pair_column)?)
            } else {
                None
            },
            label: match selection.label {
                Some(_) => cell(&table.label_column)?,
                None => Cell::Missing,
            },
        });
    }
    Ok(table)
}

/// The part of a file's schema that is read.
struct Projection {
    schema: Type,
}

impl Projection {
    fn new(schema: &Type, selection: Selection) -> std::result::Result<Self, ParquetError> {
        let wanted = [Some(selection.text), selection.pair, selection.label];
        // The reader wants the columns in the order of the file.
        let mut wanted: Vec<usize> = wanted.into_iter().flatten().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let fields = wanted
            .into_iter()
            .map(|at| Arc::clone(&schema.get_fields()[at]))
            .collect();
        let schema = Type::group_type_builder(schema.name())
            .with_fields(fields)
            .build()?;
        Ok(Self { schema })
    }
}

fn find(row: &Row, name: &str, position: usize, request: &Request<'_>) -> Result<Cell> {
    let field = row
        .get_column_iter()
        .find(|(column, _)| *column == name)
        .map(|(_, field)| field);
    field.and_then(convert).ok_or_else(|| Error::CellKind {
        path: request.path.to_path_buf(),
        line: position + 1,
        column: name.to_owned(),
        expected: "a text, a number, a truth value or a list of them",
        found: field.map_or_else(|| "nothing".to_owned(), |field| format!("`{field}`")),
    })
}

/// A field as a cell; dates, decimals, maps and bytes that are not UTF-8 are none.
fn convert(field: &Field) -> Option<Cell> {
    Some(match field {
        Field::Null => Cell::Missing,
        Field::Bool(flag) => Cell::Flag(*flag),
        Field::Byte(value) => Cell::Integer((*value).into()),
        Field::Short(value) => Cell::Integer((*value).into()),
        Field::Int(value) => Cell::Integer((*value).into()),
        Field::Long(value) => Cell::Integer(*value),
        Field::UByte(value) => Cell::Integer((*value).into()),
        Field::UShort(value) => Cell::Integer((*value).into()),
        Field::UInt(value) => Cell::Integer((*value).into()),
        Field::ULong(value) => Cell::Integer(i64::try_from(*value).ok()?),
        Field::Float16(value) => Cell::Number(value.to_f64()),
        Field::Float(value) => Cell::Number((*value).into()),
        Field::Double(value) => Cell::Number(*value),
        Field::Str(text) => Cell::Text(text.clone()),
        Field::Bytes(bytes) => Cell::Text(bytes.as_utf8().ok()?.to_owned()),
        Field::ListInternal(list) => {
            Cell::List(list.elements().iter().map(convert).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
