//! The precision that training computes in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::framework::device::DeviceName;
use crate::threads;

/// What the products of the blocks multiply. Weights, the residual stream, LayerNorms, softmax, sums
/// over tokens and the optimiser are f32 in either; heads compute in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32 factors.
    #[default]
    F32,
    /// Mixed precision: factors rounded to bf16, f32 sums.
    Bf16,
}

impl Precision {
    /// What to train in where nobody says: bf16 where the processor is faster in it, else f32. Scores differ by less than those of two seeds (experiments/training-speed).
    ///
    /// # Errors
    /// When `BADGE_ISA` names an instruction set that does not exist or that this machine lacks.
    pub fn usual(device: DeviceName) -> Result<Self> {
        let is_faster = device == DeviceName::Cpu && threads::isa()?.is_faster_in_bf16();
        Ok(if is_faster { Self::Bf16 } else { Self::F32 })
    }

    /// Its name, as flags and records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// The kernels' name of it.
    pub(crate) fn of_products(self) -> badge_kernels::gemm::Precision {
        match self {
            Self::F32 => badge_kernels::gemm::Precision::F32,
            Self::Bf16 => badge_kernels::gemm::Precision::Bf16,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("`{other}` is not f32 or bf16")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
