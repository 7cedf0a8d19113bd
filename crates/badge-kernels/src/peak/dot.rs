//! Loops of the dot-product instructions. The lists of features must match `Avx512::new` in
//! `isa.rs`, with `avx512bf16` and `avx512vnni` for what `Avx512::bf16` and `Avx512::vnni` say.

use std::arch::x86_64::{
    __m512bh, _mm512_add_epi32, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
    _mm512_reduce_add_epi32, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_setzero_si512,
};
use std::hint::black_box;

use super::Load;
use crate::isa::Avx512;

/// Independent sums: enough for 8 cycles from an instruction's start to its result and two starts a
/// cycle, few enough for the 32 registers.
const SUMS: usize = 20;

/// Dot products of pairs of bf16, each 2 multiplications and 2 additions in each of 16 lanes.
pub(super) struct Bf16Dots(());

impl Bf16Dots {
    /// The loop, where the machine has the instruction.
    pub(super) fn new(isa: Avx512) -> Option<Self> {
        isa.bf16().then_some(Self(()))
    }
}

impl Load for Bf16Dots {
    fn amount(&self) -> f64 {
        (SUMS * 16 * 4) as f64
    }

    fn work(&self, _worker: usize, rounds: u64) {
        // SAFETY: `new` has seen the proof of the features.
        black_box(unsafe { bf16_dots(rounds) });
    }
}

/// # Safety
/// The machine has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn bf16_dots(rounds: u64) -> f32 {
    // The bits of 1 and 1.
    let ones = _mm512_set1_epi32(black_box(0x3f80_3f80));
    // SAFETY: both types are 512 plain bits.
    let ones: __m512bh = unsafe { std::mem::transmute(ones) };
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, ones, ones);
        }
    }
    let mut all = sums[0];
    for sum in &sums[1..] {
        all = _mm512_add_ps(all, *sum);
    }
    _mm512_reduce_add_ps(all)
}

/// Dot products of four bytes, each 4 multiplications and 4 additions in each of 16 lanes.
pub(super) struct Int8Dots(());

impl Int8Dots {
    /// The loop, where the machine has the instruction.
    pub(super) fn new(isa: Avx512) -> Option<Self> {
        isa.vnni().then_some(Self(()))
    }
}

impl Load for Int8Dots {
    fn amount(&self) -> f64 {
        (SUMS * 16 * 8) as f64
    }

    fn work(&self, _worker: usize, rounds: u64) {
        // SAFETY: `new` has seen the proof of the features.
        black_box(unsafe { int8_dots(rounds) });
    }
}

/// # Safety
/// The machine has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn int8_dots(rounds: u64) -> i32 {
    let ones = _mm512_set1_epi32(black_box(0x0101_0101));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, ones, ones);
        }
    }
    let mut all = sums[0];
    for sum in &sums[1..] {
        all = _mm512_add_epi32(all, *sum);
    }
    _mm512_reduce_add_epi32(all)
}
