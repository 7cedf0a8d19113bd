//! A model's calibration, as far as it speaks of the way in which the model is served.

use std::fs;
use std::path::Path;

use badge_core::calibration::{CALIBRATION_FILE, ExitCalibration};
use badge_core::controller::{FixedReason, Ladder};
use badge_tasks::hash::model_sha256;

use crate::error::{Error, Result};

/// How answers are computed, which a certificate depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// The numbers that are multiplied.
    pub(crate) precision: String,
    /// The tokens after which texts are cut.
    pub(crate) length_max: usize,
    /// The same when the exits were trained, where that is known: what a calibration kept to that
    /// does not say.
    pub(crate) length_trained: Option<usize>,
}

/// A calibration. Where its certificate speaks of other answers than those that are served, the
/// points that were certified are still there, but nothing is certified of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Calibrated {
    calibration: ExitCalibration,
    /// Why its certificate does not hold, if it had one that does not.
    void: Option<FixedReason>,
}

impl Calibrated {
    /// The calibration in a model directory, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is one of other weights.
    pub(crate) fn read(directory: &Path, served: &Served) -> Result<Option<Self>> {
        let path = directory.join(CALIBRATION_FILE);
        if !fs::exists(&path).unwrap_or(true) {
            return Ok(None);
        }
        let bytes = badge_tasks::file::read_bytes(&path)?;
        let calibration = ExitCalibration::from_json(CALIBRATION_FILE, &bytes);
        let calibration = calibration.map_err(|source| Error::Core {
            directory: directory.to_owned(),
            source,
        })?;
        // What is promised of its points holds for the weights that they were measured on.
        if calibration.model_sha256 != model_sha256(directory)? {
            return Err(Error::OtherWeights {
                directory: directory.to_owned(),
            });
        }
        Ok(Some(Self::new(calibration, served)))
    }

    /// A calibration of a model that is served in this way.
    pub(crate) fn new(mut calibration: ExitCalibration, served: &Served) -> Self {
        let void = calibration.certificate.as_ref();
        let void = void.and_then(|_| other_answers(&calibration, served));
        if void.is_some() {
            calibration.certificate = None;
            calibration.points.retain(|point| point.certified);
            for point in &mut calibration.points {
                point.certified = false;
            }
        }
        Self { calibration, void }
    }

    /// The calibration; without a certificate where that does not hold.
    pub(crate) fn calibration(&self) -> &ExitCalibration {
        &self.calibration
    }

    /// Why its certificate does not hold, if it had one that does not.
    pub(crate) fn void(&self) -> Option<&FixedReason> {
        self.void.as_ref()
    }

    /// What a controller may choose among.
    pub(crate) fn ladder(&self, accuracy_floor: Option<f64>) -> Ladder {
        match &self.void {
            Some(reason) => Ladder::void(&self.calibration, reason.clone()),
            None => Ladder::from_calibration(&self.calibration, accuracy_floor),
        }
    }
}

/// What was another when the points were measured, if anything was. The instruction set may be:
/// the kernels of all of them are held to the same answers.
fn other_answers(calibration: &ExitCalibration, served: &Served) -> Option<FixedReason> {
    if calibration.precision != served.precision {
        return Some(FixedReason::OtherPrecision {
            calibrated: calibration.precision.clone(),
            served: served.precision.clone(),
        });
    }
    let calibrated = calibration.max_length.or(served.length_trained)?;
    (calibrated != served.length_max).then_some(FixedReason::OtherLength {
        calibrated,
        served: served.length_max,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// f32, and texts of up to 64 tokens.
    pub(crate) fn served() -> Served {
        Served {
            precision: "f32".to_owned(),
            length_max: 64,
            length_trained: None,
        }
    }

    /// A point of a model of five blocks.
    pub(crate) fn point(policy: &str, score: f64, mean_exit: f64, certified: bool) -> Value {
        json!({"policy": policy, "score": score, "mean_exit": mean_exit,
            "layer_speedup": 5.0 / mean_exit, "certified": certified})
    }

    /// A certificate of a fifth of the answers.
    pub(crate) fn certificate() -> Value {
        json!({"method": "ltt", "loss": "excess", "loss_scale": null, "epsilon": 0.2,
            "confidence": 0.9, "rows": 100, "chains": 1, "mean_loss": 0.0})
    }

    /// A calibration for `policy` of a model whose full score is 0.9.
    pub(crate) fn calibration(
        policy: &str,
        certificate: &Value,
        points: &[Value],
    ) -> ExitCalibration {
        let json = json!({
            "version": 2, "policy": policy, "goal": {"max_drop": 0.1}, "certificate": certificate,
            "points": points, "temperatures": [], "data_set": "tiny", "split": "dev",
            "split_sha256": "", "n": 200, "metric": "acc", "full_score": 0.9, "model_sha256": "",
            "engine": "engine", "precision": "f32", "instruction_set": "scalar"
        });
        ExitCalibration::from_json("test", json.to_string().as_bytes()).unwrap()
    }

    /// Points at full depth and at three and one block of five, of which two are certified.
    pub(crate) fn certified() -> ExitCalibration {
        let points = [
            point("full", 0.9, 5.0, true),
            point("fixed:3", 0.85, 3.0, true),
            point("fixed:1", 0.8, 1.0, true),
        ];
        calibration("fixed:3", &certificate(), &points)
    }

    #[test]
    fn a_certificate_holds_for_the_answers_it_was_made_of() {
        let holds = Calibrated::new(certified(), &served());
        assert_eq!((holds.void(), holds.calibration()), (None, &certified()));
        assert_eq!(holds.ladder(None).levels().len(), 3);
        assert_eq!(holds.ladder(Some(0.95)).levels().len(), 1);
    }

    #[test]
    fn of_answers_with_other_numbers_nothing_is_certified() {
        let bf16 = Served {
            precision: "bf16".to_owned(),
            ..served()
        };
        let calibrated = Calibrated::new(certified(), &bf16);
        assert_eq!(calibrated.calibration().certificate, None);
        // What was measured may still be asked for by name or speed.
        let points = calibrated.calibration().usable();
        assert_eq!(points.filter(|point| !point.certified).count(), 3);
        let ladder = calibrated.ladder(None);
        assert_eq!(ladder.levels().len(), 1);
        let reason = ladder.fixed().unwrap().to_string();
        assert!(reason.contains("--precision bf16"), "{reason}");
    }

    #[test]
    fn of_texts_that_are_cut_elsewhere_nothing_is_certified() {
        let cut_at = |calibrated: Option<usize>, trained: Option<usize>, served_at: usize| {
            let calibration = ExitCalibration {
                max_length: calibrated,
                ..certified()
            };
            let served = Served {
                length_max: served_at,
                length_trained: trained,
                ..served()
            };
            let calibrated = Calibrated::new(calibration, &served);
            calibrated.void().map(ToString::to_string)
        };
        for (calibrated, trained, served_at) in [
            (Some(128), Some(64), 128),
            (None, Some(64), 64),
            (None, None, 512),
        ] {
            assert_eq!(cut_at(calibrated, trained, served_at), None);
        }
        for (calibrated, trained, served_at) in [
            (Some(128), Some(128), 64),
            (Some(128), None, 512),
            (None, Some(128), 64),
        ] {
            let reason = cut_at(calibrated, trained, served_at).unwrap();
            let flag = format!("--max-length {served_at}");
            assert!(reason.contains(&flag), "{reason}");
        }
    }

    #[test]
    fn a_calibration_without_a_certificate_has_none_to_lose() {
        let points = [
            point("full", 0.9, 5.0, false),
            point("maxprob:0.9", 0.89, 2.5, false),
        ];
        let chosen = calibration("maxprob:0.9", &Value::Null, &points);
        let int8 = Served {
            precision: "int8".to_owned(),
            ..served()
        };
        let calibrated = Calibrated::new(chosen.clone(), &int8);
        assert_eq!(
            (calibrated.void(), calibrated.calibration()),
            (None, &chosen)
        );
        let reason = calibrated.ladder(None).fixed().unwrap().clone();
        assert_eq!(reason, FixedReason::NotCertified);
    }
}
