//! Softmax of attention scores over the keys that are there.

use std::sync::Arc;

use super::vector::{exp, for_each_row, sum};
use super::{tensor_like, values, with_values};
use crate::framework::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor};

/// `p = softmax(scale · scores)` over the first `lengths[b]` keys; the others get exactly 0.
///
/// # Shapes
/// `scores: [B, H, T, T]`, one length in `1..=T` per sample.
pub(crate) fn attention_softmax(
    scores: &Tensor,
    scale: f64,
    lengths: &Arc<[usize]>,
) -> Result<Tensor> {
    match scores.device() {
        Device::Cpu => {
            let op = AttentionSoftmax {
                scale: scale as f32,
                lengths: Arc::clone(lengths),
            };
            scores.contiguous()?.apply_op1(op)
        }
        _ => composed(scores, scale, lengths),
    }
}

struct AttentionSoftmax {
    scale: f32,
    lengths: Arc<[usize]>,
}

impl AttentionSoftmax {
    /// Rows of the score matrix per sample, `H · T`.
    fn rows_per_sample(&self, elements: usize, keys: usize) -> usize {
        elements / keys / self.lengths.len()
    }
}

impl CustomOp1 for AttentionSoftmax {
    fn name(&self) -> &'static str {
        "attention-softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let keys = layout.shape().dims()[3];
        let scores = values(scores, layout)?;
        let rows = self.rows_per_sample(scores.len(), keys);
        let mut p = vec![0.0; scores.len()];
        for_each_row(
            &mut p,
            keys,
            #[inline(always)]
            |row, p| {
                let length = self.lengths[row / rows];
                let scores = &scores[row * keys..][..length];
                let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let p = &mut p[..length];
                for (p, s) in p.iter_mut().zip(scores) {
                    *p = exp(self.scale * (s - top));
                }
                let norm = 1.0 / sum(p.iter().copied());
                for p in p {
                    *p *= norm;
                }
            },
        );
        Ok((CpuStorage::F32(p), layout.shape().clone()))
    }

    /// `ds = scale · p (dp - Σ p dp)`.
    fn bwd(&self, scores: &Tensor, p: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let keys = scores.dim(D::Minus1)?;
        let mut ds = vec![0.0; scores.elem_count()];
        with_values(p, |p| {
            with_values(gradient, |dp| {
                for_each_row(
                    &mut ds,
                    keys,
                    #[inline(always)]
                    |row, ds| {
                        let (p, dp) = (&p[row * keys..][..keys], &dp[row * keys..][..keys]);
                        let dot = sum(p.iter().zip(dp).map(|(p, dp)| p * dp));
                        for ((ds, p), dp) in ds.iter_mut().zip(p).zip(dp) {
                            *ds = self.scale * p * (dp - dot);
                        }
                    },
                );
            })
        })??;
        Ok(Some(tensor_like(ds, scores)?))
    }
}

/// The same function from the framework's operations.
fn composed(scores: &Tensor, scale: f64, lengths: &[usize]) -> Result<Tensor> {
    let (b, _, _, t) = scores.dims4()?;
    let mask: Vec<f32> = lengths
        .iter()
        .flat_map(|&length| (0..t).map(move |key| if key < length { 0.0 } else { f32::MIN }))
        .collect();
    let mask = Tensor::from_vec(mask, (b, 1, 1, t), scores.device())?;
    let scores = (scores * scale)?.broadcast_add(&mask)?;
    let e = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Var;

    #[test]
    fn values_and_gradient_agree_with_the_composed_form_and_padding_gets_zero() {
        let device = Device::Cpu;
        let lengths: Arc<[usize]> = Arc::from([7, 1, 4]);
        let scores = Var::randn(0.0_f32, 3.0, (3, 5, 7, 7), &device).unwrap();
        let probe = Tensor::randn(0.0_f32, 1.0, (3, 5, 7, 7), &device).unwrap();
        let run = |p: Tensor| {
            let gradients = (&p * &probe)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            [
                p.flatten_all().unwrap(),
                gradients.get(&scores).unwrap().flatten_all().unwrap(),
            ]
        };
        let fused = run(attention_softmax(&scores, 0.4, &lengths).unwrap());
        let plain = run(composed(&scores, 0.4, &lengths).unwrap());
        for (fused, plain) in fused.iter().zip(&plain) {
            let difference = (fused - plain).unwrap().abs().unwrap().max(0).unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 2e-6);
        }
        let p = attention_softmax(&scores, 0.4, &lengths).unwrap();
        let padded = p
            .narrow(0, 2, 1)
            .unwrap()
            .narrow(3, 4, 3)
            .unwrap()
            .contiguous()
            .unwrap();
        assert_eq!(
            padded
                .abs()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap(),
            0.0
        );
    }
}
