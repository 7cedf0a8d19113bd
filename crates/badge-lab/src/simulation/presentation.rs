//! A simulation as a table.

use std::fmt::Write;

use super::{Cell, Simulation};
use crate::table::{Column, Table};

impl Simulation {
    /// One table a trace, for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let _ = writeln!(
                text,
                "{} ({}), SLO {:.0} ms, floor {}\n\n{}",
                row.name,
                row.trace,
                1e3 * row.promise.slo,
                row.promise.floor,
                table(&row.cells).to_text()
            );
        }
        text
    }
}

fn table(cells: &[Cell]) -> Table {
    let mut table = Table::new([
        Column::text("depth by"),
        Column::number("in time"),
        Column::number("refused"),
        Column::number("expired"),
        Column::number("p50 ms"),
        Column::number("p99 ms"),
        Column::number("depth before"),
        Column::number("in burst"),
        Column::number("in all"),
        Column::number("score"),
        Column::number("settled s"),
        Column::number("changes/min"),
    ]);
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let maybe = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
    for cell in cells {
        let outcome = &cell.outcome;
        table.push([
            cell.name.clone(),
            percent(outcome.in_time),
            percent(outcome.refused),
            percent(outcome.expired),
            format!("{:.0}", outcome.p50_ms),
            format!("{:.0}", outcome.p99_ms),
            maybe(outcome.depth_before),
            maybe(outcome.depth_in_burst),
            maybe(Some(outcome.depth)),
            format!("{:.4}", outcome.score),
            maybe(outcome.settled_seconds),
            format!("{:.0}", outcome.changes_per_minute),
        ]);
    }
    table
}
