//! Element-wise activations with their derivatives.

use badge_core::activation::Activation;

use super::vector::{erf, exp, for_each_run, tanh};
use super::{tensor_like, values, with_values};
use crate::framework::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

/// Applies the activation to every element. Absolute error below 1e-6 for |x| <= 10, against
/// [`Activation::value`].
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match (x.device(), activation) {
        (_, Activation::Identity) => Ok(x.clone()),
        (Device::Cpu, _) => x.contiguous()?.apply_op1(Activate(activation)),
        (_, activation) => composed(x, activation),
    }
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let mut y = vec![0.0; x.len()];
        match self.0 {
            Activation::Gelu => map(x, &mut y, gelu),
            Activation::GeluTanh => map(x, &mut y, gelu_tanh),
            Activation::Relu => map(x, &mut y, |x| x.max(0.0)),
            Activation::Tanh => map(x, &mut y, tanh),
            other => map(x, &mut y, |x| other.value(f64::from(x)) as f32),
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut slope = vec![0.0; x.elem_count()];
        with_values(x, |x| match self.0 {
            Activation::Gelu => map(x, &mut slope, gelu_derivative),
            Activation::GeluTanh => map(x, &mut slope, gelu_tanh_derivative),
            Activation::Relu => map(x, &mut slope, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            Activation::Tanh => map(x, &mut slope, |x| {
                let y = tanh(x);
                1.0 - y * y
            }),
            other => map(x, &mut slope, |x| other.derivative(f64::from(x)) as f32),
        })?;
        with_values(gradient, |gradient| {
            for_each_run(
                &mut slope,
                #[inline(always)]
                |start, slope| {
                    let gradient = &gradient[start..][..slope.len()];
                    slope.iter_mut().zip(gradient).for_each(|(s, g)| *s *= g);
                },
            );
        })?;
        Ok(Some(tensor_like(slope, x)?))
    }
}

#[inline(always)]
fn map(x: &[f32], y: &mut [f32], function: impl Fn(f32) -> f32 + Sync) {
    for_each_run(
        y,
        #[inline(always)]
        |start, y| {
            let x = &x[start..][..y.len()];
            y.iter_mut().zip(x).for_each(|(y, x)| *y = function(*x));
        },
    );
}

const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
/// `√(2/π)` and the cubic coefficient of the tanh form.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBIC: f32 = 0.044_715;

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_derivative(x: f32) -> f32 {
    let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    cdf + x * FRAC_1_SQRT_2PI * exp(-0.5 * x * x)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x)))
}

#[inline(always)]
fn gelu_tanh_derivative(x: f32) -> f32 {
    let t = tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x));
    let slope = TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
}

/// The same functions from the framework's operations.
fn composed(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::QuickGelu => x * sigmoid(&(x * 1.702)?)?,
        Activation::Relu => x.relu(),
        Activation::LeakyRelu => x.maximum(&(x * 0.01)?),
        Activation::Swish => x.silu(),
        Activation::Mish => x * (x.exp()? + 1.0)?.log()?.tanh()?,
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Identity => Ok(x.clone()),
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Var;

    #[test]
    fn every_activation_and_its_gradient_agree_with_the_f64_reference() {
        let x: Vec<f32> = (-1000..=1000).map(|i| i as f32 * 0.01).collect();
        let x = Var::from_vec(x.clone(), x.len(), &Device::Cpu).unwrap();
        for activation in Activation::all() {
            let y = activate(&x, activation).unwrap();
            let gradient = y.sum_all().unwrap().backward().unwrap();
            let gradient = gradient.get(&x).unwrap().to_vec1::<f32>().unwrap();
            let y = y.to_vec1::<f32>().unwrap();
            for (i, x) in x.to_vec1::<f32>().unwrap().into_iter().enumerate() {
                let x = f64::from(x);
                let (dy, dg) = (
                    (f64::from(y[i]) - activation.value(x)).abs(),
                    (f64::from(gradient[i]) - activation.derivative(x)).abs(),
                );
                let tolerance = 1e-6 * x.abs().max(1.0);
                assert!(dy < tolerance, "{activation}({x}): off by {dy:e}");
                assert!(dg < 2.0 * tolerance, "{activation}'({x}): off by {dg:e}");
            }
        }
    }

    #[test]
    fn the_composed_form_for_other_devices_is_the_same_function() {
        let x = Tensor::arange(-4.0_f32, 4.0, &Device::Cpu)
            .unwrap()
            .affine(1.0, 0.3)
            .unwrap();
        for activation in Activation::all() {
            let fused = activate(&x, activation).unwrap().to_vec1::<f32>().unwrap();
            let plain = composed(&x, activation).unwrap().to_vec1::<f32>().unwrap();
            for (a, b) in fused.iter().zip(&plain) {
                assert!((a - b).abs() < 2e-6, "{activation}: {a} and {b}");
            }
        }
    }
}
