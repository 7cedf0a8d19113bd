//! Which vector instructions this machine has, and which of them are used.

use std::fmt;
use std::sync::OnceLock;

/// The environment variable that forces an instruction set: `scalar`, `avx2`, `avx512` or `amx`.
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
    /// The tile unit for products of bf16 and int8; 512-bit vectors for all the rest.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
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

/// Proof that AMX with its BF16 and INT8 products exists, that the system lets this process use it,
/// and that AVX-512 with both its extensions exists beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amx {
    vectors: Avx512,
}

/// Why [`ISA_VARIABLE`] cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// Not a name of an instruction set.
    #[error("{ISA_VARIABLE}=`{0}` is not scalar, avx2, avx512 or amx")]
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

#[cfg(target_arch = "x86_64")]
impl Amx {
    /// Asks the system for leave once a process: threads that exist and threads to come have it then.
    fn new() -> Option<Self> {
        static PROOF: OnceLock<Option<Amx>> = OnceLock::new();
        *PROOF.get_or_init(|| {
            let vectors = Avx512::new().filter(|vectors| vectors.bf16 && vectors.vnni)?;
            (has_tiles() && may_use_tiles()).then_some(Self { vectors })
        })
    }

    /// The vectors beside the tile unit.
    pub fn vectors(self) -> Avx512 {
        self.vectors
    }
}

/// Whether the processor has tiles of 16 rows of 64 bytes, eight of them, and multiplies bf16 and
/// int8 in them.
#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let all = BF16 | TILE | INT8;
    if __cpuid(0).eax < 0x1d || __cpuid_count(7, 0).edx & all != all {
        return false;
    }
    // The first palette: bytes of a row and number of tiles, then the rows of each.
    let palette = __cpuid_count(0x1d, 1);
    palette.ebx == 8 << 16 | 64 && palette.ecx & 0xffff == 16
}

/// Whether the processor is one of AMD's.
#[cfg(target_arch = "x86_64")]
fn is_of_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx]
        .map(u32::to_le_bytes)
        .as_flattened()
        == b"AuthenticAMD"
}

/// Whether the system lets this process use tiles: Linux keeps room for their 8 KiB only for those
/// who ask.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes nothing but this leave.
    let code = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    code == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn may_use_tiles() -> bool {
    false
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
            all.extend(Amx::new().map(Self::Amx));
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
        let wanted = ["scalar", "avx2", "avx512", "amx"]
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

    /// Whether products of bf16 are faster than those of f32. To have `VDPBF16PS` is not enough: one
    /// core of Zen 5 does 469 GFLOP/s with it and 236 in f32, one of Sapphire Rapids 75 and 138
    /// (`badge bench kernels`), and wants its tile unit.
    pub fn is_faster_in_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.bf16 && is_of_amd(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => true,
            _ => false,
        }
    }

    /// Its name, as [`ISA_VARIABLE`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => "amx",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        #[cfg(target_arch = "x86_64")]
        if let Self::Amx(_) = self {
            f.write_str("+bf16+int8")?;
        }
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
        assert_eq!(
            message,
            "BADGE_ISA=`sse9` is not scalar, avx2, avx512 or amx"
        );
    }
}
