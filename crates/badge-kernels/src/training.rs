//! The arithmetic that training adds to inference: backward passes, gradients, the optimiser.
//!
//! Gradients of weights and biases are sums over tokens. Work is split by what is written and never by
//! tokens, and every sum has its order from the shapes alone: the same step has the same bits with
//! any number of threads.

use half::bf16;

use crate::gemm::Precision;
use crate::matrix::Rows;

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod dropout;
pub mod embedding;
pub mod layer_norm;
pub mod products;
pub mod reductions;
pub mod reference;

/// Rows in one of the two precisions that training multiplies.
#[derive(Debug, Clone, Copy)]
pub enum Factor<'a> {
    /// As they were computed.
    F32(Rows<'a, f32>),
    /// Rounded to the nearest bf16.
    Bf16(Rows<'a, bf16>),
}

impl Factor<'_> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        match self {
            Self::F32(rows) => rows.count(),
            Self::Bf16(rows) => rows.count(),
        }
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        match self {
            Self::F32(rows) => rows.columns(),
            Self::Bf16(rows) => rows.columns(),
        }
    }

    fn precision(&self) -> Precision {
        match self {
            Self::F32(_) => Precision::F32,
            Self::Bf16(_) => Precision::Bf16,
        }
    }

    /// The first element of row 0 and the bytes from one row to the next.
    fn address(&self) -> (*const u8, usize) {
        fn of<T>(rows: &Rows<'_, T>) -> (*const u8, usize) {
            (
                rows.elements().as_ptr().cast(),
                rows.stride() * size_of::<T>(),
            )
        }
        match self {
            Self::F32(rows) => of(rows),
            Self::Bf16(rows) => of(rows),
        }
    }

    /// One element; beyond the last one, an address that must not be read.
    fn address_of(&self, row: usize, column: usize) -> *const u8 {
        let (start, stride) = self.address();
        let size = match self {
            Self::F32(_) => size_of::<f32>(),
            Self::Bf16(_) => size_of::<bf16>(),
        };
        start.wrapping_add(row * stride + column * size)
    }
}
