//! Packed CPU inference with early exit.
//!
//! An [`Engine`] packs a model's weights once, then runs sequences through it without allocating.
//! Rows of all live sequences lie one after the other, so no padding is ever computed; a sequence
//! leaves at the exit its policy chooses, and the others close ranks. [`Engine::classify`] answers
//! a batch; [`Engine::admit`], [`Engine::step`] and [`Engine::finished`] drive the same block by
//! block, with new sequences joining whenever there is room.
//!
//! Read `model` first, beside the trainer's files of the same names: it is the network. Then
//! `engine` (who is alive), `pass` (one block over some of them) and `schedule` (which rows of a
//! block are computed, and when).
//!
//! A sequence's answer depends on nothing but the sequence: not on its neighbours, the order of
//! arrival, the number of threads or the way that `schedule` chose. Tests hold this bit by bit.

mod activations;
mod answer;
mod cost_model;
mod engine;
mod error;
mod machine;
mod model;
mod options;
mod packed;
mod pass;
mod profile;
mod schedule;
mod sequence;
mod source;
mod support;
mod workspace;

pub use badge_kernels as kernels;
pub use badge_kernels::gemm::Precision;

pub use answer::{Answer, ExitOutput, Finished};
pub use engine::{Admission, Engine, StepReport};
pub use error::{Error, Result};
pub use options::{EngineOptions, Profiling, When};
pub use packed::activation as kernel_activation;
pub use profile::{Operation, Profile};
pub use sequence::TokenIds;
pub use support::check_support;
