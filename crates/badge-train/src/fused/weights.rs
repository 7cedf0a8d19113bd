//! Linear layers and LayerNorms with their gradients, as kernels take them.

use std::collections::BTreeMap;

use badge_core::activation::Activation;
use badge_core::checkpoint::names::ModuleName;
use badge_kernels::activation::Activation as KernelActivation;
use badge_kernels::gemm::{Epilogue, Input, Output, gemm};
use badge_kernels::matrix::{Rows, RowsMut};
use badge_kernels::threads::Pool;
use badge_kernels::training::Factor;
use badge_kernels::training::layer_norm::{
    NormBackward, NormBranch, NormForward, NormGradient, NormInput, NormParameters, NormScratch,
    NormStatistics, layer_norm_backward, layer_norm_forward,
};
use badge_kernels::training::products::{GradientScratch, TrainedMatrix, weight_gradient};
use badge_kernels::training::reductions::bias_gradient;

use super::Precision;
use crate::framework::{Device, Result, Tensor};
use crate::ops::with_values;
use crate::parameters::Parameters;

/// Gradients by the names of their parameters.
pub(super) type GradientsByName = BTreeMap<String, Tensor>;

/// The gradient of one parameter while a backward pass adds to it.
#[derive(Debug)]
pub(super) struct Gradient {
    name: String,
    shape: Vec<usize>,
    /// Empty until something is added.
    values: Vec<f32>,
}

impl Gradient {
    pub(super) fn new(parameters: &Parameters, name: String) -> Self {
        let shape = parameters.tensor(&name).dims().to_vec();
        Self {
            name,
            shape,
            values: Vec::new(),
        }
    }

    /// The parameter's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Copies the parameter's present values.
    fn copy_parameter(&self, parameters: &Parameters, values: &mut [f32]) -> Result<()> {
        with_values(&parameters.tensor(&self.name), |present| {
            values.copy_from_slice(present);
        })
    }

    /// What has been added so far, to add more.
    pub(super) fn values(&mut self) -> &mut [f32] {
        if self.values.is_empty() {
            self.values = vec![0.0; self.shape.iter().product()];
        }
        &mut self.values
    }

    /// Gives the gradient away, if the loss depends on the parameter.
    pub(super) fn take(&mut self, gradients: &mut GradientsByName) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        let values = std::mem::take(&mut self.values);
        let tensor = Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)?;
        gradients.insert(self.name.clone(), tensor);
        Ok(())
    }
}

/// `y = x Wᵀ + b`
#[derive(Debug)]
pub(super) struct Linear {
    matrix: TrainedMatrix,
    bias: Vec<f32>,
    weight_gradient: Gradient,
    bias_gradient: Gradient,
}

impl Linear {
    pub(super) fn new(
        parameters: &Parameters,
        name: &ModuleName,
        precision: Precision,
    ) -> Result<Self> {
        let (outputs, inputs) = parameters.weight(name).dims2()?;
        Ok(Self {
            matrix: TrainedMatrix::new(outputs, inputs, precision.of_products()),
            bias: vec![0.0; outputs],
            weight_gradient: Gradient::new(parameters, name.weight()),
            bias_gradient: Gradient::new(parameters, name.bias()),
        })
    }

    /// Takes over the parameters' present values.
    pub(super) fn load(&mut self, pool: &Pool, parameters: &Parameters) -> Result<()> {
        with_values(&parameters.tensor(&self.weight_gradient.name), |weights| {
            self.matrix.pack(pool, weights);
        })?;
        self.bias_gradient
            .copy_parameter(parameters, &mut self.bias)
    }

    /// `out = x Wᵀ + b`
    pub(super) fn forward(&self, pool: &Pool, x: Input<'_>, out: Output<'_>) {
        let epilogue = Epilogue {
            bias: Some(&self.bias),
            ..Epilogue::NONE
        };
        gemm(pool, x, self.matrix.forward(), &epilogue, out);
    }

    /// `dx = dy W + residual`
    pub(super) fn backward(
        &self,
        pool: &Pool,
        dy: Input<'_>,
        residual: Option<Rows<'_, f32>>,
        dx: Output<'_>,
    ) {
        let epilogue = Epilogue {
            residual,
            ..Epilogue::NONE
        };
        gemm(pool, dy, self.matrix.backward(), &epilogue, dx);
    }

    /// Adds `dyᵀ x` and the sum of dy's rows to the gradients.
    pub(super) fn accumulate(
        &mut self,
        pool: &Pool,
        (dy, x): (Factor<'_>, Factor<'_>),
        scratch: &mut GradientScratch,
    ) {
        weight_gradient(pool, dy, x, scratch, self.weight_gradient.values());
        bias_gradient(pool, dy, self.bias_gradient.values());
    }

    pub(super) fn take(&mut self, gradients: &mut GradientsByName) -> Result<()> {
        self.weight_gradient.take(gradients)?;
        self.bias_gradient.take(gradients)
    }
}

/// A LayerNorm.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
    weight_gradient: Gradient,
    bias_gradient: Gradient,
}

impl Norm {
    pub(super) fn new(parameters: &Parameters, name: &ModuleName, eps: f64) -> Self {
        let width = parameters.weight(name).elem_count();
        Self {
            weight: vec![0.0; width],
            bias: vec![0.0; width],
            eps: eps as f32,
            weight_gradient: Gradient::new(parameters, name.weight()),
            bias_gradient: Gradient::new(parameters, name.bias()),
        }
    }

    /// Takes over the parameters' present values.
    pub(super) fn load(&mut self, parameters: &Parameters) -> Result<()> {
        self.weight_gradient
            .copy_parameter(parameters, &mut self.weight)?;
        self.bias_gradient
            .copy_parameter(parameters, &mut self.bias)
    }

    pub(super) fn forward(&self, pool: &Pool, input: NormInput<'_>, out: NormForward<'_>) {
        let parameters = NormParameters {
            weight: &self.weight,
            bias: &self.bias,
            eps: self.eps,
        };
        layer_norm_forward(pool, input, parameters, out);
    }

    /// The gradient of the sum from that of the result; those of weight and bias are added to.
    pub(super) fn backward(
        &mut self,
        pool: &Pool,
        (gradient, sum, statistics): (Rows<'_, f32>, Rows<'_, f32>, &NormStatistics),
        scratch: &mut NormScratch,
        (out, branch): (RowsMut<'_, f32>, Option<NormBranch<'_>>),
    ) {
        let input = NormGradient {
            gradient,
            sum,
            statistics,
            weight: &self.weight,
        };
        let out = NormBackward {
            sum: out,
            branch,
            weight: self.weight_gradient.values(),
            bias: self.bias_gradient.values(),
        };
        layer_norm_backward(pool, input, scratch, out);
    }

    /// Gives the gradients away.
    pub(super) fn take(&mut self, gradients: &mut GradientsByName) -> Result<()> {
        self.weight_gradient.take(gradients)?;
        self.bias_gradient.take(gradients)
    }
}

/// The kernels' name of an activation.
pub(super) fn kernel_activation(activation: Activation) -> KernelActivation {
    match activation {
        Activation::Gelu => KernelActivation::Gelu,
        Activation::GeluTanh => KernelActivation::GeluTanh,
        Activation::QuickGelu => KernelActivation::QuickGelu,
        Activation::Relu => KernelActivation::Relu,
        Activation::LeakyRelu => KernelActivation::LeakyRelu,
        Activation::Swish => KernelActivation::Swish,
        Activation::Mish => KernelActivation::Mish,
        Activation::Tanh => KernelActivation::Tanh,
        Activation::Sigmoid => KernelActivation::Sigmoid,
        Activation::Identity => KernelActivation::Identity,
    }
}
