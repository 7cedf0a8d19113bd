//! Dropout whose masks are a function of seed, step and place: a resumed run draws the same ones.

use badge_kernels::training::dropout::keep_bits;
use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::vector::for_each_run;
use super::{tensor_like, values, with_values};
use crate::framework::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

/// A place in the model where elements are dropped. Each has its own masks, so that these do not
/// depend on what else is computed, or in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DropoutSite {
    /// The embeddings.
    Embeddings,
    /// Attention probabilities `[B, H, T, T]` of an inner layer of a block.
    Probabilities(LayerIndex),
    /// Attention's output `[B, T, D]`, before the residual sum.
    AttentionOutput(LayerIndex),
    /// The feed-forward output `[B, T, D]`, before the residual sum.
    FeedForwardOutput(LayerIndex),
    /// What the classifier after a block reads.
    Exit(usize),
    /// The feed-forward output that runs again for the exit after a block, `[B, D]`.
    ExitFeedForward(usize),
    /// Attention probabilities `[B, H, 1, T]` of the exit after a block.
    ExitProbabilities(usize),
    /// What the classifier reads of a deeper block's state, as an exit imitates it.
    Imitation {
        /// The block of the exit.
        from: usize,
        /// The deeper block.
        of: usize,
    },
}

/// A transformer layer: which block, counted from 0, and which of its inner layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LayerIndex {
    pub(crate) block: usize,
    pub(crate) inner: usize,
}

impl DropoutSite {
    /// The generator's stream of this place: kinds in the low byte, then inner layer and block.
    fn stream(self) -> u64 {
        let place = |kind: u64, layer: LayerIndex| {
            kind | (layer.inner as u64) << 8 | (layer.block as u64) << 32
        };
        match self {
            Self::Embeddings => 0,
            Self::Probabilities(layer) => place(1, layer),
            Self::AttentionOutput(layer) => place(2, layer),
            Self::FeedForwardOutput(layer) => place(3, layer),
            Self::Exit(block) => place(4, LayerIndex { block, inner: 0 }),
            Self::ExitFeedForward(block) => place(5, LayerIndex { block, inner: 0 }),
            Self::ExitProbabilities(block) => place(7, LayerIndex { block, inner: 0 }),
            Self::Imitation { from, of } => place(
                6,
                LayerIndex {
                    block: from,
                    inner: of,
                },
            ),
        }
    }
}

/// The masks of one forward pass in training.
#[derive(Debug)]
pub(crate) struct DropoutStream {
    key: [u8; 32],
    #[cfg(test)]
    drawn: std::cell::RefCell<Vec<DropoutSite>>,
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
            #[cfg(test)]
            drawn: std::cell::RefCell::default(),
        }
    }

    /// Sites whose masks were drawn so far.
    #[cfg(test)]
    pub(crate) fn drawn(&self) -> Vec<DropoutSite> {
        self.drawn.borrow().clone()
    }

    /// The mask of a site; `None` where the rate is 0 and nothing is dropped.
    pub(crate) fn mask(&self, rate: f64, site: DropoutSite) -> Option<Mask> {
        if rate <= 0.0 {
            return None;
        }
        #[cfg(test)]
        self.drawn.borrow_mut().push(site);
        let mut generator = ChaCha8Rng::from_seed(self.key);
        generator.set_stream(site.stream());
        Some(Mask {
            generator,
            threshold: (rate * 65_536.0).round().min(65_535.0) as u16,
        })
    }
}

/// Zeroes elements with probability `rate` and scales the others by `1 / (1 - rate)`; the identity
/// without a stream, which is how evaluation runs. Rates are met to 1/65536.
pub(crate) fn dropout(
    x: &Tensor,
    rate: f64,
    (stream, site): (Option<&DropoutStream>, DropoutSite),
) -> Result<Tensor> {
    let Some(mask) = stream.and_then(|stream| stream.mask(rate, site)) else {
        return Ok(x.clone());
    };
    match x.device() {
        Device::Cpu => x.contiguous()?.apply_op1(Dropout(mask)),
        device => x * Tensor::from_vec(mask.multipliers(x.elem_count()), x.shape(), device)?,
    }
}

/// Which elements of one site are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Mask {
    generator: ChaCha8Rng,
    /// An element is dropped when its 16 random bits are below this.
    threshold: u16,
}

impl Mask {
    /// What kept elements are multiplied by.
    pub(crate) fn scale(&self) -> f32 {
        65_536.0 / (65_536.0 - f32::from(self.threshold))
    }

    /// Calls `use_bits` with the random bits of elements from `start` on, run after run.
    fn random(&self, start: usize, count: usize, mut use_bits: impl FnMut(usize, &[u16])) {
        // Two bytes an element, four bytes a word of the generator, which gives whole words only:
        // a run that begins in the middle of one draws it again.
        let odd = start % 2;
        let mut generator = self.generator.clone();
        generator.set_word_pos((start / 2) as u128);
        let (mut bytes, mut bits) = ([0_u8; 2 * RUN + 2], [0_u16; RUN]);
        for first in (0..count).step_by(RUN) {
            if odd == 1 {
                let place = start + first;
                generator.set_word_pos(place as u128 / 2);
            }
            let length = RUN.min(count - first);
            let bytes = &mut bytes[..2 * (length + odd)];
            generator.fill_bytes(bytes);
            let (pairs, _) = bytes[2 * odd..].as_chunks::<2>();
            for (bits, pair) in bits.iter_mut().zip(pairs) {
                *bits = u16::from_le_bytes(*pair);
            }
            use_bits(first, &bits[..length]);
        }
    }

    /// The bits of `count` elements from `start` on, as the kernels read them: set where kept.
    pub(crate) fn keep(&self, start: usize, count: usize, words: &mut [u64]) {
        self.random(start, count, |first, random| {
            keep_bits(random, self.threshold, &mut words[first / 64..]);
        });
    }

    /// Multipliers: 0 for dropped elements, the scale for kept ones.
    fn multipliers(&self, count: usize) -> Vec<f32> {
        let mut multipliers = vec![0.0; count];
        for_each_run(&mut multipliers, |start, run| {
            self.random(start, run.len(), |first, random| {
                for (value, bits) in run[first..].iter_mut().zip(random) {
                    *value = if *bits >= self.threshold {
                        self.scale()
                    } else {
                        0.0
                    };
                }
            });
        });
        multipliers
    }
}

/// Elements drawn at a time: whole words of bits, whole words of the generator.
const RUN: usize = 512;

struct Dropout(Mask);

impl Dropout {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.0.multipliers(x.len());
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

    const LAYER: LayerIndex = LayerIndex { block: 2, inner: 1 };
    const SITE: DropoutSite = DropoutSite::AttentionOutput(LAYER);

    fn masked(x: &Tensor, stream: &DropoutStream, site: DropoutSite) -> Vec<f32> {
        let y = dropout(x, 0.1, (Some(stream), site)).unwrap();
        y.to_vec1().unwrap()
    }

    #[test]
    fn a_site_of_a_step_always_draws_the_same_mask_and_all_others_draw_others() {
        let x = ones(40_000);
        let (first, again) = (DropoutStream::new(5, 9), DropoutStream::new(5, 9));
        let mask = masked(&x, &first, SITE);
        let others = [
            DropoutSite::Embeddings,
            DropoutSite::Probabilities(LAYER),
            DropoutSite::FeedForwardOutput(LAYER),
            DropoutSite::AttentionOutput(LayerIndex { block: 1, inner: 2 }),
            DropoutSite::Exit(LAYER.block),
        ];
        for other in others {
            assert_ne!(mask, masked(&x, &again, other), "{other:?}");
        }
        assert_eq!(mask, masked(&x, &again, SITE), "whatever was drawn before");
        assert_ne!(mask, masked(&x, &DropoutStream::new(5, 10), SITE));
        assert_ne!(mask, masked(&x, &DropoutStream::new(6, 9), SITE));
    }

    #[test]
    fn bits_of_any_part_are_those_of_the_whole() {
        let mask = DropoutStream::new(7, 8).mask(0.3, SITE).unwrap();
        let whole = mask.multipliers(40_000);
        for (start, count) in [
            (0, 40_000_usize),
            (1, 1),
            (17, 1300),
            (1600, 64),
            (39_999, 1),
        ] {
            let mut words = vec![u64::MAX; count.div_ceil(64)];
            mask.keep(start, count, &mut words);
            for (i, multiplier) in whole[start..start + count].iter().enumerate() {
                let kept = words[i / 64] >> (i % 64) & 1 == 1;
                assert_eq!(kept, *multiplier > 0.0, "element {i} from {start} on");
            }
        }
        assert!(DropoutStream::new(7, 8).mask(0.0, SITE).is_none());
    }

    #[test]
    fn the_rate_is_met_and_the_mean_is_kept() {
        let count = 400_000;
        let mask = masked(&ones(count), &DropoutStream::new(1, 2), SITE);
        let dropped = mask.iter().filter(|v| **v == 0.0).count() as f64 / count as f64;
        assert!((dropped - 0.1).abs() < 0.003, "{dropped}");
        let mean = mask.iter().map(|v| f64::from(*v)).sum::<f64>() / count as f64;
        assert!((mean - 1.0).abs() < 0.003, "{mean}");
    }

    #[test]
    fn the_gradient_passes_through_the_same_mask() {
        let x = ones(50_001);
        let y = dropout(&x, 0.3, (Some(&DropoutStream::new(3, 4)), SITE)).unwrap();
        let gradient = y.sum_all().unwrap().backward().unwrap();
        let gradient = gradient.get(&x).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(gradient, y.to_vec1::<f32>().unwrap());
    }

    #[test]
    fn evaluation_leaves_values_alone() {
        let x = ones(10);
        assert_eq!(
            dropout(&x, 0.5, (None, SITE))
                .unwrap()
                .to_vec1::<f32>()
                .unwrap(),
            vec![1.0; 10]
        );
    }
}
