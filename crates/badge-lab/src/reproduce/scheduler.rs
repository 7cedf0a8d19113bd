//! Runs the cells of a grid one after the other, from wherever it was left.
//!
//! Nothing is kept but the cells' own directories: a grid that is started again reads what is done
//! there, goes on behind the checkpoint of the cell that was under way, and runs nothing twice.
//! Several processes may work on one grid; each takes cells that no other has.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use badge_tasks::TokenCache;
use badge_train::observer::Observer;
use serde::Serialize;

use super::cell::Cell;
use super::experiment::Experiment;
use super::forecast::Forecast;
use super::materials::Materials;
use super::plan::Outlook;
use super::run::{Ingredients, run};
use super::store::{CellState, Store, Weights};
use super::variant::Method;

/// The part of a grid that is run now; its tables show all of it.
#[derive(Debug, Default)]
pub struct Only {
    /// Tasks, all of them if empty.
    pub tasks: Vec<String>,
    /// Methods, all of them if empty.
    pub methods: Vec<Method>,
}

impl Only {
    fn has(&self, cell: &Cell) -> bool {
        let Self { tasks, methods } = self;
        (tasks.is_empty() || tasks.contains(&cell.task))
            && (methods.is_empty() || methods.contains(&cell.variant.method))
    }
}

/// How a grid is run.
#[derive(Debug)]
pub struct Options {
    /// The part of it.
    pub only: Only,
    /// Threads of training and engine.
    pub threads: usize,
    /// Where token ids are kept.
    pub tokens: TokenCache,
    /// Whether cells that failed are tried again.
    pub retry_failed: bool,
    /// What becomes of trained weights.
    pub weights: Weights,
}

/// Who watches a grid.
pub trait Watcher {
    /// Something that people should know.
    fn note(&mut self, text: &str);

    /// A cell begins.
    fn begin(&mut self, cell: &Cell, standing: &Standing);

    /// Who watches the training of the cell that began.
    fn training(&mut self) -> &mut dyn Observer;

    /// The cell has ended.
    fn end(&mut self, cell: &Cell, ended: Ended<'_>, standing: &Standing);
}

/// How a cell ended.
#[derive(Debug, Clone, Copy)]
pub enum Ended<'a> {
    /// It has a record; its S-avg on dev.
    Done(f64),
    /// It failed with this message.
    Failed(&'a str),
}

/// Where a grid is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Standing {
    /// Cells that are known to be needed; a search makes more of them when it has chosen.
    pub cells: usize,
    /// Those that are done.
    pub done: usize,
    /// Those that failed: title, folder and message.
    pub failed: Vec<FailedCell>,
    /// What could not be had, and why: the cells that need it stay empty.
    pub missing: Vec<(String, String)>,
    /// Cells that wait for what is missing.
    pub waiting: usize,
    /// Seconds that the open cells will take; nothing before the first one is done.
    #[serde(skip)]
    pub seconds_left: Option<f64>,
}

/// A cell that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedCell {
    /// What it was.
    pub cell: String,
    /// The name of its folder.
    pub folder: String,
    /// What was told.
    pub message: String,
}

/// Seconds between looks at cells that another process runs.
const WAIT: Duration = Duration::from_secs(2);

/// A grid under way.
pub struct Scheduler<'a> {
    experiment: &'a Experiment,
    store: &'a Store,
    materials: &'a Materials,
    options: &'a Options,
    states: BTreeMap<String, CellState>,
    forecast: Forecast,
    started: Instant,
    /// Cells that failed since the last one that did not.
    failed_in_a_row: usize,
}

/// Cells that fail in a row before a grid stops: the reason is then likely none of theirs.
const FAILURES_IN_A_ROW: usize = 3;

/// What the scheduler found to do.
enum Next {
    /// A cell ran.
    Ran,
    /// Other processes run all that is open.
    Held,
    /// Nothing is open.
    Nothing,
}

impl<'a> Scheduler<'a> {
    /// A grid as its directories say it is.
    ///
    /// # Errors
    /// When a record is damaged, or was made from other data than are here.
    pub fn new(
        (experiment, store): (&'a Experiment, &'a Store),
        materials: &'a Materials,
        options: &'a Options,
    ) -> Result<Self> {
        let mut scheduler = Self {
            experiment,
            store,
            materials,
            options,
            states: BTreeMap::new(),
            forecast: Forecast::default(),
            started: Instant::now(),
            failed_in_a_row: 0,
        };
        let mut known = 0;
        loop {
            let cells = scheduler.cells();
            for cell in &cells {
                scheduler.look(cell)?;
                if let Some(CellState::Done(_)) = scheduler.states.get(&cell.id()) {
                    store.tidy(cell, options.weights)?;
                }
            }
            if cells.len() == known {
                break; // Searches that were over have given all their cells.
            }
            known = cells.len();
        }
        Ok(scheduler)
    }

    /// Runs every open cell, or as many as begin within the experiment's hours.
    ///
    /// # Errors
    /// When files of the grid cannot be read or written, or the disk is full. A cell that fails
    /// otherwise is recorded, and the grid goes on, but not after three in a row.
    pub fn run(&mut self, watcher: &mut dyn Watcher) -> Result<Standing> {
        loop {
            if self.is_out_of_hours() {
                watcher.note("the experiment's hours are over; start it again to go on");
                break;
            }
            if self.failed_in_a_row == FAILURES_IN_A_ROW {
                watcher.note(
                    "three runs in a row have failed; the others are left. Remove the reason and start \
                     it again with --retry-failed",
                );
                break;
            }
            match self.next(watcher)? {
                Next::Ran => {}
                Next::Held => std::thread::sleep(WAIT),
                Next::Nothing => break,
            }
        }
        Ok(self.standing())
    }

    fn is_out_of_hours(&self) -> bool {
        let hours = self.started.elapsed().as_secs_f64() / 3600.0;
        self.experiment
            .budget
            .hours
            .is_some_and(|most| hours >= most)
    }

    fn cells(&self) -> Vec<Cell> {
        let outlook = |cell: &Cell| {
            let state = self.states.get(&cell.id());
            state.map_or(Outlook::Open, CellState::outlook)
        };
        self.experiment.cells(&outlook)
    }

    /// Reads a cell's state, unless it is known to have ended.
    fn look(&mut self, cell: &Cell) -> Result<()> {
        let known = self.states.get(&cell.id());
        if matches!(known, Some(CellState::Done(_) | CellState::Failed(_))) {
            return Ok(());
        }
        let mut state = self.store.state(cell)?;
        if let (CellState::Done(done), Some(ingredients)) = (&state, self.ingredients(cell)) {
            done.check(&ingredients.hashes(cell)?)?;
            let seconds = done.results.training.seconds;
            let work = self.work(cell, ingredients);
            self.forecast.learn(work, seconds);
        }
        if self.options.retry_failed && matches!(state, CellState::Failed(_)) {
            self.store.forgive(cell)?;
            state = CellState::Open;
        }
        self.states.insert(cell.id(), state);
        Ok(())
    }

    fn ingredients(&self, cell: &Cell) -> Option<Ingredients<'a>> {
        Some(Ingredients {
            rows: self.materials.task(&cell.task)?,
            encoder: self.materials.backbone(&cell.backbone)?,
            threads: self.options.threads,
            tokens: &self.options.tokens,
            checkpoint_seconds: 60.0 * self.experiment.budget.checkpoint_minutes,
        })
    }

    fn is_open(&self, cell: &Cell) -> bool {
        !matches!(
            self.states.get(&cell.id()),
            Some(CellState::Done(_) | CellState::Failed(_))
        )
    }

    /// Runs the first open cell that no other process has.
    fn next(&mut self, watcher: &mut dyn Watcher) -> Result<Next> {
        let mut held = false;
        for cell in self.cells() {
            let Some(ingredients) = self.ingredients(&cell) else {
                continue;
            };
            if !self.is_open(&cell) || !self.options.only.has(&cell) {
                continue;
            }
            let Some(lock) = self.store.claim(&cell)? else {
                held = true;
                continue;
            };
            // Another process may have ended it between the last look and the claim.
            self.look(&cell)?;
            if self.is_open(&cell) {
                self.carry_out(&cell, ingredients, watcher)?;
            }
            drop(lock);
            if let Some(CellState::Done(_)) = self.states.get(&cell.id()) {
                self.store.tidy(&cell, self.options.weights)?;
            }
            return Ok(Next::Ran);
        }
        Ok(if held { Next::Held } else { Next::Nothing })
    }

    fn carry_out(
        &mut self,
        cell: &Cell,
        ingredients: Ingredients<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        watcher.begin(cell, &self.standing());
        let folder = self.store.folder(cell);
        // A cell that breaks an assertion must not take the grid with it.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run(cell, &folder, ingredients, watcher.training())
        }));
        let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("{}", said(&*panic))));
        match outcome {
            Ok(_) => {
                self.look(cell)?;
                let state = self.states.get(&cell.id());
                let Some(CellState::Done(done)) = state else {
                    anyhow::bail!("{}: the record is gone again", folder.display());
                };
                let score = done.results.training.dev.average;
                self.failed_in_a_row = 0;
                watcher.end(cell, Ended::Done(score), &self.standing());
            }
            // None of the cell's: it goes on behind its checkpoint when there is room.
            Err(error) if is_of_the_disk(&error) => return Err(error),
            Err(error) => {
                self.failed_in_a_row += 1;
                let failure = self.store.fail(cell, format!("{error:#}"))?;
                let message = failure.message.clone();
                self.states.insert(cell.id(), CellState::Failed(failure));
                watcher.end(cell, Ended::Failed(&message), &self.standing());
            }
        }
        Ok(())
    }

    /// Rows that a run sees at most, times its blocks.
    fn work(&self, cell: &Cell, ingredients: Ingredients<'_>) -> f64 {
        let backbones = &self.experiment.backbones;
        let axis = backbones.iter().find(|axis| axis.name == cell.backbone);
        let blocks = cell.depth.or(axis.map(|axis| axis.blocks)).unwrap_or(1);
        let rows = ingredients.rows.data.train.len() * cell.budget.epochs;
        rows as f64 * blocks as f64
    }

    /// Where the grid is.
    pub fn standing(&self) -> Standing {
        let cells = self.cells();
        let mut standing = Standing {
            cells: cells.len(),
            missing: self.materials.missing(),
            ..Standing::default()
        };
        let mut open = 0.0;
        for cell in &cells {
            match self.states.get(&cell.id()) {
                Some(CellState::Done(_)) => standing.done += 1,
                Some(CellState::Failed(failure)) => standing.failed.push(FailedCell {
                    cell: cell.title(),
                    folder: cell.directory(),
                    message: failure.message.clone(),
                }),
                Some(CellState::Open) | None if !self.options.only.has(cell) => {}
                Some(CellState::Open) | None => match self.ingredients(cell) {
                    Some(ingredients) => open += self.work(cell, ingredients),
                    None => standing.waiting += 1,
                },
            }
        }
        standing.seconds_left = self.forecast.seconds(open);
        standing
    }

    /// Every cell with what is known of it.
    pub fn states(&self) -> &BTreeMap<String, CellState> {
        &self.states
    }
}

/// Whether the disk is full, or not to be written to.
fn is_of_the_disk(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| {
            matches!(
                cause.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
            )
        })
    })
}

/// The message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the program broke off without a message")
        .to_owned()
}
