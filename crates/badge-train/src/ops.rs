//! Differentiable operations that the framework lacks or has without a backward pass.
//!
//! Each is a plain formula over rows, run in parallel over chunks of fixed size, so that results
//! do not depend on the number of threads. On devices other than the CPU the same function is
//! composed from the framework's own operations, which also is the reference of the tests.

mod activation;
mod dropout;
mod layer_norm;
mod linear;
mod softmax;
mod vector;

pub(crate) use activation::activate;
pub(crate) use dropout::{DropoutSite, DropoutStream, LayerIndex, Mask, dropout};
pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::add_bias;
pub(crate) use softmax::attention_softmax;

use crate::framework::{CpuStorage, Device, Layout, Result, Storage, Tensor, bail};

/// The contiguous f32 values behind an operation's argument.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        (_, None) => bail!("the operation asks for a contiguous tensor"),
        _ => bail!("the operation asks for f32"),
    }
}

/// The contiguous f32 values behind the argument that an operation changes in place.
pub(crate) fn values_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        (_, None) => bail!("the operation asks for a contiguous tensor"),
        _ => bail!("the operation asks for f32"),
    }
}

/// Calls `read` with the values of a CPU tensor in row-major order.
pub(crate) fn with_values<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(read(values(storage, layout)?)),
        _ => bail!("the operation's backward pass runs on the CPU"),
    }
}

/// A CPU tensor of the same shape as `like`.
fn tensor_like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), &Device::Cpu)
}
