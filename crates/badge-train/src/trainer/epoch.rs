//! The end of an epoch: scores on dev, the best weights, the checkpoint.

use std::time::Instant;

use super::{StageRun, Trainer, epochs_without_gain};
use crate::checkpoint::Best;
use crate::error::Result;
use crate::evaluate::{ExitLogits, ExitScores, evaluate_heads};
use crate::method::Judge;
use crate::model_directory::stage_weights;
use crate::observer::EpochReport;

impl Trainer<'_> {
    /// Scores the epoch, keeps its weights if they are the best, and saves the checkpoint.
    pub(super) fn finish_epoch(&mut self, run: &StageRun) -> Result<()> {
        let start = Instant::now();
        let (logits, loss) = self.evaluate(run)?;
        let judge = (self.data.metric, self.data.label_space);
        let scores = ExitScores::of(&logits, self.data.dev_split, judge)?;
        let value = match run.stage.judge {
            Judge::Average => scores.average,
            Judge::Deepest => *scores.exits.last().expect("a model has an exit"),
            Judge::Loss => -loss.expect("a stage that changes no exit rests on a frozen backbone"),
        };
        let progress = &mut self.progress;
        progress.epochs += 1;
        let improved = progress.best.as_ref().is_none_or(|best| value > best.value);
        if improved {
            progress.best = Some(Best {
                epoch: progress.epochs,
                value,
                scores: scores.clone(),
            });
        }
        progress.seconds += start.elapsed().as_secs_f64();
        let report = EpochReport {
            epoch: progress.epochs,
            epochs_max: self.method.stages().len() * self.config.epochs_max,
            stage: run.label.clone(),
            step: progress.steps,
            loss: progress.loss_sum / progress.steps_in_epoch as f64,
            scores,
            improved,
            epochs_without_gain: epochs_without_gain(progress),
            seconds: progress.seconds,
        };
        progress.history.push(report.clone());
        progress.steps_in_epoch = 0;
        progress.loss_sum = 0.0;
        // Logs first: a resumed run drops what lies behind its checkpoint, but adds nothing before.
        self.tell(|observer| observer.epoch(&report))?;
        if improved {
            let weights = self.model.parameters().to_checkpoint()?;
            let staged = stage_weights(self.directory, &weights)?;
            self.tell(|observer| observer.weights(&report))?;
            staged.commit()?;
        }
        self.save()
    }

    /// Every exit on dev; on a frozen backbone the stage's loss too.
    fn evaluate(&mut self, run: &StageRun) -> Result<(ExitLogits, Option<f64>)> {
        let dev = self.data.dev;
        let Some((_, features)) = &run.features else {
            return Ok((self.evaluator.evaluate(self.model, dev)?, None));
        };
        let method = (self.method.as_ref(), &self.moment());
        let backpropagation = &mut self.backpropagation;
        let (logits, loss) = evaluate_heads(backpropagation, method, (features, dev))?;
        Ok((logits, Some(loss)))
    }
}
