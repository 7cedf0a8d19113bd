//! `fixed:6`: every sample answers at the same exit.

use std::fmt;

use super::grammar::{Fields, refused, whole_number};
use super::{Evidence, ExitPoint, Memory, ModelExits, Observation, Outlook, Rule};
use crate::error::Result;
use crate::exit::Depth;

/// Every sample answers at one given exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FixedDepth {
    depth: Depth,
}

/// Whether the exit seen last is the one.
#[derive(Debug, Clone, Copy)]
pub struct Arrived(bool);

impl FixedDepth {
    /// Answers at the exit after `depth` blocks; whether a model has it is asked when a policy is
    /// built.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when `depth` is 0.
    pub fn new(depth: usize) -> Result<Self> {
        Self::checked(depth).map_err(refused(format!("fixed:{depth}")))
    }

    fn checked(depth: usize) -> Result<Self, String> {
        if depth == 0 {
            return Err("key `depth`: exits count from 1, so that 0 is none".to_owned());
        }
        Ok(Self {
            depth: Depth(depth),
        })
    }

    /// The depth at which every sample answers.
    pub fn depth(self) -> Depth {
        self.depth
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let depth = whole_number("depth", fields.value("depth", "fixed:6")?)?;
        fields.finish(&[])?;
        Self::checked(depth)
    }
}

impl Rule for FixedDepth {
    type Memory = Arrived;

    fn start(&self, _: &ModelExits) -> Arrived {
        Arrived(false)
    }

    fn observe(&self, memory: &mut Arrived, at: ExitPoint, _: Observation<'_>) -> bool {
        memory.0 = at.depth == self.depth;
        memory.0
    }

    fn evidence(&self, memory: &Arrived) -> Option<Evidence> {
        memory.0.then_some(Evidence::FixedDepth(self.depth))
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        let plan = exits.plan();
        let (depth, deepest) = (self.depth, plan.deepest());
        if depth > deepest {
            return Err(format!("key `depth`: {depth} lies outside 1..={deepest}"));
        }
        if !plan.depths().contains(&depth) {
            let exits: Vec<_> = plan.depths().iter().map(ToString::to_string).collect();
            let exits = exits.join(", ");
            return Err(format!(
                "key `depth`: block {depth} carries no exit; the exits are {exits}"
            ));
        }
        Ok(())
    }

    fn needs(&self, depth: Depth, _: &ModelExits) -> bool {
        depth == self.depth
    }

    fn outlook(&self, at: ExitPoint) -> Outlook {
        if at.depth == self.depth {
            Outlook::Certain
        } else {
            Outlook::Never
        }
    }
}

impl Memory for Arrived {
    fn clear(&mut self) {
        self.0 = false;
    }
}

impl fmt::Display for FixedDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fixed:{}", self.depth)
    }
}
