//! Gradients by parameter name: collected, accumulated, measured.

use std::collections::BTreeMap;

use badge_kernels::training::reductions::sum_of_squares;

use crate::error::Result;
use crate::framework::{Device, GradStore, Tensor};
use crate::ops;
use crate::parameters::Parameters;
use crate::threads;

/// The gradient of every parameter that the loss depends on.
#[derive(Debug, Default)]
pub struct Gradients {
    tensors: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// Takes the gradients of the parameters that learn out of a backward pass.
    pub(crate) fn of(
        parameters: &Parameters,
        mut store: GradStore,
        learns: impl Fn(&str) -> bool,
    ) -> Self {
        let tensors = parameters
            .iter()
            .filter(|(name, _)| learns(name))
            .filter_map(|(name, var)| Some((name.to_owned(), store.remove(var.as_tensor())?)))
            .collect();
        Self { tensors }
    }

    /// Gradients that were computed elsewhere, of those parameters that learn.
    pub(crate) fn from_tensors(
        mut tensors: BTreeMap<String, Tensor>,
        learns: impl Fn(&str) -> bool,
    ) -> Self {
        tensors.retain(|name, _| learns(name));
        Self { tensors }
    }

    /// Adds `scale` times another batch's gradients.
    pub(crate) fn accumulate(&mut self, other: Self, scale: f64) -> Result<()> {
        for (name, gradient) in other.tensors {
            let scaled = if scale == 1.0 {
                gradient
            } else {
                (gradient * scale)?
            };
            let sum = match self.tensors.remove(&name) {
                Some(sum) => (sum + scaled)?,
                None => scaled,
            };
            self.tensors.insert(name, sum);
        }
        Ok(())
    }

    /// The gradient of a parameter, if the loss depends on it.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The Euclidean norm of all gradients as one vector.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn norm(&self) -> Result<f64> {
        let pool = threads::pool()?;
        let mut sum = 0.0;
        for gradient in self.tensors.values() {
            sum += match gradient.device() {
                Device::Cpu => ops::with_values(gradient, |g| sum_of_squares(&pool, g))?,
                _ => f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?),
            };
        }
        Ok(sum.sqrt())
    }
}
