//! One forward and backward pass.

use crate::error::Result;
use crate::gradients::Gradients;
use crate::loss::Targets;
use crate::method::{Loss, Method, Moment};
use crate::model::{BlockTaps, HeadPass, Mode, ModelInput, MultiExitModel};

/// The loss of a batch and the gradients of what learns at this moment.
///
/// # Errors
/// When the input does not fit the model or the framework refuses an operation.
pub fn forward_backward(
    model: &MultiExitModel,
    method: &dyn Method,
    (input, targets): (&ModelInput, &Targets),
    (moment, mode): (&Moment, Mode),
) -> Result<(Loss, Gradients)> {
    let plan = model.config().exits().exits;
    let junctions = method.junctions(&plan, moment);
    let outputs = model.outputs(input, &junctions, mode)?;
    let loss = method.loss(&outputs, targets, moment)?;
    let gradients = gradients(model, method, &loss, moment)?;
    Ok((loss, gradients))
}

/// The same of heads on the taps of a frozen backbone.
pub(crate) fn heads_forward_backward(
    model: &MultiExitModel,
    method: &dyn Method,
    (taps, pass, targets): (&[(usize, BlockTaps)], HeadPass, &Targets),
    moment: &Moment,
) -> Result<(Loss, Gradients)> {
    let outputs = model.heads().forward_all(taps, pass)?;
    let loss = method.loss(&outputs, targets, moment)?;
    let gradients = gradients(model, method, &loss, moment)?;
    Ok((loss, gradients))
}

fn gradients(
    model: &MultiExitModel,
    method: &dyn Method,
    loss: &Loss,
    moment: &Moment,
) -> Result<Gradients> {
    let plan = model.config().exits().exits;
    let store = loss.total.backward()?;
    let learns = |name: &str| method.trains(moment.stage, model.part(name), &plan);
    Ok(Gradients::of(model.parameters(), store, learns))
}
