//! Rows on standard output: one document, a table, or line by line as they are answered.

use anyhow::Result;
use badge_core::policy::PolicySpec;
use badge_lab::table::{Column, Table, display_width};
use badge_tasks::LabelSpace;
use serde::Serialize;

use super::Summary;
use super::row::{PredictionRow, RowAnswer};
use crate::console::Console;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// All rows in one JSON document.
    Document,
    /// All rows in an aligned table.
    Table,
    /// Each row at once, tab-separated under a header.
    Tsv,
    /// Each row at once, a JSON object.
    JsonLines,
}

/// Prints rows in one of the forms.
pub(super) struct Output<'a> {
    console: Console,
    form: Form,
    labels: &'a LabelSpace,
    with_pairs: bool,
    /// Rows of the forms that are printed at the end.
    rows: Vec<PredictionRow>,
}

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    policy: &'a PolicySpec,
    predictions: &'a [PredictionRow],
    summary: &'a Summary,
}

/// Terminal cells that a text gets in the table.
const TEXT_WIDTH: usize = 44;

impl<'a> Output<'a> {
    pub(super) fn new(
        console: Console,
        form: Form,
        labels: &'a LabelSpace,
        with_pairs: bool,
    ) -> Self {
        Self {
            console,
            form,
            labels,
            with_pairs,
            rows: Vec::new(),
        }
    }

    /// Prints what stands above the rows.
    pub(super) fn begin(&self) -> Result<()> {
        if self.form == Form::Tsv {
            let mut fields = vec!["text".to_owned()];
            if self.with_pairs {
                fields.push("text_pair".to_owned());
            }
            if *self.labels == LabelSpace::Regression {
                fields.push("value".to_owned());
            } else {
                fields.push("label".to_owned());
                fields.extend(
                    self.labels
                        .labels()
                        .iter()
                        .map(|label| format!("p({label})")),
                );
            }
            fields.extend(["exit", "exits", "reason"].map(str::to_owned));
            Console::line(&tab_separated(&fields))?;
        }
        Ok(())
    }

    /// Prints a row, or keeps it for the end.
    pub(super) fn row(&mut self, row: PredictionRow) -> Result<()> {
        match self.form {
            Form::Document | Form::Table => {
                self.rows.push(row);
                Ok(())
            }
            Form::Tsv => Console::line(&tab_separated(&self.fields(&row))),
            Form::JsonLines => Console::line(&serde_json::to_string(&row)?),
        }
    }

    /// Prints what was kept, and the summary: under the table, elsewhere on standard error.
    pub(super) fn finish(
        &self,
        (model, policy): (&str, &PolicySpec),
        summary: &Summary,
    ) -> Result<()> {
        let sentence = format!(
            "{policy}: {} row{}, mean exit {:.2}, layer speed-up {:.2}x, {:.1} ms per row in batches",
            summary.rows,
            if summary.rows == 1 { "" } else { "s" },
            summary.mean_exit,
            summary.layer_speedup,
            summary.ms_per_row,
        );
        if matches!(self.form, Form::Tsv | Form::JsonLines) {
            self.console.note(&sentence);
            return Ok(());
        }
        let document = Document {
            model,
            policy,
            predictions: &self.rows,
            summary,
        };
        let text = match self.form {
            Form::Table => format!("{}\n{sentence}\n", self.table().to_text()),
            _ => String::new(),
        };
        self.console.result(&document, &text)
    }

    fn fields(&self, row: &PredictionRow) -> Vec<String> {
        let mut fields = vec![row.text.clone()];
        if self.with_pairs {
            fields.push(row.text_pair.clone().unwrap_or_default());
        }
        fields.push(row.answer.in_words());
        if let RowAnswer::Label { probabilities, .. } | RowAnswer::Labels { probabilities, .. } =
            &row.answer
        {
            fields.extend(probabilities.0.iter().map(|(_, p)| p.to_string()));
        }
        fields.extend([
            row.exit.to_string(),
            row.exits.to_string(),
            row.reason.clone(),
        ]);
        fields
    }

    fn table(&self) -> Table {
        let answer = match self.labels {
            LabelSpace::SingleLabel { .. } => {
                vec![Column::text("label"), Column::number("probability")]
            }
            LabelSpace::MultiLabel { .. } => vec![Column::text("labels")],
            LabelSpace::Regression => vec![Column::number("value")],
        };
        let pair = self.with_pairs.then(|| Column::text("second text"));
        let columns = std::iter::once(Column::text("text"))
            .chain(pair)
            .chain(answer)
            .chain([Column::text("exit"), Column::text("why")]);
        let mut table = Table::new(columns);
        for row in &self.rows {
            let mut cells = vec![shorten(&row.text)];
            if self.with_pairs {
                cells.push(shorten(row.text_pair.as_deref().unwrap_or_default()));
            }
            cells.extend(answer_cells(&row.answer));
            cells.push(format!("{} of {}", row.exit, row.exits));
            cells.push(row.reason.clone());
            table.push(cells);
        }
        table
    }
}

fn answer_cells(answer: &RowAnswer) -> Vec<String> {
    match answer {
        RowAnswer::Label { label, score, .. } => vec![label.clone(), format!("{score:.3}")],
        RowAnswer::Labels {
            label,
            probabilities,
        } => {
            let chosen: Vec<_> = (probabilities.0.iter())
                .filter(|(name, _)| label.contains(name))
                .map(|(name, p)| format!("{name} {p:.2}"))
                .collect();
            let none = "none".to_owned();
            vec![if chosen.is_empty() {
                none
            } else {
                chosen.join(", ")
            }]
        }
        RowAnswer::Value { value } => vec![format!("{value:.3}")],
    }
}

/// Fields of a line; tabs and line breaks inside them, which TSV cannot hold, become spaces.
fn tab_separated(fields: &[String]) -> String {
    let plain = |field: &String| field.replace(['\t', '\n', '\r'], " ");
    fields.iter().map(plain).collect::<Vec<_>>().join("\t")
}

/// The beginning of a text on one line.
fn shorten(text: &str) -> String {
    let line = text.replace(['\t', '\n', '\r'], " ");
    if display_width(&line) <= TEXT_WIDTH {
        return line;
    }
    let mut short = String::new();
    let mut width = 0;
    for letter in line.chars() {
        width += display_width(letter.encode_utf8(&mut [0; 4]));
        if width >= TEXT_WIDTH {
            break;
        }
        short.push(letter);
    }
    format!("{}…", short.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_the_width_of_the_column() {
        for (text, short) in [
            ("two\nlines", "two lines".to_owned()),
            (&"a".repeat(TEXT_WIDTH), "a".repeat(TEXT_WIDTH)),
            (&"a".repeat(99), format!("{}…", "a".repeat(TEXT_WIDTH - 1))),
            (
                &"漢".repeat(99),
                format!("{}…", "漢".repeat(TEXT_WIDTH / 2 - 1)),
            ),
        ] {
            assert_eq!(shorten(text), short);
            assert!(display_width(&short) <= TEXT_WIDTH);
        }
    }

    #[test]
    fn a_field_never_breaks_its_line() {
        let fields = ["a\tb", "c\r\nd"].map(str::to_owned);
        assert_eq!(tab_separated(&fields), "a b\tc  d");
    }
}
