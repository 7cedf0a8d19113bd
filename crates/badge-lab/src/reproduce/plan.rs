//! From a description to cells: what is run, in which order, and what a search has chosen.

use super::cell::{Cell, CellCurves, HyperParameters};
use super::experiment::{BackboneAxis, Experiment, TaskAxis};
use super::variant::{Method, Variant};

/// All runs of one row of a table on one task: candidates of a search, then seeds.
#[derive(Debug, Clone)]
pub struct Group {
    /// The task.
    pub task: TaskAxis,
    /// The backbone.
    pub backbone: BackboneAxis,
    /// What is compared.
    pub variant: Variant,
    candidates: Vec<HyperParameters>,
    seeds: Vec<u64>,
    /// A cell without its search and its seed.
    template: Cell,
}

/// S-avg on dev, the only thing that a search sees of a run.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct DevScore(pub f64);

/// What is known of a cell when a search chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outlook {
    /// It is done, with this score.
    Done(DevScore),
    /// It will never be.
    Failed,
    /// It may yet be.
    Open,
}

/// Where a group's search is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// These are the ones: the only candidate, or the best on dev.
    Made(HyperParameters),
    /// Candidates have still to run.
    Open,
    /// Every candidate has failed.
    Failed,
}

impl Experiment {
    /// The groups in the order of tasks, backbones and variants.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for task in &self.tasks {
            for backbone in &self.backbones {
                let variants = self.variants().into_iter();
                groups.extend(variants.map(|variant| self.group(task, backbone, variant)));
            }
        }
        groups
    }

    fn group(&self, task: &TaskAxis, backbone: &BackboneAxis, variant: Variant) -> Group {
        let mut candidates = Vec::new();
        for activation in &task.activations {
            let activation = variant.bypass.map(|_| *activation);
            for batch_size in &task.batch_sizes {
                for learning_rate in &task.learning_rates {
                    let candidate = HyperParameters {
                        batch_size: *batch_size,
                        learning_rate: *learning_rate,
                        activation,
                    };
                    // Without bypasses, activations make no difference.
                    if !candidates.contains(&candidate) {
                        candidates.push(candidate);
                    }
                }
            }
        }
        Group {
            template: Cell {
                task: task.task.clone(),
                splits: task.splits.clone(),
                backbone: backbone.name.clone(),
                variant,
                depth: None,
                hyper: candidates[0],
                seed: self.seeds[0],
                budget: self.budget.of_results(),
                curves: self.curves.as_ref().and_then(|curves| {
                    let of = curves.of.iter().find(|of| of.method == variant.method)?;
                    Some(CellCurves {
                        of: of.clone(),
                        points: curves.points,
                        timed_rows: curves.timed_rows,
                    })
                }),
            },
            task: task.clone(),
            backbone: backbone.clone(),
            variant,
            candidates,
            seeds: self.seeds.clone(),
        }
    }

    /// Every cell that is to be run as far as searches have got, those first that people want
    /// first: by task, then by seed, so that every row of a table has a figure early.
    pub fn cells(&self, outlook: &dyn Fn(&Cell) -> Outlook) -> Vec<Cell> {
        let groups = self.groups();
        let mut cells = Vec::new();
        for task in &self.tasks {
            let of_task = || groups.iter().filter(|group| group.task.task == task.task);
            for group in of_task() {
                cells.extend(group.search_cells());
            }
            for seed in &self.seeds {
                for group in of_task() {
                    if let Choice::Made(hyper) = group.choose(outlook) {
                        cells.extend(group.cells(hyper, *seed));
                    }
                }
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        cells.retain(|cell| seen.insert(cell.id()));
        cells
    }
}

impl Group {
    /// Whether there is more than one candidate.
    pub fn is_searched(&self) -> bool {
        self.candidates.len() > 1
    }

    /// The candidates of the search.
    pub fn candidates(&self) -> &[HyperParameters] {
        &self.candidates
    }

    /// The seeds of the figures in the table.
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// The runs with these hyper-parameters and this seed: one, or one for every depth.
    pub fn cells(&self, hyper: HyperParameters, seed: u64) -> Vec<Cell> {
        let cell = |depth| Cell {
            depth,
            hyper,
            seed,
            ..self.template.clone()
        };
        match self.variant.method {
            Method::Single => (1..=self.backbone.blocks).map(|m| cell(Some(m))).collect(),
            _ => vec![cell(None)],
        }
    }

    /// The runs that the search compares, all with the first seed.
    pub fn search_cells(&self) -> Vec<Cell> {
        if !self.is_searched() {
            return Vec::new();
        }
        let candidates = self.candidates.iter();
        candidates
            .flat_map(|candidate| self.cells(*candidate, self.seeds[0]))
            .collect()
    }

    /// The candidate with the best S-avg on dev, the first of equals; of single exits the mean
    /// over all depths decides. Runs that failed are out.
    pub fn choose(&self, outlook: &dyn Fn(&Cell) -> Outlook) -> Choice {
        if !self.is_searched() {
            return Choice::Made(self.candidates[0]);
        }
        let mut best: Option<(f64, HyperParameters)> = None;
        for candidate in &self.candidates {
            let cells = self.cells(*candidate, self.seeds[0]);
            let outlooks: Vec<_> = cells.iter().map(outlook).collect();
            if outlooks.contains(&Outlook::Open) {
                return Choice::Open;
            }
            let scores = outlooks.iter().filter_map(|outlook| match outlook {
                Outlook::Done(DevScore(score)) => Some(*score),
                Outlook::Failed | Outlook::Open => None,
            });
            let scores: Vec<f64> = scores.collect();
            if scores.len() < cells.len() {
                continue;
            }
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            if best.is_none_or(|(score, _)| mean > score) {
                best = Some((mean, *candidate));
            }
        }
        best.map_or(Choice::Failed, |(_, hyper)| Choice::Made(hyper))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
title = "Plans"
methods = ["single", "joint", "badge"]
seeds = [7, 8]
[budget]
epochs = 1
patience = 1
max-length = 16
[[tasks]]
task = "mrpc"
batch-sizes = [16]
learning-rates = [1e-5, 2e-5]
activations = ["gelu", "tanh"]
[[tasks]]
task = "rte"
batch-sizes = [16]
learning-rates = [1e-5]
[[backbones]]
name = "tiny"
source = "tiny"
blocks = 3
"#;

    fn experiment() -> Experiment {
        Experiment::parse("plans", TEXT, "plans.toml").unwrap()
    }

    fn count(cells: &[Cell], task: &str, seed: u64) -> usize {
        let matching = cells
            .iter()
            .filter(|cell| cell.task == task && cell.seed == seed);
        matching.count()
    }

    #[test]
    fn candidates_run_first_and_seeds_once_the_choice_is_made() {
        let experiment = experiment();
        let open = experiment.cells(&|_| Outlook::Open);
        // Two rates for three depths and for joint, four candidates of badge.
        assert_eq!(count(&open, "mrpc", 7), 6 + 2 + 4);
        assert_eq!(count(&open, "mrpc", 8), 0);
        // Nothing to search: both seeds at once.
        assert_eq!(count(&open, "rte", 7), 3 + 1 + 1);
        assert_eq!(count(&open, "rte", 8), 3 + 1 + 1);
        let rate_wins = |cell: &Cell| Outlook::Done(DevScore(cell.hyper.learning_rate));
        let done = experiment.cells(&rate_wins);
        assert_eq!(
            count(&done, "mrpc", 7),
            12,
            "the winners' first seed has run already"
        );
        let second: Vec<_> = done
            .iter()
            .filter(|c| c.task == "mrpc" && c.seed == 8)
            .collect();
        assert_eq!(second.len(), 5);
        assert!(second.iter().all(|cell| cell.hyper.learning_rate == 2e-5));
    }

    #[test]
    fn a_search_goes_by_dev_alone_and_leaves_out_what_failed() {
        let experiment = experiment();
        let badge = experiment
            .groups()
            .into_iter()
            .find(|group| group.variant.method == Method::Badge && group.task.task == "mrpc");
        let badge = badge.unwrap();
        let [first, .., last] = badge.candidates() else {
            panic!("there are four candidates");
        };
        let all_equal = |_: &Cell| Outlook::Done(DevScore(0.5));
        assert_eq!(badge.choose(&all_equal), Choice::Made(*first));
        let only_last = |cell: &Cell| {
            if cell.hyper == *last {
                Outlook::Done(DevScore(0.1))
            } else {
                Outlook::Failed
            }
        };
        assert_eq!(badge.choose(&only_last), Choice::Made(*last));
        assert_eq!(badge.choose(&|_| Outlook::Failed), Choice::Failed);
        assert_eq!(badge.choose(&|_| Outlook::Open), Choice::Open);
    }

    #[test]
    fn cells_are_called_by_a_hash_of_what_they_follow_from() {
        let experiment = experiment();
        let cells = experiment.cells(&|_| Outlook::Open);
        let mut ids: Vec<_> = cells.iter().map(Cell::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), cells.len());
        let mut longer = experiment.clone();
        longer.budget.hours = Some(3.0);
        longer.budget.checkpoint_minutes = 0.0;
        assert_eq!(
            longer.cells(&|_| Outlook::Open),
            cells,
            "hours and checkpoints change no result"
        );
        longer.budget.epochs = 2;
        let others = longer.cells(&|_| Outlook::Open);
        assert!(others.iter().all(|cell| !ids.contains(&cell.id())));
        let name = cells[0].directory();
        assert!(name.starts_with("mrpc-single-depth01-seed7-"), "{name}");
    }
}
