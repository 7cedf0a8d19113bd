//! The numerators of a softmax; attention divides by their sum after the product with the values.

use crate::activation::exp;
use crate::simd::Simd;

/// Replaces `row` by `exp(scale (x - max x))` and returns the sum, in the same order for every row
/// of the same length. The largest element becomes 1, so nothing overflows.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(s: S, row: &mut [f32], scale: f32) -> f32 {
    let mut largest = s.splat(f32::NEG_INFINITY);
    for x in row.chunks(S::LANES) {
        largest = s.max(largest, s.load_part(x, f32::NEG_INFINITY));
    }
    let shift = s.splat(-scale * s.largest(largest));
    let scale = s.splat(scale);
    let mut sum = s.splat(0.0);
    let mut vectors = row.chunks_exact_mut(S::LANES);
    for x in &mut vectors {
        let e = exp(s, s.mul_add(s.load(x), scale, shift));
        s.store(e, x);
        sum = s.add(sum, e);
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        let e = exp(s, s.mul_add(s.load_part(rest, 0.0), scale, shift));
        s.store_part(e, rest);
        // Lanes beyond the row do not count.
        sum = s.add(sum, s.load_part(rest, 0.0));
    }
    s.sum(sum)
}
