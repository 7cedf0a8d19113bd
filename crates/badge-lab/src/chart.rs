//! Histograms of exits and heat maps as SVG, in the colours of the plots.

use std::fmt::Write as _;

use crate::plot::{FACE, GROUND_HEX, INK_HEX, Svg, color_hex};
use crate::report::escape;

/// Rows that left at each exit under one policy, and how many of them were right.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitHistogramPanel {
    /// The policy.
    pub title: String,
    /// Under the title: what it saves and scores.
    pub note: String,
    /// `(left, right)` at every exit, the first exit first.
    pub exits: Vec<(u64, u64)>,
    /// Its colour, by the number that it has in the plots.
    pub color: usize,
}

/// A table whose cells are shaded by a share.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// What it shows.
    pub title: String,
    /// How to read a cell.
    pub legend: String,
    /// What columns are: `exit`.
    pub axis: String,
    /// The columns.
    pub columns: Vec<String>,
    /// Names of rows, with a cell for every column.
    pub rows: Vec<(String, Vec<HeatCell>)>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatCell {
    /// From 0, the ground, to 1, the full colour.
    pub shade: f64,
    /// What stands in it.
    pub text: String,
}

const WIDTH: f64 = 820.0;
const MARGIN: f64 = 24.0;

/// An element under construction.
struct Canvas(String);

/// Where a text stands in relation to its point.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    fn new(title: &str, height: f64) -> Self {
        let label = escape(title);
        let mut canvas = Self(format!(
            "<svg role=\"img\" aria-label=\"{label}\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\">\n"
        ));
        canvas.rect((0.0, 0.0), (WIDTH, height), (GROUND_HEX, 1.0));
        canvas.text((MARGIN, 32.0), title, (19.0, Anchor::Start, true));
        canvas
    }

    fn rect(&mut self, (x, y): (f64, f64), (w, h): (f64, f64), (fill, opacity): (&str, f64)) {
        let opacity = if opacity < 1.0 {
            format!(" opacity=\"{opacity:.3}\"")
        } else {
            String::new()
        };
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"{fill}\" \
             stroke=\"none\"{opacity}/>\n"
        ));
    }

    fn line(&mut self, (x0, y0): (f64, f64), (x1, y1): (f64, f64), opacity: f64) {
        self.push(format_args!(
            "<line x1=\"{x0:.1}\" y1=\"{y0:.1}\" x2=\"{x1:.1}\" y2=\"{y1:.1}\" \
             stroke=\"{INK_HEX}\" opacity=\"{opacity}\"/>\n"
        ));
    }

    fn text(&mut self, at: (f64, f64), text: &str, (size, anchor, bold): (f64, Anchor, bool)) {
        self.colored_text((at, INK_HEX), text, (size, anchor, bold));
    }

    fn colored_text(
        &mut self,
        ((x, y), fill): ((f64, f64), &str),
        text: &str,
        (size, anchor, bold): (f64, Anchor, bool),
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if bold { " font-weight=\"bold\"" } else { "" };
        let text = escape(text);
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-family=\"{FACE}\" font-size=\"{size}\" \
             text-anchor=\"{anchor}\" fill=\"{fill}\"{weight}>{text}</text>\n"
        ));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        self.0
            .write_fmt(element)
            .expect("writing to a string cannot fail");
    }

    fn finish(mut self) -> Svg {
        self.0.push_str("</svg>");
        Svg::of_file(self.0)
    }
}

/// Panels side by side on one scale: how many rows leave at each exit, those answered right in
/// full colour, the others pale on top of them.
pub fn exit_histograms(title: &str, panels: &[ExitHistogramPanel]) -> Svg {
    const COLUMNS: usize = 3;
    const PANEL_HEIGHT: f64 = 178.0;
    const BARS: f64 = 82.0;
    let lines = panels.len().div_ceil(COLUMNS) as f64;
    let mut canvas = Canvas::new(title, 66.0 + lines * PANEL_HEIGHT);
    let most = panels
        .iter()
        .flat_map(|panel| &panel.exits)
        .map(|(left, _)| *left);
    let most = most.max().unwrap_or(0).max(1) as f64;
    let gap = 30.0;
    let width = (WIDTH - 2.0 * MARGIN - gap * (COLUMNS as f64 - 1.0)) / COLUMNS as f64;
    for (number, panel) in panels.iter().enumerate() {
        let x = MARGIN + (number % COLUMNS) as f64 * (width + gap);
        let y = 62.0 + (number / COLUMNS) as f64 * PANEL_HEIGHT;
        let total: u64 = panel.exits.iter().map(|(left, _)| left).sum();
        canvas.text((x, y + 4.0), &panel.title, (14.0, Anchor::Start, true));
        canvas.text((x, y + 21.0), &panel.note, (12.0, Anchor::Start, false));
        let floor = y + 46.0 + BARS;
        let step = width / panel.exits.len().max(1) as f64;
        let color = color_hex(panel.color);
        for (exit, (left, right)) in panel.exits.iter().enumerate() {
            let height = |rows: u64| rows as f64 / most * BARS;
            let at = x + exit as f64 * step + 0.12 * step;
            let bar = |rows, below: f64| {
                (
                    (at, floor - below - height(rows)),
                    (0.76 * step, height(rows)),
                )
            };
            let (place, size) = bar(*right, 0.0);
            canvas.rect(place, size, (&color, 1.0));
            let (place, size) = bar(left - right, height(*right));
            canvas.rect(place, size, (&color, 0.35));
            let middle = x + (exit as f64 + 0.5) * step;
            if *left as f64 >= 0.25 * total as f64 {
                let share = format!("{:.0} %", 100.0 * *left as f64 / total.max(1) as f64);
                let above = floor - height(*left) - 4.0;
                canvas.text((middle, above), &share, (11.0, Anchor::Middle, false));
            }
            if exit % 2 == 0 || panel.exits.len() <= 8 {
                let number = (exit + 1).to_string();
                canvas.text(
                    (middle, floor + 14.0),
                    &number,
                    (11.0, Anchor::Middle, false),
                );
            }
        }
        canvas.line((x, floor), (x + width, floor), 0.5);
    }
    canvas.finish()
}

impl HeatMap {
    /// The drawing.
    ///
    /// # Panics
    /// When a row has not one cell per column.
    pub fn to_svg(&self) -> Svg {
        const CELL: f64 = 34.0;
        let longest = self
            .rows
            .iter()
            .map(|(name, _)| crate::table::display_width(name))
            .max();
        let left = MARGIN + 8.2 * longest.unwrap_or(0) as f64 + 12.0;
        let top = 92.0;
        let height = top + self.rows.len() as f64 * CELL + 24.0;
        let mut canvas = Canvas::new(&self.title, height);
        canvas.text((MARGIN, 54.0), &self.legend, (13.0, Anchor::Start, false));
        let step = (WIDTH - MARGIN - left) / self.columns.len().max(1) as f64;
        canvas.text(
            (left - 10.0, top - 10.0),
            &self.axis,
            (13.0, Anchor::End, false),
        );
        for (number, column) in self.columns.iter().enumerate() {
            let middle = left + (number as f64 + 0.5) * step;
            canvas.text((middle, top - 10.0), column, (13.0, Anchor::Middle, false));
        }
        for (number, (name, cells)) in self.rows.iter().enumerate() {
            assert_eq!(
                cells.len(),
                self.columns.len(),
                "a row has one cell per column"
            );
            let y = top + number as f64 * CELL;
            let baseline = y + 0.5 * CELL + 4.5;
            canvas.text((left - 10.0, baseline), name, (13.0, Anchor::End, false));
            for (column, cell) in cells.iter().enumerate() {
                let x = left + column as f64 * step;
                let place = ((x + 1.0, y + 1.0), (step - 2.0, CELL - 2.0));
                canvas.rect(place.0, place.1, (INK_HEX, 0.06));
                if cell.shade > 0.0 {
                    let shade = 0.15 + 0.85 * cell.shade.min(1.0);
                    canvas.rect(place.0, place.1, (&color_hex(0), shade));
                }
                // Letters on a strong shade are light on any ground; on a weaker one they would not be
                // read where the ground is white.
                let ink = if cell.shade > 0.75 {
                    "#FEFEFE"
                } else {
                    INK_HEX
                };
                let middle = (x + 0.5 * step, baseline);
                canvas.colored_text((middle, ink), &cell.text, (12.0, Anchor::Middle, false));
            }
        }
        canvas.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_a_bar_in_two_parts() {
        let panel = ExitHistogramPanel {
            title: "DGE & others".to_owned(),
            note: "50 % of blocks saved".to_owned(),
            exits: vec![(10, 9), (30, 20), (0, 0)],
            color: 0,
        };
        let svg = exit_histograms("Where rows leave", &[panel.clone(), panel]);
        let ground = 1;
        assert_eq!(svg.as_str().matches("<rect").count(), ground + 2 * 3 * 2);
        assert!(svg.as_str().contains("DGE &amp; others"));
        assert!(
            svg.as_str().contains(">75 %<"),
            "the tallest bar says its share"
        );
        assert!(!svg.as_str().contains("NaN"));
    }

    #[test]
    fn a_cell_without_rows_keeps_its_place() {
        let cell = |shade, text: &str| HeatCell {
            shade,
            text: text.to_owned(),
        };
        let map = HeatMap {
            title: "Where rows leave".to_owned(),
            legend: "shade: share of rows".to_owned(),
            axis: "exit".to_owned(),
            columns: vec!["1".to_owned(), "2".to_owned()],
            rows: vec![("dge".to_owned(), vec![cell(0.0, ""), cell(1.0, "91")])],
        };
        let svg = map.to_svg();
        assert_eq!(svg.as_str().matches("<rect").count(), 1 + 2 + 1);
        let page = svg.for_page();
        assert!(!page.as_str().contains(GROUND_HEX) && page.as_str().contains("currentColor"));
    }
}
