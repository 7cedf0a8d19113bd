//! A sweep as table, drawings, page and files.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use badge_tasks::file;

use super::{Family, Sweep, SweepPoint};
use crate::plot::{Curve, Plot};
use crate::report::{Block, Report};
use crate::table::{Column, Table};
use crate::tables::percent;

/// Every point, one line each.
pub const CSV_FILE: &str = "curve.csv";
/// Every point with what it was measured on.
pub const JSON_FILE: &str = "curve.json";
/// The curves.
pub const SVG_FILE: &str = "curve.svg";
/// All of it on a page.
pub const REPORT_FILE: &str = "report.html";

/// The points on the frontiers, curve by curve.
pub fn curve_table(sweep: &Sweep) -> Table {
    let mut table = Table::new([
        Column::text("policy"),
        Column::number("score"),
        Column::number("95 %"),
        Column::number("mean exit"),
        Column::number("layer speed-up"),
        Column::number("FLOPs speed-up"),
        Column::number("ms"),
        Column::number("time saved"),
        Column::number("wall-clock"),
    ]);
    for point in sweep.frontier(Family::Full) {
        table.push(cells(point));
    }
    for family in &sweep.families {
        table.push_rule();
        for point in sweep.frontier(*family) {
            table.push(cells(point));
        }
    }
    table
}

fn cells(point: &SweepPoint) -> [String; 9] {
    let none = || "-".to_owned();
    let time = point.time.as_ref();
    [
        point.policy.to_string(),
        percent(point.score),
        point.interval.map_or_else(none, |interval| {
            format!("{}-{}", percent(interval.low), percent(interval.high))
        }),
        format!("{:.2}", point.mean_exit),
        format!("{:.2}x", point.layer_speedup),
        format!("{:.2}x", point.flops_speedup),
        time.map_or_else(none, |time| format!("{:.2}", time.early_ms)),
        time.map_or_else(none, |time| format!("{:.0} %", 100.0 * time.time_saved)),
        time.map_or_else(none, |time| format!("{:.2}x", time.wall_clock_speedup)),
    ]
}

impl Sweep {
    /// Score over layer speed-up.
    pub fn layer_plot(&self) -> Plot {
        let axis = format!("layer speed-up ({} / mean exit)", self.blocks);
        self.plot(&axis, |point| Some(point.layer_speedup))
    }

    /// Score over the share of time saved; none where no time was taken.
    pub fn time_plot(&self) -> Option<Plot> {
        let saved = |point: &SweepPoint| match point.family {
            Family::Full => Some(0.0), // It is what time is saved from.
            _ => point.time.map(|time| 100.0 * time.time_saved),
        };
        let axis = "time saved at batch size 1, percent of the plain backbone's";
        (self.timed_rows > 0).then(|| self.plot(axis, saved))
    }

    fn plot(&self, axis: &str, x: impl Fn(&SweepPoint) -> Option<f64>) -> Plot {
        let Self {
            task,
            split,
            metric,
            ..
        } = self;
        let mut plot = Plot::new(
            format!("{task}, {split} split: score against speed"),
            axis,
            format!("{metric}, percent"),
        );
        let full = self.frontier(Family::Full);
        for family in &self.families {
            // Every curve begins at the full model.
            let points = self
                .frontier(*family)
                .into_iter()
                .chain(full.iter().copied());
            let place = |point: &SweepPoint| Some((x(point)?, 100.0 * point.score));
            let points = points.filter_map(place).collect();
            plot = plot.with(Curve::new(self.curve_title(*family), points));
        }
        plot.with_reference("all blocks", 100.0 * self.full_score())
    }

    fn curve_title(&self, family: Family) -> String {
        match family {
            Family::Dge => format!("{}, divergence {}", family.title(), self.divergence),
            others => others.title().to_owned(),
        }
    }

    /// Every point, one line each, under a header.
    pub fn to_csv(&self) -> String {
        let mut text = String::from(
            "policy,curve,score,mean_exit,layer_speedup,flops_speedup,frontier,early_ms,plain_ms,\
             time_saved,wall_clock_speedup\n",
        );
        for point in &self.points {
            let _ = write!(
                text,
                "\"{}\",{},{},{},{},{},{}",
                point.policy,
                point.family,
                point.score,
                point.mean_exit,
                point.layer_speedup,
                point.flops_speedup,
                point.frontier
            );
            let _ = match &point.time {
                None => writeln!(text, ",,,,"),
                Some(time) => writeln!(
                    text,
                    ",{},{},{},{}",
                    time.early_ms, time.plain_ms, time.time_saved, time.wall_clock_speedup
                ),
            };
        }
        text
    }

    /// The page.
    ///
    /// # Errors
    /// When a plot cannot be drawn.
    pub fn report(&self) -> Result<Report> {
        let Self {
            task, split, rows, ..
        } = self;
        let mut report = Report::new(
            format!("{task}: score against speed"),
            format!(
                "{} policies on the {rows} rows of the {split} split, replayed over the logits of \
                 every exit.",
                self.points.len()
            ),
        );
        let mut curves = vec![Block::Figure {
            svg: self.layer_plot().to_inline_svg()?,
            caption: "The best points of each curve by layer speed-up: blocks of the model over \
                      the mean exit."
                .to_owned(),
        }];
        if let Some(plot) = self.time_plot() {
            curves.push(Block::Figure {
                svg: plot.to_inline_svg()?,
                caption: format!(
                    "The same points by measured time saved, 1 - sum(t)/sum(T), on {} rows.",
                    self.timed_rows
                ),
            });
        }
        report.push("Curves", curves);
        report.push(
            "Points",
            vec![
                Block::Table {
                    table: curve_table(self),
                    caption: "The points that no other of their curve beats in both score and \
                              layer speed-up. All others are in curve.csv."
                        .to_owned(),
                },
                Block::Paragraph(
                    "The points were chosen on the rows they are scored on, which flatters them: \
                     choose on dev, report on test."
                        .to_owned(),
                ),
            ],
        );
        report.push("What was measured", vec![Block::Facts(self.facts())]);
        Ok(report)
    }

    fn facts(&self) -> Vec<(String, String)> {
        let timed = match self.timed_rows {
            0 => "none".to_owned(),
            rows => format!("{rows} rows at batch size 1, each policy and the plain model in turn"),
        };
        let facts = [
            ("task", self.task.clone()),
            (
                "split",
                format!("{}, sha256 {}", self.split, self.split_sha256),
            ),
            ("score", self.metric.clone()),
            ("computed by", self.computed_by.to_string()),
            ("divergence", self.divergence.to_string()),
            ("timed", timed),
        ];
        facts.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Writes `curve.csv`, `curve.json`, `curve.svg` and `report.html`, each whole or not at all.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        file::create_folder(directory)?;
        let write =
            |name: &str, text: &str| file::write_atomic(&directory.join(name), text.as_bytes());
        write(CSV_FILE, &self.to_csv())?;
        write(JSON_FILE, &(serde_json::to_string_pretty(self)? + "\n"))?;
        write(SVG_FILE, self.layer_plot().to_svg()?.as_str())?;
        self.report()?.write(&directory.join(REPORT_FILE))
    }
}
