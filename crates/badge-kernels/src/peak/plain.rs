//! Loops that need no instructions beyond those of [`Simd`].

use std::hint::black_box;

use super::Load;
use crate::buffer::Buffer;
use crate::isa::Isa;
use crate::simd::{Operation, Simd};

/// Independent sums: an instruction takes 4 or 5 cycles and two start in each, so ten are needed.
/// With the two factors, twelve leave room among the 16 registers of AVX2.
const SUMS: usize = 12;

/// Lanes of one of the portable loop's sums: of SSE2 and NEON, which every machine of theirs has.
const PORTABLE_LANES: usize = 4;

/// Fused multiply-adds on registers.
pub(super) struct MultiplyAdds {
    pub(super) isa: Isa,
}

impl Load for MultiplyAdds {
    fn amount(&self) -> f64 {
        (2 * SUMS * self.isa.run(Lanes)) as f64
    }

    fn work(&self, _worker: usize, rounds: u64) {
        black_box(self.isa.run(MultiplyAddRounds(rounds)));
    }
}

/// The number of lanes.
struct Lanes;

impl Operation for Lanes {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

/// So many times [`SUMS`] multiply-adds.
struct MultiplyAddRounds(u64);

impl Operation for MultiplyAddRounds {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // Unknown to the compiler, and 1 stays 1: no denormal number slows the loop.
        let half = s.splat(black_box(0.5));
        let mut sums = [s.splat(black_box(1.0)); SUMS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, half, half);
            }
        }
        let mut all = sums[0];
        for sum in &sums[1..] {
            all = s.add(all, *sum);
        }
        s.sum(all)
    }
}

/// Multiplications and additions one after the other, as portable kernels have them.
pub(super) struct PortableMultiplyAdds;

impl Load for PortableMultiplyAdds {
    fn amount(&self) -> f64 {
        (2 * SUMS * PORTABLE_LANES) as f64
    }

    fn work(&self, _worker: usize, rounds: u64) {
        let half = black_box(0.5);
        let mut sums = [[black_box(1.0_f32); PORTABLE_LANES]; SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.map(|lane| lane * half + half);
            }
        }
        black_box(sums);
    }
}

/// Reads of the numbers, each thread its part; with one part, all threads the same.
pub(super) struct Reads {
    pub(super) isa: Isa,
    pub(super) numbers: Buffer<f32>,
    pub(super) parts: usize,
}

impl Reads {
    fn part(&self, worker: usize) -> &[f32] {
        let length = self.numbers.len() / self.parts;
        &self.numbers[worker % self.parts * length..][..length]
    }
}

impl Load for Reads {
    fn amount(&self) -> f64 {
        size_of_val(self.part(0)) as f64
    }

    fn work(&self, worker: usize, rounds: u64) {
        let part = self.part(worker);
        for _ in 0..rounds {
            black_box(self.isa.run(Sum(black_box(part))));
        }
    }
}

/// The sum of numbers, but for a few at the end: one addition for each load, so that loads count.
struct Sum<'a>(&'a [f32]);

impl Operation for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); SUMS];
        for chunk in self.0.chunks_exact(SUMS * S::LANES) {
            for (sum, numbers) in sums.iter_mut().zip(chunk.chunks_exact(S::LANES)) {
                *sum = s.add(*sum, s.load(numbers));
            }
        }
        let mut all = sums[0];
        for sum in &sums[1..] {
            all = s.add(all, *sum);
        }
        s.sum(all)
    }
}
