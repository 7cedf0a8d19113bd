//! The drawings of a grid's results.

use std::path::{Path, PathBuf};

use anyhow::Result;
use badge_tasks::file;

use super::curves::{CurvePoint, CurveResults};
use super::summary::{Line, TaskTable};
use crate::chart::{ExitHistogramPanel, HeatCell, HeatMap, exit_histograms};
use crate::plot::{Curve, Plot, Svg};
use crate::raster::png;
use crate::sweep::Family;
use crate::tables::percent;

/// A drawing with its name and what it shows.
#[derive(Debug, Clone)]
pub struct Figure {
    /// The name of its files, without an ending.
    pub name: String,
    /// One sentence.
    pub caption: String,
    /// For a file of its own.
    pub svg: Svg,
    /// For a terminal, of plots.
    pub text: Option<String>,
}

/// The share of blocks saved at which policies are looked at more closely.
const LOOK_AT: f64 = 0.5;

impl Figure {
    fn of_plot(name: String, caption: String, plot: &Plot) -> Result<Self> {
        Ok(Self {
            name,
            caption,
            svg: plot.to_svg()?,
            text: Some(plot.to_text()),
        })
    }

    /// Writes `NAME.svg`, `NAME.png` and `NAME-dark.png`.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (ending, bytes) in [
            (".svg", self.svg.as_str().as_bytes().to_vec()),
            (".png", png(&self.svg)?),
            ("-dark.png", png(&self.svg.dark())?),
        ] {
            let path = folder.join(format!("{}{ending}", self.name));
            file::write_atomic(&path, &bytes)?;
            written.push(path);
        }
        Ok(written)
    }
}

/// The drawings of one table, as far as there are results.
///
/// # Errors
/// When a score is not finite.
pub fn figures(table: &TaskTable) -> Result<Vec<Figure>> {
    let stem = |what: &str| {
        let name = format!(
            "{what}-{}-{}-{}",
            table.task,
            table.backbone,
            table.split.name()
        );
        name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-")
            .to_lowercase()
    };
    let mut figures = Vec::new();
    if let Some(plot) = exit_plot(table) {
        let caption = "The score of every exit, in the median over seeds.".to_owned();
        figures.push(Figure::of_plot(stem("exits"), caption, &plot)?);
    }
    if let Some(plot) = speed_plot(table, Axis::Time) {
        let caption = "Measured at batch size 1: 1 - sum(t)/sum(T) against the plain backbone with \
                       one exit, row by row in turn; scores are those of all rows. Points were \
                       chosen on dev.";
        figures.push(Figure::of_plot(
            stem("time"),
            table.of_curves(caption),
            &plot,
        )?);
    }
    if let Some(plot) = speed_plot(table, Axis::Blocks) {
        let caption = "The same points by the blocks that they save: 1 - mean exit / M.";
        figures.push(Figure::of_plot(
            stem("blocks"),
            table.of_curves(caption),
            &plot,
        )?);
    }
    let models = table
        .lines
        .iter()
        .filter_map(|line| Some((line, line.curves.as_ref()?)));
    for (line, seed) in models {
        let looked_at = points_at(&seed.results, LOOK_AT);
        if looked_at.is_empty() {
            continue;
        }
        let of = format!("{}, {}, seed {}", table.task, line.label, seed.seed);
        figures.push(Figure {
            name: stem(&format!("histogram-{}", line.variant)),
            caption: "Rows by the exit at which they left, each policy near half of the blocks \
                      saved. Full colour: answered right; pale: wrong."
                .to_owned(),
            svg: histograms(&of, &looked_at),
            text: None,
        });
        figures.push(Figure {
            name: stem(&format!("heat-{}", line.variant)),
            caption: "The same: where rows leave, and whether they are right.".to_owned(),
            svg: heat_map(&of, (&seed.results, &looked_at)).to_svg(),
            text: None,
        });
    }
    Ok(figures)
}

/// Score of every exit, one curve for everything that is compared.
fn exit_plot(table: &TaskTable) -> Option<Plot> {
    let done: Vec<&Line> = table
        .lines
        .iter()
        .filter(|line| line.exits.len() > 1)
        .collect();
    if done.is_empty() {
        return None;
    }
    let metric = table.metric.clone().unwrap_or_default();
    let title = format!("{}, {}: every exit", table.task, table.backbone);
    let plot = Plot::new(title, "exit", format!("{metric}, percent"));
    let first = done[0].variant.method;
    let is_of_methods = done.iter().any(|line| line.variant.method != first);
    Some(done.iter().fold(plot, |plot, line| {
        let points = line.exits.iter().zip(&table.depths);
        let points = points.map(|(score, depth)| (*depth as f64, 100.0 * score));
        let color = line.variant.method.number();
        let curve = Curve::new(line.label.clone(), points.collect());
        plot.with(if is_of_methods {
            curve.with_color(color)
        } else {
            curve
        })
    }))
}

#[derive(Clone, Copy, PartialEq)]
enum Axis {
    Time,
    Blocks,
}

/// Score over what is saved, one curve per policy and model.
fn speed_plot(table: &TaskTable, axis: Axis) -> Option<Plot> {
    let metric = table.metric.clone().unwrap_or_default();
    let (label, what) = match axis {
        Axis::Time => ("time saved, percent", "measured time"),
        Axis::Blocks => ("blocks saved, percent", "blocks"),
    };
    let title = format!(
        "{}, {}: score against {what} saved",
        table.task, table.backbone
    );
    let mut plot = Plot::new(title, label, format!("{metric}, percent"));
    let mut has_points = false;
    let models = table
        .lines
        .iter()
        .filter_map(|line| Some((line, line.curves.as_ref()?)));
    let models: Vec<_> = models.collect();
    for (number, (line, seed)) in models.iter().enumerate() {
        for curve in &seed.results.curves {
            let saved = |point: &CurvePoint| match axis {
                Axis::Time => point.time_saved,
                Axis::Blocks => Some(point.blocks_saved),
            };
            let points = curve.points.iter();
            let points = points.filter_map(|p| Some((100.0 * saved(p)?, 100.0 * p.score)));
            let points: Vec<_> = points.collect();
            if points.is_empty() {
                continue;
            }
            has_points = true;
            let title = curve.family.title();
            let name = if models.len() == 1 {
                title.to_owned()
            } else {
                format!("{}: {title}", line.label)
            };
            let drawn = Curve::new(name, points).with_color(color_of(curve.family));
            plot = plot.with(if number == 0 { drawn } else { drawn.dashed() });
        }
        if number == 0 {
            let full = 100.0 * seed.results.full_score;
            plot = plot.with_reference(format!("{}, all blocks", line.label), full);
        }
    }
    has_points.then_some(plot)
}

/// The colour of a policy, the same in every drawing.
fn color_of(family: Family) -> usize {
    let place = Family::CURVES.iter().position(|other| *other == family);
    place.unwrap_or(Family::CURVES.len())
}

/// Of every curve the point that saves nearest to this share of blocks, with the curve's colour.
fn points_at(results: &CurveResults, share: f64) -> Vec<(usize, &'static str, &CurvePoint)> {
    let distance = |point: &CurvePoint| (point.blocks_saved - share).abs();
    let nearest = results.curves.iter().filter_map(|curve| {
        let points = curve.points.iter();
        let nearest = points.min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        Some((color_of(curve.family), curve.family.title(), nearest))
    });
    nearest.collect()
}

fn histograms(of: &str, points: &[(usize, &'static str, &CurvePoint)]) -> Svg {
    let panels = points
        .iter()
        .map(|(number, title, point)| ExitHistogramPanel {
            title: (*title).to_owned(),
            note: format!(
                "{:.0} % of blocks saved, score {}",
                100.0 * point.blocks_saved,
                percent(point.score)
            ),
            exits: point
                .left
                .iter()
                .copied()
                .zip(point.right.iter().copied())
                .collect(),
            color: *number,
        });
    let panels: Vec<_> = panels.collect();
    exit_histograms(&format!("{of}: where rows leave"), &panels)
}

fn heat_map(
    of: &str,
    (results, points): (&CurveResults, &[(usize, &'static str, &CurvePoint)]),
) -> HeatMap {
    let rows = points.iter().map(|(_, title, point)| {
        let most = point.left.iter().copied().max().unwrap_or(0).max(1) as f64;
        let cells = point
            .left
            .iter()
            .zip(&point.right)
            .map(|(left, right)| HeatCell {
                shade: *left as f64 / most,
                text: match left {
                    0 => String::new(),
                    left => format!("{:.0}", 100.0 * *right as f64 / *left as f64),
                },
            });
        let name = format!("{title}, {:.0} %", 100.0 * point.blocks_saved);
        (name, cells.collect())
    });
    HeatMap {
        title: format!("{of}: where rows leave, and are they right"),
        legend:
            "Shade: how many rows leave there. Number: percent of them right. Beside the policy: \
                 blocks saved."
                .to_owned(),
        axis: "exit".to_owned(),
        columns: results.depths.iter().map(ToString::to_string).collect(),
        rows: rows.collect(),
    }
}
