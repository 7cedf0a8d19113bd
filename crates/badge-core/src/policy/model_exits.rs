//! What a policy has to know of a model.

use crate::config::ModelConfig;
use crate::distribution::PredictionKind;
use crate::error::{Error, Result};
use crate::exit::ExitPlan;

/// The exits of a model, as far as policies are concerned.
///
/// # Example
/// ```
/// use badge_core::distribution::PredictionKind;
/// use badge_core::exit::ExitPlan;
/// use badge_core::policy::{ModelExits, PolicySpec};
///
/// let kind = PredictionKind::SingleLabel { classes: 2 };
/// let plain = ModelExits::new(ExitPlan::every_block(12), kind);
/// let spec: PolicySpec = "lte:0.1".parse()?;
/// assert!(spec.build_for(&plain).is_err());
/// assert!(spec.build_for(&plain.with_learning_to_exit()).is_ok());
/// # Ok::<(), badge_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ModelExits {
    plan: ExitPlan,
    kind: PredictionKind,
    learns_to_exit: bool,
    temperatures: Option<Vec<f64>>,
}

impl ModelExits {
    /// Exits that give answers of `kind` and nothing else.
    pub fn new(plan: ExitPlan, kind: PredictionKind) -> Self {
        Self {
            plan,
            kind,
            learns_to_exit: false,
            temperatures: None,
        }
    }

    /// The exits of a model that is described so.
    pub fn of(config: &ModelConfig) -> Self {
        let exits = config.exits();
        let plain = Self::new(exits.exits, config.head.prediction_kind());
        if exits.lte {
            plain.with_learning_to_exit()
        } else {
            plain
        }
    }

    /// The same with a learning-to-exit head: every exit also gives a probability to continue.
    pub fn with_learning_to_exit(self) -> Self {
        Self {
            learns_to_exit: true,
            ..self
        }
    }

    /// The same with the temperatures that calibration found, one per exit. Policies that say
    /// `temperatures=calibrated` are built with them.
    ///
    /// # Errors
    /// [`Error::ConfigKey`] of `exit_calibration.json` when they are not one positive number per
    /// exit.
    pub fn with_temperatures(self, temperatures: Vec<f64>) -> Result<Self> {
        let checked = check_temperatures(&temperatures, self.plan.count());
        checked.map_err(|problem| Error::ConfigKey {
            file: "exit_calibration.json".to_owned(),
            key: "temperatures".to_owned(),
            problem,
        })?;
        Ok(Self {
            temperatures: Some(temperatures),
            ..self
        })
    }

    /// Which blocks carry an exit.
    pub fn plan(&self) -> &ExitPlan {
        &self.plan
    }

    /// The kind of the exits' answers.
    pub fn kind(&self) -> PredictionKind {
        self.kind
    }

    /// Whether every exit also gives a probability to continue.
    pub fn learns_to_exit(&self) -> bool {
        self.learns_to_exit
    }

    /// The temperatures that calibration found, one per exit.
    pub fn temperatures(&self) -> Option<&[f64]> {
        self.temperatures.as_deref()
    }

    /// Whether there is anything to be sure of: a number comes without a distribution.
    ///
    /// # Errors
    /// A sentence that names policies which regression has.
    pub(super) fn check_has_distributions(&self) -> Result<(), String> {
        if self.kind == PredictionKind::Regression {
            return Err(
                "this model answers with a number, which has no probability; use patience, \
                 flexible-patience, dge or lte"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// Whether these are temperatures of so many exits.
pub(super) fn check_temperatures(temperatures: &[f64], exits: usize) -> Result<(), String> {
    if let Some(bad) = temperatures.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
        return Err(format!("{bad} is not a positive finite number"));
    }
    if temperatures.len() != exits {
        let found = temperatures.len();
        return Err(format!("there are {found} for {exits} exits"));
    }
    Ok(())
}
