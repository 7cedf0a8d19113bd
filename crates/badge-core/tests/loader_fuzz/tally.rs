//! How far the cases came, and what was wrong with the others.

use std::collections::BTreeMap;
use std::fmt;

use badge_core::Error;

/// A gate on the way to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Config,
    Header,
    Layout,
    Values,
    Model,
    Adapted,
}

/// Cases of a hundred that must pass each gate: were there fewer, what lies behind it would not
/// be tested.
const PERCENT_MIN: [(Stage, usize); 6] = [
    (Stage::Config, 35),
    (Stage::Header, 30),
    (Stage::Layout, 12),
    (Stage::Values, 28),
    (Stage::Model, 10),
    (Stage::Adapted, 12),
];

/// Kinds of errors among a thousand cases: damage of one sort only would be no test.
const KINDS_MIN: usize = 35;

/// One case.
#[derive(Default)]
pub(crate) struct Outcome {
    reached: Vec<Stage>,
    errors: Vec<String>,
}

impl Outcome {
    pub(crate) fn reached(&mut self, stage: Stage) {
        self.reached.push(stage);
    }

    pub(crate) fn note<T>(&mut self, stage: Stage, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                self.reached(stage);
                Some(value)
            }
            Err(error) => {
                self.errors.push(format!("{stage:?}: {}", kind(&error)));
                None
            }
        }
    }
}

/// All cases.
#[derive(Default)]
pub(crate) struct Tally {
    cases: usize,
    reached: BTreeMap<Stage, usize>,
    errors: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.cases += 1;
        for stage in outcome.reached {
            *self.reached.entry(stage).or_default() += 1;
        }
        for error in outcome.errors {
            *self.errors.entry(error).or_default() += 1;
        }
    }

    pub(crate) fn cases(&self) -> usize {
        self.cases
    }

    /// The cases were neither all good nor all stopped at the first gate.
    pub(crate) fn check_that_the_loader_was_reached(&self) {
        for (stage, percent) in PERCENT_MIN {
            let passed = self.reached.get(&stage).copied().unwrap_or_default();
            assert!(passed * 100 >= self.cases * percent, "{stage:?}: {self}");
            assert!(passed < self.cases, "{stage:?} refuses nothing: {self}");
        }
        assert!(self.errors.len() >= KINDS_MIN, "{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} run, passed by {:?}", self.cases, self.reached)?;
        write!(
            f,
            ", {} kinds of errors: {:?}",
            self.errors.len(),
            self.errors
        )
    }
}

/// What is wrong, without the operands.
fn kind(error: &Error) -> String {
    match error {
        Error::Json { source, .. } => format!("Json {:?}", source.classify()),
        Error::ConfigKey { key, .. } => format!("ConfigKey {key}"),
        Error::Safetensors { source, .. } => format!("Safetensors {}", variant(source)),
        other => variant(other),
    }
}

/// The name of an enum's variant.
fn variant(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next();
    name.unwrap_or_default().to_owned()
}
