//! Plain lines: every line is a text.

use super::row::{Cell, RawRow, RawTable};

pub(super) fn parse(text: &str) -> RawTable {
    let row = |(position, line): (usize, &str)| RawRow {
        position,
        line: position + 1,
        text: Cell::Text(line.to_owned()),
        pair: None,
        label: Cell::Missing,
    };
    RawTable {
        rows: text
            .trim_end_matches(['\r', '\n'])
            .lines()
            .enumerate()
            .map(row)
            .collect(),
        text_column: "text".to_owned(),
        ..RawTable::default()
    }
}
