//! Tables: rows of cells that print aligned on a terminal, as Markdown, or as HTML.

use std::fmt::{self, Display, Formatter};

/// A table under construction, and what every command prints.
///
/// # Example
///
/// ```
/// use badge_lab::table::{Column, Table};
///
/// let mut table = Table::new([Column::text("exit"), Column::number("accuracy")]);
/// table.push(["1 of 6", "81.2"]);
/// table.push(["6 of 6", "9.5"]);
/// assert_eq!(
///     table.to_text(),
///     "exit    accuracy\n\
///      ──────  ────────\n\
///      1 of 6      81.2\n\
///      6 of 6       9.5\n"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// The heading of a column and the side its cells lean to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    heading: String,
    align: Align,
}

/// The side that the cells of a column lean to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Row {
    Cells(Vec<String>),
    Rule,
}

impl Column {
    /// A column of words, aligned to the left.
    pub fn text(heading: impl Into<String>) -> Self {
        Self {
            heading: heading.into(),
            align: Align::Left,
        }
    }

    /// A column of numbers, aligned to the right.
    pub fn number(heading: impl Into<String>) -> Self {
        Self {
            heading: heading.into(),
            align: Align::Right,
        }
    }

    /// The heading.
    pub fn heading(&self) -> &str {
        &self.heading
    }

    /// The side the cells lean to.
    pub fn align(&self) -> Align {
        self.align
    }
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of cells.
    ///
    /// # Panics
    ///
    /// When the row has not one cell per column.
    pub fn push<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        assert_eq!(
            cells.len(),
            self.columns.len(),
            "a row has one cell per column"
        );
        self.rows.push(Row::Cells(cells));
    }

    /// Adds a rule, which sets the rows below apart (a mean, a total).
    pub fn push_rule(&mut self) {
        self.rows.push(Row::Rule);
    }

    /// The columns, from left to right.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows of cells from top to bottom, without the rules.
    pub fn rows(&self) -> impl Iterator<Item = &[String]> {
        self.rows.iter().filter_map(Row::cells)
    }

    /// The table for a terminal: two spaces between columns, a rule under the heading.
    pub fn to_text(&self) -> String {
        let widths = self.widths(display_width);
        let rule = widths
            .iter()
            .map(|width| "─".repeat(*width))
            .collect::<Vec<_>>()
            .join("  ");
        let mut text = String::new();
        let mut line = |cells: &str| {
            text.push_str(cells.trim_end());
            text.push('\n');
        };
        line(&self.padded(&self.headings(), &widths, "  "));
        line(&rule);
        for row in &self.rows {
            match row {
                Row::Cells(cells) => line(&self.padded(cells, &widths, "  ")),
                Row::Rule => line(&rule),
            }
        }
        text
    }

    /// The table as GitHub Markdown, aligned in the source too; rules are left out.
    pub fn to_markdown(&self) -> String {
        let escaped = Self {
            columns: self.columns.clone(),
            rows: self.escaped_rows(),
        };
        let widths: Vec<usize> = escaped
            .widths(display_width)
            .into_iter()
            .map(|width| width.max(3))
            .collect();
        let marks: Vec<String> = (self.columns.iter().zip(&widths))
            .map(|(column, width)| match column.align {
                Align::Left => "-".repeat(*width),
                Align::Right => format!("{}:", "-".repeat(width - 1)),
            })
            .collect();
        let mut text = String::new();
        let mut line = |cells: String| {
            text.push_str("| ");
            text.push_str(&cells);
            text.push_str(" |\n");
        };
        line(escaped.padded(&escaped.headings(), &widths, " | "));
        line(marks.join(" | "));
        for cells in escaped.rows() {
            line(escaped.padded(cells, &widths, " | "));
        }
        text
    }

    fn headings(&self) -> Vec<String> {
        self.columns
            .iter()
            .map(|column| column.heading.clone())
            .collect()
    }

    fn escaped_rows(&self) -> Vec<Row> {
        let escape = |cell: &String| cell.replace('|', "\\|").replace('\n', " ");
        self.rows()
            .map(|cells| Row::Cells(cells.iter().map(escape).collect()))
            .collect()
    }

    fn widths(&self, width: impl Fn(&str) -> usize) -> Vec<usize> {
        (0..self.columns.len())
            .map(|at| {
                let heading = width(&self.columns[at].heading);
                self.rows()
                    .map(|cells| width(&cells[at]))
                    .fold(heading, usize::max)
            })
            .collect()
    }

    fn padded(&self, cells: &[String], widths: &[usize], between: &str) -> String {
        let pad = |at: usize| {
            let space = " ".repeat(widths[at].saturating_sub(display_width(&cells[at])));
            match self.columns[at].align {
                Align::Left => format!("{}{space}", cells[at]),
                Align::Right => format!("{space}{}", cells[at]),
            }
        };
        (0..cells.len()).map(pad).collect::<Vec<_>>().join(between)
    }
}

impl Display for Table {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_text())
    }
}

impl Row {
    fn cells(&self) -> Option<&[String]> {
        match self {
            Row::Cells(cells) => Some(cells),
            Row::Rule => None,
        }
    }
}

/// The number of terminal cells a text takes.
///
/// Combining marks and joiners take none, East Asian wide letters and emoji two, all else one. The
/// ranges are the blocks of Unicode that are wide as a whole, which is as exact as a table needs.
pub fn display_width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(letter: char) -> usize {
    match u32::from(letter) {
        0x0300..=0x036F | 0x200B..=0x200F | 0x20D0..=0x20FF | 0xFE00..=0xFE0F => 0,
        0x1100..=0x115F
        | 0x2E80..=0x303E
        | 0x3041..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE4F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Table {
        let mut table = Table::new([Column::text("exit"), Column::number("score")]);
        table.push(["one", "9.5"]);
        table.push(["two", "100.0"]);
        table
    }

    #[test]
    fn numbers_lean_right_and_words_left() {
        let lines: Vec<String> = scores().to_text().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            ["exit  score", "────  ─────", "one     9.5", "two   100.0"]
        );
    }

    #[test]
    fn rules_show_in_text_and_not_in_markdown() {
        let mut table = scores();
        table.push_rule();
        table.push(["mean", "54.8"]);
        assert_eq!(
            table
                .to_text()
                .lines()
                .filter(|line| line.starts_with('─'))
                .count(),
            2
        );
        assert_eq!(table.to_markdown().lines().count(), 5);
        assert_eq!(table.rows().count(), 3);
    }

    #[test]
    fn markdown_marks_the_alignment_and_escapes_bars() {
        let mut table = Table::new([Column::text("policy"), Column::number("x")]);
        table.push(["a|b", "1"]);
        assert_eq!(
            table.to_markdown(),
            "| policy |   x |\n| ------ | --: |\n| a\\|b   |   1 |\n"
        );
    }

    #[test]
    fn wide_letters_count_twice_and_marks_not_at_all() {
        assert_eq!(display_width("τ = 0.3"), 7);
        assert_eq!(display_width("日本"), 4);
        assert_eq!(display_width("e\u{301}"), 1);
    }

    #[test]
    fn columns_stay_aligned_under_wide_letters() {
        let mut table = Table::new([Column::text("text"), Column::text("label")]);
        table.push(["日本", "a"]);
        table.push(["word", "b"]);
        let text = table.to_text();
        let offsets: Vec<usize> = (text.lines().skip(2))
            .map(|line| display_width(line) - 1)
            .collect();
        assert_eq!(offsets, [6, 6]);
    }

    #[test]
    #[should_panic(expected = "one cell per column")]
    fn a_ragged_row_is_refused() {
        scores().push(["three"]);
    }
}
