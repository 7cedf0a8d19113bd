//! Which vector instructions this machine has, and which of them are used.

use std::fmt;
use std::sync::OnceLock;

/// The environment variable that forces an instruction set: `scalar`, `avx2` or `avx512`.
pub const ISA_VARIABLE: &str = "BADGE_ISA";

/// An instruction set that this machine has; holding a value proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable code, the same on every machine.
    Scalar,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512-bit vectors, with the BF16 and VNNI dot products where the machine has them.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Proof that AVX2 and FMA exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that AVX-512 F, BW, DQ and VL exist, and whether its two extensions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512 {
    bf16: bool,
    vnni: bool,
}

/// Why [`ISA_VARIABLE`] cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// Not a name of an instruction set.
    #[error("{ISA_VARIABLE}=`{0}` is not scalar, avx2 or avx512")]
    Unknown(String),
    /// A name of an instruction set that the machine lacks.
    #[error("{ISA_VARIABLE}=`{wanted}`: this machine has no more than {best}")]
    Missing {
        /// What was asked for.
        wanted: &'static str,
        /// The best there is.
        best: Isa,
    },
}

impl Avx2 {
    /// Must match the `target_feature` lists of `simd/avx2.rs`, `gemm/avx2.rs` and
    /// `training/products/avx2.rs`.
    #[cfg(target_arch = "x86_64")]
    fn new() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        all.then_some(Self(()))
    }
}

impl Avx512 {
    /// Must match the `target_feature` lists of `simd/avx512.rs`, `gemm/avx512.rs`,
    /// `attention/transpose.rs`, `training/products/avx512.rs` and `peak/dot.rs`.
    #[cfg(target_arch = "x86_64")]
    fn new() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && Avx2::new().is_some();
        all.then(|| Self {
            bf16: is_x86_feature_detected!("avx512bf16"),
            vnni: is_x86_feature_detected!("avx512vnni"),
        })
    }

    /// Whether `VDPBF16PS` exists.
    pub fn bf16(self) -> bool {
        self.bf16
    }

    /// Whether `VPDPBUSD` exists.
    pub fn vnni(self) -> bool {
        self.vnni
    }
}

impl Isa {
    /// Every instruction set of this machine, from the plainest to the best.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::Scalar];
        // The interpreter of unsafe code knows no vector instructions.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            all.extend(Avx2::new().map(Self::Avx2));
            all.extend(Avx512::new().map(Self::Avx512));
        }
        all
    }

    /// The best instruction set of this machine.
    pub fn best() -> Self {
        *Self::available()
            .last()
            .expect("portable code always exists")
    }

    /// The instruction set to use: what [`ISA_VARIABLE`] names, else the best.
    ///
    /// # Errors
    /// When the variable names something unknown or something this machine lacks.
    pub fn choose() -> Result<Self, IsaError> {
        static CHOICE: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        CHOICE
            .get_or_init(|| match std::env::var(ISA_VARIABLE) {
                Ok(name) if !name.is_empty() => Self::named(&name),
                _ => Ok(Self::best()),
            })
            .clone()
    }

    /// The instruction set with this name.
    ///
    /// # Errors
    /// When the name is unknown or the machine lacks it.
    pub fn named(name: &str) -> Result<Self, IsaError> {
        let wanted = ["scalar", "avx2", "avx512"]
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
        let mut all = Self::available().into_iter();
        all.find(|isa| isa.name() == wanted)
            .ok_or_else(|| IsaError::Missing {
                wanted,
                best: Self::best(),
            })
    }

    /// Its name, as [`ISA_VARIABLE`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        #[cfg(target_arch = "x86_64")]
        if let Self::Avx512(avx512) = self {
            for (has, name) in [(avx512.bf16, "+bf16"), (avx512.vnni, "+vnni")] {
                if has {
                    f.write_str(name)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_set_is_found_by_its_name() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let message = Isa::named("sse9").unwrap_err().to_string();
        assert_eq!(message, "BADGE_ISA=`sse9` is not scalar, avx2 or avx512");
    }
}
