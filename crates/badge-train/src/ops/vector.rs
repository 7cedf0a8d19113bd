//! Loops over slices: split among threads in chunks of fixed size, compiled for several
//! instruction sets and dispatched at run time; and the transcendental functions in a form that
//! such loops turn into vector code.

use std::sync::LazyLock;

use rayon::prelude::*;

/// The widest instruction set of this machine, detected once.
static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// Elements per parallel task: small enough to share work, large enough to hide the hand-over.
const CHUNK: usize = 16_384;

/// Runs `body(row, output)` for every output row of `width` elements.
pub(super) fn for_each_row(
    output: &mut [f32],
    width: usize,
    body: impl Fn(usize, &mut [f32]) + Sync,
) {
    let rows_per_task = (CHUNK / width).max(1);
    output
        .par_chunks_mut(rows_per_task * width)
        .enumerate()
        .for_each(|(task, rows)| {
            ARCH.dispatch(
                #[inline(always)]
                || {
                    for (row, output) in rows.chunks_exact_mut(width).enumerate() {
                        body(task * rows_per_task + row, output);
                    }
                },
            );
        });
}

/// Runs `body(start, output)` over runs of at most [`CHUNK`] elements that begin at `start`.
pub(super) fn for_each_run(output: &mut [f32], body: impl Fn(usize, &mut [f32]) + Sync) {
    output
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(task, run)| {
            ARCH.dispatch(
                #[inline(always)]
                || body(task * CHUNK, run),
            );
        });
}

/// Sums over rows: `body(row, sums)` adds row `row` into `sums`, a vector of `width` values.
///
/// Rows are summed in groups of fixed size and groups in order: the result is the same for any
/// number of threads.
pub(super) fn sum_rows(
    rows: usize,
    width: usize,
    body: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    const GROUP: usize = 64;
    let partial: Vec<Vec<f32>> = (0..rows.div_ceil(GROUP))
        .into_par_iter()
        .map(|group| {
            let mut sums = vec![0.0; width];
            ARCH.dispatch(
                #[inline(always)]
                || {
                    for row in group * GROUP..rows.min((group + 1) * GROUP) {
                        body(row, &mut sums);
                    }
                },
            );
            sums
        })
        .collect();
    let mut total = vec![0.0; width];
    for sums in partial {
        total
            .iter_mut()
            .zip(sums)
            .for_each(|(total, sum)| *total += sum);
    }
    total
}

/// Sum of a slice in sixteen interleaved lanes, which vectorises and loses less than one lane.
#[inline(always)]
pub(super) fn sum(values: impl ExactSizeIterator<Item = f32> + Clone) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (i, value) in values.enumerate() {
        lanes[i % 16] += value;
    }
    lanes.iter().sum()
}

/// `eˣ`, at most 2 units in the last place off, for x clamped to the range of normal results.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut poly = 1.987_569_1e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        poly = poly * r + coefficient;
    }
    let fraction = poly * r * r + r + 1.0;
    let power = f32::from_bits((((n as i32) + 127) << 23) as u32);
    fraction * power
}

/// `tanh x` with an absolute error below 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

/// `erf x` with an absolute error below 6e-7: a ratio of odd and even polynomials fitted on
/// [-4, 4], outside of which erf is ±1 in f32.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut p = -2.726_142_3e-10;
    for coefficient in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * square + coefficient;
    }
    let mut q = -1.456_607_2e-5;
    for coefficient in [
        -2.133_740_5e-4,
        -1.682_827e-3,
        -7.373_329_3e-3,
        -1.426_473_9e-2,
    ] {
        q = q * square + coefficient;
    }
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|i| i as f32 * 5e-5)
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for x in grid().chain([-86.9, -40.0, 40.0, 87.9]) {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): relative error {error:e}");
        }
    }

    #[test]
    fn tanh_and_erf_keep_their_stated_error() {
        for x in grid() {
            let wide = f64::from(x);
            let error = (f64::from(tanh(x)) - wide.tanh()).abs();
            assert!(error < 2e-7, "tanh({x}): {error:e}");
            let error = (f64::from(erf(x)) - libm::erf(wide)).abs();
            assert!(error < 6e-7, "erf({x}): {error:e}");
        }
        assert_eq!((erf(30.0), tanh(30.0)), (erf(4.0), 1.0));
    }

    #[test]
    fn row_sums_are_those_of_a_plain_loop() {
        let (rows, width) = (1003, 7);
        let data: Vec<f32> = (0..rows * width).map(|i| (i % 13) as f32).collect();
        let sums = sum_rows(rows, width, |row, sums| {
            for (sum, value) in sums.iter_mut().zip(&data[row * width..]) {
                *sum += value;
            }
        });
        for column in 0..width {
            let plain: f32 = (0..rows).map(|row| data[row * width + column]).sum();
            assert_eq!(sums[column], plain);
        }
    }
}
