//! Drawing speed-score curves as SVG.
//!
//! The drawing library is named in this module alone. `plotters` was chosen over `kuva` for build
//! weight: with the features used here it costs 2.5 s of one core in release, `kuva` 48 s.

mod panes;
mod terminal;

use anyhow::{Result, ensure};
use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use panes::{Line, Pane, Panes};

/// A chart of named curves over one pair of axes.
///
/// # Example
///
/// ```
/// use badge_lab::plot::{Curve, Plot};
///
/// # fn main() -> anyhow::Result<()> {
/// let svg = Plot::new("Accuracy against speed", "layer speed-up", "accuracy")
///     .with(Curve::new("dge", vec![(1.0, 0.93), (2.1, 0.92), (3.0, 0.88)]))
///     .with_reference("full model", 0.93)
///     .to_svg()?;
/// assert!(svg.as_str().starts_with("<svg"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Plot {
    title: String,
    x_label: String,
    y_label: String,
    curves: Vec<Curve>,
    reference: Option<(String, f64)>,
}

/// One named series of points.
#[derive(Debug, Clone)]
pub struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    /// Its number among the colours; that of its place among the curves if left out.
    color: Option<usize>,
    is_dashed: bool,
}

/// A finished drawing: the text of one `<svg>` element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svg(String);

/// The two places a drawing is made for.
#[derive(Debug, Clone, Copy)]
enum Medium {
    /// A file of its own: dark ink on white.
    File,
    /// Inside a page: the page's own ink, no background.
    Page,
}

impl Curve {
    /// A curve through `points`, each `(x, y)`, drawn from the left to the right.
    pub fn new(name: impl Into<String>, mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            name: name.into(),
            points,
            color: None,
            is_dashed: false,
        }
    }

    /// The same in the colour with this number, from 0, so that drawings with other curves beside it
    /// show it alike.
    #[must_use]
    pub fn with_color(mut self, number: usize) -> Self {
        self.color = Some(number);
        self
    }

    /// The same with a dashed line.
    #[must_use]
    pub fn dashed(mut self) -> Self {
        self.is_dashed = true;
        self
    }
}

impl Svg {
    /// A drawing made for a file of its own: [`INK_HEX`] on a ground of [`GROUND_HEX`].
    pub(crate) fn of_file(element: String) -> Self {
        Self(element)
    }

    /// The element as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A file's drawing for a page: its ink follows the page's text colour, its ground the page's.
    #[must_use]
    pub fn for_page(&self) -> Self {
        let text = self.0.replace(INK_HEX, "currentColor");
        Self(text.replace(GROUND_HEX, "none"))
    }

    /// A file's drawing in light ink on a dark ground.
    #[must_use]
    pub fn dark(&self) -> Self {
        let text = self.0.replace(INK_HEX, "#E6EDF3");
        Self(text.replace(GROUND_HEX, "#0D1117"))
    }
}

impl Plot {
    /// An empty chart.
    pub fn new(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            curves: Vec::new(),
            reference: None,
        }
    }

    /// Adds a curve.
    #[must_use]
    pub fn with(mut self, curve: Curve) -> Self {
        self.curves.push(curve);
        self
    }

    /// Adds a dashed horizontal line, which says what the full model scores.
    #[must_use]
    pub fn with_reference(mut self, name: impl Into<String>, y: f64) -> Self {
        self.reference = Some((name.into(), y));
        self
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
    /// As [`Plot::to_svg`].
    pub fn to_inline_svg(&self) -> Result<Svg> {
        self.draw(Medium::Page)
    }

    fn draw(&self, medium: Medium) -> Result<Svg> {
        self.check()?;
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            if let Medium::File = medium {
                root.fill(&WHITE)?;
            }
            self.draw_head(&root)?;
            let mut chart = ChartBuilder::on(&root)
                .margin_top(self.head())
                .margin_right(28)
                .margin_bottom(14)
                .margin_left(10)
                .x_label_area_size(48)
                .y_label_area_size(64)
                .build_cartesian_2d(self.x_range(), self.y_range())?;
            self.draw_axes(&mut chart)?;
            self.draw_reference(&chart)?;
            self.draw_curves(&mut chart)?;
            root.present()?;
        }
        Ok(finish(&text, medium, &self.title))
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.curves.iter().any(|curve| !curve.points.is_empty()),
            "plot `{}`: there is no point to draw",
            self.title
        );
        for curve in &self.curves {
            for (x, y) in &curve.points {
                ensure!(
                    x.is_finite() && y.is_finite(),
                    "plot `{}`: curve `{}` has the point ({x}, {y}), which is not finite",
                    self.title,
                    curve.name
                );
            }
        }
        if let Some((name, y)) = &self.reference {
            ensure!(
                y.is_finite(),
                "plot `{}`: reference `{name}` is {y}",
                self.title
            );
        }
        Ok(())
    }

    fn draw_head(&self, root: &Area<'_>) -> Result<()> {
        let title = (FACE, 19, FontStyle::Bold, &INK).into_text_style(root);
        root.draw(&Text::new(self.title.clone(), (MARGIN, 16), title))?;
        for (at, (curve, (x, y))) in self.curves.iter().zip(self.legend()).enumerate() {
            let at = curve.color.unwrap_or(at);
            let dashes: &[_] = if curve.is_dashed {
                &[(0, 9), (17, 26)]
            } else {
                &[(0, 26)]
            };
            for (from, to) in dashes {
                root.draw(&PathElement::new(
                    [(x + from, y), (x + to, y)],
                    color(at).stroke_width(3),
                ))?;
            }
            root.draw(&Circle::new((x + 13, y), 4, mark(at)))?;
            root.draw(&Text::new(
                curve.name.clone(),
                (x + 34, y),
                words(HPos::Left),
            ))?;
        }
        Ok(())
    }

    /// Where the curves' names begin, in as many lines as they need.
    fn legend(&self) -> Vec<(i32, i32)> {
        let (mut x, mut y) = (MARGIN, 57);
        let place = |curve: &Curve| {
            let width = 34 + text_width(&curve.name);
            if x > MARGIN && x + width > SIZE.0 as i32 - MARGIN {
                (x, y) = (MARGIN, y + LEGEND_LINE);
            }
            let place = (x, y);
            x += width + 24;
            place
        };
        self.curves.iter().map(place).collect()
    }

    /// Room above the chart.
    fn head(&self) -> u32 {
        let lowest = self.legend().last().map_or(57, |(_, y)| *y);
        HEAD + (lowest - 57) as u32
    }

    fn draw_axes(&self, chart: &mut Chart<'_>) -> Result<()> {
        let digits = |range: std::ops::Range<f64>| decimals(range.end - range.start);
        let (x_digits, y_digits) = (digits(self.x_range()), digits(self.y_range()));
        chart
            .configure_mesh()
            .x_desc(self.x_label.as_str())
            .y_desc(self.y_label.as_str())
            .x_labels(9)
            .y_labels(7)
            .x_label_formatter(&|x| format!("{x:.x_digits$}"))
            .y_label_formatter(&|y| format!("{y:.y_digits$}"))
            .bold_line_style(INK.mix(0.13))
            .light_line_style(TRANSPARENT)
            .axis_style(INK.mix(0.55))
            .label_style((FACE, 13, &INK))
            .axis_desc_style((FACE, 14, &INK))
            .draw()?;
        Ok(())
    }

    fn draw_reference(&self, chart: &Chart<'_>) -> Result<()> {
        let Some((name, y)) = &self.reference else {
            return Ok(());
        };
        let area = chart.plotting_area();
        let x = self.x_range();
        let dashes = 90;
        let step = (x.end - x.start) / f64::from(dashes);
        for dash in 0..dashes {
            let from = x.start + f64::from(dash) * step;
            let style = INK.mix(0.6).stroke_width(1);
            area.draw(&PathElement::new(
                [(from, *y), (from + 0.55 * step, *y)],
                style,
            ))?;
        }
        let right = x.end - 0.01 * (x.end - x.start);
        let lift = 0.022 * (self.y_range().end - self.y_range().start);
        area.draw(&Text::new(
            name.clone(),
            (right, y + lift),
            words(HPos::Right),
        ))?;
        Ok(())
    }

    fn draw_curves(&self, chart: &mut Chart<'_>) -> Result<()> {
        for (at, curve) in self.curves.iter().enumerate() {
            let at = curve.color.unwrap_or(at);
            let line = color(at).stroke_width(2);
            let points = curve.points.clone();
            if curve.is_dashed {
                let dashes = DashedLineSeries::new(points, 7, 5, line);
                chart.draw_series(dashes)?;
            } else {
                chart.draw_series(LineSeries::new(points, line))?;
            }
            let marks = curve
                .points
                .iter()
                .map(|point| Circle::new(*point, 4, mark(at)));
            chart.draw_series(marks)?;
        }
        Ok(())
    }

    fn x_range(&self) -> std::ops::Range<f64> {
        padded(
            self.curves
                .iter()
                .flat_map(|curve| &curve.points)
                .map(|point| point.0),
        )
    }

    fn y_range(&self) -> std::ops::Range<f64> {
        let points = self
            .curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|point| point.1);
        padded(points.chain(self.reference.iter().map(|(_, y)| *y)))
    }
}

/// Gives the element its accessible name, and the page's ink where it stands in a page.
fn finish(text: &str, medium: Medium, title: &str) -> Svg {
    let text = match medium {
        Medium::File => text.to_owned(),
        Medium::Page => text.replace(INK_HEX, "currentColor"),
    };
    let label = crate::report::escape(title);
    let named = format!("<svg role=\"img\" aria-label=\"{label}\" ");
    Svg(text.trim_end().replacen("<svg ", &named, 1))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

const SIZE: (u32, u32) = (820, 480);
const HEAD: u32 = 84;
const LEGEND_LINE: i32 = 24;
const MARGIN: i32 = 24;
pub(crate) const FACE: &str = "system-ui, Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2F);
pub(crate) const INK_HEX: &str = "#24292F";
pub(crate) const GROUND_HEX: &str = "#FFFFFF";

/// Okabe and Ito's colours without black and yellow: told apart by colour-blind readers, and
/// legible on white and on black.
const COLORS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
];

fn color(at: usize) -> RGBColor {
    COLORS[at % COLORS.len()]
}

/// The colour of the curve with this number, from 0, as drawings write it.
pub(crate) fn color_hex(at: usize) -> String {
    let RGBColor(red, green, blue) = color(at);
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// Points are filled, and rings where the colours come round again.
fn mark(at: usize) -> ShapeStyle {
    if at < COLORS.len() {
        color(at).filled()
    } else {
        color(at).stroke_width(2)
    }
}

fn words(side: HPos) -> TextStyle<'static> {
    TextStyle::from((FACE, 14).into_font())
        .color(&INK)
        .pos(Pos::new(side, VPos::Center))
}

/// The width of a text of 14 pixels: letters of a common sans-serif face average 0.54 em.
fn text_width(text: &str) -> i32 {
    (0.54 * 14.0 * crate::table::display_width(text) as f64).ceil() as i32
}

/// The range of `values` with a twentieth of room on both sides, never empty.
fn padded(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let span = high - low;
    let room = if span > 0.0 {
        0.07 * span
    } else {
        0.05 * high.abs().max(1.0)
    };
    low - room..high + room
}

/// Digits after the point that tell the ticks of an axis of this length apart.
fn decimals(span: f64) -> usize {
    (1.0 - (span / 2.0).log10().floor()).clamp(0.0, 6.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        Plot::new("Accuracy & speed", "layer speed-up (×)", "accuracy (%)")
            .with(Curve::new(
                "dge",
                vec![(3.0, 88.0), (1.0, 93.5), (2.0, 93.0)],
            ))
            .with(Curve::new("entropy", vec![(1.0, 93.5), (2.0, 91.0)]))
            .with_reference("full model", 93.5)
    }

    #[test]
    fn a_drawing_holds_its_names_and_one_mark_for_every_point() {
        let svg = plot().to_svg().unwrap();
        for text in [
            "Accuracy &amp; speed",
            "layer speed-up (×)",
            "accuracy (%)",
            "full model",
        ] {
            assert!(svg.as_str().contains(text), "{text}");
        }
        let legend_and_points = 2 + 5;
        assert_eq!(svg.as_str().matches("<circle").count(), legend_and_points);
    }

    #[test]
    fn a_page_drawing_follows_the_page_and_a_file_has_its_own_ground() {
        let (file, page) = (plot().to_svg().unwrap(), plot().to_inline_svg().unwrap());
        assert!(file.as_str().contains(INK_HEX) && file.as_str().contains("#FFFFFF"));
        assert!(page.as_str().contains("currentColor"));
        assert!(!page.as_str().contains(INK_HEX) && !page.as_str().contains("#FFFFFF"));
    }

    #[test]
    fn nothing_to_draw_and_points_that_are_not_finite_are_refused() {
        let empty = Plot::new("t", "x", "y").to_svg().unwrap_err().to_string();
        assert!(empty.contains("no point"), "{empty}");
        let nan = plot()
            .with(Curve::new("lte", vec![(f64::NAN, 1.0)]))
            .to_svg()
            .unwrap_err();
        assert!(nan.to_string().contains("`lte`"), "{nan}");
        assert!(
            plot()
                .with_reference("full", f64::INFINITY)
                .to_svg()
                .is_err()
        );
    }

    #[test]
    fn a_single_point_can_be_drawn() {
        let svg = Plot::new("t", "x", "y")
            .with(Curve::new("one", vec![(1.0, 0.0)]))
            .to_svg();
        assert!(!svg.unwrap().as_str().contains("NaN"));
    }

    #[test]
    fn the_same_plot_draws_the_same_text() {
        assert_eq!(plot().to_svg().unwrap(), plot().to_svg().unwrap());
    }

    #[test]
    fn ticks_show_as_many_digits_as_their_distance_needs() {
        for (span, digits) in [(50.0, 0), (12.0, 1), (3.0, 1), (0.3, 2), (0.02, 3)] {
            assert_eq!(decimals(span), digits, "{span}");
        }
    }
}
