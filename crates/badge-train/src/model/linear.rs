//! Linear layers and LayerNorms, the two parts everything else is made of.

use badge_core::checkpoint::names::ModuleName;

use crate::framework::{Result, Tensor};
use crate::ops;
use crate::parameters::Parameters;

/// `y = x Wᵀ + b`, with `W: [outputs, inputs]` as in checkpoints.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(parameters: &Parameters, name: &ModuleName) -> Self {
        let bias = Some(parameters.bias(name));
        Self {
            weight: parameters.weight(name),
            bias,
        }
    }

    pub(crate) fn without_bias(parameters: &Parameters, name: &ModuleName) -> Self {
        Self {
            weight: parameters.weight(name),
            bias: None,
        }
    }

    /// # Shapes
    /// `[..., inputs] -> [..., outputs]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut dims = x.dims().to_vec();
        // All leading axes are rows of one matrix product.
        let rows = x.reshape(((), inputs))?;
        let product = rows.matmul(&self.weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => ops::add_bias(&product, bias)?,
            None => product,
        };
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        y.reshape(dims)
    }
}

/// LayerNorm with its ε.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(parameters: &Parameters, name: &ModuleName, eps: f64) -> Self {
        Self {
            weight: parameters.weight(name),
            bias: parameters.bias(name),
            eps,
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}
