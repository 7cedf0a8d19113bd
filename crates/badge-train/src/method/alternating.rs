//! Alternating training: the deepest exit alone, then all exits, step by step.

use super::{Loss, Method, Moment};
use crate::error::Result;
use crate::loss::Targets;
use crate::model::ExitOutput;

/// ALT (BERxiT; Xin et al., 2021): in every epoch the steps 1, 3, 5, ... minimise the loss of the
/// deepest exit — paper, Eq. 7 — and the steps between the sum of all — paper, Eq. 8. One optimiser
/// serves both. Counted from 0, as BERxiT's code does, the even steps are those of the deepest.
///
/// It goes with any head. The other exits' parameters rest in the steps of the deepest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternating;

impl Method for Alternating {
    fn name(&self) -> &'static str {
        "alternating"
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, moment: &Moment) -> Result<Loss> {
        let of_deepest_alone = moment.step_in_epoch.is_multiple_of(2);
        let mut weights = vec![if of_deepest_alone { 0.0 } else { 1.0 }; outputs.len()];
        if let Some(deepest) = weights.last_mut() {
            *deepest = 1.0;
        }
        Loss::weighted(outputs, targets, &weights)
    }
}
