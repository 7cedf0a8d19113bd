//! AdamW (Loshchilov and Hutter, 2019) with bias correction and clipping by global norm.

use std::collections::BTreeMap;

use badge_core::checkpoint::{Checkpoint, Tensor as PlainTensor, names};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::framework::{
    CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Result as FrameworkResult, Tensor,
    Var,
};
use crate::gradients::Gradients;
use crate::ops;
use crate::parameters::Parameters;

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

/// The optimiser with the moments of every parameter it has seen.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

#[derive(Debug)]
struct Moments {
    mean: Var,
    square: Var,
    /// Steps in which the parameter had a gradient: what the bias correction counts, as in PyTorch.
    steps: u64,
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
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Moments::zero(parameter)?)
                }
            };
            moments.steps += 1;
            let update = Update::new(
                &self.config,
                (rate, clip),
                names::decays(name),
                moments.steps,
            );
            update.apply(parameter, moments, &gradient.contiguous()?)?;
        }
        Ok(norm)
    }

    /// Adds the moments to a training checkpoint.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) -> Result<()> {
        for (name, moments) in &self.moments {
            for (prefix, var) in [(MEAN, &moments.mean), (SQUARE, &moments.square)] {
                let values = var.flatten_all()?.to_vec1::<f32>()?;
                let tensor = PlainTensor {
                    shape: var.dims().to_vec(),
                    values,
                };
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
            let mut take = |prefix: &str| -> Result<Option<Var>> {
                let Some(tensor) = checkpoint.take(&format!("{prefix}{name}"), parameter.dims())?
                else {
                    return Ok(None);
                };
                let var = Var::from_slice(&tensor.values, parameter.dims(), parameter.device())?;
                Ok(Some(var))
            };
            let (mean, square) = (take(MEAN)?, take(SQUARE)?);
            let steps = checkpoint.take(&format!("{STEPS}{name}"), &[1])?;
            if let (Some(mean), Some(square), Some(steps)) = (mean, square, steps) {
                let steps = steps.values[0] as u64;
                let moments = Moments {
                    mean,
                    square,
                    steps,
                };
                self.moments.insert(name.to_owned(), moments);
            }
        }
        Ok(())
    }
}

impl Moments {
    fn zero(parameter: &Var) -> Result<Self> {
        let zeros = || Var::zeros(parameter.shape(), DType::F32, parameter.device());
        Ok(Self {
            mean: zeros()?,
            square: zeros()?,
            steps: 0,
        })
    }
}

/// The numbers of one step:
/// `m ← β₁ m + (1 - β₁) g`, `v ← β₂ v + (1 - β₂) g²`,
/// `p ← keep · p - rate · m / (√v / correction + ε)`, with g the clipped gradient and `rate`
/// already divided by `1 - β₁ᵗ`.
#[derive(Debug, Clone, Copy)]
struct Update {
    beta1: f32,
    /// `1 - β`, rounded once: 1 minus a rounded 0.999 would be off by 1.3e-5 of itself.
    fresh1: f32,
    beta2: f32,
    fresh2: f32,
    eps: f32,
    clip: f32,
    keep: f32,
    rate: f32,
    square_correction: f32,
}

impl Update {
    fn new(config: &AdamWConfig, (rate, clip): (f64, f64), decays: bool, steps: u64) -> Self {
        let AdamWConfig {
            beta1,
            beta2,
            eps,
            weight_decay,
            ..
        } = *config;
        let steps = steps as i32;
        Self {
            beta1: beta1 as f32,
            fresh1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            fresh2: (1.0 - beta2) as f32,
            eps: eps as f32,
            clip: clip as f32,
            keep: if decays {
                (1.0 - rate * weight_decay) as f32
            } else {
                1.0
            },
            rate: (rate / (1.0 - beta1.powi(steps))) as f32,
            square_correction: (1.0 - beta2.powi(steps)).sqrt() as f32,
        }
    }

    fn apply(self, parameter: &Var, moments: &Moments, gradient: &Tensor) -> Result<()> {
        if !matches!(parameter.device(), Device::Cpu) {
            return self.apply_composed(parameter, moments, gradient);
        }
        moments.mean.inplace_op2(gradient, &MeanUpdate(self))?;
        moments.square.inplace_op2(gradient, &SquareUpdate(self))?;
        parameter.inplace_op3(&moments.mean, &moments.square, &ParameterUpdate(self))?;
        Ok(())
    }

    /// The same formulas from the framework's operations, for other devices.
    fn apply_composed(self, parameter: &Var, moments: &Moments, gradient: &Tensor) -> Result<()> {
        let g = gradient.affine(f64::from(self.clip), 0.0)?;
        let Self {
            beta1,
            fresh1,
            beta2,
            fresh2,
            ..
        } = self;
        let wide = f64::from;
        moments
            .mean
            .set(&((moments.mean.as_tensor() * wide(beta1))? + (&g * wide(fresh1))?)?)?;
        moments
            .square
            .set(&((moments.square.as_tensor() * wide(beta2))? + (g.sqr()? * wide(fresh2))?)?)?;
        let root = (moments.square.sqrt()? / f64::from(self.square_correction))?;
        let step = (moments.mean.as_tensor() / (root + f64::from(self.eps))?)?;
        let kept = (parameter.as_tensor() * f64::from(self.keep))?;
        parameter.set(&(kept - (step * f64::from(self.rate))?)?)?;
        Ok(())
    }
}

struct MeanUpdate(Update);
struct SquareUpdate(Update);
struct ParameterUpdate(Update);

/// Elements per parallel task.
const CHUNK: usize = 65_536;

fn for_each_pair(
    target: &mut CpuStorage,
    layout: &Layout,
    source: &[f32],
    body: impl Fn(&mut f32, f32) + Sync,
) -> FrameworkResult<()> {
    let target = ops::values_mut(target, layout)?;
    target
        .par_chunks_mut(CHUNK)
        .zip(source.par_chunks(CHUNK))
        .for_each(|(target, source)| {
            ops::dispatch(
                #[inline(always)]
                || target.iter_mut().zip(source).for_each(|(t, s)| body(t, *s)),
            );
        });
    Ok(())
}

impl InplaceOp2 for MeanUpdate {
    fn name(&self) -> &'static str {
        "adamw-mean"
    }

    fn cpu_fwd(
        &self,
        mean: &mut CpuStorage,
        mean_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> FrameworkResult<()> {
        let Update {
            beta1,
            fresh1,
            clip,
            ..
        } = self.0;
        let gradient = ops::values(gradient, gradient_layout)?;
        for_each_pair(
            mean,
            mean_layout,
            gradient,
            #[inline(always)]
            |m, g| *m = beta1 * *m + fresh1 * (g * clip),
        )
    }
}

impl InplaceOp2 for SquareUpdate {
    fn name(&self) -> &'static str {
        "adamw-square"
    }

    fn cpu_fwd(
        &self,
        square: &mut CpuStorage,
        square_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> FrameworkResult<()> {
        let Update {
            beta2,
            fresh2,
            clip,
            ..
        } = self.0;
        let gradient = ops::values(gradient, gradient_layout)?;
        for_each_pair(
            square,
            square_layout,
            gradient,
            #[inline(always)]
            |v, g| {
                let g = g * clip;
                *v = beta2 * *v + fresh2 * g * g;
            },
        )
    }
}

impl InplaceOp3 for ParameterUpdate {
    fn name(&self) -> &'static str {
        "adamw-parameter"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        layout: &Layout,
        mean: &CpuStorage,
        mean_layout: &Layout,
        square: &CpuStorage,
        square_layout: &Layout,
    ) -> FrameworkResult<()> {
        let Update {
            eps,
            keep,
            rate,
            square_correction,
            ..
        } = self.0;
        let parameter = ops::values_mut(parameter, layout)?;
        let (mean, square) = (
            ops::values(mean, mean_layout)?,
            ops::values(square, square_layout)?,
        );
        let chunks = parameter
            .par_chunks_mut(CHUNK)
            .zip(mean.par_chunks(CHUNK))
            .zip(square.par_chunks(CHUNK));
        chunks.for_each(|((p, m), v)| {
            ops::dispatch(
                #[inline(always)]
                || {
                    for ((p, m), v) in p.iter_mut().zip(m).zip(v) {
                        *p = keep * *p - rate * m / (v.sqrt() / square_correction + eps);
                    }
                },
            );
        });
        Ok(())
    }
}
