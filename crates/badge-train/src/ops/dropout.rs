//! Dropout whose masks are a function of seed, step and place: a resumed run draws the same ones.

use std::cell::Cell;

use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::vector::for_each_run;
use super::{tensor_like, values, with_values};
use crate::framework::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

/// The masks of one forward pass in training: every call of [`dropout`] takes the next stream.
#[derive(Debug)]
pub(crate) struct DropoutStream {
    key: [u8; 32],
    calls: Cell<u64>,
}

impl DropoutStream {
    /// The masks of forward pass `pass` of the run with this seed.
    pub(crate) fn new(seed: u64, pass: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&pass.to_le_bytes());
        key[16..].copy_from_slice(b"badge dropout\0\0\0");
        Self {
            key,
            calls: Cell::new(0),
        }
    }

    /// Masks drawn so far.
    #[cfg(test)]
    pub(crate) fn drawn(&self) -> u64 {
        self.calls.get()
    }

    fn next(&self) -> ChaCha8Rng {
        let call = self.calls.get();
        self.calls.set(call + 1);
        let mut generator = ChaCha8Rng::from_seed(self.key);
        generator.set_stream(call);
        generator
    }
}

/// Zeroes elements with probability `rate` and scales the others by `1 / (1 - rate)`; the identity
/// without a stream, which is how evaluation runs. Rates are met to 1/65536.
pub(crate) fn dropout(x: &Tensor, rate: f64, stream: Option<&DropoutStream>) -> Result<Tensor> {
    let Some(stream) = stream.filter(|_| rate > 0.0) else {
        return Ok(x.clone());
    };
    let threshold = (rate * 65_536.0).round().min(65_535.0) as u16;
    let op = Dropout {
        generator: stream.next(),
        threshold,
    };
    match x.device() {
        Device::Cpu => x.contiguous()?.apply_op1(op),
        device => x * Tensor::from_vec(op.mask(x.elem_count()), x.shape(), device)?,
    }
}

struct Dropout {
    generator: ChaCha8Rng,
    /// An element is dropped when its 16 random bits are below this.
    threshold: u16,
}

impl Dropout {
    /// Multipliers: 0 for dropped elements, the scale for kept ones.
    fn mask(&self, count: usize) -> Vec<f32> {
        let scale = 65_536.0 / (65_536.0 - f32::from(self.threshold));
        let mut mask = vec![0.0; count];
        for_each_run(&mut mask, |start, run| {
            // Two bytes an element, four bytes a word of the generator.
            let mut generator = self.generator.clone();
            generator.set_word_pos((start / 2) as u128);
            let mut bits = vec![0_u8; 2 * run.len()];
            generator.fill_bytes(&mut bits);
            let (pairs, _) = bits.as_chunks::<2>();
            for (value, pair) in run.iter_mut().zip(pairs) {
                let keep = u16::from_le_bytes(*pair) >= self.threshold;
                *value = if keep { scale } else { 0.0 };
            }
        });
        mask
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.mask(x.len());
        for_each_run(
            &mut y,
            #[inline(always)]
            |start, y| {
                let x = &x[start..][..y.len()];
                y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
            },
        );
        y
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((
            CpuStorage::F32(self.apply(values(x, layout)?)),
            layout.shape().clone(),
        ))
    }

    /// The mask is drawn again rather than kept: memory is scarcer than random numbers.
    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values(gradient, |gradient| self.apply(gradient))?;
        Ok(Some(tensor_like(dx, x)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Var;

    fn ones(count: usize) -> Var {
        Var::ones(count, crate::framework::DType::F32, &Device::Cpu).unwrap()
    }

    fn masked(x: &Tensor, stream: &DropoutStream) -> Vec<f32> {
        dropout(x, 0.1, Some(stream)).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_step_always_draws_the_same_masks_and_other_steps_and_calls_draw_others() {
        let x = ones(40_000);
        let (first, again) = (DropoutStream::new(5, 9), DropoutStream::new(5, 9));
        let mask = masked(&x, &first);
        assert_eq!(mask, masked(&x, &again));
        assert_ne!(
            mask,
            masked(&x, &first),
            "the second call of a step has its own mask"
        );
        assert_ne!(mask, masked(&x, &DropoutStream::new(5, 10)));
        assert_ne!(mask, masked(&x, &DropoutStream::new(6, 9)));
    }

    #[test]
    fn the_rate_is_met_and_the_mean_is_kept() {
        let count = 400_000;
        let mask = masked(&ones(count), &DropoutStream::new(1, 2));
        let dropped = mask.iter().filter(|v| **v == 0.0).count() as f64 / count as f64;
        assert!((dropped - 0.1).abs() < 0.003, "{dropped}");
        let mean = mask.iter().map(|v| f64::from(*v)).sum::<f64>() / count as f64;
        assert!((mean - 1.0).abs() < 0.003, "{mean}");
    }

    #[test]
    fn the_gradient_passes_through_the_same_mask() {
        let x = ones(50_001);
        let y = dropout(&x, 0.3, Some(&DropoutStream::new(3, 4))).unwrap();
        let gradient = y.sum_all().unwrap().backward().unwrap();
        let gradient = gradient.get(&x).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(gradient, y.to_vec1::<f32>().unwrap());
    }

    #[test]
    fn evaluation_leaves_values_alone() {
        let x = ones(10);
        assert_eq!(
            dropout(&x, 0.5, None).unwrap().to_vec1::<f32>().unwrap(),
            vec![1.0; 10]
        );
    }
}
