//! `full`: every block runs.

use std::fmt;

use super::{Evidence, ExitPoint, ModelExits, Observation, Outlook, Rule};
use crate::exit::Depth;

/// No sample leaves before the deepest exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FullDepth;

impl Rule for FullDepth {
    type Memory = ();

    fn start(&self, _: &ModelExits) {}

    fn observe(&self, (): &mut (), _: ExitPoint, _: Observation<'_>) -> bool {
        false
    }

    fn evidence(&self, (): &()) -> Option<Evidence> {
        None
    }

    fn needs(&self, depth: Depth, exits: &ModelExits) -> bool {
        depth == exits.plan().deepest()
    }

    fn outlook(&self, _: ExitPoint) -> Outlook {
        Outlook::Never
    }
}

impl fmt::Display for FullDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("full")
    }
}
