//! What an early exit saves: the only definitions of the words depth, FLOPs and speed-up.
//!
//! Three words are easy to mix up and therefore are three types:
//! [`LayerSpeedup`] counts blocks, [`TimeSaved`] is the paper's "speedup" (a share of time,
//! 0.5 = twice as fast), [`WallClockSpeedup`] is a factor of time.

mod macs;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use macs::{BackboneShape, BlockMacs, ModelShape};

use crate::exit::{Depth, ExitPlan};

/// How many samples left at each exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExitHistogram {
    depths: Vec<Depth>,
    counts: Vec<u64>,
}

impl ExitHistogram {
    /// No sample at any exit of `plan`.
    pub fn new(plan: &ExitPlan) -> Self {
        Self {
            depths: plan.depths().to_vec(),
            counts: vec![0; plan.count()],
        }
    }

    /// The histogram of samples that left at the given depths.
    ///
    /// # Panics
    /// As [`Self::record`].
    pub fn of(plan: &ExitPlan, exits: impl IntoIterator<Item = Depth>) -> Self {
        let mut histogram = Self::new(plan);
        exits.into_iter().for_each(|depth| histogram.record(depth));
        histogram
    }

    /// Counts a sample that left at `depth`.
    ///
    /// # Panics
    /// When `depth` carries no exit.
    pub fn record(&mut self, depth: Depth) {
        let position = self.depths.binary_search(&depth);
        self.counts[position.unwrap_or_else(|_| panic!("depth {depth} carries no exit"))] += 1;
    }

    /// Each exit with the number of samples that left there, in ascending depth.
    pub fn iter(&self) -> impl Iterator<Item = (Depth, u64)> {
        self.depths.iter().copied().zip(self.counts.iter().copied())
    }

    /// Number of samples.
    pub fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Mean number of blocks run per sample; none without samples.
    pub fn mean_depth(&self) -> Option<f64> {
        let blocks: u64 = self
            .iter()
            .map(|(depth, count)| depth.0 as u64 * count)
            .sum();
        let samples = self.samples();
        (samples > 0).then(|| blocks as f64 / samples as f64)
    }

    /// Layer speed-up; none without samples.
    pub fn layer_speedup(&self) -> Option<LayerSpeedup> {
        let deepest = *self.depths.last()?;
        self.mean_depth()
            .map(|mean| LayerSpeedup::new(deepest, mean))
    }
}

/// How many times fewer blocks run: `M / mean exit depth`, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerSpeedup(pub f64);

impl LayerSpeedup {
    /// The layer speed-up of a model with `deepest` blocks.
    pub fn new(deepest: Depth, mean_depth: f64) -> Self {
        Self(deepest.0 as f64 / mean_depth)
    }
}

/// Share of time saved: `1 - Σ t_i / Σ T_i`, below 0 where early exiting costs time.
///
/// `t_i` is sample i's time with early exiting, `T_i` that of the plain backbone with one exit.
/// This is what the paper calls speedup: 0.5 means twice as fast.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeSaved(pub f64);

/// How many times faster: `Σ T_i / Σ t_i`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallClockSpeedup(pub f64);

/// `1 / (1 - saved)`: 0.5 is 2.00 times, 0.36 is 1.57 times.
impl From<TimeSaved> for WallClockSpeedup {
    fn from(saved: TimeSaved) -> Self {
        Self(1.0 / (1.0 - saved.0))
    }
}

/// `1 - 1 / speed-up`.
impl From<WallClockSpeedup> for TimeSaved {
    fn from(speedup: WallClockSpeedup) -> Self {
        Self(1.0 - 1.0 / speedup.0)
    }
}

/// How many times fewer multiply-accumulates: `Σ F_i / Σ f_i`, `F_i` being the plain backbone's.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FlopsSpeedup(pub f64);

/// Time spent on a set of samples, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TimeTotals {
    /// `Σ t_i`, with early exiting.
    pub early_s: f64,
    /// `Σ T_i`, the plain backbone with one exit.
    pub plain_s: f64,
}

impl TimeTotals {
    /// Share of time saved; not a number without any time.
    pub fn time_saved(&self) -> TimeSaved {
        TimeSaved(1.0 - self.early_s / self.plain_s)
    }

    /// Factor of time; not a number without any time.
    pub fn wall_clock_speedup(&self) -> WallClockSpeedup {
        WallClockSpeedup(self.plain_s / self.early_s)
    }
}

/// Multiply-accumulates spent on a set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MacTotals {
    /// `Σ f_i`, with early exiting.
    pub early: u64,
    /// `Σ F_i`, the plain backbone with one exit.
    pub plain: u64,
}

impl MacTotals {
    /// Factor of work; not a number without any work.
    pub fn flops_speedup(&self) -> FlopsSpeedup {
        FlopsSpeedup(self.plain as f64 / self.early as f64)
    }
}

/// FLOPs of so many multiply-accumulates: each is a product and a sum.
pub fn flops(macs: u64) -> u64 {
    2 * macs
}

impl fmt::Display for TimeSaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", 100.0 * self.0)
    }
}

impl fmt::Display for LayerSpeedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}x", self.0)
    }
}

impl fmt::Display for WallClockSpeedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}x", self.0)
    }
}

impl fmt::Display for FlopsSpeedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}x", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_speedups_are_shares_of_time() {
        for (saved, factor, text) in [(0.5, 2.0, "50.0 %"), (0.36, 1.5625, "36.0 %")] {
            let speedup = WallClockSpeedup::from(TimeSaved(saved));
            assert!((speedup.0 - factor).abs() < 1e-12);
            assert!((TimeSaved::from(speedup).0 - saved).abs() < 1e-12);
            assert_eq!(TimeSaved(saved).to_string(), text);
        }
        let totals = TimeTotals {
            early_s: 3.0,
            plain_s: 12.0,
        };
        assert_eq!(totals.time_saved(), TimeSaved(0.75));
        assert_eq!(totals.wall_clock_speedup().to_string(), "4.00x");
        assert_eq!(
            WallClockSpeedup::from(totals.time_saved()),
            totals.wall_clock_speedup()
        );
    }

    #[test]
    fn a_histogram_has_the_mean_depth_of_its_samples() {
        let plan = ExitPlan::new(vec![2, 5, 6], 6).unwrap();
        let empty = ExitHistogram::new(&plan);
        assert_eq!((empty.mean_depth(), empty.layer_speedup()), (None, None));

        let histogram = ExitHistogram::of(&plan, [2, 6, 2, 2].map(Depth));
        let rows: Vec<_> = histogram.iter().collect();
        assert_eq!(rows, [(Depth(2), 3), (Depth(5), 0), (Depth(6), 1)]);
        assert_eq!(
            (histogram.samples(), histogram.mean_depth()),
            (4, Some(3.0))
        );
        assert_eq!(histogram.layer_speedup(), Some(LayerSpeedup(2.0)));
    }

    #[test]
    #[should_panic(expected = "depth 3 carries no exit")]
    fn a_histogram_takes_no_sample_where_there_is_no_exit() {
        ExitHistogram::new(&ExitPlan::new(vec![2, 6], 6).unwrap()).record(Depth(3));
    }
}
