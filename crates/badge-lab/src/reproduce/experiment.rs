//! The description of an experiment: a grid of runs under one budget, read from a TOML file.
//!
//! Everything that makes a cell of the grid impossible is refused before anything runs, with the
//! file and the key.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail, ensure};
use badge_core::activation::Activation;
use badge_core::bypass::BypassPlacement;
use badge_tasks::split::SplitName;
use badge_train::precision::Precision;
use serde::{Deserialize, Serialize};

use super::paper::PaperTable;
use super::variant::{BypassShape, Method, Variant};
use crate::sweep::Family;

/// A grid of runs: tasks x backbones x methods x placements x ranks x seeds, and per task a search
/// over activations, batch sizes and learning rates where more than one is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Experiment {
    /// What it is called on the command line and in files.
    #[serde(skip)]
    pub name: String,
    /// What messages call the file that it was read from.
    #[serde(skip)]
    pub file: String,
    /// What it asks.
    pub title: String,
    /// The paper's table or figure that stands beside ours.
    #[serde(default)]
    pub paper: Option<PaperTable>,
    /// Training methods.
    pub methods: Vec<Method>,
    /// Placements of bypasses, of methods that have some.
    #[serde(default = "block")]
    pub placements: Vec<BypassPlacement>,
    /// Their bottleneck dimensions r.
    #[serde(default = "sixteen")]
    pub ranks: Vec<usize>,
    /// Seeds of data order, dropout and fresh weights.
    pub seeds: Vec<u64>,
    /// How long each run may be.
    pub budget: Budget,
    /// Speed-score curves to draw of the trained models.
    #[serde(default)]
    pub curves: Option<Curves>,
    /// The tasks, the most wanted first.
    pub tasks: Vec<TaskAxis>,
    /// The pre-trained encoders.
    pub backbones: Vec<BackboneAxis>,
}

/// How long runs may be, and how they compute; the same for every cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Budget {
    /// Epochs at most.
    pub epochs: usize,
    /// Epochs without a better S-avg on dev before a run stops.
    pub patience: usize,
    /// Longest input in tokens.
    pub max_length: usize,
    /// Share of the steps spent on warm-up.
    #[serde(default = "tenth")]
    pub warmup_ratio: f64,
    /// Decoupled weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// What the blocks' products multiply in training.
    #[serde(default)]
    pub precision: Precision,
    /// Rows of one forward pass; larger batches take several.
    #[serde(default = "thirty_two")]
    pub rows_per_pass: usize,
    /// Hours after which no new cell begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// Minutes of work that a kill may cost.
    #[serde(default = "two", skip_serializing_if = "is_two")]
    pub checkpoint_minutes: f64,
}

/// A task and the hyper-parameters to be searched on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskAxis {
    /// A built-in task, one of the lab's ([`super::tasks`]), or the path of a `task.toml`.
    pub task: String,
    /// Its folder below the data folder.
    #[serde(default)]
    pub folder: Option<String>,
    /// The paper's task that it is, or stands in for.
    #[serde(default)]
    pub paper: Option<String>,
    /// Splits to be reported.
    #[serde(default = "test")]
    pub splits: Vec<SplitOfTask>,
    /// Batch sizes to choose from.
    pub batch_sizes: Vec<usize>,
    /// Peak learning rates to choose from.
    pub learning_rates: Vec<f64>,
    /// Activations of bypasses to choose from, of methods that have some.
    #[serde(default = "gelu")]
    pub activations: Vec<Activation>,
    /// What a reader must know, such as that the data are others than the paper's.
    #[serde(default)]
    pub note: Option<String>,
}

/// A split that figures are reported of. Dev is none of them: choices are made on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitOfTask {
    /// The paper's.
    Test,
    /// The corpus's own labelled test rows.
    OfficialTest,
}

/// A pre-trained encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BackboneAxis {
    /// What tables call it.
    pub name: String,
    /// A directory or a hub id.
    pub source: String,
    /// Number of its blocks, M.
    pub blocks: usize,
    /// The paper's backbone that it is.
    #[serde(default)]
    pub paper: Option<String>,
}

/// The curves to draw: which policies on the models of which methods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Curves {
    /// Policies on each method's models.
    pub of: Vec<CurvesOf>,
    /// Points of each curve, at most: the best on dev in as many equal ranges of blocks saved.
    pub points: usize,
    /// Test rows whose time is taken at batch size 1 under every point's policy.
    pub timed_rows: usize,
}

/// The policies whose curves are drawn on the models of one method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CurvesOf {
    /// The method.
    pub method: Method,
    /// The policies.
    pub policies: Vec<Family>,
}

fn block() -> Vec<BypassPlacement> {
    vec![BypassPlacement::Block]
}

fn sixteen() -> Vec<usize> {
    vec![16]
}

fn gelu() -> Vec<Activation> {
    vec![Activation::Gelu]
}

fn test() -> Vec<SplitOfTask> {
    vec![SplitOfTask::Test]
}

fn tenth() -> f64 {
    0.1
}

fn thirty_two() -> usize {
    32
}

fn two() -> f64 {
    2.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference to the field"
)]
fn is_two(minutes: &f64) -> bool {
    *minutes == two()
}

/// No grid has more cells; larger ones are slips.
const CELLS_MAX: usize = 100_000;

impl Experiment {
    /// Reads the text of an experiment file; `file` is what messages call it.
    ///
    /// # Errors
    /// Names file and key, or line and column, of what is wrong.
    pub fn parse(name: &str, text: &str, file: &str) -> Result<Self> {
        let mut experiment: Self = toml::from_str(text)
            .map_err(|error| anyhow::anyhow!("{file}: {}", error.to_string().trim_end()))?;
        name.clone_into(&mut experiment.name);
        file.clone_into(&mut experiment.file);
        experiment.check().with_context(|| file.to_owned())?;
        Ok(experiment)
    }

    /// Refuses grids with impossible cells.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<()> {
        all_different("methods", &self.methods)?;
        all_different("placements", &self.placements)?;
        all_different("ranks", &self.ranks)?;
        all_different("seeds", &self.seeds)?;
        if let Some(rank) = self.ranks.iter().find(|rank| **rank == 0) {
            bail!("key `ranks`: {rank} is no dimension; ranks begin at 1");
        }
        let has_bypass = self.methods.iter().any(|method| method.has_bypass());
        for (key, is_varied) in [
            ("placements", self.placements != block()),
            ("ranks", self.ranks != sixteen()),
        ] {
            ensure!(
                has_bypass || !is_varied,
                "key `{key}`: none of the methods has bypasses; add badge to `methods`, or leave \
                 the key out"
            );
        }
        self.budget.check()?;
        self.check_tasks(has_bypass)?;
        self.check_backbones()?;
        if let Some(curves) = &self.curves {
            curves.check(&self.methods)?;
        }
        let cells = self.cells_max();
        ensure!(
            cells <= CELLS_MAX,
            "the grid has {cells} cells, more than {CELLS_MAX}; make an axis shorter"
        );
        Ok(())
    }

    /// Refuses an experiment that leaves out, or changes, something of an earlier one: in the earlier
    /// one's folder its runs would be left without a table. More of something is welcome.
    ///
    /// # Errors
    /// Names the key.
    pub fn check_covers(&self, earlier: &Self) -> Result<()> {
        fn all<T: PartialEq>(ours: &[T], theirs: &[T]) -> bool {
            theirs.iter().all(|value| ours.contains(value))
        }
        let source_aside = |axes: &[BackboneAxis]| -> Vec<_> {
            let names = axes.iter();
            names.map(|axis| (axis.name.clone(), axis.blocks)).collect()
        };
        let keys = [
            ("methods", all(&self.methods, &earlier.methods)),
            ("placements", all(&self.placements, &earlier.placements)),
            ("ranks", all(&self.ranks, &earlier.ranks)),
            ("seeds", all(&self.seeds, &earlier.seeds)),
            ("tasks", all(&self.tasks, &earlier.tasks)),
            (
                "backbones",
                all(
                    &source_aside(&self.backbones),
                    &source_aside(&earlier.backbones),
                ),
            ),
            (
                "budget",
                self.budget.of_results() == earlier.budget.of_results(),
            ),
            ("curves", self.curves == earlier.curves),
        ];
        let changed = keys.iter().find(|(_, is_covered)| !is_covered);
        match changed {
            None => Ok(()),
            Some((key, _)) => bail!("`{key}` is not what it was, or lacks some of it"),
        }
    }

    fn check_tasks(&self, has_bypass: bool) -> Result<()> {
        let names: Vec<_> = self.tasks.iter().map(|axis| &axis.task).collect();
        all_different("tasks.task", &names)?;
        for axis in &self.tasks {
            axis.check(&self.budget, has_bypass)
                .with_context(|| format!("task {}", axis.task))?;
        }
        Ok(())
    }

    fn check_backbones(&self) -> Result<()> {
        let names: Vec<_> = self.backbones.iter().map(|axis| &axis.name).collect();
        all_different("backbones.name", &names)?;
        for axis in &self.backbones {
            in_range("backbones.blocks", axis.blocks as f64, 1.0..=1000.0)?;
        }
        Ok(())
    }

    /// Everything that is compared with each other on one task and backbone: rows of a table.
    pub fn variants(&self) -> Vec<Variant> {
        let mut variants = Vec::new();
        for method in &self.methods {
            let lte = self.policies(*method).contains(&Family::Lte);
            let plain = Variant {
                method: *method,
                bypass: None,
                lte,
            };
            if !method.has_bypass() {
                variants.push(plain);
                continue;
            }
            for placement in &self.placements {
                variants.extend(self.ranks.iter().map(|rank| Variant {
                    bypass: Some(BypassShape {
                        placement: *placement,
                        rank: *rank,
                    }),
                    ..plain
                }));
            }
        }
        variants
    }

    /// The policies whose curves are drawn on a method's models.
    pub fn policies(&self, method: Method) -> &[Family] {
        let curves = self.curves.iter().flat_map(|curves| &curves.of);
        let mut of_method = curves.filter(|of| of.method == method);
        of_method.next().map_or(&[], |of| of.policies.as_slice())
    }

    /// Cells of the whole grid, if all of it were run.
    fn cells_max(&self) -> usize {
        let blocks: usize = self.backbones.iter().map(|axis| axis.blocks).sum();
        let of_variant = |variant: &Variant| match variant.method {
            Method::Single => blocks,
            _ => self.backbones.len(),
        };
        let models: usize = self.variants().iter().map(of_variant).sum();
        let searched: usize = self
            .tasks
            .iter()
            .map(|axis| {
                let rates = axis.learning_rates.len() * axis.batch_sizes.len();
                rates * axis.activations.len() + self.seeds.len()
            })
            .sum();
        models.saturating_mul(searched)
    }
}

impl Budget {
    fn check(&self) -> Result<()> {
        for (key, count) in [
            ("epochs", self.epochs),
            ("patience", self.patience),
            ("max-length", self.max_length),
            ("rows-per-pass", self.rows_per_pass),
        ] {
            in_range(&format!("budget.{key}"), count as f64, 1.0..=100_000.0)?;
        }
        in_range("budget.warmup-ratio", self.warmup_ratio, 0.0..=1.0)?;
        in_range("budget.weight-decay", self.weight_decay, 0.0..=1.0)?;
        in_range(
            "budget.checkpoint-minutes",
            self.checkpoint_minutes,
            0.0..=1e6,
        )?;
        if let Some(hours) = self.hours {
            in_range("budget.hours", hours, 0.0..=1e6)?;
        }
        Ok(())
    }

    /// What decides what comes of a run, without what decides when it is made and saved.
    #[must_use]
    pub fn of_results(&self) -> Self {
        Self {
            hours: None,
            checkpoint_minutes: two(),
            ..self.clone()
        }
    }

    /// Rows of a pass and passes of a step that make a batch.
    pub fn passes(&self, batch_size: usize) -> (usize, usize) {
        if batch_size <= self.rows_per_pass {
            (batch_size, 1)
        } else {
            (self.rows_per_pass, batch_size / self.rows_per_pass)
        }
    }
}

impl TaskAxis {
    fn check(&self, budget: &Budget, has_bypass: bool) -> Result<()> {
        all_different("splits", &self.splits)?;
        all_different("batch-sizes", &self.batch_sizes)?;
        all_different("learning-rates", &self.learning_rates)?;
        all_different("activations", &self.activations)?;
        for size in &self.batch_sizes {
            in_range("batch-sizes", *size as f64, 1.0..=100_000.0)?;
            let (rows, passes) = budget.passes(*size);
            ensure!(
                rows * passes == *size,
                "key `batch-sizes`: {size} rows are no whole number of passes of \
                 `budget.rows-per-pass`, {}",
                budget.rows_per_pass
            );
        }
        for rate in &self.learning_rates {
            in_range("learning-rates", *rate, f64::MIN_POSITIVE..=1.0)?;
        }
        ensure!(
            has_bypass || self.activations == gelu(),
            "key `activations`: none of the methods has bypasses; add badge to `methods`, or leave \
             the key out"
        );
        Ok(())
    }
}

impl SplitOfTask {
    /// The split that it names.
    pub fn name(self) -> SplitName {
        match self {
            Self::Test => SplitName::Test,
            Self::OfficialTest => SplitName::OfficialTest,
        }
    }
}

impl Curves {
    fn check(&self, methods: &[Method]) -> Result<()> {
        let named: Vec<_> = self.of.iter().map(|of| of.method).collect();
        all_different("curves.of.method", &named)?;
        in_range("curves.points", self.points as f64, 2.0..=1000.0)?;
        in_range("curves.timed-rows", self.timed_rows as f64, 0.0..=1e6)?;
        for CurvesOf { method, policies } in &self.of {
            all_different("curves.of.policies", policies)?;
            ensure!(
                methods.contains(method),
                "key `curves.of`: {method} is not among `methods`"
            );
            ensure!(
                *method != Method::Single,
                "key `curves.of`: models of method single have one exit, which leaves a policy \
                 nothing to choose"
            );
            ensure!(
                !policies.contains(&Family::Full),
                "key `curves.of.policies`: full is where every curve begins; leave it out"
            );
        }
        Ok(())
    }
}

/// Refuses an axis that is empty, or runs something twice.
fn all_different<T: Debug + Serialize>(key: &str, values: &[T]) -> Result<()> {
    ensure!(!values.is_empty(), "key `{key}`: needs at least one value");
    let mut seen = BTreeSet::new();
    for value in values {
        let text = serde_json::to_string(value)?;
        let text = text.trim_matches('"').to_owned();
        ensure!(
            seen.insert(text.clone()),
            "key `{key}`: {text} stands there twice"
        );
    }
    Ok(())
}

fn in_range(key: &str, value: f64, range: RangeInclusive<f64>) -> Result<()> {
    let (low, high) = (range.start(), range.end());
    let low = if *low == f64::MIN_POSITIVE { &0.0 } else { low };
    ensure!(
        range.contains(&value),
        "key `{key}`: {value} does not lie between {low} and {high}"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
