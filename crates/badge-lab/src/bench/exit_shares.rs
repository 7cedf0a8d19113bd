//! What a batch saves when shares of its rows leave early, whatever they answer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use badge_core::config::ModelConfig;
use badge_core::exit::Depth;
use badge_core::policy::{Policy, PolicySpec};
use badge_engine::Admission;
use badge_tasks::Encoding;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::throughput::Batches;
use super::timing::{Repeats, in_turns};
use super::{Setting, Subject, policy, token_ids};
use crate::table::{Column, Table};

/// Shares of a batch with the depths at which they leave; the rest runs to the end.
///
/// Written `SHARE@DEPTH`, several joined by commas: `0.25@3,0.25@6`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExitShares {
    shares: Vec<(f64, Depth)>,
}

impl ExitShares {
    /// Checks that a model has exits at these depths.
    ///
    /// # Errors
    ///
    /// When it has not.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        for (_, depth) in &self.shares {
            policy(config, &leaving_at(*depth)?)?;
        }
        Ok(())
    }

    /// Where each of `rows` rows leaves, in an order that follows from the seed.
    fn depths(&self, rows: usize, seed: u64) -> Vec<Option<Depth>> {
        let mut depths = Vec::with_capacity(rows);
        for (share, depth) in &self.shares {
            let count = (share * rows as f64).round() as usize;
            depths.extend(vec![Some(*depth); count.min(rows - depths.len())]);
        }
        depths.resize(rows, None);
        depths.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        depths
    }
}

impl FromStr for ExitShares {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut shares = Vec::new();
        for part in text.split(',') {
            let (share, depth) = part
                .split_once('@')
                .with_context(|| format!("`{part}` is not SHARE@DEPTH, such as 0.5@6"))?;
            let share: f64 = share
                .parse()
                .with_context(|| format!("`{share}` is not a share between 0 and 1"))?;
            let depth: usize = depth
                .parse()
                .with_context(|| format!("`{depth}` is not a depth"))?;
            ensure!(
                share > 0.0 && share <= 1.0,
                "the share {share} does not lie in (0, 1]"
            );
            shares.push((share, Depth(depth)));
        }
        let sum: f64 = shares.iter().map(|(share, _)| share).sum();
        if sum > 1.0 + 1e-9 {
            bail!("the shares add up to {sum}, more than all rows");
        }
        Ok(Self { shares })
    }
}

impl fmt::Display for ExitShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (share, depth)) in self.shares.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{share}@{depth}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for ExitShares {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ExitShares> for String {
    fn from(shares: ExitShares) -> Self {
        shares.to_string()
    }
}

/// Time with given shares of each batch leaving early, in turns with the full depth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExitSharesRow {
    #[serde(flatten)]
    setting: Setting,
    batch: usize,
    exits: ExitShares,
    /// Milliseconds of a round over all batches.
    full_ms: f64,
    early_ms: f64,
    /// Median over rounds of `early / full`.
    share_of_full: f64,
    /// Blocks run per token over M: the time if it followed the blocks alone.
    ideal_share: f64,
    /// `(1 - share_of_full) / (1 - ideal_share)`: how much of the possible saving was had.
    share_of_saving: f64,
}

impl Subject {
    /// What is saved when given shares of each batch leave early, whatever their answers.
    ///
    /// # Errors
    ///
    /// When the model has no exit at one of the depths, or the engine refuses a batch.
    pub fn exit_shares(
        &mut self,
        batches: &Batches,
        exits: &ExitShares,
        (repeats, seed): (Repeats, u64),
    ) -> Result<ExitSharesRow> {
        let full = self.policy(&PolicySpec::Full)?;
        let mut policies = Vec::with_capacity(batches.inputs.len());
        let (mut blocks_run, deepest) = (0, full.plan().deepest());
        for (number, batch) in batches.iter().enumerate() {
            let depths = exits.depths(batch.len(), seed.wrapping_add(number as u64));
            for (input, depth) in batch.iter().zip(depths) {
                blocks_run += input.ids.len() * depth.unwrap_or(deepest).0;
                policies.push(match depth {
                    Some(depth) => self.policy(&leaving_at(depth)?)?,
                    None => Arc::clone(&full),
                });
            }
        }
        let all_full = vec![full; policies.len()];
        let candidates = [all_full, policies];
        let times = in_turns(2, repeats, |candidate| {
            let policies = candidates[candidate].chunks(batches.batch);
            batches
                .iter()
                .zip(policies)
                .try_for_each(|(batch, policies)| self.run_each(batch, policies))
        })?;
        let ideal_share = blocks_run as f64 / (batches.tokens() * deepest.0) as f64;
        ensure!(
            ideal_share < 1.0,
            "--exit-shares: {exits} lets no row of a batch of {} leave early",
            batches.batch
        );
        let share_of_full = times[1].ratio_to(&times[0]);
        Ok(ExitSharesRow {
            setting: self.setting.clone(),
            batch: batches.batch,
            exits: exits.clone(),
            full_ms: 1e3 * times[0].median(),
            early_ms: 1e3 * times[1].median(),
            share_of_full,
            ideal_share,
            share_of_saving: (1.0 - share_of_full) / (1.0 - ideal_share),
        })
    }

    /// Runs a batch whose inputs have a policy each.
    fn run_each(&mut self, batch: &[Encoding], policies: &[Arc<Policy>]) -> Result<()> {
        for (request, (input, policy)) in token_ids(batch).into_iter().zip(policies).enumerate() {
            let admission = self.engine.admit(request as u64, input, policy)?;
            ensure!(
                admission == Admission::Accepted,
                "the engine was built with room for less than a batch"
            );
        }
        while self.engine.live() > 0 {
            self.engine.step();
        }
        self.engine.finished().try_for_each(|finished| {
            finished.answer?;
            Ok(())
        })
    }
}

fn leaving_at(depth: Depth) -> Result<PolicySpec> {
    Ok(format!("fixed:{depth}").parse()?)
}

/// One row a precision.
pub(super) fn exit_shares_table(rows: &[ExitSharesRow]) -> Table {
    let mut table = Table::new([
        Column::text("precision"),
        Column::number("threads"),
        Column::number("batch"),
        Column::text("exits"),
        Column::number("full ms"),
        Column::number("early ms"),
        Column::number("of full"),
        Column::number("ideal"),
        Column::number("of the saving"),
    ]);
    for row in rows {
        table.push([
            row.setting.precision.clone(),
            row.setting.threads.to_string(),
            row.batch.to_string(),
            row.exits.to_string(),
            format!("{:.2}", row.full_ms),
            format!("{:.2}", row.early_ms),
            format!("{:.1} %", 100.0 * row.share_of_full),
            format!("{:.1} %", 100.0 * row.ideal_share),
            format!("{:.1} %", 100.0 * row.share_of_saving),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_survive_their_text() {
        for text in ["0.5@6", "0.25@3,0.25@6", "1@1"] {
            assert_eq!(text.parse::<ExitShares>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn impossible_shares_are_refused_with_a_reason() {
        for (text, reason) in [
            ("half", "SHARE@DEPTH"),
            ("x@6", "`x`"),
            ("0.5@six", "`six`"),
            ("0@6", "(0, 1]"),
            ("1.5@6", "(0, 1]"),
            ("nan@6", "(0, 1]"),
            ("0.7@3,0.7@6", "1.4"),
        ] {
            let error = text.parse::<ExitShares>().unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{text}: {error:#}");
        }
    }

    #[test]
    fn each_share_gets_its_number_of_rows() {
        let shares: ExitShares = "0.5@6,0.25@3".parse().unwrap();
        let depths = shares.depths(32, 7);
        let count = |depth| depths.iter().filter(|d| **d == depth).count();
        let counts = [Some(Depth(6)), Some(Depth(3)), None].map(count);
        assert_eq!(counts, [16, 8, 8]);
        assert_eq!(depths, shares.depths(32, 7));
        assert_ne!(depths, shares.depths(32, 8));
        let thirds: ExitShares = "0.5@1,0.5@2".parse().unwrap();
        assert_eq!(thirds.depths(3, 7).len(), 3);
    }
}
