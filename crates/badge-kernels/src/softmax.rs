//! The numerators of a softmax; attention divides by their sum after the product with the values.

use std::f32::consts::LOG2_E;

use crate::activation::exp2_or_least;
use crate::simd::Simd;

/// What turns exponentials into probabilities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numerators {
    /// The largest element of the row, unscaled.
    pub(crate) largest: f32,
    /// The sum of the exponentials.
    pub(crate) sum: f32,
}

/// Replaces `row` by `exp(scale (x - max x))` and sums them, in the same order for every row of the
/// same length. The largest element becomes 1, so nothing overflows, and what would be less
/// than `2⁻¹²⁶` becomes that.
///
/// `scale` is positive. Where an element is NaN or infinitely large, the sum is NaN.
///
/// # Accuracy
/// The relative error is at most `2e-7 + 2⁻²² scale (max x - x)`; the second term is what rounding
/// the exponent costs, in absolute terms about a rounding of the largest element.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(s: S, row: &mut [f32], scale: f32) -> Numerators {
    // In this order of arguments NaN does not count, so that no exponent is positive.
    let mut largest = s.splat(f32::NEG_INFINITY);
    let vectors = row.chunks_exact(S::LANES);
    let rest = s.load_part(vectors.remainder(), f32::NEG_INFINITY);
    for x in vectors {
        largest = s.max(s.load(x), largest);
    }
    let largest = s.max(rest, largest);
    // Not as a fused multiply-add: the difference is exact where it is small.
    let most = s.largest(largest);
    let largest = s.splat(most);
    let scale = s.splat(scale * LOG2_E);
    let mut sum = s.splat(0.0);
    let mut vectors = row.chunks_exact_mut(S::LANES);
    for x in &mut vectors {
        let e = exp2_or_least(s, s.mul(s.sub(s.load(x), largest), scale));
        s.store(e, x);
        sum = s.add(sum, e);
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        let y = s.mul(s.sub(s.load_part(rest, 0.0), largest), scale);
        s.store_part(exp2_or_least(s, y), rest);
        // Lanes beyond the row do not count.
        sum = s.add(sum, s.load_part(rest, 0.0));
    }
    Numerators {
        largest: most,
        sum: s.sum(sum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::reference;
    use crate::simd::Operation;

    struct Exponentials<'a>(&'a mut [f32], f32);

    impl Operation for Exponentials<'_> {
        type Output = f32;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            exponentials(s, self.0, self.1).sum
        }
    }

    /// Scores between -30 and 30, without order.
    fn scores(length: usize) -> Vec<f32> {
        (0..length)
            .map(|i| (i * 7919 % 601) as f32 * 0.1 - 30.0)
            .collect()
    }

    #[test]
    fn rows_of_every_length_become_a_softmax_and_nothing_behind_them_changes() {
        for isa in Isa::available() {
            for (length, scale) in (1..=70).flat_map(|n| [(n, 1.0), (n, 0.125)]) {
                let x = scores(length);
                let mut row = [&x[..], &[99.0]].concat();
                let sum = f64::from(isa.run(Exponentials(&mut row[..length], scale)));
                let scaled: Vec<f64> = x.iter().map(|x| f64::from(x * scale)).collect();
                // Exponents are at most 60 apart; the sum has the error of its terms and roundings.
                let bound = 2.0 * (2e-7 + 2.0_f64.powi(-22) * 60.0) + 1e-6;
                for (e, p) in row.iter().zip(reference::softmax(&scaled)) {
                    let error = (f64::from(*e) / sum / p - 1.0).abs();
                    assert!(error <= bound, "{isa}, {length} x {scale}: {error}");
                }
                assert_eq!(row[..length].iter().copied().fold(0.0, f32::max), 1.0);
                assert_eq!(row[length], 99.0);
            }
        }
    }

    #[test]
    fn exponentials_keep_their_bound() {
        for isa in Isa::available() {
            let x: Vec<f32> = (0..=8000).map(|i| -0.01 * i as f32).collect();
            let mut row = x.clone();
            isa.run(Exponentials(&mut row, 1.0));
            for (e, x) in row.iter().zip(&x) {
                let error = (f64::from(*e) / f64::from(*x).exp() - 1.0).abs();
                let bound = 2e-7 + 2.0_f64.powi(-22) * f64::from(-x);
                assert!(error <= bound, "{isa}, exp({x}): {error}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_shows_in_the_sum() {
        for isa in Isa::available() {
            for odd in [f32::NAN, f32::INFINITY] {
                for place in 0..40 {
                    // Far apart: exponents from a wrong maximum would overflow.
                    let mut row: Vec<f32> = scores(40).iter().map(|x| x * 1e10).collect();
                    row[place] = odd;
                    assert!(isa.run(Exponentials(&mut row, 1.0)).is_nan());
                }
            }
            let mut hidden = [0.0, f32::NEG_INFINITY, -1e30];
            assert_eq!(isa.run(Exponentials(&mut hidden, 1.0)), 1.0);
        }
    }
}
