//! What computes a model's answers: the engine, or the trainer's model as its reference.

mod packed;
mod reference;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use badge_core::config::ModelConfig;
use badge_core::distribution::{BinaryDistribution, Prediction};
use badge_core::exit::Depth;
use badge_core::policy::{ExitReason, Policy};
use badge_engine::kernels::isa::Isa;
use badge_tasks::{Encoding, Target};
use badge_train::Device;
use badge_train::DeviceName;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::ExitLogits;
use badge_train::model_directory::read_model;
use badge_train::weights::read_config;
use serde::{Deserialize, Serialize};

use crate::record::Machine;

pub use badge_engine::{Precision, check_support};
pub use packed::PackedInference;
pub use reference::Reference;

/// What is told while rows are computed: how many more are done.
pub type OnRow<'a> = &'a mut dyn FnMut(usize);

/// A model that answers: its logits at every exit, or its answers under a policy.
///
/// What a policy decides, and everything that is made of the answers, is the same code whichever
/// implementation computes.
pub trait Inference {
    /// The model.
    fn config(&self) -> &ModelConfig;

    /// What computes, for records.
    fn provenance(&self) -> Provenance;

    /// The logits of every exit on every row, in batches.
    ///
    /// # Errors
    /// When a row does not fit the model.
    fn all_exits(&mut self, rows: &EncodedSplit, on_row: OnRow) -> Result<ExitLogits>;

    /// Answers rows together, in their order.
    ///
    /// # Errors
    /// When a row does not fit the model, or a logit is not finite.
    fn classify(&mut self, rows: &[Encoding], policy: &Arc<Policy>) -> Result<Vec<Answer>>;

    /// Answers one row by itself, and says how many seconds passed from token ids to answer.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    fn classify_one(&mut self, row: &Encoding, policy: &Arc<Policy>) -> Result<(Answer, f64)>;
}

/// One row's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Where the row left the network.
    pub depth: Depth,
    /// What that exit said.
    pub prediction: Prediction,
    /// Why it left there.
    pub reason: ExitReason,
}

impl Answer {
    /// The answer in the form of a row's truth.
    pub fn target(&self) -> Target {
        match &self.prediction {
            Prediction::SingleLabel(distribution) => Target::Class(distribution.argmax()),
            Prediction::MultiLabel(labels) => {
                Target::Classes(labels.iter().map(BinaryDistribution::applies).collect())
            }
            Prediction::Regression(value) => Target::Value(*value),
        }
    }
}

/// What computed a result, as records hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The code: `engine`, or `trainer` for the reference.
    pub name: String,
    /// The numbers that were multiplied: `f32`, `bf16` or `int8`.
    pub precision: String,
    /// The vector instructions that were used, or `cuda`.
    pub instruction_set: String,
}

impl Provenance {
    /// The trainer's model on a device.
    pub fn of_trainer(device: &Device) -> Self {
        let instruction_set = match device {
            Device::Cpu => Machine::detect(1, "f32").instruction_set,
            _ => "cuda".to_owned(),
        };
        Self {
            name: Code::Trainer.name().to_owned(),
            precision: "f32".to_owned(),
            instruction_set,
        }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            precision,
            instruction_set,
        } = self;
        write!(f, "{name}, {precision}, {instruction_set}")
    }
}

/// Which code computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Code {
    /// The engine.
    #[default]
    Engine,
    /// The trainer's model, which is slower and the reference.
    Trainer,
}

impl Code {
    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Trainer => "trainer",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "engine" => Ok(Self::Engine),
            "trainer" => Ok(Self::Trainer),
            _ => Err(format!("`{name}` is neither engine nor trainer")),
        }
    }
}

/// How a model is to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InferenceOptions {
    /// The code.
    pub code: Code,
    /// The precision of the engine; the trainer has f32 alone.
    pub precision: Precision,
    /// Threads of the engine; those of the trainer's framework are the process's.
    pub threads: usize,
    /// Where the trainer's model is computed; the engine knows the CPU alone.
    pub device: DeviceName,
}

impl InferenceOptions {
    /// The code that computes a model: the trainer's where the engine does not know its exits.
    fn code_for(&self, config: &ModelConfig) -> Result<Code> {
        match check_support(config) {
            Err(unsupported) if self.precision != Precision::F32 => Err(unsupported.into()),
            Err(_) => Ok(Code::Trainer),
            Ok(()) => Ok(self.code),
        }
    }

    /// What will compute a model, before any weight is read.
    ///
    /// # Errors
    /// When an instruction set is forced that this machine does not have, the device is not there,
    /// or the precision is one that the code does not have.
    pub fn provenance(&self, config: &ModelConfig) -> Result<Provenance> {
        match self.code_for(config)? {
            Code::Engine => Ok(Provenance {
                name: Code::Engine.name().to_owned(),
                precision: self.precision.to_string(),
                instruction_set: Isa::choose()?.name().to_owned(),
            }),
            Code::Trainer => Ok(Provenance::of_trainer(&self.device.open()?)),
        }
    }
}

/// Reads a model directory. The trainer's model answers where the engine does not compute a
/// model's exits.
///
/// # Errors
/// Names the file, key or tensor that is wrong, or the precision that the code does not have.
pub fn open(directory: &Path, options: &InferenceOptions) -> Result<Box<dyn Inference>> {
    match options.code_for(&read_config(directory)?)? {
        Code::Engine => {
            ensure!(
                options.device == DeviceName::Cpu,
                "--device: the engine computes on the CPU; --engine trainer does on {}",
                options.device
            );
            Ok(Box::new(PackedInference::load(directory, options)?))
        }
        Code::Trainer => {
            ensure!(
                options.precision == Precision::F32,
                "--precision: the trainer's model computes in f32, not in {}",
                options.precision
            );
            let model = read_model(directory, &options.device.open()?)?;
            Ok(Box::new(Reference::new(model)))
        }
    }
}
