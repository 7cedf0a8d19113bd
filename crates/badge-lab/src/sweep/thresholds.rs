//! Thresholds that spread a policy's points over the whole range of speed.

use badge_core::exit::ExitPlan;

/// A threshold above which a row saves some blocks, and how many.
#[derive(Debug, Clone, Copy)]
struct Saving {
    above: f64,
    blocks: usize,
}

/// Thresholds `τ` at which `1/steps`, `2/steps`, ... of the blocks that can be saved are saved on
/// these rows by a policy that leaves at the first exit whose score lies below `τ`.
///
/// `rows` has each row's scores at the exits from the one in place `first` to the last but one.
/// The minimum of a row's scores up to exit `m` is what `τ` must exceed for the row to leave at
/// `m` or before, which saves the blocks from there to the next exit: quantiles of the minima,
/// weighted by those blocks, are evenly spaced in blocks saved.
pub(super) fn thresholds(
    rows: impl Iterator<Item = Vec<f64>>,
    plan: &ExitPlan,
    first: usize,
    steps: usize,
) -> Vec<f64> {
    let depths = plan.depths();
    let mut savings = Vec::new();
    for scores in rows {
        assert_eq!(first + scores.len() + 1, depths.len(), "scores of a row");
        let mut above = f64::INFINITY;
        for (score, pair) in scores.into_iter().zip(depths[first..].windows(2)) {
            above = above.min(score);
            let blocks = pair[1].0 - pair[0].0;
            savings.push(Saving { above, blocks });
        }
    }
    quantiles(savings, steps)
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
    if (0.0..LEAST).contains(&value) {
        let between = 0.5 * (value + next);
        return if between > value {
            LEAST.min(between)
        } else {
            next
        };
    }
    let exponent = value.abs().log10().floor() as i32;
    let above = |digits: i32| -> f64 {
        let unit = exponent + 1 - digits;
        let mantissa = (value * 10f64.powi(-unit)).floor() as i64 + 1;
        let text = format!("{mantissa}e{unit}");
        text.parse().expect("digits and an exponent are a number")
    };
    let fits = |number: &f64| *number > value && *number <= next;
    (4..=15).map(above).find(fits).unwrap_or(next)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (-1.0, -0.5, -0.999),
            (-0.973_26, -0.9, -0.9732),
            (-0.973_26, -0.973_25, -0.973_25),
            (-1.5, f64::INFINITY, -1.499),
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
