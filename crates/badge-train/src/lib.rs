//! Fine-tuning of multi-exit encoders, on the candle autodiff framework.
//!
//! Reading order: [`model`] is the network, [`method`] says which loss its exits get, [`optimizer`]
//! and [`schedule`] how a step is taken, [`trainer`] is the loop; [`evaluate`] runs every exit on a
//! split and [`infer`] stops where a policy says so. [`parameters`] holds the variables
//! by their checkpoint names. Only this crate names the framework.

#[cfg(doctest)]
#[doc = include_str!("../../../docs/adding-a-method.md")]
mod adding_a_method {}

mod error;
mod framework;
mod fused;
mod ops;
mod threads;

pub mod checkpoint;
pub mod data;
pub mod evaluate;
pub mod features;
pub mod gradients;
pub mod infer;
pub mod loss;
pub mod method;
pub mod model;
pub mod model_directory;
pub mod observer;
pub mod optimizer;
pub mod parameters;
pub mod precision;
pub mod schedule;
pub mod step;
pub mod trainer;
pub mod weights;

pub use error::{Error, Result};
pub use framework::device::DeviceName;
pub use framework::{Device, Tensor};
