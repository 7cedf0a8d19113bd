//! The loss of one exit.

use badge_core::config::ProblemType;
use badge_tasks::Target;

use crate::error::{Error, Result};
use crate::framework::{D, Device, Tensor};

/// The truth of a batch on the model's device.
#[derive(Debug, Clone)]
pub struct Targets {
    problem: ProblemType,
    /// `[B]` class ids (u32), `[B, C]` zeros and ones, or `[B]` values.
    values: Tensor,
}

impl Targets {
    /// Targets of one kind.
    ///
    /// # Errors
    /// When a target is not of the kind that the problem asks for.
    pub fn new(problem: ProblemType, targets: &[&Target], device: &Device) -> Result<Self> {
        let wrong = |target: &Target| Error::Setting {
            setting: "problem_type",
            problem: format!("{target:?} is no target of {}", problem.name()),
        };
        let values = match problem {
            ProblemType::SingleLabel => {
                let ids = targets.iter().map(|target| match target {
                    Target::Class(class) => Ok(*class as u32),
                    other => Err(wrong(other)),
                });
                Tensor::from_vec(ids.collect::<Result<Vec<_>>>()?, targets.len(), device)?
            }
            ProblemType::MultiLabel => {
                let rows = targets.iter().map(|target| match target {
                    Target::Classes(set) => Ok(set.iter().map(|on| f32::from(u8::from(*on)))),
                    other => Err(wrong(other)),
                });
                let values: Vec<f32> = rows
                    .collect::<Result<Vec<_>>>()?
                    .into_iter()
                    .flatten()
                    .collect();
                let labels = values.len() / targets.len();
                Tensor::from_vec(values, (targets.len(), labels), device)?
            }
            ProblemType::Regression => {
                let values = targets.iter().map(|target| match target {
                    Target::Value(value) => Ok(*value),
                    other => Err(wrong(other)),
                });
                Tensor::from_vec(values.collect::<Result<Vec<_>>>()?, targets.len(), device)?
            }
        };
        Ok(Self { problem, values })
    }

    /// The mean loss over the batch: cross-entropy, binary cross-entropy over labels, or squared
    /// error, as in Hugging Face's sequence classifiers.
    ///
    /// # Shapes
    /// `logits: [B, C]` to a scalar.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn loss(&self, logits: &Tensor) -> Result<Tensor> {
        match self.problem {
            ProblemType::SingleLabel => {
                let picked = log_softmax(logits)?.gather(&self.values.unsqueeze(1)?, 1)?;
                Ok(picked.mean_all()?.neg()?)
            }
            ProblemType::MultiLabel => {
                // max(x, 0) - x y + ln(1 + e^-|x|): no overflow on either side.
                let softplus = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
                let loss = ((logits.relu()? - (logits * &self.values)?)? + softplus)?;
                Ok(loss.mean_all()?)
            }
            ProblemType::Regression => {
                Ok((logits.squeeze(1)? - &self.values)?.sqr()?.mean_all()?)
            }
        }
    }
}

fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let norm = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&norm)?)
}
