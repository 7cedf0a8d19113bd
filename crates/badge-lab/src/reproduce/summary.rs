//! A grid's results: a row for everything that is compared, on every task, with the paper's figures
//! beside ours, and what each claim of the paper comes to.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::cell::{Cell, HyperParameters};
use super::claims::{Judged, judge};
use super::curves::CurveResults;
use super::experiment::{Experiment, SplitOfTask};
use super::outputs::Answers;
use super::paper::{PaperFigure, PaperTable};
use super::plan::{Choice, Group, Outlook};
use super::statistics::{Run, Scoring, Spread, average, best};
use super::store::{CellState, Finished, Store};
use super::variant::Variant;
use crate::record::Machine;

/// All of a grid that is known now.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The experiment's name.
    pub experiment: String,
    /// What it asks.
    pub title: String,
    /// The paper's table or figure.
    pub paper: Option<PaperTable>,
    /// Cells that are done, that failed, and that are known to be needed.
    pub cells: Counts,
    /// Seconds of training, of all cells that are done.
    pub training_seconds: f64,
    /// The machines that cells ran on.
    pub machines: Vec<Machine>,
    /// One table per task, backbone and split.
    pub tables: Vec<TaskTable>,
}

/// How far a grid is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Known to be needed.
    pub cells: usize,
    /// With a record.
    pub done: usize,
    /// With a failure.
    pub failed: usize,
}

/// One task's rows.
#[derive(Debug, Serialize)]
pub struct TaskTable {
    /// The task.
    pub task: String,
    /// The paper's task that it is, or stands in for.
    pub paper_task: Option<String>,
    /// What a reader must know about the data.
    pub note: Option<String>,
    /// The backbone.
    pub backbone: String,
    /// The split.
    pub split: SplitOfTask,
    /// The score S, once a cell is done.
    pub metric: Option<String>,
    /// Rows of the split, once a cell is done.
    pub rows: Option<usize>,
    /// Depths of the exits.
    pub depths: Vec<usize>,
    /// What is compared.
    pub lines: Vec<Line>,
    /// What the paper claims, and what our runs say.
    pub claims: Vec<Judged>,
}

/// A row of a table.
#[derive(Debug, Serialize)]
pub struct Line {
    /// What people call it.
    pub label: String,
    /// What it is.
    pub variant: Variant,
    /// Seeds that are wanted.
    pub seeds: usize,
    /// S-avg over the seeds that are done.
    pub average: Option<Spread>,
    /// S-best over them.
    pub best: Option<Spread>,
    /// The median score of each exit.
    pub exits: Vec<f64>,
    /// The paper's figures, in percent.
    pub paper: Option<PaperFigure>,
    /// The hyper-parameters in force, once they are chosen.
    pub hyper: Option<HyperParameters>,
    /// S-avg on dev of every candidate of the search.
    pub search: Vec<(HyperParameters, Option<f64>)>,
    /// Curves of one seed, the same for all lines of a table.
    pub curves: Option<SeedCurves>,
    /// Where the figures come from.
    pub records: Vec<Source>,
}

/// The curves of one seed.
#[derive(Debug, Serialize)]
pub struct SeedCurves {
    /// The seed.
    pub seed: u64,
    /// Its curves.
    #[serde(flatten)]
    pub results: CurveResults,
}

/// A record by its place below the output folder and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// `cells/NAME/record.json`.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Every cell of a grid with what is known of it.
#[derive(Debug)]
pub struct Grid<'a> {
    pub(super) experiment: &'a Experiment,
    states: BTreeMap<String, CellState>,
}

/// A seed's cells that are all done: one, or one for every depth.
#[derive(Debug, Clone)]
pub(super) struct SeedCells<'a> {
    pub(super) seed: u64,
    pub(super) cells: Vec<&'a Finished>,
}

impl<'a> Grid<'a> {
    /// Reads all states.
    ///
    /// # Errors
    /// When a record is damaged.
    pub fn read(experiment: &'a Experiment, store: &Store) -> Result<Self> {
        let mut grid = Self {
            experiment,
            states: BTreeMap::new(),
        };
        loop {
            let cells = grid.cells();
            let unknown = cells
                .iter()
                .filter(|cell| !grid.states.contains_key(&cell.id()));
            let unknown: Vec<_> = unknown.cloned().collect();
            if unknown.is_empty() {
                return Ok(grid); // Searches that are over have given all their cells.
            }
            for cell in unknown {
                grid.states.insert(cell.id(), store.state(&cell)?);
            }
        }
    }

    fn outlook(&self, cell: &Cell) -> Outlook {
        let state = self.states.get(&cell.id());
        state.map_or(Outlook::Open, CellState::outlook)
    }

    fn cells(&self) -> Vec<Cell> {
        self.experiment.cells(&|cell| self.outlook(cell))
    }

    fn finished(&self, cell: &Cell) -> Option<&Finished> {
        match self.states.get(&cell.id())? {
            CellState::Done(done) => Some(done),
            CellState::Open | CellState::Failed(_) => None,
        }
    }

    fn chosen(&self, group: &Group) -> Option<HyperParameters> {
        match group.choose(&|cell| self.outlook(cell)) {
            Choice::Made(hyper) => Some(hyper),
            Choice::Open | Choice::Failed => None,
        }
    }

    /// The seeds of a row that are done.
    pub(super) fn seeds(&self, group: &Group) -> Vec<SeedCells<'_>> {
        let Some(hyper) = self.chosen(group) else {
            return Vec::new();
        };
        let seed = |seed: &u64| {
            let cells = group.cells(hyper, *seed);
            let cells: Option<Vec<_>> = cells.iter().map(|cell| self.finished(cell)).collect();
            Some(SeedCells {
                seed: *seed,
                cells: cells?,
            })
        };
        group.seeds().iter().filter_map(seed).collect()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for cell in self.cells() {
            counts.cells += 1;
            match self.states.get(&cell.id()) {
                Some(CellState::Done(_)) => counts.done += 1,
                Some(CellState::Failed(_)) => counts.failed += 1,
                Some(CellState::Open) | None => {}
            }
        }
        counts
    }
}

impl SeedCells<'_> {
    /// What the seed answered at every exit.
    ///
    /// # Errors
    /// When a file of answers is missing or another.
    pub(super) fn run(&self, split: SplitOfTask) -> Result<Option<(Run, Scoring)>> {
        let mut exits = Vec::new();
        let mut last = None;
        for cell in &self.cells {
            let results = cell.results.splits.iter().find(|of| of.split == split);
            let Some(results) = results else {
                return Ok(None);
            };
            let answers = Answers::read(&cell.folder, &results.answers)?;
            exits.extend(answers.exits);
            last = Some((answers.truth, results));
        }
        Ok(last.map(|(truth, results)| {
            let scoring = Scoring {
                metric: results.metric,
                parts: results.parts.clone(),
            };
            (Run::new(self.seed, Answers { exits, truth }), scoring)
        }))
    }

    /// The index of the exit with the best score on dev, the earliest of several.
    pub(super) fn best_on_dev(&self) -> usize {
        let cells = self.cells.iter();
        let scores: Vec<f64> = cells
            .flat_map(|cell| cell.results.training.dev.exits.iter().copied())
            .collect();
        (0..scores.len())
            .rev()
            .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
            .unwrap_or(0)
    }

    /// The score of every exit, as the records hold it.
    fn scores(&self, split: SplitOfTask) -> Option<Vec<f64>> {
        let mut scores = Vec::new();
        for cell in &self.cells {
            let results = cell.results.splits.iter().find(|of| of.split == split)?;
            scores.extend(&results.scores.exits);
        }
        Some(scores)
    }
}

impl Summary {
    /// Reads a grid's records.
    ///
    /// # Errors
    /// When a record or a file of answers is damaged.
    pub fn of(experiment: &Experiment, store: &Store) -> Result<Self> {
        let grid = Grid::read(experiment, store)?;
        let done = grid.states.values().filter_map(|state| match state {
            CellState::Done(done) => Some(done),
            CellState::Open | CellState::Failed(_) => None,
        });
        let mut machines: Vec<Machine> = Vec::new();
        let mut training_seconds = 0.0;
        for cell in done {
            training_seconds += cell.results.training.seconds;
            if !machines.contains(&cell.record.machine) {
                machines.push(cell.record.machine.clone());
            }
        }
        Ok(Self {
            experiment: experiment.name.clone(),
            title: experiment.title.clone(),
            paper: experiment.paper,
            cells: grid.counts(),
            training_seconds,
            machines,
            tables: tables(&grid)?,
        })
    }
}

fn tables(grid: &Grid<'_>) -> Result<Vec<TaskTable>> {
    let groups = grid.experiment.groups();
    let mut tables = Vec::new();
    for task in &grid.experiment.tasks {
        for backbone in &grid.experiment.backbones {
            let of_table = |group: &&Group| {
                group.task.task == task.task && group.backbone.name == backbone.name
            };
            let groups: Vec<_> = groups.iter().filter(of_table).collect();
            for split in &task.splits {
                tables.push(table(grid, &groups, *split)?);
            }
        }
    }
    Ok(tables)
}

fn table(grid: &Grid<'_>, groups: &[&Group], split: SplitOfTask) -> Result<TaskTable> {
    let (task, backbone) = (&groups[0].task, &groups[0].backbone);
    let mut lines: Vec<_> = groups
        .iter()
        .map(|group| line(grid, group, split))
        .collect();
    if task.splits.first() == Some(&split) {
        let curves = curves_of_one_seed(grid, groups);
        for (line, curves) in lines.iter_mut().zip(curves) {
            line.curves = curves;
        }
    }
    let mut seeds = groups.iter().flat_map(|group| grid.seeds(group));
    let example = seeds.find_map(|seed| {
        let results = seed.cells[0].results.splits.iter();
        results.clone().find(|of| of.split == split).cloned()
    });
    Ok(TaskTable {
        task: task.task.clone(),
        paper_task: task.paper.clone(),
        note: task.note.clone(),
        backbone: backbone.name.clone(),
        split,
        metric: example.as_ref().map(|of| of.metric.name().to_owned()),
        rows: example.as_ref().map(|of| of.parts.iter().sum()),
        depths: (1..=backbone.blocks).collect(),
        claims: judge(grid, groups, split)?,
        lines,
    })
}

fn line(grid: &Grid<'_>, group: &Group, split: SplitOfTask) -> Line {
    let seeds = grid.seeds(group);
    let scores: Vec<Vec<f64>> = seeds.iter().filter_map(|seed| seed.scores(split)).collect();
    let over_seeds = |of: fn(&[f64]) -> f64| Spread::of(scores.iter().map(|s| of(s)).collect());
    let exits = scores.first().map_or(0, Vec::len);
    let median = |exit: usize| {
        let spread = Spread::of(scores.iter().map(|scores| scores[exit]).collect());
        spread.map_or(f64::NAN, |spread| spread.median)
    };
    let paper = grid.experiment.paper.and_then(|paper| {
        let backbone = group.backbone.paper.as_deref();
        paper.figure(&group.variant, group.task.paper.as_deref()?, backbone)
    });
    let candidates = group.candidates().iter().filter(|_| group.is_searched());
    let of_seeds = seeds.iter().flat_map(|seed| seed.cells.iter().copied());
    let of_search = group.candidates().iter().filter(|_| group.is_searched());
    let of_search = of_search.flat_map(|hyper| group.cells(*hyper, group.seeds()[0]));
    let of_search: Vec<_> = of_search.collect();
    let of_search = of_search.iter().filter_map(|cell| grid.finished(cell));
    let mut records: Vec<Source> = Vec::new();
    for cell in of_seeds.chain(of_search) {
        let source = source(cell);
        if !records.contains(&source) {
            records.push(source);
        }
    }
    Line {
        label: label(grid.experiment, &group.variant),
        variant: group.variant,
        seeds: group.seeds().len(),
        average: over_seeds(average),
        best: over_seeds(best),
        exits: (0..exits).map(median).collect(),
        paper,
        hyper: grid.chosen(group),
        search: candidates
            .map(|hyper| (*hyper, dev_score(grid, group, *hyper)))
            .collect(),
        curves: None,
        records,
    }
}

/// The curves of one seed's models, group by group, so that drawings compare runs that saw the same
/// rows in the same order: the first seed of those that most models have.
fn curves_of_one_seed(grid: &Grid<'_>, groups: &[&Group]) -> Vec<Option<SeedCurves>> {
    let curves_of = |group: &Group, wanted: u64| {
        let seeds = grid.seeds(group);
        let seed = seeds.iter().find(|seed| seed.seed == wanted)?;
        let results = seed.cells.first()?.results.curves.clone()?;
        Some(SeedCurves {
            seed: wanted,
            results,
        })
    };
    let all = |seed: u64| -> Vec<_> { groups.iter().map(|group| curves_of(group, seed)).collect() };
    let candidates = grid.experiment.seeds.iter().map(|seed| all(*seed));
    let count = |curves: &Vec<Option<SeedCurves>>| curves.iter().flatten().count();
    candidates
        .rev()
        .max_by_key(count)
        .unwrap_or_else(|| groups.iter().map(|_| None).collect())
}

/// S-avg on dev of a candidate, once all its cells are done.
fn dev_score(grid: &Grid<'_>, group: &Group, hyper: HyperParameters) -> Option<f64> {
    let cells = group.cells(hyper, group.seeds()[0]);
    let scores = cells.iter().map(|cell| {
        let done = grid.finished(cell)?;
        Some(done.results.training.dev.average)
    });
    let scores: Option<Vec<f64>> = scores.collect();
    Some(average(&scores?))
}

fn source(cell: &Finished) -> Source {
    let folder = cell
        .folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    Source {
        file: format!("cells/{folder}/{}", crate::record::RECORD_FILE),
        sha256: cell.sha256.clone(),
    }
}

/// What tells a variant apart from the others of its experiment.
pub(super) fn label(experiment: &Experiment, variant: &Variant) -> String {
    let mut text = variant.method.title().to_owned();
    let Some(shape) = variant.bypass else {
        return text;
    };
    if experiment.placements.len() > 1 {
        text += match shape.placement {
            badge_core::bypass::BypassPlacement::Block => ", block-wise bypasses",
            badge_core::bypass::BypassPlacement::Mhsa => ", MHSA bypasses",
            badge_core::bypass::BypassPlacement::Ffn => ", FFN bypasses",
        };
    }
    if experiment.ranks.len() > 1 {
        text += ", r = ";
        text += &shape.rank.to_string();
    }
    text
}
