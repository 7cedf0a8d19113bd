//! Tokens per second of many batches.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use badge_core::policy::{Policy, PolicySpec};
use badge_engine::EngineOptions;
use badge_tasks::Encoding;
use serde::Serialize;

use super::exit_shares::{ExitSharesRow, exit_shares_table};
use super::timing::{Repeats, Times};
use super::work::{COUNTED, computed_flops};
use super::{Setting, Subject, percent_or_dash, token_ids};
use crate::table::{Column, Table};

/// Everything that `bench throughput` measures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// What `gflops` counts.
    pub counted: &'static str,
    /// Speeds under the policy.
    pub rows: Vec<ThroughputRow>,
    /// What rows that leave early save, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exit_shares: Vec<ExitSharesRow>,
}

/// Speed over all batches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThroughputRow {
    #[serde(flatten)]
    setting: Setting,
    /// Inputs of a batch.
    batch: usize,
    policy: PolicySpec,
    /// Inputs in all.
    samples: usize,
    /// Their tokens.
    tokens: usize,
    /// Of the median round over all batches.
    tokens_per_second: f64,
    samples_per_second: f64,
    /// Of one batch.
    median_ms: f64,
    min_ms: f64,
    p95_ms: f64,
    /// GFLOP/s, of int8 GOP/s.
    gflops: f64,
    /// Of the measured peak of the same precision and threads; none without an instruction for it.
    share_of_peak: Option<f64>,
}

impl Throughput {
    /// No measurements yet.
    pub fn new() -> Self {
        Self {
            counted: COUNTED,
            rows: Vec::new(),
            exit_shares: Vec::new(),
        }
    }

    /// Tables of what was measured, for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = throughput_table(&self.rows).to_text();
        if !self.exit_shares.is_empty() {
            text += "\n";
            text += &exit_shares_table(&self.exit_shares).to_text();
        }
        text
    }
}

impl Default for Throughput {
    fn default() -> Self {
        Self::new()
    }
}

/// Inputs cut into batches, in their order.
#[derive(Debug, Clone)]
pub struct Batches {
    pub(super) inputs: Vec<Encoding>,
    pub(super) batch: usize,
}

impl Batches {
    /// Batches of `batch` inputs; the last may be smaller.
    ///
    /// # Errors
    ///
    /// When there is no input, or batches hold none.
    pub fn new(inputs: Vec<Encoding>, batch: usize) -> Result<Self> {
        ensure!(batch > 0, "--batch: must be at least 1");
        ensure!(!inputs.is_empty(), "there is no input to run");
        Ok(Self { inputs, batch })
    }

    /// `options` with room for the largest batch.
    pub fn room(&self, options: &EngineOptions) -> EngineOptions {
        EngineOptions {
            tokens_max: self.tokens_max(),
            sequences_max: self.batch.min(self.inputs.len()),
            ..options.clone()
        }
    }

    fn tokens_max(&self) -> usize {
        let tokens = |batch: &[Encoding]| batch.iter().map(|input| input.ids.len()).sum();
        self.iter().map(tokens).max().unwrap_or(0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[Encoding]> {
        self.inputs.chunks(self.batch)
    }

    pub(super) fn tokens(&self) -> usize {
        self.inputs.iter().map(|input| input.ids.len()).sum()
    }
}

impl Subject {
    /// The speed of a policy over all batches.
    ///
    /// # Errors
    ///
    /// When the policy does not fit the model, or the engine refuses a batch.
    pub fn throughput(
        &mut self,
        batches: &Batches,
        spec: &PolicySpec,
        repeats: Repeats,
    ) -> Result<ThroughputRow> {
        let policy = self.policy(spec)?;
        let (mut rounds, mut of_batches, mut flops) = (Vec::new(), Vec::new(), 0);
        for round in 0..repeats.warm_ups + repeats.runs {
            let (seconds, work) = self.round(batches, &policy)?;
            if round >= repeats.warm_ups {
                rounds.push(seconds.iter().sum());
                of_batches.extend(seconds);
                flops = work;
            }
        }
        let (rounds, of_batches) = (Times::from_seconds(rounds), Times::from_seconds(of_batches));
        let per_second = |count: f64| count / rounds.median();
        let gflops = per_second(flops as f64) / 1e9;
        Ok(ThroughputRow {
            setting: self.setting.clone(),
            batch: batches.batch,
            policy: spec.clone(),
            samples: batches.inputs.len(),
            tokens: batches.tokens(),
            tokens_per_second: per_second(batches.tokens() as f64),
            samples_per_second: per_second(batches.inputs.len() as f64),
            median_ms: 1e3 * of_batches.median(),
            min_ms: 1e3 * of_batches.min(),
            p95_ms: 1e3 * of_batches.p95(),
            gflops,
            share_of_peak: self.share_of_peak(gflops),
        })
    }

    /// Seconds of each batch, and the FLOPs of all.
    fn round(&mut self, batches: &Batches, policy: &Arc<Policy>) -> Result<(Vec<f64>, u64)> {
        let (mut seconds, mut flops) = (Vec::new(), 0);
        for batch in batches.iter() {
            let tokens = token_ids(batch);
            let start = Instant::now();
            let answers = self.engine.classify(&tokens, policy)?;
            seconds.push(start.elapsed().as_secs_f64());
            for (input, answer) in batch.iter().zip(&answers) {
                flops += computed_flops(self.config(), policy, input.ids.len(), answer.depth);
            }
        }
        Ok((seconds, flops))
    }
}

fn throughput_table(rows: &[ThroughputRow]) -> Table {
    let mut table = Table::new([
        Column::text("precision"),
        Column::number("threads"),
        Column::number("batch"),
        Column::text("policy"),
        Column::number("tokens/s"),
        Column::number("samples/s"),
        Column::number("median ms"),
        Column::number("p95 ms"),
        Column::number("GFLOP/s"),
        Column::number("of peak"),
    ]);
    for row in rows {
        table.push([
            row.setting.precision.clone(),
            row.setting.threads.to_string(),
            row.batch.to_string(),
            row.policy.to_string(),
            format!("{:.0}", row.tokens_per_second),
            format!("{:.1}", row.samples_per_second),
            format!("{:.3}", row.median_ms),
            format!("{:.3}", row.p95_ms),
            format!("{:.1}", row.gflops),
            percent_or_dash(row.share_of_peak),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_the_order_and_know_their_largest() {
        let input = |length| Encoding {
            ids: vec![1; length],
            type_ids: vec![0; length],
        };
        let batches = Batches::new([3, 4, 9, 1, 2].map(input).into(), 2).unwrap();
        assert_eq!((batches.tokens(), batches.tokens_max()), (19, 10));
        let options = batches.room(&EngineOptions::default());
        assert_eq!((options.tokens_max, options.sequences_max), (10, 2));
        assert_eq!(batches.iter().count(), 3);
        assert!(Batches::new(Vec::new(), 2).is_err());
        assert!(Batches::new(vec![input(1)], 0).is_err());
    }
}
