//! Flags that say what computes a trained model's answers.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use badge_lab::inference::{
    Code, Inference, InferenceOptions, Precision, Provenance, check_support, open,
};
use badge_lab::record::Machine;
use badge_train::DeviceName;
use clap::Args;

use super::Session;

/// Which code computes, and in which numbers.
#[derive(Debug, Clone, Args)]
pub(crate) struct ComputingArgs {
    /// What computes: the engine, or the trainer's model, which is slower and its reference
    /// [default: engine on the CPU, trainer on other devices]
    #[arg(long, value_name = "engine|trainer")]
    engine: Option<Code>,
    /// The numbers that the engine multiplies: f32, bf16 or int8
    #[arg(long, default_value_t = Precision::F32)]
    pub(crate) precision: Precision,
    /// Where it computes: cpu, cuda or cuda:N, which only the trainer's model does
    #[arg(long, value_name = "cpu|cuda[:N]", default_value_t)]
    device: DeviceName,
}

impl ComputingArgs {
    /// The code that was typed, or that the device needs.
    pub(crate) fn engine(&self) -> Code {
        self.engine.unwrap_or(match self.device {
            DeviceName::Cpu => Code::Engine,
            DeviceName::Cuda(_) => Code::Trainer,
        })
    }

    /// Reads a model directory for them.
    pub(super) fn open(&self, directory: &Path, session: Session) -> Result<Box<dyn Inference>> {
        let model = open(directory, &self.options(session))?;
        if let (Code::Engine, Err(unsupported)) = (self.engine(), check_support(model.config())) {
            session
                .console
                .note(&format!("note: {unsupported} and answers here"));
        }
        Ok(model)
    }

    /// The same for the library.
    pub(super) fn options(&self, session: Session) -> InferenceOptions {
        InferenceOptions {
            code: self.engine(),
            precision: self.precision,
            threads: session.threads,
            device: self.device,
        }
    }
}

/// What a computation is held against: the engine in another precision, or the trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yardstick {
    Engine(Precision),
    Trainer,
}

impl Yardstick {
    /// Flags that stand for it.
    pub(super) fn computing(self) -> ComputingArgs {
        let (engine, precision) = match self {
            Self::Engine(precision) => (Code::Engine, precision),
            Self::Trainer => (Code::Trainer, Precision::F32),
        };
        ComputingArgs {
            engine: Some(engine),
            precision,
            device: DeviceName::Cpu,
        }
    }
}

impl FromStr for Yardstick {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == Code::Trainer.name() {
            return Ok(Self::Trainer);
        }
        let precision = name.parse().map(Self::Engine);
        precision.map_err(|_| format!("`{name}` is none of f32, bf16, int8, trainer"))
    }
}

impl fmt::Display for Yardstick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(precision) => precision.fmt(f),
            Self::Trainer => Code::Trainer.fmt(f),
        }
    }
}

/// This machine as what has computed used it.
pub(super) fn machine(session: Session, provenance: &Provenance) -> Machine {
    Machine {
        instruction_set: provenance.instruction_set.clone(),
        ..Machine::detect(session.threads, provenance.precision.as_str())
    }
}
