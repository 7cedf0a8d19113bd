//! LayerNorm over the last axis, forward and backward.

use super::vector::{for_each_row, sum, sum_rows};
use super::{tensor_like, values, with_values};
use crate::framework::{CpuStorage, CustomOp3, D, Device, Layout, Result, Shape, Tensor};

/// `y = (x - mean(x)) / sqrt(var(x) + ε) · weight + bias` over the last axis of `x`.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => x
            .contiguous()?
            .apply_op3(weight, bias, LayerNorm { eps: eps as f32 }),
        _ => composed(x, weight, bias, eps),
    }
}

struct LayerNorm {
    eps: f32,
}

impl LayerNorm {
    /// Mean and reciprocal standard deviation of a row.
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let count = x.len() as f32;
        let mean = sum(x.iter().copied()) / count;
        let variance = sum(x.iter().map(|x| (x - mean) * (x - mean))) / count;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }

    /// `dx = r (g - mean(g) - x̂ mean(g x̂))` with `g = dy · weight` and `x̂` the normalised row.
    fn input_gradient(&self, x: &[f32], weight: &[f32], dy: &[f32]) -> Vec<f32> {
        let width = weight.len();
        let mut dx = vec![0.0; x.len()];
        for_each_row(
            &mut dx,
            width,
            #[inline(always)]
            |row, dx| {
                let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
                let (mean, r) = self.moments(x);
                let g = dy.iter().zip(weight).map(|(dy, w)| dy * w);
                let mean_g = sum(g.clone()) / width as f32;
                let mean_gx = sum(g.zip(x).map(|(g, x)| g * (x - mean) * r)) / width as f32;
                for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
                    *dx = r * (dy * w - mean_g - (x - mean) * r * mean_gx);
                }
            },
        );
        dx
    }

    /// Gradients of weight and bias, one after the other.
    fn affine_gradient(&self, x: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
        sum_rows(
            x.len() / width,
            2 * width,
            #[inline(always)]
            |row, sums| {
                let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
                let (mean, r) = self.moments(x);
                let (weight, bias) = sums.split_at_mut(width);
                for (((w, b), x), dy) in weight.iter_mut().zip(bias).zip(x).zip(dy) {
                    *w += dy * (x - mean) * r;
                    *b += dy;
                }
            },
        )
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = values(x, x_layout)?;
        let (weight, bias) = (values(weight, weight_layout)?, values(bias, bias_layout)?);
        let mut y = vec![0.0; x.len()];
        for_each_row(
            &mut y,
            weight.len(),
            #[inline(always)]
            |row, y| {
                let x = &x[row * y.len()..][..y.len()];
                let (mean, r) = self.moments(x);
                for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                    *y = (x - mean) * r * w + b;
                }
            },
        );
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = weight.elem_count();
        let (dx, affine) = with_values(x, |x| {
            with_values(gradient, |dy| {
                let dx = with_values(weight, |weight| self.input_gradient(x, weight, dy))?;
                Ok::<_, crate::framework::FrameworkError>((dx, self.affine_gradient(x, dy, width)))
            })?
        })??;
        let (dw, db) = affine.split_at(width);
        Ok((
            Some(tensor_like(dx, x)?),
            Some(tensor_like(dw.to_vec(), weight)?),
            Some(tensor_like(db.to_vec(), bias)?),
        ))
    }
}

/// The same function from the framework's operations.
fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normal.broadcast_mul(weight)?.broadcast_add(bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Var;

    #[test]
    fn values_and_all_three_gradients_agree_with_the_composed_form() {
        let device = Device::Cpu;
        let x = Var::randn(0.3_f32, 2.0, (3, 67, 23), &device).unwrap();
        let weight = Var::randn(1.0_f32, 0.2, 23, &device).unwrap();
        let bias = Var::randn(0.0_f32, 0.2, 23, &device).unwrap();
        let probe = Tensor::randn(0.0_f32, 1.0, (3, 67, 23), &device).unwrap();
        let run = |y: Tensor| {
            let gradients = (&y * &probe)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            let of = |v: &Var| gradients.get(v).unwrap().flatten_all().unwrap();
            [y.flatten_all().unwrap(), of(&x), of(&weight), of(&bias)]
        };
        let fused = run(layer_norm(&x, &weight, &bias, 1e-12).unwrap());
        let plain = run(composed(&x, &weight, &bias, 1e-12).unwrap());
        for (name, (fused, plain)) in ["y", "dx", "dw", "db"].iter().zip(fused.iter().zip(&plain)) {
            let difference = (fused - plain).unwrap().abs().unwrap().max(0).unwrap();
            let difference = difference.to_scalar::<f32>().unwrap();
            assert!(difference < 5e-5, "{name}: {difference:e}");
        }
    }
}
