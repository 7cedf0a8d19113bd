//! Milliseconds of one batch: by policy, by depth, and what evaluating every exit adds.

use std::sync::Arc;

use anyhow::{Result, ensure};
use badge_core::exit::Depth;
use badge_core::policy::{DivergenceBased, Policy, PolicySpec};
use badge_engine::{Operation, Profiling};
use badge_tasks::Encoding;
use serde::Serialize;

use super::timing::{Repeats, Times, alone, in_turns};
use super::work::{COUNTED, computed_flops};
use super::{Setting, Subject, percent_or_dash, random_inputs, token_ids};
use crate::table::{Column, Table};

/// Everything that `bench latency` measures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// What `gflops` counts.
    pub counted: &'static str,
    /// Times under the policy.
    pub rows: Vec<LatencyRow>,
    /// Times of every depth, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depths: Vec<DepthRow>,
    /// What all exits add to the plain forward pass, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<ExitsRow>,
    /// Where the time goes, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationRow>,
}

/// What is timed: a batch of equal lengths on one engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    #[serde(flatten)]
    setting: Setting,
    /// Inputs of the batch.
    batch: usize,
    /// Tokens of each.
    length: usize,
}

/// Times of one batch under a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyRow {
    #[serde(flatten)]
    point: Point,
    policy: PolicySpec,
    median_ms: f64,
    min_ms: f64,
    p95_ms: f64,
    /// GFLOP/s, of int8 GOP/s.
    gflops: f64,
    /// Of the measured peak of the same precision and threads; none without an instruction for it.
    share_of_peak: Option<f64>,
}

/// Time of a batch that leaves at one depth, in turns with the full depth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DepthRow {
    #[serde(flatten)]
    point: Point,
    depth: usize,
    median_ms: f64,
    /// Median of the ratios to the full depth's time in the same round.
    share_of_full: f64,
    /// m / M.
    ideal_share: f64,
    /// `share_of_full / ideal_share`: 1.05 is 5 % slower than ideal.
    over_ideal: f64,
}

/// Time with every exit evaluated beside the plain forward pass, in turns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExitsRow {
    #[serde(flatten)]
    point: Point,
    /// A policy that looks at every exit and that no two of them satisfy.
    policy: PolicySpec,
    plain_ms: f64,
    all_exits_ms: f64,
    /// Median over rounds, in percent of the plain pass.
    overhead_percent: f64,
}

/// Time of one operation of a batch under a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationRow {
    #[serde(flatten)]
    point: Point,
    policy: PolicySpec,
    operation: &'static str,
    /// Mean over runs.
    mean_ms: f64,
    /// Of all operations' time.
    share: f64,
}

impl Latency {
    /// No measurements yet.
    pub fn new() -> Self {
        Self {
            counted: COUNTED,
            rows: Vec::new(),
            depths: Vec::new(),
            exits: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// Tables of what was measured, for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = latency_table(&self.rows).to_text();
        if !self.depths.is_empty() {
            text += "\n";
            text += &depth_table(&self.depths).to_text();
        }
        if !self.exits.is_empty() {
            text += "\n";
            text += &exits_table(&self.exits).to_text();
        }
        if !self.operations.is_empty() {
            text += "\n";
            text += &operation_table(&self.operations).to_text();
        }
        text
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs after which an engine knows that nobody leaves, and computes several exits at once where it may.
const RUNS_TO_LEARN: usize = 40;

/// A batch of equal lengths, ready to run.
#[derive(Debug)]
pub struct LatencyBench<'a> {
    subject: &'a mut Subject,
    point: Point,
    batch: Vec<Encoding>,
    repeats: Repeats,
}

impl Subject {
    /// A batch of `batch` random inputs of `length` tokens on this engine.
    pub fn latency(
        &mut self,
        (batch, length): (usize, usize),
        repeats: Repeats,
        seed: u64,
    ) -> LatencyBench<'_> {
        LatencyBench {
            point: Point {
                setting: self.setting.clone(),
                batch,
                length,
            },
            batch: random_inputs(self.config(), &vec![length; batch], seed),
            repeats,
            subject: self,
        }
    }
}

impl LatencyBench<'_> {
    /// The batch under one policy.
    ///
    /// # Errors
    ///
    /// When the policy does not fit the model, or the engine refuses the batch.
    pub fn under(&mut self, spec: &PolicySpec) -> Result<LatencyRow> {
        let policy = self.subject.policy(spec)?;
        let mut depths = Vec::new();
        let repeats = self.repeats;
        let times = alone(repeats, || {
            depths = self.run(&policy)?;
            Ok(())
        })?;
        let flops: u64 = depths
            .iter()
            .map(|depth| computed_flops(self.subject.config(), &policy, self.point.length, *depth))
            .sum();
        let gflops = flops as f64 / times.median() / 1e9;
        Ok(LatencyRow {
            point: self.point.clone(),
            policy: spec.clone(),
            median_ms: 1e3 * times.median(),
            min_ms: 1e3 * times.min(),
            p95_ms: 1e3 * times.p95(),
            gflops,
            share_of_peak: self.subject.share_of_peak(gflops),
        })
    }

    /// The batch at every depth that carries an exit, all depths in turns.
    ///
    /// # Errors
    ///
    /// When the engine refuses the batch.
    pub fn at_every_depth(&mut self) -> Result<Vec<DepthRow>> {
        let plan = self.subject.config().exits().exits;
        let specs = plan.depths().iter().map(|depth| format!("fixed:{depth}"));
        let specs = specs.map(|spec| Ok(spec.parse()?));
        let times = self.in_turns(&specs.collect::<Result<Vec<_>>>()?)?;
        let full = times.last().expect("a plan has a deepest exit");
        let row = |(depth, times): (&Depth, &Times)| {
            let share_of_full = times.ratio_to(full);
            let ideal_share = depth.0 as f64 / plan.deepest().0 as f64;
            DepthRow {
                point: self.point.clone(),
                depth: depth.0,
                median_ms: 1e3 * times.median(),
                share_of_full,
                ideal_share,
                over_ideal: share_of_full / ideal_share,
            }
        };
        Ok(plan.depths().iter().zip(&times).map(row).collect())
    }

    /// The plain forward pass and one that evaluates every exit, in turns.
    ///
    /// # Errors
    ///
    /// When the engine refuses the batch, or two exits agree to nine digits, so that an input left.
    pub fn with_all_exits(&mut self) -> Result<ExitsRow> {
        let strict = PolicySpec::from(DivergenceBased::new(1e-9, 1)?);
        let policy = self.subject.policy(&strict)?;
        let deepest = policy.plan().deepest();
        let mut depths = Vec::new();
        for _ in 0..RUNS_TO_LEARN {
            depths = self.run(&policy)?;
        }
        ensure!(
            depths.iter().all(|depth| *depth == deepest),
            "--exits: under {strict} an input has left before the deepest exit"
        );
        let times = self.in_turns(&[PolicySpec::Full, strict.clone()])?;
        Ok(ExitsRow {
            point: self.point.clone(),
            policy: strict,
            plain_ms: 1e3 * times[0].median(),
            all_exits_ms: 1e3 * times[1].median(),
            overhead_percent: 1e2 * (times[1].ratio_to(&times[0]) - 1.0),
        })
    }

    /// Where the time of the batch goes, on an engine that was built to tell.
    ///
    /// # Errors
    ///
    /// When the policy does not fit the model, or the engine refuses the batch.
    ///
    /// # Panics
    ///
    /// When the engine was built with [`Profiling::Off`].
    pub fn operations(&mut self, spec: &PolicySpec) -> Result<Vec<OperationRow>> {
        let profiling = self.subject.engine.options().profiling;
        assert_eq!(profiling, Profiling::On, "an engine without a profile");
        let policy = self.subject.policy(spec)?;
        for _ in 0..self.repeats.warm_ups {
            self.run(&policy)?;
        }
        self.subject.engine.reset_profile();
        for _ in 0..self.repeats.runs {
            self.run(&policy)?;
        }
        let profile = self.subject.engine.profile();
        let seconds = Operation::ALL.map(|operation| profile.operation(operation).as_secs_f64());
        let total: f64 = seconds.iter().sum();
        let row = |(operation, seconds): (Operation, f64)| OperationRow {
            point: self.point.clone(),
            policy: spec.clone(),
            operation: operation.name(),
            mean_ms: 1e3 * seconds / self.repeats.runs as f64,
            share: seconds / total,
        };
        let rows = Operation::ALL.into_iter().zip(seconds);
        Ok(rows
            .filter(|(_, seconds)| *seconds > 0.0)
            .map(row)
            .collect())
    }

    fn in_turns(&mut self, specs: &[PolicySpec]) -> Result<Vec<Times>> {
        let policies = specs.iter().map(|spec| self.subject.policy(spec));
        let policies: Vec<_> = policies.collect::<Result<_>>()?;
        let repeats = self.repeats;
        in_turns(policies.len(), repeats, |candidate| {
            self.run(&policies[candidate]).map(drop)
        })
    }

    /// Classifies the batch; gives the depths at which its inputs left.
    fn run(&mut self, policy: &Arc<Policy>) -> Result<Vec<Depth>> {
        let answers = self
            .subject
            .engine
            .classify(&token_ids(&self.batch), policy)?;
        Ok(answers.iter().map(|answer| answer.depth).collect())
    }
}

const POINT_COLUMNS: [&str; 4] = ["precision", "threads", "batch", "length"];

fn table_of(columns: &[&str]) -> Table {
    let all = POINT_COLUMNS.iter().chain(columns);
    Table::new(all.map(|heading| match *heading {
        "precision" | "policy" | "operation" => Column::text(*heading),
        heading => Column::number(heading),
    }))
}

impl Point {
    fn cells<const N: usize>(&self, more: [String; N]) -> Vec<String> {
        let mut cells = vec![
            self.setting.precision.clone(),
            self.setting.threads.to_string(),
            self.batch.to_string(),
            self.length.to_string(),
        ];
        cells.extend(more);
        cells
    }
}

fn latency_table(rows: &[LatencyRow]) -> Table {
    let mut table = table_of(&[
        "policy",
        "median ms",
        "min ms",
        "p95 ms",
        "GFLOP/s",
        "of peak",
    ]);
    for row in rows {
        table.push(row.point.cells([
            row.policy.to_string(),
            format!("{:.3}", row.median_ms),
            format!("{:.3}", row.min_ms),
            format!("{:.3}", row.p95_ms),
            format!("{:.1}", row.gflops),
            percent_or_dash(row.share_of_peak),
        ]));
    }
    table
}

fn depth_table(rows: &[DepthRow]) -> Table {
    let mut table = table_of(&["depth", "median ms", "of full", "m/M", "over m/M"]);
    for row in rows {
        table.push(row.point.cells([
            row.depth.to_string(),
            format!("{:.3}", row.median_ms),
            format!("{:.1} %", 100.0 * row.share_of_full),
            format!("{:.1} %", 100.0 * row.ideal_share),
            format!("{:.3}x", row.over_ideal),
        ]));
    }
    table
}

fn exits_table(rows: &[ExitsRow]) -> Table {
    let mut table = table_of(&["plain ms", "all exits ms", "overhead"]);
    for row in rows {
        table.push(row.point.cells([
            format!("{:.3}", row.plain_ms),
            format!("{:.3}", row.all_exits_ms),
            format!("{:+.1} %", row.overhead_percent),
        ]));
    }
    table
}

fn operation_table(rows: &[OperationRow]) -> Table {
    let mut table = table_of(&["policy", "operation", "mean ms", "share"]);
    for row in rows {
        table.push(row.point.cells([
            row.policy.to_string(),
            row.operation.to_owned(),
            format!("{:.3}", row.mean_ms),
            format!("{:.1} %", 100.0 * row.share),
        ]));
    }
    table
}
