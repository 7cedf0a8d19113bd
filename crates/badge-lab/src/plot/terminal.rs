//! A plot in letters, for terminals.

use super::{Curve, Plot, decimals};
use std::fmt::Write as _;

/// One sign per curve, in their order.
const SIGNS: [char; 12] = ['●', '■', '▲', '◆', '○', '□', '△', '◇', '+', '×', '*', '#'];

/// Columns and lines of the chart itself.
const SIZE: (usize, usize) = (68, 18);

impl Plot {
    /// The chart as lines of text; the first curve that has a point at a place keeps it.
    pub fn to_text(&self) -> String {
        let (columns, lines) = SIZE;
        let (x, y) = (self.x_range(), self.y_range());
        let mut grid = vec![vec![' '; columns]; lines];
        let column = |value: f64| place(value, (x.start, x.end), columns);
        let line = |value: f64| lines - 1 - place(value, (y.start, y.end), lines);
        if let Some((_, level)) = &self.reference {
            for cell in grid[line(*level)].iter_mut().step_by(2) {
                *cell = '╌';
            }
        }
        let signs = SIGNS.iter().cycle();
        let signed: Vec<_> = self.curves.iter().zip(signs).collect();
        for (Curve { points, .. }, sign) in signed.iter().rev() {
            for (at, level) in points {
                grid[line(*level)][column(*at)] = **sign;
            }
        }
        let digits = decimals(y.end - y.start);
        let mut text = format!("{}, {}\n", self.title, self.y_label);
        for (number, cells) in grid.iter().enumerate() {
            let share = 1.0 - (number as f64 + 0.5) / lines as f64;
            let value = y.start + share * (y.end - y.start);
            let label = if number % 4 == 0 {
                format!("{value:.digits$}")
            } else {
                String::new()
            };
            let cells: String = cells.iter().collect();
            let _ = writeln!(text, "{label:>7} │{}", cells.trim_end());
        }
        let digits = decimals(x.end - x.start);
        let (from, to) = (
            format!("{:.digits$}", x.start),
            format!("{:.digits$}", x.end),
        );
        let _ = writeln!(text, "        └{}", "─".repeat(columns));
        let gap = columns.saturating_sub(from.len());
        let _ = writeln!(text, "         {from}{to:>gap$}\n         {}", self.x_label);
        for (Curve { name, .. }, sign) in signed {
            let _ = writeln!(text, "         {sign} {name}");
        }
        if let Some((name, _)) = &self.reference {
            let _ = writeln!(text, "         ╌ {name}");
        }
        text
    }
}

/// The cell of a value among as many equal ones.
fn place(value: f64, (low, high): (f64, f64), cells: usize) -> usize {
    let share = (value - low) / (high - low);
    ((share * cells as f64) as usize).min(cells - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_point_stands_above_the_worst() {
        let text = Plot::new("Scores", "saved", "percent")
            .with(Curve::new("dge", vec![(0.0, 90.0), (1.0, 80.0)]))
            .with(Curve::new("entropy", vec![(0.5, 85.0)]))
            .with_reference("all blocks", 90.0)
            .to_text();
        let lines: Vec<&str> = text.lines().collect();
        let chart = &lines[1..=18];
        let line_of = |sign| chart.iter().position(|line| line.contains(sign)).unwrap();
        assert!(line_of('╌') < line_of('■'));
        let of_dge: Vec<_> = chart.iter().filter(|line| line.contains('●')).collect();
        assert_eq!(of_dge.len(), 2);
        assert!(of_dge[0].find('●') < of_dge[1].find('●'));
        assert!(text.contains("● dge") && text.contains("╌ all blocks"));
    }
}
