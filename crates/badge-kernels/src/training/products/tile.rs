//! The inner loop of gradients of weights: up to eight outputs times up to 32 inputs, summed over
//! tokens in registers and added to the gradient.
//!
//! The right factor is read where it lies, row after row of tokens; the left one comes packed
//! (module `left`), for its columns become the rows of the result.

use crate::gemm::Precision;
use crate::isa::Isa;

use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Columns of a tile: two vectors of AVX-512, four of AVX2. With eight outputs that is the tile of
/// [`crate::gemm`], for the same reasons.
pub(super) const COLUMNS: usize = 32;

/// The highest tile.
pub(super) const TILE_OUTPUTS: usize = 8;

/// What a tile function computes.
#[derive(Debug)]
pub(super) struct Tile {
    /// Tokens.
    pub(super) tokens: usize,
    /// Units of the first step.
    pub(super) left: *const i32,
    /// Units from one step to the next.
    pub(super) left_stride: usize,
    /// The first column of the first token.
    pub(super) right: *const u8,
    /// Bytes from one token to the next.
    pub(super) right_stride: usize,
    /// Columns, at most [`COLUMNS`].
    pub(super) columns: usize,
    /// What will be needed soon: a cache line a step is asked for from here on, `ahead_stride` bytes
    /// apart. Never read, so it may point anywhere.
    pub(super) ahead: *const u8,
    pub(super) ahead_stride: usize,
    /// The first number of the gradient.
    pub(super) gradient: *mut f32,
    /// Numbers from one output to the next.
    pub(super) gradient_stride: usize,
}

/// Adds the sums of a tile of a fixed number of outputs `R` to the gradient.
///
/// # Safety
/// The machine has the instruction set. `left` points to the units of all steps; `right` to rows of
/// `columns` numbers for all tokens; `gradient` to `R` rows of `columns` numbers, which nobody else
/// uses meanwhile.
pub(super) type TileFunction = unsafe fn(&Tile);

/// How an instruction set multiplies numbers of one precision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// The functions of 1 to 8 outputs; those above `outputs` must not be called.
    pub(super) tiles: &'static [TileFunction; TILE_OUTPUTS],
    /// Outputs of the highest tile.
    pub(super) outputs: usize,
    pub(super) step: Step,
}

/// What a unit of 32 bits of the left factor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// An f32 of one token.
    Token,
    /// The bf16 of two tokens, the earlier one below; zero for a token beyond the last.
    Pair,
}

impl Step {
    /// Tokens of a step.
    pub(super) fn tokens(self) -> usize {
        match self {
            Self::Token => 1,
            Self::Pair => 2,
        }
    }
}

/// The kernel for factors of that precision.
pub(super) fn kernel(isa: Isa, precision: Precision) -> Kernel {
    let by_token = |tiles, outputs| Kernel {
        tiles,
        outputs,
        step: Step::Token,
    };
    match (isa, precision) {
        (_, Precision::Int8) => panic!("gradients of int8 factors"),
        (Isa::Scalar, Precision::F32) => by_token(&scalar::F32, TILE_OUTPUTS),
        (Isa::Scalar, Precision::Bf16) => by_token(&scalar::BF16, TILE_OUTPUTS),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(_), Precision::F32) => by_token(&avx2::F32, avx2::OUTPUTS),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(_), Precision::Bf16) => by_token(&avx2::BF16, avx2::OUTPUTS),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(_), Precision::F32) => by_token(&avx512::F32, TILE_OUTPUTS),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(has), Precision::Bf16) if has.bf16() => Kernel {
            tiles: &avx512::BF16,
            outputs: TILE_OUTPUTS,
            step: Step::Pair,
        },
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(_), Precision::Bf16) => by_token(&avx512::BF16_BY_F32, TILE_OUTPUTS),
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx(amx), _) => kernel(Isa::Avx512(amx.vectors()), precision),
    }
}
