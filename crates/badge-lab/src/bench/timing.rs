//! Wall-clock times of repeated calls, and ratios of calls that took turns.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::quantile::of_sorted;

/// Times of equal calls, in the order of the calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    seconds: Vec<f64>,
}

impl Times {
    /// Times that were taken elsewhere.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn from_seconds(seconds: Vec<f64>) -> Self {
        assert!(!seconds.is_empty(), "no call was timed");
        Self { seconds }
    }

    /// The middle one, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        median(&self.seconds)
    }

    /// The shortest.
    pub fn min(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The 95th percentile by nearest rank: of fewer than 20 calls the longest.
    pub fn p95(&self) -> f64 {
        of_sorted(&sorted(&self.seconds), 0.95).expect("there is a call")
    }

    /// Time of this call over that of the other which took turns with it: the median over rounds.
    ///
    /// A machine that slows down for a while slows both of a pair, and their ratio stays.
    ///
    /// # Panics
    ///
    /// When the two were not timed in the same rounds.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        assert_eq!(self.seconds.len(), other.seconds.len(), "rounds");
        let pairs = self.seconds.iter().zip(&other.seconds);
        median(&pairs.map(|(a, b)| a / b).collect::<Vec<_>>())
    }
}

/// How often calls are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// Rounds before the clock is started: cold caches, sleeping threads, first touches of memory.
    pub warm_ups: usize,
    /// Rounds that are timed.
    pub runs: usize,
}

impl Repeats {
    /// `runs` rounds after as many warm-ups as make the first one like the others.
    ///
    /// # Errors
    ///
    /// When `runs`, which `flag` asks for, is 0 or more than anybody waits for.
    pub fn new(flag: &str, runs: usize) -> Result<Self> {
        ensure!(
            (1..=1_000_000).contains(&runs),
            "{flag}: {runs} does not lie in 1..=1000000"
        );
        Ok(Self { warm_ups: 3, runs })
    }
}

/// Times `candidates` calls in turns: every round runs each of them once, odd rounds in reverse
/// order, so that none always finds the caches that another left.
///
/// # Errors
///
/// What a call fails with.
pub fn in_turns(
    candidates: usize,
    repeats: Repeats,
    mut call: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Times>> {
    let mut seconds = vec![Vec::with_capacity(repeats.runs); candidates];
    for round in 0..repeats.warm_ups + repeats.runs {
        for turn in 0..candidates {
            let candidate = if round % 2 == 0 {
                turn
            } else {
                candidates - 1 - turn
            };
            let start = Instant::now();
            call(candidate)?;
            let elapsed = start.elapsed().as_secs_f64();
            if round >= repeats.warm_ups {
                seconds[candidate].push(elapsed);
            }
        }
    }
    Ok(seconds.into_iter().map(Times::from_seconds).collect())
}

/// Times one call.
///
/// # Errors
///
/// What the call fails with.
pub fn alone(repeats: Repeats, mut call: impl FnMut() -> Result<()>) -> Result<Times> {
    let mut times = in_turns(1, repeats, |_| call())?;
    Ok(times.remove(0))
}

fn sorted(numbers: &[f64]) -> Vec<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle number, or the mean of the two in the middle.
pub(super) fn median(numbers: &[f64]) -> f64 {
    let sorted = sorted(numbers);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[half - 1], sorted[half])
    } else {
        sorted[half]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_call_moves_neither_median_nor_minimum() {
        let times = Times::from_seconds(vec![3.0, 1.0, 2.0, 100.0, 2.0]);
        assert_eq!(
            (times.median(), times.min(), times.p95()),
            (2.0, 1.0, 100.0)
        );
        let even = Times::from_seconds(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(even.median(), 2.5);
    }

    #[test]
    fn the_percentile_leaves_out_the_slowest_twentieth() {
        let times = Times::from_seconds((1..=40).map(f64::from).collect());
        assert_eq!(times.p95(), 38.0);
    }

    #[test]
    fn a_machine_that_slows_down_leaves_the_ratio_of_pairs() {
        let slowing = [1.0, 2.0, 4.0, 8.0];
        let one = Times::from_seconds(slowing.to_vec());
        let other = Times::from_seconds(slowing.map(|s| 0.5 * s).to_vec());
        assert_eq!(one.ratio_to(&other), 2.0);
        assert_eq!(other.ratio_to(&one), 0.5);
    }

    #[test]
    fn candidates_take_turns_in_changing_order_and_warm_ups_are_not_timed() {
        let mut order = Vec::new();
        let repeats = Repeats {
            warm_ups: 1,
            runs: 2,
        };
        let times = in_turns(3, repeats, |candidate| {
            order.push(candidate);
            Ok(())
        });
        assert_eq!(order, [0, 1, 2, 2, 1, 0, 0, 1, 2]);
        assert!(times.unwrap().iter().all(|times| times.seconds.len() == 2));
    }

    #[test]
    fn no_runs_are_refused_by_the_name_of_the_flag() {
        for runs in [0, usize::MAX] {
            let refusal = Repeats::new("--runs", runs).unwrap_err().to_string();
            assert!(refusal.starts_with("--runs: "), "{refusal}");
        }
    }
}
