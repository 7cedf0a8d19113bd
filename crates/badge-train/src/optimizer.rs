//! AdamW (Loshchilov and Hutter, 2019) with bias correction and clipping by global norm.

use std::cell::RefCell;
use std::collections::BTreeMap;

use badge_core::checkpoint::{Checkpoint, Tensor as PlainTensor, names};
use badge_kernels::threads::Pool;
use badge_kernels::training::adamw::{AdamWStep, Moments as HostMoments, adamw};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::framework::{
    CpuStorage, Device, InplaceOp2, Layout, Result as FrameworkResult, Tensor, Var,
};
use crate::gradients::Gradients;
use crate::ops;
use crate::parameters::Parameters;
use crate::threads;

/// Constants of the optimiser; the defaults are PyTorch's and BERT's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay of the parameters that `names::decays` lets decay.
    pub weight_decay: f64,
    /// Gradients with a larger global norm are scaled down to it.
    pub gradient_norm_max: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            gradient_norm_max: 1.0,
        }
    }
}

impl AdamWConfig {
    /// The numbers of a parameter's step with this rate, its `steps`-th.
    fn step(&self, (rate, clip): (f64, f64), decays: bool, steps: u64) -> AdamWStep {
        let steps = steps as i32;
        AdamWStep {
            beta1: self.beta1 as f32,
            fresh1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            fresh2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            clip: clip as f32,
            keep: if decays {
                (1.0 - rate * self.weight_decay) as f32
            } else {
                1.0
            },
            rate: (rate / (1.0 - self.beta1.powi(steps))) as f32,
            square_correction: (1.0 - self.beta2.powi(steps)).sqrt() as f32,
        }
    }
}

/// The optimiser with the moments of every parameter it has seen.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

#[derive(Debug)]
struct Moments {
    means: Means,
    /// Steps in which the parameter had a gradient: what the bias correction counts, as in PyTorch.
    steps: u64,
}

/// The running means of a parameter's gradient and of its square.
#[derive(Debug)]
enum Means {
    /// Of a parameter in this machine's memory.
    Host {
        mean: PlainTensor,
        square: PlainTensor,
    },
    /// Of a parameter on another device.
    Device { mean: Var, square: Var },
}

/// The prefixes under which a training checkpoint keeps the moments.
const MEAN: &str = "optimizer.mean.";
const SQUARE: &str = "optimizer.square.";
/// And how many steps they have seen, `[1]`.
const STEPS: &str = "optimizer.steps.";

impl AdamW {
    /// An optimiser that has not taken a step.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step and returns the gradients' norm before clipping.
    ///
    /// Parameters without a gradient are left alone, weight decay included, so that frozen
    /// tensors stay bit-identical.
    ///
    /// # Errors
    /// When a gradient is not finite, before anything is changed, or the framework refuses an
    /// operation.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        rate: f64,
    ) -> Result<f64> {
        let pool = threads::pool()?;
        let norm = gradients.norm()?;
        // NaN would pass through the clipping and destroy weights and moments.
        if !norm.is_finite() {
            return Err(Error::GradientNotFinite {
                step: self.steps + 1,
            });
        }
        self.steps += 1;
        // PyTorch's clip_grad_norm_ divides by norm + 1e-6.
        let clip = (self.config.gradient_norm_max / (norm + 1e-6)).min(1.0);
        for (name, parameter) in parameters.iter() {
            let Some(gradient) = gradients.get(name) else {
                continue;
            };
            let moments = match self.moments.entry(name.to_owned()) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Moments {
                    means: Means::zero(parameter)?,
                    steps: 0,
                }),
            };
            moments.steps += 1;
            let step = self
                .config
                .step((rate, clip), names::decays(name), moments.steps);
            let gradient = gradient.contiguous()?;
            moments.means.update(step, (&pool, parameter), &gradient)?;
        }
        Ok(norm)
    }

    /// Adds the moments to a training checkpoint.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) -> Result<()> {
        for (name, moments) in &self.moments {
            let (mean, square) = moments.means.values()?;
            for (prefix, tensor) in [(MEAN, mean), (SQUARE, square)] {
                checkpoint.insert("the optimiser", format!("{prefix}{name}"), tensor)?;
            }
            let steps = PlainTensor {
                shape: vec![1],
                // Exact below 2²⁴ steps, which no run reaches.
                values: vec![moments.steps as f32],
            };
            checkpoint.insert("the optimiser", format!("{STEPS}{name}"), steps)?;
        }
        Ok(())
    }

    /// Takes the moments back out of a training checkpoint.
    pub(crate) fn restore(
        &mut self,
        checkpoint: &mut Checkpoint,
        parameters: &Parameters,
        steps: u64,
    ) -> Result<()> {
        self.steps = steps;
        for (name, parameter) in parameters.iter() {
            let mut take =
                |prefix: &str| checkpoint.take(&format!("{prefix}{name}"), parameter.dims());
            let (mean, square) = (take(MEAN)?, take(SQUARE)?);
            let steps = checkpoint.take(&format!("{STEPS}{name}"), &[1])?;
            if let (Some(mean), Some(square), Some(steps)) = (mean, square, steps) {
                let moments = Moments {
                    means: Means::new(mean, square, parameter)?,
                    steps: steps.values[0] as u64,
                };
                self.moments.insert(name.to_owned(), moments);
            }
        }
        Ok(())
    }
}

impl Means {
    fn new(mean: PlainTensor, square: PlainTensor, parameter: &Var) -> Result<Self> {
        let var = |tensor: &PlainTensor| {
            Var::from_slice(&tensor.values, parameter.shape(), parameter.device())
        };
        Ok(match parameter.device() {
            Device::Cpu => Self::Host { mean, square },
            _ => Self::Device {
                mean: var(&mean)?,
                square: var(&square)?,
            },
        })
    }

    fn zero(parameter: &Var) -> Result<Self> {
        let zeros = || PlainTensor {
            shape: parameter.dims().to_vec(),
            values: vec![0.0; parameter.elem_count()],
        };
        Self::new(zeros(), zeros(), parameter)
    }

    /// A copy of both.
    fn values(&self) -> Result<(PlainTensor, PlainTensor)> {
        let plain = |var: &Var| -> Result<PlainTensor> {
            Ok(PlainTensor {
                shape: var.dims().to_vec(),
                values: var.flatten_all()?.to_vec1()?,
            })
        };
        Ok(match self {
            Self::Host { mean, square } => (mean.clone(), square.clone()),
            Self::Device { mean, square } => (plain(mean)?, plain(square)?),
        })
    }

    /// Takes in a gradient and moves the parameter.
    fn update(
        &mut self,
        step: AdamWStep,
        (pool, parameter): (&Pool, &Var),
        gradient: &Tensor,
    ) -> Result<()> {
        match self {
            Self::Host { mean, square } => {
                let update = HostUpdate {
                    pool,
                    step,
                    moments: RefCell::new(HostMoments {
                        mean: &mut mean.values,
                        square: &mut square.values,
                    }),
                };
                parameter.inplace_op2(gradient, &update)?;
            }
            Self::Device { mean, square } => {
                update_composed(step, parameter, (mean, square), gradient)?;
            }
        }
        Ok(())
    }
}

/// [`adamw`] as the framework runs it on a parameter.
struct HostUpdate<'a> {
    pool: &'a Pool,
    step: AdamWStep,
    /// The framework lends operations out shared; this one runs once.
    moments: RefCell<HostMoments<'a>>,
}

impl InplaceOp2 for HostUpdate<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> FrameworkResult<()> {
        let parameter = ops::values_mut(parameter, parameter_layout)?;
        let gradient = ops::values(gradient, gradient_layout)?;
        let moments = &mut *self.moments.borrow_mut();
        let moments = HostMoments {
            mean: moments.mean,
            square: moments.square,
        };
        adamw(self.pool, &self.step, parameter, gradient, moments);
        Ok(())
    }
}

/// The formulas of [`adamw`] from the framework's operations, for other devices.
fn update_composed(
    step: AdamWStep,
    parameter: &Var,
    (mean, square): (&Var, &Var),
    gradient: &Tensor,
) -> Result<()> {
    let wide = f64::from;
    let g = gradient.affine(wide(step.clip), 0.0)?;
    mean.set(&((mean.as_tensor() * wide(step.beta1))? + (&g * wide(step.fresh1))?)?)?;
    square.set(&((square.as_tensor() * wide(step.beta2))? + (g.sqr()? * wide(step.fresh2))?)?)?;
    let root = (square.sqrt()? / wide(step.square_correction))?;
    let direction = (mean.as_tensor() / (root + wide(step.eps))?)?;
    let kept = (parameter.as_tensor() * wide(step.keep))?;
    parameter.set(&(kept - (direction * wide(step.rate))?)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_composed_form_for_other_devices_takes_the_same_steps() {
        let device = Device::Cpu;
        let config = AdamWConfig {
            weight_decay: 0.1,
            ..AdamWConfig::default()
        };
        let step = config.step((1e-2, 0.7), true, 3);
        let random = || Var::randn(0.0_f32, 1.0, 1001, &device).unwrap();
        let (fused, mean, gradient) = (random(), random(), random());
        let square = Var::from_tensor(&random().sqr().unwrap()).unwrap();
        let plain = Var::from_tensor(&fused.copy().unwrap()).unwrap();
        let values = |var: &Var| var.to_vec1::<f32>().unwrap();
        let tensor = |var: &Var| PlainTensor {
            shape: vec![1001],
            values: values(var),
        };
        let mut moments = Means::new(tensor(&mean), tensor(&square), &fused).unwrap();
        let pool = threads::pool().unwrap();
        moments.update(step, (&pool, &fused), &gradient).unwrap();
        update_composed(step, &plain, (&mean, &square), &gradient).unwrap();
        let (new_mean, new_square) = moments.values().unwrap();
        let pairs = [
            (values(&fused), values(&plain)),
            (new_mean.values, values(&mean)),
            (new_square.values, values(&square)),
        ];
        for (index, (fused, plain)) in pairs.into_iter().enumerate() {
            for (a, b) in fused.iter().zip(&plain) {
                // Both round every operation to f32, in another order.
                assert!((a - b).abs() < 2e-6 * b.abs().max(1.0), "{index}: {a}, {b}");
            }
        }
    }
}
