//! How sharp an exit's probabilities should be: one temperature per exit, fitted on held-out rows.

/// The temperatures that are searched. Exits that answer every row right have no best one: the
/// sharper, the likelier. Of equally likely ones the flattest is taken.
pub const RANGE: [f64; 2] = [0.05, 20.0];

/// An exit's temperature, and what it does to the negative log-likelihood per row, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// T: logits are divided by it before the softmax.
    pub value: f64,
    /// The likelihood with T = 1.
    pub nll_before: f64,
    /// The likelihood with this T.
    pub nll_after: f64,
}

/// The temperature that minimises the mean of `-log softmax(z_i / T)[y_i]` over rows of logits
/// `z_i` and true classes `y_i` (Guo et al., *On calibration of modern neural networks*, 2017).
///
/// As a function of `β = 1 / T` the mean is convex, with the derivative
///
/// ```text
/// mean over i of  Σ_k softmax(β z_i)[k] z_i[k]  -  z_i[y_i]
/// ```
///
/// whose one zero is found by bisection. Labels that do not exclude each other are rows of two
/// classes each, with the logits 0 and z. The answer never changes with T, only its probability.
///
/// None without rows.
///
/// # Panics
/// When a class is none of its row's.
///
/// # Example
/// ```
/// use badge_core::calibration::temperature::fit;
///
/// // Three rows in four are right, but every one claims 98 %.
/// let rows: Vec<_> = (0..8).map(|i| (vec![0.0, 4.0], usize::from(i % 4 != 0))).collect();
/// let fitted = fit(rows.iter().map(|(logits, class)| (logits.as_slice(), *class))).unwrap();
/// assert!((fitted.value - 4.0 / 3.0_f64.ln()).abs() < 1e-9);
/// ```
pub fn fit<'a>(rows: impl IntoIterator<Item = (&'a [f32], usize)>) -> Option<Temperature> {
    let rows: Vec<_> = rows.into_iter().collect();
    if rows.is_empty() {
        return None;
    }
    // In the logarithm of β, so that sharp and flat are searched alike.
    let (mut low, mut high) = (-RANGE[1].ln(), -RANGE[0].ln());
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if Likelihood::of(&rows, middle.exp()).slope < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let beta = (0.5 * (low + high)).exp();
    Some(Temperature {
        value: 1.0 / beta,
        nll_before: Likelihood::of(&rows, 1.0).nll,
        nll_after: Likelihood::of(&rows, beta).nll,
    })
}

/// The negative log-likelihood per row and its derivative by β.
struct Likelihood {
    nll: f64,
    slope: f64,
}

impl Likelihood {
    fn of(rows: &[(&[f32], usize)], beta: f64) -> Self {
        let (mut nll, mut slope) = (0.0, 0.0);
        for (logits, class) in rows {
            let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let above = |z: f32| f64::from(z) - f64::from(greatest);
            let (mut partition, mut mean) = (0.0, 0.0);
            for z in *logits {
                let weight = (beta * above(*z)).exp();
                partition += weight;
                mean += weight * above(*z);
            }
            let own = above(logits[*class]);
            nll += partition.ln() - beta * own;
            slope += mean / partition - own;
        }
        let count = rows.len() as f64;
        Self {
            nll: nll / count,
            slope: slope / count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of three classes whose truth follows their logits at temperature 2.5: every class
    /// appears as often as `softmax(z / 2.5)` says, to the nearest of 10 000.
    fn rows() -> Vec<(Vec<f32>, usize)> {
        let mut rows = Vec::new();
        for logits in [[0.0, 1.0, 3.0], [2.0, -1.0, 0.5], [6.0, 5.0, -4.0]] {
            let weights = logits.map(|z: f32| (f64::from(z) / 2.5).exp());
            let sum: f64 = weights.iter().sum();
            for (class, weight) in weights.iter().enumerate() {
                let count = (10_000.0 * weight / sum).round() as usize;
                rows.extend((0..count).map(|_| (logits.to_vec(), class)));
            }
        }
        rows
    }

    fn borrowed(rows: &[(Vec<f32>, usize)]) -> impl Iterator<Item = (&[f32], usize)> {
        rows.iter()
            .map(|(logits, class)| (logits.as_slice(), *class))
    }

    #[test]
    fn the_temperature_that_made_the_rows_is_found() {
        let fitted = fit(borrowed(&rows())).unwrap();
        assert!((fitted.value - 2.5).abs() < 2e-3, "{fitted:?}");
        assert!(fitted.nll_after < fitted.nll_before);
    }

    #[test]
    fn no_other_temperature_is_likelier() {
        let rows = rows();
        let rows: Vec<_> = borrowed(&rows).collect();
        let fitted = fit(rows.iter().copied()).unwrap();
        let naive = |t: f64| {
            let nll = |(logits, class): &(&[f32], usize)| {
                let exp: Vec<f64> = logits.iter().map(|z| (f64::from(*z) / t).exp()).collect();
                -(exp[*class] / exp.iter().sum::<f64>()).ln()
            };
            rows.iter().map(nll).sum::<f64>() / rows.len() as f64
        };
        assert!((naive(fitted.value) - fitted.nll_after).abs() < 1e-10);
        assert!((naive(1.0) - fitted.nll_before).abs() < 1e-10);
        for t in [0.1, 1.0, 2.0, 2.45, 2.55, 3.0, 15.0] {
            assert!(naive(t) >= fitted.nll_after, "{t}");
        }
    }

    #[test]
    fn logits_that_are_always_right_or_know_nothing_stay_within_the_range() {
        let right = vec![(vec![0.0, 8.0], 1); 5];
        let fitted = fit(borrowed(&right)).unwrap();
        assert!((fitted.value - RANGE[0]).abs() < 1e-6 && fitted.nll_after < 1e-60);
        let equal = vec![(vec![3.0, 3.0], 1); 5];
        assert!((fit(borrowed(&equal)).unwrap().value - RANGE[1]).abs() < 1e-6);
        let wrong = vec![(vec![0.0, 800.0], 0); 5];
        let fitted = fit(borrowed(&wrong)).unwrap();
        assert!((fitted.value - RANGE[1]).abs() < 1e-6 && fitted.nll_after.is_finite());
        assert_eq!(fit(std::iter::empty()), None);
    }
}
