//! `fixed:6`: every sample answers at the same exit.

use std::fmt;

use super::grammar::{Fields, whole_number};
use crate::error::{Error, Result};
use crate::exit::{Depth, ExitPlan};

/// Every sample answers at one given exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FixedDepth {
    depth: Depth,
}

impl FixedDepth {
    /// Answers at the exit after `depth` blocks; whether a model has it is asked when a policy is
    /// built.
    ///
    /// # Errors
    /// [`Error::Policy`] when `depth` is 0.
    pub fn new(depth: usize) -> Result<Self> {
        Self::checked(depth).map_err(|problem| Error::Policy {
            spec: format!("fixed:{depth}"),
            problem,
        })
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

    /// Whether a model has this exit.
    ///
    /// # Errors
    /// A sentence that names the key and the exits that there are.
    pub(super) fn check(self, plan: &ExitPlan) -> Result<(), String> {
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

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let depth = whole_number("depth", fields.value("depth", "fixed:6")?)?;
        fields.finish(&[])?;
        Self::checked(depth)
    }
}

impl fmt::Display for FixedDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.depth.fmt(f)
    }
}
