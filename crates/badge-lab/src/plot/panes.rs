//! Several charts one below the other over one horizontal axis.

use anyhow::{Result, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{
    Area, FACE, INK, MARGIN, Medium, Svg, color, decimals, finish, padded, text_width, words,
};

/// Charts that share their horizontal axis.
///
/// # Example
///
/// ```
/// use badge_lab::plot::{Line, Pane, Panes};
///
/// # fn main() -> anyhow::Result<()> {
/// let rate = Pane::new("requests a second")
///     .with(Line::new("offered", vec![(0.0, 200.0), (1.0, 600.0)]))
///     .with(Line::new("served", vec![(0.0, 200.0), (1.0, 480.0)]));
/// let late = Pane::new("p99 (ms)")
///     .with(Line::new("p99", vec![(0.0, 12.0), (1.0, 71.0)]))
///     .with_reference("SLO", 100.0);
/// let svg = Panes::new("A burst", "seconds", vec![rate, late]).to_svg()?;
/// assert!(svg.as_str().contains("SLO"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Panes {
    title: String,
    x_label: String,
    charts: Vec<Pane>,
}

/// One of the charts.
#[derive(Debug, Clone)]
pub struct Pane {
    label: String,
    lines: Vec<Line>,
    reference: Option<(String, f64)>,
}

/// A named line.
#[derive(Debug, Clone)]
pub struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

const WIDTH: u32 = 900;
const PANE_HEIGHT: u32 = 170;
const HEAD: u32 = 44;
const FOOT: u32 = 34;
const LEGEND: u32 = 26;

impl Line {
    /// A line through `points`, each `(x, y)`, in ascending x. It is broken where more than `1.5`
    /// times the usual distance lies between two of them, as nothing is known there.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
        }
    }

    /// Pieces of points that follow each other at the usual distance.
    fn pieces(&self) -> Vec<&[(f64, f64)]> {
        let gaps = self.points.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let usual = gaps.fold(f64::INFINITY, f64::min);
        self.points
            .chunk_by(|a, b| b.0 - a.0 <= 1.5 * usual)
            .collect()
    }
}

impl Pane {
    /// An empty chart whose vertical axis is called `label`.
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            lines: Vec::new(),
            reference: None,
        }
    }

    /// Adds a line.
    #[must_use]
    pub fn with(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    /// Adds a horizontal line to compare with.
    #[must_use]
    pub fn with_reference(mut self, name: impl Into<String>, y: f64) -> Self {
        self.reference = Some((name.into(), y));
        self
    }

    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.is_empty())
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines
            .iter()
            .flat_map(|line| line.points.iter().copied())
    }

    fn y_range(&self) -> std::ops::Range<f64> {
        let reference = self.reference.iter().map(|(_, y)| *y);
        padded(self.points().map(|(_, y)| y).chain(reference))
    }
}

impl Panes {
    /// Charts from top to bottom; those with nothing to draw are left out.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, panes: Vec<Pane>) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            charts: panes.into_iter().filter(|pane| !pane.is_empty()).collect(),
        }
    }

    /// The drawing as a file of its own.
    ///
    /// # Errors
    ///
    /// When there is no point to draw, or a coordinate is not finite.
    pub fn to_svg(&self) -> Result<Svg> {
        self.draw(Medium::File)
    }

    /// The drawing for a page: its ink follows the page's text colour.
    ///
    /// # Errors
    ///
    /// As [`Panes::to_svg`].
    pub fn to_inline_svg(&self) -> Result<Svg> {
        self.draw(Medium::Page)
    }

    fn draw(&self, medium: Medium) -> Result<Svg> {
        ensure!(
            !self.charts.is_empty(),
            "plot `{}`: there is no point to draw",
            self.title
        );
        for pane in &self.charts {
            let reference = pane.reference.iter().map(|(_, y)| (0.0, *y));
            let mut points = pane.points().chain(reference);
            ensure!(
                points.all(|(x, y)| x.is_finite() && y.is_finite()),
                "plot `{}`: a point of `{}` is not finite",
                self.title,
                pane.label
            );
        }
        let mut text = String::new();
        let size = (WIDTH, HEAD + FOOT + PANE_HEIGHT * self.charts.len() as u32);
        {
            let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
            if let Medium::File = medium {
                root.fill(&WHITE)?;
            }
            let title = (FACE, 19, FontStyle::Bold, &INK).into_text_style(&root);
            root.draw(&Text::new(self.title.clone(), (MARGIN, 12), title))?;
            let (_, below) = root.split_vertically(HEAD);
            let (mut rest, foot) = below.split_vertically(size.1 - HEAD - FOOT);
            for pane in &self.charts {
                let (area, after) = rest.split_vertically(PANE_HEIGHT);
                self.draw_pane(&area, pane)?;
                rest = after;
            }
            let middle = (WIDTH as i32 / 2, 12);
            foot.draw(&Text::new(
                self.x_label.clone(),
                middle,
                words(HPos::Center),
            ))?;
            root.present()?;
        }
        Ok(finish(&text, medium, &self.title))
    }

    fn x_range(&self) -> std::ops::Range<f64> {
        let all = self.charts.iter().flat_map(Pane::points);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (x, _)| {
            (low.min(x), high.max(x))
        });
        low..if high > low { high } else { low + 1.0 }
    }

    fn draw_pane(&self, area: &Area<'_>, pane: &Pane) -> Result<()> {
        let (x, y) = (self.x_range(), pane.y_range());
        let (x_digits, y_digits) = (decimals(x.end - x.start), decimals(y.end - y.start));
        draw_names(area, pane)?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(LEGEND)
            .margin_right(28)
            .margin_left(10)
            .x_label_area_size(26)
            .y_label_area_size(64)
            .build_cartesian_2d(x.clone(), y)?;
        chart
            .configure_mesh()
            .y_desc(pane.label.as_str())
            .x_labels(9)
            .y_labels(5)
            .x_label_formatter(&|x| format!("{x:.x_digits$}"))
            .y_label_formatter(&|y| format!("{y:.y_digits$}"))
            .bold_line_style(INK.mix(0.13))
            .light_line_style(TRANSPARENT)
            .axis_style(INK.mix(0.55))
            .label_style((FACE, 12, &INK))
            .axis_desc_style((FACE, 13, &INK))
            .draw()?;
        if let Some((_, y)) = &pane.reference {
            let ends = [(x.start, *y), (x.end, *y)];
            let dashes = DashedLineSeries::new(ends, 6, 4, INK.mix(0.7).stroke_width(1));
            chart.draw_series(dashes)?;
        }
        for (at, line) in pane.lines.iter().enumerate() {
            for piece in line.pieces() {
                let style = color(at).stroke_width(2);
                chart.draw_series(LineSeries::new(piece.iter().copied(), style))?;
                if let [alone] = piece {
                    chart.draw_series([Circle::new(*alone, 2, color(at).filled())])?;
                }
            }
        }
        Ok(())
    }
}

/// The lines' names above a pane, and that of its reference.
fn draw_names(area: &Area<'_>, pane: &Pane) -> Result<()> {
    let mut x = 84;
    let mut name = |text: &str, style: ShapeStyle| -> Result<()> {
        area.draw(&PathElement::new([(x, 13), (x + 22, 13)], style))?;
        area.draw(&Text::new(text.to_owned(), (x + 28, 13), words(HPos::Left)))?;
        x += 28 + text_width(text) + 22;
        Ok(())
    };
    for (at, line) in pane.lines.iter().enumerate() {
        if !line.points.is_empty() {
            name(&line.name, color(at).stroke_width(3))?;
        }
    }
    if let Some((text, _)) = &pane.reference {
        name(text, INK.mix(0.7).stroke_width(1))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panes() -> Panes {
        let rate =
            Pane::new("requests & more").with(Line::new("offered", vec![(0.0, 2.0), (1.0, 6.0)]));
        let late = Pane::new("p99 (ms)")
            .with(Line::new(
                "p99",
                vec![(0.0, 12.0), (1.0, 71.0), (4.0, 70.0)],
            ))
            .with_reference("SLO", 100.0);
        let nothing = Pane::new("accuracy").with(Line::new("accuracy", Vec::new()));
        Panes::new("A <burst>", "seconds", vec![rate, late, nothing])
    }

    #[test]
    fn a_drawing_names_its_panes_and_leaves_empty_ones_out() {
        let svg = panes().to_svg().unwrap();
        for text in [
            "requests &amp; more",
            "p99 (ms)",
            "SLO",
            "offered",
            "seconds",
        ] {
            assert!(svg.as_str().contains(text), "{text}");
        }
        assert!(!svg.as_str().contains("accuracy") && !svg.as_str().contains("NaN"));
        assert!(svg.as_str().contains("aria-label=\"A &lt;burst&gt;\""));
    }

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let line = Line::new("p99", vec![(0.0, 1.0), (1.0, 2.0), (4.0, 3.0), (5.0, 4.0)]);
        let pieces: Vec<usize> = line.pieces().iter().map(|piece| piece.len()).collect();
        assert_eq!(pieces, [2, 2]);
    }

    #[test]
    fn a_page_drawing_follows_the_page() {
        let (file, page) = (panes().to_svg().unwrap(), panes().to_inline_svg().unwrap());
        assert!(file.as_str().contains("#FFFFFF") && !page.as_str().contains("#FFFFFF"));
        assert!(page.as_str().contains("currentColor"));
    }

    #[test]
    fn nothing_to_draw_and_points_that_are_not_finite_are_refused() {
        assert!(Panes::new("t", "x", Vec::new()).to_svg().is_err());
        let nan = Pane::new("y").with(Line::new("l", vec![(0.0, f64::NAN)]));
        let error = Panes::new("t", "x", vec![nan]).to_svg().unwrap_err();
        assert!(error.to_string().contains("`y`"), "{error}");
    }
}
