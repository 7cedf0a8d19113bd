//! The single place that takes the autodiff framework's types into our names.

pub(crate) mod device;

pub(crate) use candle_core::backprop::GradStore;
pub(crate) use candle_core::pickle;
pub(crate) use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, InplaceOp2, Layout, Shape, Storage, Var,
    bail,
};
pub(crate) use candle_core::{D, Error as FrameworkError, Result};

/// Where tensors live and are computed. A value, so that another device is a choice of the caller.
pub use candle_core::Device;
/// Values with the graph they were computed by: what losses are made of.
pub use candle_core::Tensor;
