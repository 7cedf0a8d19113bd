//! A grid's results as Markdown, CSV, JSON and a page.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use badge_tasks::file;

use super::cell::HyperParameters;
use super::claims::{COMPARABLE, Judged};
use super::curves::{CurvePoint, PolicyCurve};
use super::figures::figures;
use super::forecast::duration;
use super::paper::PaperTable;
use super::statistics::{Spread, mean_score};
use super::summary::{Line, Summary, TaskTable};
use crate::report::{Block, Report};
use crate::table::{Column, Table};
use crate::tables::percent;

/// What stands in a cell that has not run.
const EMPTY: &str = "·";

/// What the table of areas shows.
const AREAS: &str = "The area under each curve up to where all of them reach, divided by its width. \
                     Time was measured at batch size 1.";

/// What is said of claims.
const CLAIMS: &str = "The difference is that of the means over the seeds that both sides have run, \
                      its interval one over other rows and other seeds. A claim holds where the \
                      interval lies on its side of 0; with fewer than three seeds nothing can be \
                      told. Claims about curves are about blocks saved, not about time.";

/// The page of an experiment.
pub const REPORT_FILE: &str = "report.html";

/// The folder of its drawings.
pub const FIGURES: &str = "figures";

fn comparable() -> String {
    format!(
        "What is claimed to be comparable may differ by {:.1} points.",
        100.0 * COMPARABLE
    )
}

fn spread(spread: Option<Spread>) -> [String; 2] {
    let Some(Spread {
        median, low, high, ..
    }) = spread
    else {
        return [EMPTY.to_owned(), EMPTY.to_owned()];
    };
    [
        percent(median),
        format!("{}-{}", percent(low), percent(high)),
    ]
}

fn cited(figure: Option<f64>) -> String {
    figure.map_or_else(|| EMPTY.to_owned(), |figure| format!("{figure:.1}"))
}

/// Ours and the paper's figures, one row for everything that is compared.
pub fn score_table(table: &TaskTable) -> Table {
    let mut shown = Table::new([
        Column::text("method"),
        Column::number("seeds"),
        Column::number("S-avg"),
        Column::number("over seeds"),
        Column::number("S-best"),
        Column::number("over seeds"),
        Column::number("paper S-avg"),
        Column::number("paper S-best"),
    ]);
    for line in &table.lines {
        let done = line.average.map_or(0, |spread| spread.seeds);
        let [average, averages] = spread(line.average);
        let [best, bests] = spread(line.best);
        shown.push([
            line.label.clone(),
            format!("{done} of {}", line.seeds),
            average,
            averages,
            best,
            bests,
            cited(line.paper.map(|paper| paper.average)),
            cited(line.paper.map(|paper| paper.best)),
        ]);
    }
    shown
}

/// What the paper claims and what our runs say.
pub fn claim_table(claims: &[Judged]) -> Table {
    let mut shown = Table::new([
        Column::text("claim"),
        Column::text("in"),
        Column::number("mean difference, points"),
        Column::number("95 %"),
        Column::number("seeds"),
        Column::text("our runs say"),
    ]);
    for claim in claims {
        let points = |share: f64| format!("{:+.2}", 100.0 * share);
        let [estimate, interval, seeds] = claim.difference.map_or_else(
            || [EMPTY; 3].map(str::to_owned),
            |found| {
                let (low, high) = (points(found.interval.low), points(found.interval.high));
                let seeds = found.seeds.to_string();
                [points(found.estimate), format!("{low} to {high}"), seeds]
            },
        );
        shown.push([
            claim.statement.clone(),
            claim.quantity.clone(),
            estimate,
            interval,
            seeds,
            claim.judgement.words().to_owned(),
        ]);
    }
    shown
}

fn setting(hyper: &HyperParameters) -> [String; 3] {
    [
        hyper.batch_size.to_string(),
        format!("{:e}", hyper.learning_rate),
        hyper
            .activation
            .map_or_else(|| EMPTY.to_owned(), |g| g.name().to_owned()),
    ]
}

/// The candidates of a search with S-avg on dev, the best first; the chosen one is marked.
pub fn search_table(line: &Line) -> Table {
    let mut shown = Table::new([
        Column::number("batch size"),
        Column::number("lr"),
        Column::text("activation"),
        Column::number("dev S-avg"),
        Column::text(""),
    ]);
    let mut candidates = line.search.clone();
    candidates.sort_by(|a, b| b.1.unwrap_or(-1.0).total_cmp(&a.1.unwrap_or(-1.0)));
    for (hyper, score) in &candidates {
        let [batch, rate, activation] = setting(hyper);
        let score = score.map_or_else(|| EMPTY.to_owned(), percent);
        let mark = if line.hyper == Some(*hyper) {
            "chosen"
        } else {
            ""
        };
        shown.push([batch, rate, activation, score, mark.to_owned()]);
    }
    shown
}

/// The settings in force beside those of the paper's Table 5.
pub fn setting_table(summary: &Summary) -> Table {
    let mut shown = Table::new([
        Column::text("task"),
        Column::text("method"),
        Column::number("batch size"),
        Column::number("lr"),
        Column::text("activation"),
        Column::number("paper: batch size"),
        Column::number("lr"),
        Column::text("activation"),
    ]);
    for table in &summary.tables {
        for line in &table.lines {
            let ours = line
                .hyper
                .as_ref()
                .map_or_else(|| [EMPTY; 3].map(str::to_owned), setting);
            let paper = table.paper_task.as_deref();
            let paper = paper.and_then(|task| PaperTable::Table5.hyper_parameters(task));
            let paper = paper.filter(|_| line.variant.method.has_bypass());
            let paper = paper.map_or_else(
                || [EMPTY; 3].map(str::to_owned),
                |(batch, rate, g)| [batch.to_string(), format!("{rate:e}"), g.to_owned()],
            );
            let [a, b, c] = ours;
            let [d, e, f] = paper;
            shown.push([table.task.clone(), line.label.clone(), a, b, c, d, e, f]);
        }
    }
    shown
}

/// The points of one model's curves.
pub fn curve_table(table: &TaskTable) -> Option<Table> {
    let mut shown = Table::new([
        Column::text("model"),
        Column::text("policy"),
        Column::number("dev score"),
        Column::number("score"),
        Column::number("blocks saved"),
        Column::number("time saved"),
    ]);
    for line in &table.lines {
        let curves = line.curves.iter().flat_map(|seed| &seed.results.curves);
        for point in curves.flat_map(|curve| &curve.points) {
            shown.push([
                line.label.clone(),
                point.policy.to_string(),
                percent(point.dev_score),
                percent(point.score),
                format!("{:.1} %", 100.0 * point.blocks_saved),
                point.time_saved.map_or_else(
                    || EMPTY.to_owned(),
                    |saved| format!("{:.1} %", 100.0 * saved),
                ),
            ]);
        }
    }
    (shown.rows().count() > 0).then_some(shown)
}

/// The mean score of every curve over what all of them reach, of blocks and of time.
pub fn area_table(table: &TaskTable) -> Option<Table> {
    let mut shown = Table::new([
        Column::text("model"),
        Column::text("policy"),
        Column::number("points"),
        Column::number("reaches"),
        Column::number("mean score over blocks saved"),
        Column::number("over time saved"),
    ]);
    let mut curves = Vec::new();
    for line in &table.lines {
        if let Some(seed) = &line.curves {
            let drawn = seed
                .results
                .curves
                .iter()
                .filter(|curve| !curve.points.is_empty());
            curves.extend(drawn.map(|curve| (line, &seed.results, curve)));
        }
    }
    let axis = |saved: fn(&CurvePoint) -> Option<f64>| {
        let reach = |curve: &PolicyCurve| curve.points.iter().filter_map(saved).fold(0.0, f64::max);
        let all = curves
            .iter()
            .map(|(_, _, curve)| reach(curve))
            .fold(1.0, f64::min);
        (saved, all)
    };
    let (blocks, time) = (
        axis(|point| Some(point.blocks_saved)),
        axis(|point| point.time_saved),
    );
    for (line, results, curve) in &curves {
        let area = |(saved, reach): (fn(&CurvePoint) -> Option<f64>, f64)| {
            let points = curve
                .points
                .iter()
                .filter_map(|p| Some((saved(p)?, p.score)));
            let points: Vec<_> = points.collect();
            if reach > 0.0 && !points.is_empty() {
                percent(mean_score(&points, results.full_score, (0.0, reach)))
            } else {
                EMPTY.to_owned()
            }
        };
        let reach = curve
            .points
            .iter()
            .map(|point| point.blocks_saved)
            .fold(0.0, f64::max);
        shown.push([
            line.label.clone(),
            curve.family.to_string(),
            curve.points.len().to_string(),
            format!("{:.0} %", 100.0 * reach),
            area(blocks),
            area(time),
        ]);
    }
    (!curves.is_empty()).then_some(shown)
}

impl TaskTable {
    /// What a table is of: `mrpc, BERT-base, test split, 204 rows, acc-f1`.
    pub fn heading(&self) -> String {
        let mut text = format!(
            "{}, {}, {} split",
            self.task,
            self.backbone,
            self.split.name()
        );
        if let Some(rows) = self.rows {
            let _ = write!(text, ", {rows} rows");
        }
        if let Some(metric) = &self.metric {
            let _ = write!(text, ", {metric}");
        }
        text
    }

    /// What a reader must know before comparing with the paper.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        match &self.paper_task {
            Some(paper) if !paper.eq_ignore_ascii_case(&self.task) => {
                remarks.push(format!("Stands in for the paper's {paper}."));
            }
            _ => {}
        }
        remarks.extend(self.note.clone());
        let seeds = self
            .lines
            .iter()
            .filter_map(|line| line.average.map(|of| of.seeds));
        if seeds.min() == Some(1) {
            remarks.push(
                "Where there is one seed, intervals know of other rows, but not of other seeds."
                    .to_owned(),
            );
        }
        remarks.push(
            "S-best is the largest score of all exits on these very rows, as the paper has it."
                .to_owned(),
        );
        remarks
    }

    /// Says of a drawing or a table of curves whose they are.
    pub fn of_curves(&self, text: &str) -> String {
        let mut curves = self.lines.iter().filter_map(|line| line.curves.as_ref());
        let Some(curves) = curves.next() else {
            return text.to_owned();
        };
        let timed = match curves.results.timed_rows {
            0 => String::new(),
            rows => format!(", time on {rows} of its rows"),
        };
        format!("{text} Models of seed {}{timed}.", curves.seed)
    }
}

impl Summary {
    /// How far the grid is, in a sentence.
    pub fn progress(&self) -> String {
        let super::summary::Counts {
            cells,
            done,
            failed,
        } = self.cells;
        let failed = match failed {
            0 => String::new(),
            count => format!(", {count} failed"),
        };
        format!("{done} of {cells} runs done{failed}.")
    }

    /// All tables as text for a terminal.
    ///
    /// # Errors
    /// When a figure cannot be drawn.
    pub fn to_text(&self) -> Result<String> {
        let mut text = format!("{}: {}\n{}\n", self.experiment, self.title, self.progress());
        for table in &self.tables {
            let _ = write!(text, "\n{}\n", table.heading());
            for remark in table.remarks() {
                let _ = writeln!(text, "{remark}");
            }
            let _ = write!(text, "\n{}", score_table(table).to_text());
            if !table.claims.is_empty() {
                let _ = write!(text, "\n{}", claim_table(&table.claims).to_text());
            }
            let drawn = figures(table)?.into_iter().filter_map(|figure| figure.text);
            for drawn in drawn {
                let _ = write!(text, "\n{drawn}");
            }
        }
        if self.is_searched() {
            let _ = write!(text, "\n{}", setting_table(self).to_text());
        }
        Ok(text)
    }

    fn is_searched(&self) -> bool {
        let mut lines = self.tables.iter().flat_map(|table| &table.lines);
        lines.any(|line| !line.search.is_empty())
    }

    /// All tables as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", self.title, self.progress());
        if let Some(paper) = self.paper {
            let _ = write!(
                text,
                "\nThe paper's figures are those of its {}: medians of five seeds on its own \
                 splits and encoders.\n`{EMPTY}` is what has not run, or what the paper does not \
                 report.\n",
                paper.title()
            );
        }
        for table in &self.tables {
            let _ = write!(text, "\n## {}\n", table.heading());
            for remark in table.remarks() {
                let _ = write!(text, "\n{remark}\n");
            }
            let _ = write!(text, "\n{}", score_table(table).to_markdown());
            if !table.claims.is_empty() {
                let claims = claim_table(&table.claims).to_markdown();
                let _ = write!(text, "\n{CLAIMS} {}\n\n{claims}", comparable());
            }
            if let Some(areas) = area_table(table) {
                let _ = write!(
                    text,
                    "\n{}\n\n{}",
                    table.of_curves(AREAS),
                    areas.to_markdown()
                );
            }
            for line in table.lines.iter().filter(|line| !line.search.is_empty()) {
                let _ = write!(
                    text,
                    "\nSearch for {}, chosen on dev:\n\n{}",
                    line.label,
                    search_table(line).to_markdown()
                );
            }
        }
        if self.is_searched() {
            let _ = write!(
                text,
                "\n## Settings\n\n{}",
                setting_table(self).to_markdown()
            );
        }
        if self.cells.done > 0 {
            text += "\n## Where it ran\n\n";
            for (name, value) in self.facts() {
                let _ = writeln!(text, "- {name}: {value}");
            }
        }
        text
    }

    /// One line for every figure.
    pub fn to_csv(&self) -> String {
        let mut text = String::from(
            "task,backbone,split,method,label,batch_size,learning_rate,activation,seeds_done,\
             seeds,s_avg_median,s_avg_low,s_avg_high,s_best_median,s_best_low,s_best_high,\
             paper_s_avg,paper_s_best\n",
        );
        for table in &self.tables {
            for line in &table.lines {
                text += &csv_line(table, line);
            }
        }
        text
    }

    /// The page.
    ///
    /// # Errors
    /// When a figure cannot be drawn.
    pub fn report(&self) -> Result<Report> {
        let mut report = Report::new(self.title.clone(), self.progress());
        for table in &self.tables {
            let mut blocks: Vec<_> = table.remarks().into_iter().map(Block::Paragraph).collect();
            blocks.push(Block::Table {
                table: score_table(table),
                caption: self.caption(),
            });
            if !table.claims.is_empty() {
                blocks.push(Block::Table {
                    table: claim_table(&table.claims),
                    caption: format!("{CLAIMS} {}", comparable()),
                });
            }
            for line in table.lines.iter().filter(|line| !line.search.is_empty()) {
                blocks.push(Block::Table {
                    table: search_table(line),
                    caption: format!("Search for {}, chosen on dev.", line.label),
                });
            }
            for figure in figures(table)? {
                blocks.push(Block::Figure {
                    svg: figure.svg.for_page(),
                    caption: figure.caption,
                });
            }
            if let Some(areas) = area_table(table) {
                blocks.push(Block::Table {
                    table: areas,
                    caption: table.of_curves(AREAS),
                });
            }
            if let Some(points) = curve_table(table) {
                blocks.push(Block::Table {
                    table: points,
                    caption: "Operating points, chosen on dev in equal ranges of blocks saved."
                        .to_owned(),
                });
            }
            report.push(table.heading(), blocks);
        }
        if self.is_searched() {
            report.push("Settings", vec![Block::table(setting_table(self))]);
        }
        report.push("Where it ran", vec![Block::Facts(self.facts())]);
        Ok(report)
    }

    fn caption(&self) -> String {
        let paper = self.paper.map_or(String::new(), |paper| {
            format!(
                " The paper's figures are those of its {}, on its own splits and encoders.",
                paper.title()
            )
        });
        format!("Percent; median over seeds, then the smallest and the largest.{paper}")
    }

    fn facts(&self) -> Vec<(String, String)> {
        let machines = self.machines.iter().map(|machine| {
            let text = format!(
                "{}, {} of {} threads, {}, {}",
                machine.cpu,
                machine.threads,
                machine.logical_cpus,
                machine.instruction_set,
                machine.precision
            );
            ("machine".to_owned(), text)
        });
        let trained = ("training".to_owned(), duration(self.training_seconds));
        machines.chain([trained]).collect()
    }

    /// Writes `NAME.md`, `NAME.csv`, `NAME.json`, `report.html` and the figures as SVG and PNG under
    /// `figures/`, each whole or not at all.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&self, out: &Path) -> Result<Vec<PathBuf>> {
        file::create_folder(out)?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        let name = &self.experiment;
        let mut written = Vec::new();
        for (extension, text) in [
            ("md", self.to_markdown()),
            ("csv", self.to_csv()),
            ("json", json),
        ] {
            let path = out.join(format!("{name}.{extension}"));
            file::write_atomic(&path, text.as_bytes())?;
            written.push(path);
        }
        let page = out.join(REPORT_FILE);
        self.report()?.write(&page)?;
        written.push(page);
        let folder = out.join(FIGURES);
        file::create_folder(&folder)?;
        for table in &self.tables {
            for figure in figures(table)? {
                figure.write(&folder)?;
            }
        }
        written.push(folder);
        Ok(written)
    }
}

fn csv_line(table: &TaskTable, line: &Line) -> String {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let mut cells = vec![
        table.task.clone(),
        format!("\"{}\"", table.backbone),
        table.split.name().to_string(),
        line.variant.to_string(),
        format!("\"{}\"", line.label),
    ];
    let hyper = line.hyper.as_ref();
    cells.push(hyper.map_or(String::new(), |hyper| hyper.batch_size.to_string()));
    cells.push(number(hyper.map(|hyper| hyper.learning_rate)));
    let activation = hyper.and_then(|hyper| hyper.activation);
    cells.push(activation.map_or(String::new(), |g| g.name().to_owned()));
    cells.push(line.average.map_or(0, |spread| spread.seeds).to_string());
    cells.push(line.seeds.to_string());
    for spread in [line.average, line.best] {
        cells.push(number(spread.map(|spread| spread.median)));
        cells.push(number(spread.map(|spread| spread.low)));
        cells.push(number(spread.map(|spread| spread.high)));
    }
    cells.push(number(line.paper.map(|paper| paper.average / 100.0)));
    cells.push(number(line.paper.map(|paper| paper.best / 100.0)));
    cells.join(",") + "\n"
}
