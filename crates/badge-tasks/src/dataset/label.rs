//! From a label's cell to a target, whatever way the file writes labels.
//!
//! A label may be given by its name or by its number. Numbers count only where no label is itself
//! called by a number: a task with the labels `1` and `2` has no label `0`.

use super::Labels;
use super::row::{Cell, RawRow, RawTable, Request, shorten};
use crate::error::{Error, Result};
use crate::task::{LabelSpace, Target};

/// The target of a row; `None` for an unlabelled row where that is allowed.
pub(super) fn target(
    row: &RawRow,
    table: &RawTable,
    request: &Request<'_>,
    space: &LabelSpace,
) -> Result<Option<Target>> {
    let reader = LabelReader {
        line: row.line,
        table,
        request,
        space,
    };
    let target = match space {
        LabelSpace::SingleLabel { .. } => reader.class(&row.label)?.map(Target::Class),
        LabelSpace::MultiLabel { .. } => reader.classes(&row.label)?.map(Target::Classes),
        LabelSpace::Regression => reader.value(&row.label)?.map(Target::Value),
    };
    if target.is_none() && request.labels == Labels::Required {
        return Err(Error::MissingLabel {
            path: request.path.to_path_buf(),
            line: row.line,
        });
    }
    Ok(target)
}

/// The names of the labels of a row, for a task that takes its labels from the data.
pub(super) fn names(
    row: &RawRow,
    table: &RawTable,
    request: &Request<'_>,
    space: &LabelSpace,
) -> Result<Vec<String>> {
    let reader = LabelReader {
        line: row.line,
        table,
        request,
        space,
    };
    let cells = match (&row.label, space) {
        (cell, LabelSpace::MultiLabel { .. }) => reader.split(cell)?.unwrap_or_default(),
        (Cell::Missing, _) => Vec::new(),
        (cell, _) => vec![cell.clone()],
    };
    let mut names = Vec::with_capacity(cells.len());
    for cell in &cells {
        match name(cell) {
            Some(name) if !name.is_empty() => names.push(name),
            Some(_) => {}
            None => return Err(reader.kind_error(cell, "the name of a label")),
        }
    }
    if names.is_empty() && matches!(space, LabelSpace::SingleLabel { .. }) {
        return Err(Error::MissingLabel {
            path: request.path.to_path_buf(),
            line: row.line,
        });
    }
    Ok(names)
}

/// Reads the label of one row.
struct LabelReader<'a> {
    line: usize,
    table: &'a RawTable,
    request: &'a Request<'a>,
    space: &'a LabelSpace,
}

impl LabelReader<'_> {
    fn class(&self, cell: &Cell) -> Result<Option<usize>> {
        let Some(name) = name(cell) else {
            return match cell {
                Cell::Missing => Ok(None),
                other => Err(self.kind_error(other, "the name or number of a label")),
            };
        };
        if name.is_empty() {
            return Ok(None);
        }
        let labels = self.space.labels();
        if let Some(class) = labels.iter().position(|label| *label == name) {
            return Ok(Some(class));
        }
        let numbered = labels.iter().all(|label| label.parse::<i64>().is_err());
        let number = match cell {
            Cell::Flag(flag) => Some(i64::from(*flag)),
            _ => name.parse::<i64>().ok(),
        };
        match number.filter(|_| numbered) {
            None => Err(Error::UnknownLabel {
                path: self.request.path.to_path_buf(),
                line: self.line,
                label: shorten(&name),
                known: self.known(),
            }),
            Some(-1) if self.request.labels == Labels::Optional => Ok(None),
            Some(number) => match usize::try_from(number) {
                Ok(class) if class < labels.len() => Ok(Some(class)),
                _ => Err(Error::LabelOutOfRange {
                    path: self.request.path.to_path_buf(),
                    line: self.line,
                    label: number,
                    last: labels.len().saturating_sub(1),
                }),
            },
        }
    }

    fn classes(&self, cell: &Cell) -> Result<Option<Vec<bool>>> {
        let labels = self.space.labels();
        let Some(cells) = self.split(cell)? else {
            return Ok(None);
        };
        let flags: Option<Vec<bool>> = cells
            .iter()
            .map(|cell| {
                if let Cell::Flag(flag) = cell {
                    Some(*flag)
                } else {
                    None
                }
            })
            .collect();
        if let Some(flags) = flags.filter(|flags| flags.len() == labels.len()) {
            return Ok(Some(flags));
        }
        let mut set = vec![false; labels.len()];
        for cell in &cells {
            if let Some(class) = self.class(cell)? {
                set[class] = true;
            }
        }
        Ok(Some(set))
    }

    fn value(&self, cell: &Cell) -> Result<Option<f32>> {
        let (value, written) = match cell {
            Cell::Missing => return Ok(None),
            Cell::Text(text) if text.trim().is_empty() => return Ok(None),
            Cell::Text(text) => (
                text.trim().parse::<f64>().unwrap_or(f64::NAN),
                shorten(text),
            ),
            Cell::Integer(value) => (*value as f64, value.to_string()),
            Cell::Number(value) => (*value, value.to_string()),
            other => return Err(self.kind_error(other, "a number")),
        };
        if value == -1.0 && self.request.labels == Labels::Optional {
            return Ok(None);
        }
        let narrow = value as f32;
        if narrow.is_finite() {
            Ok(Some(narrow))
        } else {
            let path = self.request.path.to_path_buf();
            Err(Error::InvalidValue {
                path,
                line: self.line,
                value: written,
            })
        }
    }

    /// The labels of a multi-label cell, one by one; `None` where there is no cell at all.
    fn split(&self, cell: &Cell) -> Result<Option<Vec<Cell>>> {
        match cell {
            Cell::Missing => Ok(None),
            Cell::List(items) => Ok(Some(items.clone())),
            Cell::Text(text) => {
                let parts = text
                    .split(self.request.layout.label_delimiter)
                    .map(str::trim);
                let parts = parts.filter(|part| !part.is_empty());
                Ok(Some(
                    parts.map(|part| Cell::Text(part.to_owned())).collect(),
                ))
            }
            other => Err(self.kind_error(other, "a list of labels")),
        }
    }

    fn kind_error(&self, cell: &Cell, expected: &'static str) -> Error {
        Error::CellKind {
            path: self.request.path.to_path_buf(),
            line: self.line,
            column: self.table.label_column.clone(),
            expected,
            found: cell.describe(),
        }
    }

    /// The labels for a message, the first of them where they are many.
    fn known(&self) -> String {
        const SHOWN: usize = 20;
        let labels = self.space.labels();
        let shown = labels.iter().take(SHOWN).map(|label| format!("`{label}`"));
        let rest = labels.len().checked_sub(SHOWN).filter(|rest| *rest > 0);
        let rest = rest.map(|rest| format!("and {rest} more"));
        shown.chain(rest).collect::<Vec<_>>().join(", ")
    }
}

/// A cell as the name of a label.
fn name(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(text.trim().to_owned()),
        Cell::Integer(value) => Some(value.to_string()),
        // Data frames turn integers into floats as soon as one of them is missing.
        Cell::Number(value) if value.fract() == 0.0 => Some(format!("{value:.0}")),
        Cell::Flag(flag) => Some(flag.to_string()),
        Cell::Missing | Cell::Number(_) | Cell::List(_) => None,
    }
}
