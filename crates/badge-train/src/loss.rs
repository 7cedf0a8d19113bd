//! The loss of one exit.

use badge_core::config::ProblemType;
use badge_tasks::Target;
use serde::{Deserialize, Serialize};

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

    /// How far a student's answers are from a teacher's: `T² KL` between the distributions of
    /// `z / T`, the mean over the batch (and over labels where there are many); for numbers the
    /// squared distance. T² keeps the size of the gradients (Hinton et al., 2015).
    ///
    /// # Shapes
    /// Logits of teacher and student, `[B, C]` each, to a scalar.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn divergence(
        &self,
        (teacher, student): (&Tensor, &Tensor),
        direction: KlDirection,
        temperature: f64,
    ) -> Result<Tensor> {
        if self.problem == ProblemType::Regression {
            return Ok((teacher - student)?.sqr()?.mean_all()?);
        }
        let of = |logits: &Tensor| self.log_probabilities(&(logits / temperature)?);
        let (teacher, student) = (of(teacher)?, of(student)?);
        let (first, second) = match direction {
            KlDirection::TeacherFirst => (teacher, student),
            KlDirection::StudentFirst => (student, teacher),
        };
        let divergence = (first.exp()? * (&first - second)?)?.sum(D::Minus1)?;
        Ok((divergence.mean_all()? * (temperature * temperature))?)
    }

    /// Logarithms of distributions: `[B, C]`, or `[B, C, 2]` of yes and no for every label.
    fn log_probabilities(&self, logits: &Tensor) -> Result<Tensor> {
        match self.problem {
            ProblemType::MultiLabel => {
                let pair = Tensor::stack(&[logits, &logits.zeros_like()?], 2)?;
                log_softmax(&pair)
            }
            ProblemType::SingleLabel | ProblemType::Regression => log_softmax(logits),
        }
    }

    /// How wrong answers are, from 0 to 1, as constants: whether the likeliest class is another
    /// one, the share of labels decided wrongly, or `|tanh(z - y)|` of a number.
    ///
    /// # Shapes
    /// `logits: [B, C]` to `[B]`.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn wrongness(&self, logits: &Tensor) -> Result<Tensor> {
        let logits = logits.detach();
        match self.problem {
            ProblemType::SingleLabel => {
                let wrong = logits.argmax(D::Minus1)?.ne(&self.values)?;
                Ok(wrong.to_dtype(logits.dtype())?)
            }
            ProblemType::MultiLabel => {
                let applies = logits.gt(0.0)?.to_dtype(logits.dtype())?;
                Ok((applies - &self.values)?.abs()?.mean(D::Minus1)?)
            }
            ProblemType::Regression => {
                let distance = (logits.squeeze(1)? - &self.values)?;
                Ok(distance.tanh()?.abs()?)
            }
        }
    }
}

/// Which of two distributions a Kullback-Leibler divergence takes its mean over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KlDirection {
    /// `KL(teacher ‖ student)`, as FastBERT's code has it.
    #[default]
    TeacherFirst,
    /// `KL(student ‖ teacher)`, as its paper reads.
    StudentFirst,
}

fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let norm = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&norm)?)
}
