//! One forward and backward pass.

use serde::{Deserialize, Serialize};

use crate::data::EncodedSplit;
use crate::error::{Error, Result};
use crate::features::Features;
use crate::framework::Device;
use crate::fused::{FusedBackbone, TapGradients};
use crate::gradients::Gradients;
use crate::loss::Targets;
use crate::method::{Loss, Method, Moment};
use crate::model::{BlockTaps, HeadPass, Mode, ModelInput, MultiExitModel};
use crate::precision::Precision;

/// How passes over the blocks are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PassSettings {
    /// What the products of the blocks multiply.
    pub precision: Precision,
    /// Whether the backward pass computes the inside of every block again instead of keeping it:
    /// more time for less memory.
    pub recompute: bool,
}

/// Computes passes of one model, with the memory that they need.
///
/// On the CPU embeddings and blocks run on hand-written kernels and only heads are left to the
/// autodiff framework; on other devices everything is [its graph](forward_backward), which is the
/// reference too.
#[derive(Debug)]
pub struct Backpropagation<'a> {
    model: &'a MultiExitModel,
    fused: Option<FusedBackbone>,
}

impl<'a> Backpropagation<'a> {
    /// Passes of this model.
    ///
    /// # Errors
    /// When the settings cannot be had for this model or its device.
    pub fn new(model: &'a MultiExitModel, settings: PassSettings) -> Result<Self> {
        let fused = if matches!(model.device(), Device::Cpu) {
            let backbone = &model.config().backbone;
            Some(FusedBackbone::new(model.parameters(), backbone, settings)?)
        } else {
            refuse_on_devices(settings)?;
            None
        };
        Ok(Self { model, fused })
    }

    /// The model that passes are computed of.
    pub fn model(&self) -> &'a MultiExitModel {
        self.model
    }

    /// The taps of every block that carries an exit, as constants, without dropout: all that heads
    /// on a frozen backbone read.
    pub(crate) fn constant_taps(&mut self, input: &ModelInput) -> Result<Vec<(usize, BlockTaps)>> {
        let model = self.model;
        let Some(fused) = &mut self.fused else {
            return model.constant_taps(input);
        };
        input.check(&model.config().backbone)?;
        let heads = model.heads();
        let wanted = (heads.taps(), |block| heads.has_exit(block));
        let taps = fused.forward(model.parameters(), (input, None), wanted)?;
        let taps = taps.into_iter();
        taps.map(|(block, taps)| Ok((block, taps.map(|tap| Ok(tap.detach()))?)))
            .collect()
    }

    /// The loss of a batch and the gradients of what learns at this moment.
    ///
    /// # Errors
    /// When the input does not fit the model or the framework refuses an operation.
    pub fn run(
        &mut self,
        method: &dyn Method,
        (input, targets): (&ModelInput, &Targets),
        (moment, mode): (&Moment, Mode),
    ) -> Result<(Loss, Gradients)> {
        let model = self.model;
        let Some(fused) = &mut self.fused else {
            return forward_backward(model, method, (input, targets), (moment, mode));
        };
        input.check(&model.config().backbone)?;
        let plan = model.config().exits().exits;
        let junctions = method.junctions(&plan, moment);
        let (heads, stream) = (model.heads(), mode.stream());
        let wanted = (heads.taps(), |block| heads.has_exit(block));
        let taps = fused.forward(model.parameters(), (input, stream.clone()), wanted)?;
        let pass = HeadPass::new(input.lengths.clone(), stream);
        let outputs = heads.forward_all(&taps, pass)?;
        let loss = method.loss(&outputs, targets, moment)?;
        let mut store = loss.total.backward()?;
        let mut of_taps = vec![TapGradients::new(); junctions.len()];
        for (block, taps) in &taps {
            let gradients = taps
                .iter()
                .filter_map(|(tap, tensor)| Some((tap, store.remove(tensor)?)));
            of_taps[*block] = gradients.collect();
        }
        let of_blocks = fused.backward(&of_taps, &junctions)?;
        let learns = |name: &str| method.trains(moment.stage, model.part(name), &plan);
        let mut gradients = Gradients::of(model.parameters(), store, learns);
        gradients.accumulate(Gradients::from_tensors(of_blocks, learns), 1.0)?;
        Ok((loss, gradients))
    }
}

fn refuse_on_devices(settings: PassSettings) -> Result<()> {
    let problem = match settings {
        PassSettings {
            precision: Precision::Bf16,
            ..
        } => ("--precision", "bf16 is computed on the CPU only"),
        PassSettings {
            recompute: true, ..
        } => ("--recompute", "works on the CPU only"),
        PassSettings { .. } => return Ok(()),
    };
    let (setting, problem) = problem;
    Err(Error::Setting {
        setting,
        problem: format!("{problem}; leave it out on this device"),
    })
}

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

/// The same of heads on the features of a frozen backbone, for some rows of a split.
///
/// # Errors
/// When the framework refuses an operation.
pub fn heads_forward_backward(
    backpropagation: &mut Backpropagation,
    method: &dyn Method,
    (features, split, rows): (&Features, &EncodedSplit, &[usize]),
    (moment, mode): (&Moment, Mode),
) -> Result<(Loss, Gradients)> {
    let model = backpropagation.model();
    let truth: Vec<_> = rows.iter().map(|row| &split.targets()[*row]).collect();
    let targets = Targets::new(model.config().head.problem, &truth, model.device())?;
    let (taps, pass) = features.batch(backpropagation, (split, rows), mode)?;
    let outputs = model.heads().forward_all(&taps, pass)?;
    let loss = method.loss(&outputs, &targets, moment)?;
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
