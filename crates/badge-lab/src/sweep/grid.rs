//! Thresholds that spread the points of divergence-based exiting over the whole range of speed.

use badge_core::distribution::Prediction;
use badge_core::divergence::Divergence;
use badge_core::exit::ExitPlan;

/// A threshold above which a row saves some blocks, and how many.
#[derive(Debug, Clone, Copy)]
struct Saving {
    above: f64,
    blocks: usize,
}

/// For every `t` that can save a block, thresholds `τ` at which `1/steps`, `2/steps`, ... of the
/// blocks that this `t` can save are saved on these rows.
///
/// A row leaves at the first exit whose `t`-th smallest divergence from the earlier ones lies below
/// `τ`. The minimum of these numbers over the exits up to `m` is therefore what `τ` must exceed for
/// the row to leave at exit `m` or before, which saves the blocks from there to the next exit:
/// quantiles of the minima, weighted by those blocks, are evenly spaced in blocks saved.
pub(super) fn thresholds(
    rows: &[Vec<Prediction>],
    plan: &ExitPlan,
    steps: usize,
) -> Vec<(usize, Vec<f64>)> {
    let mut savings = vec![Vec::new(); plan.count().saturating_sub(2)];
    for predictions in rows {
        add_savings(predictions, plan, &mut savings);
    }
    let by_t = savings.into_iter().enumerate();
    by_t.map(|(index, savings)| (index + 1, quantiles(savings, steps)))
        .collect()
}

/// Adds one row's savings to those of every `t`, which counts from 1.
fn add_savings(predictions: &[Prediction], plan: &ExitPlan, savings: &mut [Vec<Saving>]) {
    let depths = plan.depths();
    let mut minima = vec![f64::INFINITY; savings.len()];
    for exit in 1..=savings.len() {
        let between =
            |earlier| Divergence::default().between_predictions(&predictions[exit], earlier);
        let mut scores: Vec<f64> = predictions[..exit].iter().map(between).collect();
        scores.sort_by(f64::total_cmp);
        let blocks = depths[exit + 1].0 - depths[exit].0;
        for (t, score) in scores.into_iter().enumerate() {
            minima[t] = minima[t].min(score);
            let above = minima[t];
            savings[t].push(Saving { above, blocks });
        }
    }
}

/// Thresholds at even steps of the blocks saved, ascending and all different.
fn quantiles(mut savings: Vec<Saving>, steps: usize) -> Vec<f64> {
    savings.sort_by(|a, b| a.above.total_cmp(&b.above));
    let total: usize = savings.iter().map(|saving| saving.blocks).sum();
    let mut taus: Vec<f64> = Vec::with_capacity(steps);
    let (mut saved, mut step) = (0, 1);
    for equals in savings.chunk_by(|a, b| a.above == b.above) {
        let above = equals[0].above;
        if above.is_infinite() {
            break; // No threshold lets these rows leave.
        }
        saved += equals.iter().map(|saving| saving.blocks).sum::<usize>();
        if saved * steps >= total * step {
            step = saved * steps / total + 1;
            taus.push(above);
        }
    }
    let next = |tau: f64| savings.partition_point(|saving| saving.above <= tau);
    let larger = |tau| {
        savings
            .get(next(tau))
            .map_or(f64::INFINITY, |saving| saving.above)
    };
    taus.into_iter()
        .map(|tau| just_above(tau, larger(tau)))
        .collect()
}

/// The shortest number of four digits or more that is larger than `value`, for the threshold is
/// strict, and does not pass the next larger value.
fn just_above(value: f64, next: f64) -> f64 {
    const LEAST: f64 = 1e-9;
    if value < LEAST {
        let between = 0.5 * (value + next);
        return if between > value {
            LEAST.min(between)
        } else {
            next
        };
    }
    let exponent = value.log10().floor() as i32;
    let above = |digits: i32| -> f64 {
        let unit = exponent + 1 - digits;
        let mantissa = (value * 10f64.powi(-unit)).floor() as u64 + 1;
        let text = format!("{mantissa}e{unit}");
        text.parse().expect("digits and an exponent are a number")
    };
    let fits = |number: &f64| *number > value && *number <= next;
    (4..=15).map(above).find(fits).unwrap_or(next)
}

#[cfg(test)]
mod tests {
    use badge_core::cost::ExitHistogram;
    use badge_core::distribution::PredictionKind;
    use badge_core::policy::{DivergenceBased, PolicySpec};

    use super::*;

    const KIND: PredictionKind = PredictionKind::SingleLabel { classes: 2 };

    /// Rows whose exits become sure at very different rates.
    fn rows(exits: usize) -> Vec<Vec<Prediction>> {
        let logit = |row: usize, exit: usize| {
            let wave = ((row * 37 + exit * 11) % 23) as f32 - 11.0;
            0.02 * row as f32 * exit as f32 + 0.1 * wave
        };
        (0..200)
            .map(|row| {
                let exits = (0..exits).map(|exit| [0.0, logit(row, exit)]);
                let read = |logits: [f32; 2]| Prediction::from_logits(KIND, &logits).unwrap();
                exits.map(read).collect()
            })
            .collect()
    }

    fn mean_depth(rows: &[Vec<Prediction>], plan: &ExitPlan, (tau, t): (f64, usize)) -> f64 {
        let spec = PolicySpec::from(DivergenceBased::new(tau, t).unwrap());
        let policy = spec.build(plan, KIND).unwrap();
        let mut state = policy.start();
        let depths = rows.iter().map(|row| policy.replay(&mut state, row).depth);
        ExitHistogram::of(plan, depths).mean_depth().unwrap()
    }

    #[test]
    fn points_are_evenly_spaced_in_blocks_saved() {
        let plan = ExitPlan::new(vec![1, 2, 4, 7, 8, 12], 12).unwrap();
        let rows = rows(plan.count());
        let grid = thresholds(&rows, &plan, 8);
        assert_eq!(
            grid.iter().map(|(t, _)| *t).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        for (t, taus) in grid {
            // Nothing leaves before the exit in place `t`, counted from 0.
            let most = (12 - plan.depths()[t].0) as f64;
            assert_eq!(taus.len(), 8, "t = {t}");
            for (step, tau) in taus.iter().enumerate() {
                let saved = 12.0 - mean_depth(&rows, &plan, (*tau, t));
                let expected = most * (step + 1) as f64 / 8.0;
                assert!(
                    (saved - expected).abs() < 0.25,
                    "t = {t}, tau = {tau}: {saved} blocks saved, expected {expected}"
                );
            }
        }
    }

    #[test]
    fn few_exits_leave_nothing_to_choose() {
        for depths in [vec![3], vec![1, 3]] {
            let plan = ExitPlan::new(depths, 3).unwrap();
            assert!(thresholds(&rows(plan.count()), &plan, 8).is_empty());
        }
    }

    #[test]
    fn thresholds_are_short_numbers_between_two_values() {
        for (value, next, above) in [
            (0.0, 0.5, 1e-9),
            (0.0, 4e-12, 2e-12),
            (0.0, 5e-324, 5e-324),
            (0.3, 0.5, 0.3001),
            (0.123_456, 0.2, 0.1235),
            (9.9999, 11.0, 10.0),
            (1.0, f64::INFINITY, 1.001),
            (6.912e-5, 7e-5, 6.913e-5),
            (0.612_347, 0.612_359, 0.612_35),
            (0.25, 0.25f64.next_up(), 0.25f64.next_up()),
        ] {
            assert_eq!(just_above(value, next), above, "{value}");
        }
    }

    #[test]
    fn values_close_together_are_told_apart() {
        let saving = |i: u32| Saving {
            above: std::f64::consts::LN_2 + 1e-7 * f64::from(i),
            blocks: 1,
        };
        let savings: Vec<_> = (0..12).map(saving).collect();
        let taus = quantiles(savings.clone(), 4);
        assert_eq!(taus.len(), 4);
        for (step, tau) in (1..).zip(taus) {
            let saved = savings.iter().filter(|saving| saving.above < tau).count();
            assert_eq!(saved, 3 * step);
        }
    }
}
