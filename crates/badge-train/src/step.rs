//! One forward and backward pass.

use crate::error::Result;
use crate::gradients::Gradients;
use crate::loss::Targets;
use crate::method::{Loss, Method};
use crate::model::{Mode, ModelInput, MultiExitModel};

/// The loss of a batch and its gradients.
///
/// # Errors
/// When the input does not fit the model or the framework refuses an operation.
pub fn forward_backward(
    model: &MultiExitModel,
    method: Method,
    (input, targets): (&ModelInput, &Targets),
    mode: Mode,
) -> Result<(Loss, Gradients)> {
    let logits = model.forward_all_exits(input, mode)?; // E × [B, C]
    let loss = method.loss(&logits, targets)?;
    let store = loss.total.backward()?;
    Ok((loss, Gradients::of(model.parameters(), store)))
}
