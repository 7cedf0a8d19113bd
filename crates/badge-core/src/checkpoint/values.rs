//! Weights as f32, from the bytes in which a file keeps them.

use std::borrow::Cow;

use bytemuck::try_cast_slice;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// The types of weights. Integers are no weights, and what else there is we do not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloatType {
    F32,
    F16,
    Bf16,
    F64,
}

impl FloatType {
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }

    /// The values of little-endian bytes; f32 values that lie as the machine keeps them are not
    /// copied.
    pub(super) fn widen(self, bytes: &[u8]) -> Cow<'_, [f32]> {
        let native = cfg!(target_endian = "little");
        match self {
            Self::F32 => match try_cast_slice(bytes) {
                Ok(values) if native => Cow::Borrowed(values),
                _ => Cow::Owned(from_chunks(bytes, f32::from_le_bytes)),
            },
            // The slice's conversion uses the machine's instruction, the single value's does not.
            Self::F16 => Cow::Owned(match try_cast_slice::<u8, u16>(bytes) {
                Ok(bits) if native => bits.reinterpret_cast::<f16>().to_f32_vec(),
                _ => from_chunks(bytes, |b| f16::from_le_bytes(b).to_f32()),
            }),
            Self::Bf16 => Cow::Owned(from_chunks(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Self::F64 => Cow::Owned(from_chunks(bytes, |b| f64::from_le_bytes(b) as f32)),
        }
    }
}

/// Position of the first value that is NaN or infinite.
pub(super) fn first_not_finite(values: &[f32]) -> Option<usize> {
    /// Enough that the bookkeeping costs nothing, and still in the first-level cache when a bad
    /// chunk is searched again.
    const CHUNK: usize = 1024;
    let mut chunks = values.chunks(CHUNK);
    let chunk = chunks.position(|chunk| !all_finite(chunk))?;
    let start = chunk * CHUNK;
    let within = values[start..].iter().position(|v| !v.is_finite())?;
    Some(start + within)
}

/// Without an early end, so that it becomes a few vector instructions.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let bad = values.iter().fold(0, |bad, v| {
        bad | u32::from(v.to_bits() & EXPONENT == EXPONENT)
    });
    bad == 0
}

fn from_chunks<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| read(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every f16 and a spread of bf16 and f32 patterns, at even and odd addresses.
    #[test]
    fn widening_is_exact_at_every_address() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        for offset in 0..4 {
            let mut bytes = vec![0; offset];
            bytes.extend(halves.iter().flat_map(|bits| bits.to_le_bytes()));
            let widened = FloatType::F16.widen(&bytes[offset..]);
            for (bits, value) in halves.iter().zip(&*widened) {
                let expected = f16::from_bits(*bits).to_f32();
                assert!(*value == expected || value.is_nan() && expected.is_nan());
            }
            let widened = FloatType::Bf16.widen(&bytes[offset..]);
            for (bits, value) in halves.iter().zip(&*widened) {
                let expected = f32::from_bits(u32::from(*bits) << 16);
                assert!(*value == expected || value.is_nan() && expected.is_nan());
            }
            let widened = FloatType::F32.widen(&bytes[offset..]);
            assert_eq!(widened.len(), halves.len() / 2);
            for (bits, value) in halves.chunks(2).zip(&*widened) {
                let expected = u32::from(bits[0]) | u32::from(bits[1]) << 16;
                assert_eq!(value.to_bits(), expected);
            }
        }
        let doubles: Vec<u8> = [0.1_f64, -2.5, 1e300].map(f64::to_le_bytes).concat();
        let expected = [0.1, -2.5, f32::INFINITY];
        assert_eq!(*FloatType::F64.widen(&doubles), expected);
    }

    #[test]
    fn aligned_f32_values_are_not_copied() {
        let values = [1.0_f32, -2.0, 3.5];
        let widened = FloatType::F32.widen(bytemuck::cast_slice(&values));
        assert!(matches!(widened, Cow::Borrowed(found) if found == values));
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found_wherever_it_is() {
        let finite = [0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45];
        let mut values: Vec<f32> = finite.iter().copied().cycle().take(3000).collect();
        assert_eq!(first_not_finite(&values), None);
        assert_eq!(first_not_finite(&[]), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 1, 1023, 1024, 2047, 2998, 2999] {
                let kept = std::mem::replace(&mut values[place], bad);
                assert_eq!(first_not_finite(&values), Some(place));
                values[place] = kept;
            }
        }
    }
}
