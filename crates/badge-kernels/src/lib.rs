//! The arithmetic of encoder inference on a CPU: the only crate with `unsafe` code.
//!
//! Read in this order: [`isa`] (what the machine can do), [`matrix`] (where rows live),
//! [`threads`] (who computes), [`gemm`] (products with packed weights), then one operation a file.
//! Everything public is safe: each entry point asserts its lengths, then dispatches once on the
//! instruction set. [`mod@reference`] holds the same operations written naively in f64; it is the
//! specification and the oracle of all tests.
#![allow(
    unsafe_code,
    reason = "vector instructions, unchecked loads and shared output buffers live here and nowhere else"
)]

pub mod activation;
pub mod allocation;
pub mod attention;
pub mod embedding;
pub mod gemm;
pub mod isa;
pub mod layer_norm;
pub mod matrix;
pub mod narrow;
pub mod peak;
pub mod quantise;
pub mod reference;
pub mod softmax;
pub mod threads;
pub mod training;

#[cfg(target_arch = "x86_64")]
mod amx;
mod buffer;
mod simd;

pub use half::bf16;
