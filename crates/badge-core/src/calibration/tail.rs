//! How surprising a small sum of losses would be if the expected loss were large.
//!
//! All rows are taken as drawn independently from one distribution; nothing else is assumed.

/// The values that one row's loss can have. It follows from what the loss is, never from the
/// losses that were seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossRange {
    max: f64,
    binary: bool,
}

/// The losses of some rows, as far as a tail bound needs them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossSum {
    /// Sum over the rows.
    pub sum: f64,
    /// Number of rows, n.
    pub rows: usize,
}

impl LossRange {
    /// 0 or 1: a row goes wrong or does not.
    pub const ZERO_OR_ONE: Self = Self {
        max: 1.0,
        binary: true,
    };

    /// Anything from 0 to `max`.
    ///
    /// # Panics
    /// When `max` is not a positive finite number.
    pub fn up_to(max: f64) -> Self {
        assert!(max.is_finite() && max > 0.0, "a loss up to {max}");
        Self { max, binary: false }
    }

    /// The greatest loss, B.
    pub fn max(self) -> f64 {
        self.max
    }

    /// Bounds the probability of losses as small as these, if the expected loss were `epsilon` or
    /// more: a p-value of the hypothesis `E[L] ≥ ε`, valid for any n.
    ///
    /// Losses that are 0 or 1 have a binomial sum, and the value is exact:
    /// `P(Bin(n, ε) ≤ Σ L_i)`. Other losses have the smaller of Hoeffding's and Bentkus's bound, on
    /// losses scaled to `0 ..= 1` (Bates et al., *Distribution-free, risk-controlling prediction
    /// sets*, 2021, as used by Angelopoulos et al., *Learn then Test*, 2021):
    ///
    /// ```text
    /// min( exp(-n kl(min(R, ε), ε)),  e P(Bin(n, ε) ≤ ⌈n R⌉) )     R = Σ L_i / n
    /// kl(a, b) = a ln(a/b) + (1 - a) ln((1 - a)/(1 - b))
    /// ```
    ///
    /// 1 when there are no rows or nothing could be exceeded (`epsilon ≤ 0`), 0 when no loss can be
    /// as large as `epsilon`.
    pub fn p_value(self, losses: LossSum, epsilon: f64) -> f64 {
        let LossSum { sum, rows } = losses;
        let epsilon = epsilon / self.max;
        if rows == 0 || epsilon <= 0.0 || epsilon.is_nan() {
            return 1.0;
        }
        if epsilon > 1.0 {
            return 0.0;
        }
        let sum = sum / self.max;
        // A sum of whole losses may have lost its last digit.
        let count = (sum - 1e-9).ceil().max(0.0) as u64;
        let binomial = binomial_cdf(count, rows as u64, epsilon);
        if self.binary {
            return binomial;
        }
        let n = rows as f64;
        let hoeffding = (-n * relative_entropy((sum / n).min(epsilon), epsilon)).exp();
        hoeffding.min(std::f64::consts::E * binomial).min(1.0)
    }

    /// The smallest `ε` that these losses refute at level `delta`: with probability at least
    /// `1 - delta` the expected loss lies below it.
    pub fn upper_bound(self, losses: LossSum, delta: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.max);
        if self.p_value(losses, high) > delta {
            return self.max;
        }
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.p_value(losses, middle) > delta {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// How many rows with the same mean loss it would take for the p-value of `epsilon` to come
    /// down to `delta`; none where no number of rows is enough, as the mean is not below `epsilon`.
    pub fn rows_needed(self, losses: LossSum, epsilon: f64, delta: f64) -> Option<usize> {
        const MOST: usize = 1 << 30;
        let mean = losses.sum / (losses.rows as f64).max(1.0);
        if mean >= epsilon || delta <= 0.0 {
            return None;
        }
        let enough = |rows: usize| {
            let sum = mean * rows as f64;
            // Rows go wrong as a whole where losses are 0 or 1.
            let sum = if self.binary { sum.ceil() } else { sum };
            self.p_value(LossSum { sum, rows }, epsilon) <= delta
        };
        let mut high = 1;
        while !enough(high) {
            high *= 2;
            if high > MOST {
                return None;
            }
        }
        let mut low = high / 2;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if enough(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }
}

impl LossSum {
    /// The sum of these rows' losses.
    pub fn of(losses: &[f64]) -> Self {
        Self {
            sum: losses.iter().sum(),
            rows: losses.len(),
        }
    }

    /// Mean loss; not a number without rows.
    pub fn mean(self) -> f64 {
        self.sum / self.rows as f64
    }
}

/// `kl(a, b)` between two coins, in nats, with `0 ln 0 = 0`; for `a ≤ b`.
fn relative_entropy(a: f64, b: f64) -> f64 {
    let term = |x: f64, y: f64| if x <= 0.0 { 0.0 } else { x * (x / y).ln() };
    (term(a, b) + term(1.0 - a, 1.0 - b)).max(0.0)
}

/// `P(Bin(n, p) ≤ k)`, by the smaller of the two tails.
fn binomial_cdf(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    if (k as f64) < (n as f64 + 1.0) * p {
        lower_tail(k, n, p)
    } else {
        1.0 - lower_tail(n - k - 1, n, 1.0 - p)
    }
}

/// `P(Bin(n, p) ≤ k)` for `k` up to the most probable outcome.
///
/// The terms are summed downwards from `k`, each from the one above it and smaller than it. The
/// first comes from its logarithm: the probability of a single outcome can be too small for a
/// product of factorials.
fn lower_tail(k: u64, n: u64, p: f64) -> f64 {
    let (k, n) = (k as f64, n as f64);
    let log_first = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
        + k * p.ln()
        + (n - k) * (-p).ln_1p();
    let odds = (1.0 - p) / p;
    let (mut term, mut sum, mut i) = (1.0, 1.0, k);
    while i > 0.0 && term > sum * 1e-17 {
        term *= i * odds / (n - i + 1.0);
        sum += term;
        i -= 1.0;
    }
    (log_first.exp() * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive_cdf(k: u64, n: u64, p: f64) -> f64 {
        let mut sum = 0.0;
        for i in 0..=k {
            let ways: f64 = (0..i).map(|j| (n - j) as f64 / (j + 1) as f64).product();
            sum += ways * p.powi(i as i32) * (1.0 - p).powi((n - i) as i32);
        }
        sum
    }

    #[test]
    fn binomial_tails_are_sums_of_their_terms() {
        for n in [1, 2, 7, 40, 150] {
            for k in 0..=n {
                for p in [1e-4, 0.01, 0.1, 0.5, 0.83, 0.999] {
                    let (found, expected) = (binomial_cdf(k, n, p), naive_cdf(k, n, p));
                    // The logarithms of factorials up to 150! keep 12 digits.
                    assert!(
                        (found - expected).abs() <= 1e-11 * expected.max(1e-30),
                        "P(Bin({n}, {p}) <= {k}): {found} for {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn binomial_tails_of_a_million_rows_match_the_normal_law() {
        // Three, one and no standard deviations below the mean; skewness moves them by a percent.
        let (n, p) = (1_000_000_u64, 0.1_f64);
        let deviation = (n as f64 * p * (1.0 - p)).sqrt();
        for (steps, expected) in [(3.0, 1.3499e-3), (1.0, 0.158_66), (0.0, 0.5)] {
            let k = (n as f64 * p - steps * deviation) as u64;
            let found = binomial_cdf(k, n, p);
            assert!((found / expected - 1.0).abs() < 0.05, "{steps}: {found}");
        }
        assert!(binomial_cdf(n - 1, n, 0.1) == 1.0);
    }

    #[test]
    fn rows_without_a_loss_have_the_p_value_of_all_going_well() {
        let none = LossSum { sum: 0.0, rows: 59 };
        let p = LossRange::ZERO_OR_ONE.p_value(none, 0.05);
        assert!((p - 0.95_f64.powi(59)).abs() < 1e-12);
        // 59 rows without a loss are the fewest that show "below 5 %" with 95 % confidence.
        assert!(p <= 0.05 && 0.95_f64.powi(58) > 0.05);
        assert_eq!(
            LossRange::ZERO_OR_ONE.rows_needed(none, 0.05, 0.05),
            Some(59)
        );
        // Hoeffding's bound is the same number where the mean is 0.
        let hoeffding = LossRange::up_to(1.0).p_value(none, 0.05);
        assert!((hoeffding - p).abs() < 1e-12);
    }

    #[test]
    fn p_values_agree_with_numbers_worked_by_hand() {
        // kl(0.1, 0.2) = 0.1 ln 0.5 + 0.9 ln 1.125 = 0.036690; exp(-100 * that) = 0.02549.
        let losses = LossSum {
            sum: 10.0,
            rows: 100,
        };
        let p = LossRange::up_to(1.0).p_value(losses, 0.2);
        // P(Bin(100, 0.2) <= 10) = 0.005696, times e = 0.015484.
        assert!((p - 0.015_484).abs() < 2e-5, "{p}");
        // Losses twice as large on twice the range are the same losses.
        let doubled = LossSum {
            sum: 20.0,
            ..losses
        };
        assert_eq!(LossRange::up_to(2.0).p_value(doubled, 0.4), p);
    }

    #[test]
    fn impossible_and_empty_questions_have_answers() {
        let range = LossRange::up_to(2.0);
        let losses = LossSum { sum: 1.0, rows: 5 };
        assert_eq!(range.p_value(losses, 0.0), 1.0);
        assert_eq!(range.p_value(losses, f64::NAN), 1.0);
        assert_eq!(range.p_value(losses, 2.1), 0.0);
        assert_eq!(range.p_value(LossSum::of(&[]), 0.5), 1.0);
        assert_eq!(range.upper_bound(LossSum::of(&[]), 0.1), 2.0);
        assert_eq!(range.rows_needed(losses, 0.1, 0.05), None);
    }

    #[test]
    fn p_values_fall_with_epsilon_and_bounds_invert_them() {
        for range in [LossRange::ZERO_OR_ONE, LossRange::up_to(1.0)] {
            for sum in [0.0, 1.0, 3.0, 50.0] {
                let losses = LossSum { sum, rows: 200 };
                let p: Vec<f64> = (1..=100)
                    .map(|i| range.p_value(losses, f64::from(i) / 100.0))
                    .collect();
                assert!(p.windows(2).all(|pair| pair[1] <= pair[0] + 1e-11));
                for delta in [0.2, 0.05, 1e-4] {
                    let bound = range.upper_bound(losses, delta);
                    assert!(bound > losses.mean());
                    assert!(range.p_value(losses, bound) <= delta);
                    assert!(range.p_value(losses, bound - 1e-6) > delta);
                }
            }
        }
    }

    #[test]
    fn needed_rows_are_enough_and_one_fewer_is_not() {
        let range = LossRange::ZERO_OR_ONE;
        let losses = LossSum {
            sum: 2.0,
            rows: 204,
        };
        let needed = range.rows_needed(losses, 0.02, 0.05).unwrap();
        let mean = losses.mean();
        let p = |rows: usize| {
            let sum = (mean * rows as f64).ceil();
            range.p_value(LossSum { sum, rows }, 0.02)
        };
        assert!(
            needed > 204 && p(needed) <= 0.05 && p(needed - 1) > 0.05,
            "{needed}"
        );
    }

    /// Splitmix64: the tests of this crate need no library for a few uniform numbers.
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[test]
    fn a_true_hypothesis_is_refuted_no_more_often_than_allowed() {
        const DRAWS: u32 = 20_000;
        let (epsilon, delta, rows) = (0.1, 0.1, 80);
        let mut state = 5;
        // The expected loss is exactly epsilon: losses of 0 or 1, and of 0, 0.1, ..., 0.4.
        let binary = |u: f64| f64::from(u < 0.1);
        let graded = |u: f64| {
            if u < 0.5 {
                0.1 * (u * 10.0).floor()
            } else {
                0.0
            }
        };
        let cases: [(LossRange, &dyn Fn(f64) -> f64); 2] = [
            (LossRange::ZERO_OR_ONE, &binary),
            (LossRange::up_to(0.4), &graded),
        ];
        for (range, loss) in cases {
            let mut refuted = 0;
            for _ in 0..DRAWS {
                let losses: Vec<f64> = (0..rows).map(|_| loss(uniform(&mut state))).collect();
                refuted += u32::from(range.p_value(LossSum::of(&losses), epsilon) <= delta);
            }
            let share = f64::from(refuted) / f64::from(DRAWS);
            // Four standard errors of a share of 10 % among 20 000.
            assert!(share <= delta + 0.0085, "{range:?}: {share}");
        }
    }
}
