//! What the engine multiplies with on this machine, and how fast that can be.

use anyhow::Result;
use badge_engine::Precision;
use badge_engine::kernels::isa::{ISA_VARIABLE, Isa};
use badge_engine::kernels::peak::Peak;
use badge_engine::kernels::threads::Pool;
use badge_lab::bench::machine::{Peaks, Rates};
use serde::Serialize;

/// The instruction set of the kernels.
#[derive(Debug, Serialize)]
pub(super) struct Arithmetic {
    /// The one in use.
    isa: String,
    /// Whether the environment chose it.
    forced: bool,
    /// Those the machine has, from the plainest to the best.
    available: Vec<&'static str>,
    products: Vec<Product>,
    pub(super) peaks: Peaks,
}

/// How a precision is multiplied.
#[derive(Debug, Serialize)]
struct Product {
    precision: &'static str,
    by: &'static str,
}

impl Arithmetic {
    /// The instruction set, chosen before anything takes time.
    ///
    /// # Errors
    /// When the environment asks for one that is unknown or that the machine lacks.
    pub(super) fn choose() -> Result<Isa> {
        Ok(Isa::choose()?)
    }

    /// Measures for a second and a half.
    pub(super) fn measure(isa: Isa, threads: usize) -> Self {
        let products = [Peak::MultiplyAddF32, Peak::DotBf16, Peak::DotInt8];
        let peaks = Peaks {
            one_thread: (threads > 1).then(|| Rates::measure(&Pool::new(isa, 1), &products)),
            all_threads: Rates::measure(&Pool::new(isa, threads), &Peak::ALL),
        };
        Self {
            isa: isa.to_string(),
            forced: std::env::var_os(ISA_VARIABLE).is_some_and(|name| !name.is_empty()),
            available: Isa::available().into_iter().map(Isa::name).collect(),
            products: products_of(isa, &peaks.all_threads),
            peaks,
        }
    }

    /// The instruction set with the reason why it is this one.
    pub(super) fn isa(&self) -> String {
        let reason = if self.forced {
            format!("forced by {ISA_VARIABLE}")
        } else {
            "the best there is".to_owned()
        };
        format!("{}, {reason}, of {}", self.isa, self.available.join(" "))
    }

    /// A line a precision.
    pub(super) fn products(&self) -> String {
        let lines = self.products.iter();
        let lines = lines.map(|product| format!("{}: {}", product.precision, product.by));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn products_of(isa: Isa, peaks: &Rates) -> Vec<Product> {
    let product = |precision: Precision| Product {
        precision: precision.name(),
        by: instruction(isa.name(), precision, peaks.of(precision).is_some()),
    };
    Precision::ALL.into_iter().map(product).collect()
}

/// The instruction at the heart of a product; a dot product has a peak where it exists.
fn instruction(isa: &str, precision: Precision, has_peak: bool) -> &'static str {
    match (isa, precision, has_peak) {
        ("scalar", _, _) => "portable code",
        (_, Precision::F32, _) => "fused multiply-adds (VFMADD)",
        ("amx", Precision::Bf16, true) => "products of tiles (TDPBF16PS)",
        (_, Precision::Bf16, true) => "dot products of pairs (VDPBF16PS)",
        (_, Precision::Bf16, false) => "widened to f32, then fused multiply-adds",
        ("amx", Precision::Int8, true) => "products of tiles (TDPBUSD)",
        (_, Precision::Int8, true) => "dot products of four (VPDPBUSD)",
        (_, Precision::Int8, false) => "widened to 16 bits, then dot products of pairs (VPMADDWD)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_without_its_instruction_is_widened() {
        let none = Rates::default();
        let by = |isa| -> Vec<&str> {
            let products = products_of(isa, &none).into_iter();
            products.map(|product| product.by).collect()
        };
        for isa in Isa::available() {
            let portable = isa.name() == "scalar";
            assert_eq!(by(isa)[1].starts_with("widened"), !portable, "{isa}");
            assert_eq!(by(isa)[2].starts_with("widened"), !portable, "{isa}");
        }
        assert!(instruction("avx512", Precision::Int8, true).contains("VPDPBUSD"));
        assert!(instruction("amx", Precision::Bf16, true).contains("TDPBF16PS"));
    }
}
