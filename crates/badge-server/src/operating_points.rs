//! The policies that a model may run, and the one that it runs now.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use badge_core::calibration::ExitCalibration;
use badge_core::controller::{Ask, AuditMemory, Class, Ladder, Settings};
use badge_core::exit::Depth;
use badge_core::policy::{ModelExits, Policy, PolicySpec};
use serde::Deserialize;

use crate::calibrated::Calibrated;
use crate::governor::Governor;
use crate::metrics::Promise;
use crate::refusal::Refusal;
use crate::steering::{Steering, Witness};

/// The policies that a model may run, and the one that it runs now.
#[derive(Debug)]
pub(crate) struct OperatingPoints {
    exits: ModelExits,
    /// `full`, then the calibrated points that may be used in each other's place, by rising speed.
    rows: Vec<Row>,
    calibrated: Option<Calibrated>,
    current: RwLock<Current>,
    /// What the audit of a controller that decides no more has found.
    audited: Mutex<AuditMemory>,
}

/// One policy with what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) policy: Arc<Policy>,
    /// Its score on dev, where the model is calibrated.
    pub(crate) score: Option<f64>,
    /// Mean depth at which texts left.
    pub(crate) mean_exit: f64,
    pub(crate) certified: bool,
}

/// What texts leave by whose request does not say.
#[derive(Debug, Clone)]
pub(crate) enum Current {
    /// A policy that somebody chose.
    Chosen(Arc<Policy>),
    /// A row of the table, which somebody chose by what it keeps.
    Row(usize),
    /// What a controller says, which may change at any time.
    Governed(Arc<Governor>),
}

/// The policy of one text, which is looked up when the engine takes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    base: Base,
    steering: Steering,
}

#[derive(Debug, Clone, Default)]
enum Base {
    /// What the model runs now.
    #[default]
    Current,
    /// The fastest row that keeps a score; no faster one than what the model runs now where a
    /// controller or somebody's choice of a row says so.
    AtLeast { score: f64, row: usize },
    /// A policy of the request's own.
    Own(Arc<Policy>),
}

/// How a request wants to be treated: `policy` of its body.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyTerms {
    /// A policy as text.
    pub(crate) spec: Option<String>,
    /// The best score at this layer speed-up or more.
    pub(crate) speedup: Option<f64>,
    /// The fastest that keeps this score.
    #[serde(alias = "min_score")]
    pub(crate) min_accuracy: Option<f64>,
    /// Blocks that may run at most.
    #[serde(alias = "max_layer")]
    pub(crate) max_depth: Option<usize>,
    /// Milliseconds after which an answer is worth nothing.
    pub(crate) deadline_ms: Option<f64>,
    /// How urgent it is.
    pub(crate) priority: Option<Class>,
}

impl Row {
    fn promise(&self, deepest: f64) -> Promise {
        Promise {
            level: self.mean_exit / deepest,
            score: self.score,
            ..Promise::default()
        }
    }
}

impl Choice {
    /// Whether a controller decides alone, so that its certificate speaks of the answer.
    pub(crate) fn is_left_to_the_model(&self) -> bool {
        matches!(self.base, Base::Current) && self.steering.depth_max.is_none()
    }

    /// Every block, whatever the model runs.
    pub(crate) fn full(points: &OperatingPoints) -> Self {
        Self {
            base: Base::Own(Arc::clone(&points.rows[0].policy)),
            steering: Steering::default(),
        }
    }
}

impl OperatingPoints {
    /// The points of a model; `chosen` wins over its calibration.
    ///
    /// # Errors
    /// Names the policy or the key of the calibration that does not fit.
    pub(crate) fn new(
        exits: ModelExits,
        calibrated: Option<Calibrated>,
        chosen: Option<&PolicySpec>,
    ) -> badge_core::Result<Self> {
        let calibration = calibrated.as_ref().map(Calibrated::calibration);
        let exits = match calibration {
            Some(calibration) if !calibration.temperatures.is_empty() => {
                exits.with_temperatures(calibration.temperatures.clone())?
            }
            _ => exits,
        };
        let build = |spec: &PolicySpec| spec.build_for(&exits).map(Arc::new);
        let mut rows = vec![Row {
            policy: build(&PolicySpec::Full)?,
            score: calibration.map(|c| c.full_score),
            mean_exit: exits.plan().deepest().0 as f64,
            certified: true,
        }];
        for point in calibration.into_iter().flat_map(ExitCalibration::usable) {
            if point.policy == PolicySpec::Full {
                continue;
            }
            rows.push(Row {
                policy: build(&point.policy)?,
                score: Some(point.score),
                mean_exit: point.mean_exit,
                certified: point.certified,
            });
        }
        rows.sort_by(|a, b| b.mean_exit.total_cmp(&a.mean_exit));
        let spec = chosen.or(calibration.map(|c| &c.policy));
        let current = build(spec.unwrap_or(&PolicySpec::Full))?;
        Ok(Self {
            exits,
            rows,
            calibrated,
            current: RwLock::new(Current::Chosen(current)),
            audited: Mutex::default(),
        })
    }

    /// `full`, then the usable points, the slowest first.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What the model was calibrated for, if it was.
    pub(crate) fn calibration(&self) -> Option<&ExitCalibration> {
        self.calibrated.as_ref().map(Calibrated::calibration)
    }

    /// What runs where a request does not say.
    pub(crate) fn current(&self) -> Current {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The policy that runs where a request does not say.
    pub(crate) fn current_policy(&self) -> Arc<Policy> {
        match self.current() {
            Current::Chosen(policy) => policy,
            Current::Row(row) => Arc::clone(&self.rows[row].policy),
            Current::Governed(governor) => governor.policy(&Ask::default()),
        }
    }

    /// The controller, where one decides.
    pub(crate) fn governor(&self) -> Option<Arc<Governor>> {
        match self.current() {
            Current::Governed(governor) => Some(governor),
            Current::Chosen(_) | Current::Row(_) => None,
        }
    }

    /// What is promised, how it is kept, and what by.
    pub(crate) fn promise(&self) -> Promise {
        let deepest = self.exits.plan().deepest().0 as f64;
        match self.current() {
            Current::Governed(governor) => governor.promise(),
            Current::Row(row) => self.rows[row].promise(deepest),
            Current::Chosen(policy) => {
                let row = self.rows.iter().find(|row| row.policy == policy);
                row.map_or_else(Promise::default, |row| row.promise(deepest))
            }
        }
    }

    /// Lets a controller decide from now on.
    ///
    /// # Errors
    /// When the promise is none that can be kept, or a certified policy does not fit the model.
    pub(crate) fn govern(
        &self,
        slo: Duration,
        accuracy_floor: Option<f64>,
    ) -> badge_core::Result<()> {
        let settings = Settings::new(slo.as_secs_f64())?;
        if let Some(governor) = self.governor()
            && governor.accuracy_floor() == accuracy_floor
        {
            governor.set_settings(settings);
            return Ok(());
        }
        let calibrated = self.calibrated.as_ref();
        let ladder = calibrated.map_or_else(Ladder::full_only, |c| c.ladder(accuracy_floor));
        let within = (ladder, accuracy_floor);
        let governor = Governor::new(settings, within, &self.audit_memory(), &self.exits)?;
        if let Some(reason) = governor.ladder().fixed() {
            tracing::warn!(%reason, "the controller can choose nothing but full depth");
        }
        self.set(Current::Governed(Arc::new(governor)));
        Ok(())
    }

    /// What the audit of the controllers of this model has found so far.
    pub(crate) fn audit_memory(&self) -> AuditMemory {
        let before = || self.audited.lock().unwrap_or_else(PoisonError::into_inner);
        let governor = self.governor();
        governor.map_or_else(|| before().clone(), |governor| governor.audit_memory())
    }

    /// Takes the place of the same model loaded before: what the audit has found holds on, unless
    /// the model has been calibrated anew.
    pub(crate) fn succeed(&self, before: &Self) {
        if self.calibrated != before.calibrated {
            return;
        }
        let found = before.audit_memory();
        if let Some(governor) = self.governor() {
            governor.remember(&found);
        }
        *self.audited.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// The policy of this text.
    ///
    /// # Errors
    /// When the model cannot run it.
    pub(crate) fn policy(&self, spec: &PolicySpec) -> badge_core::Result<Arc<Policy>> {
        spec.build_for(&self.exits).map(Arc::new)
    }

    /// Makes a policy the one that runs where a request does not say.
    pub(crate) fn set(&self, current: Current) {
        if let Current::Row(row) = &current {
            assert!(*row < self.rows.len(), "row {row} of {}", self.rows.len());
        }
        let mut place = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Current::Governed(governor) = &*place {
            let mut audited = self.audited.lock().unwrap_or_else(PoisonError::into_inner);
            *audited = governor.audit_memory();
        }
        *place = current;
    }

    /// What terms come to that are to hold for all requests that do not say.
    pub(crate) fn standing(&self, terms: &PolicyTerms) -> Result<Current, Refusal> {
        if terms.max_depth.is_some() || terms.deadline_ms.is_some() || terms.priority.is_some() {
            let problem = "`policy`: depth, deadline and priority are for single requests; give \
                           `spec`, `speedup` or `min_accuracy`";
            return Err(Refusal::Validation(problem.to_owned()));
        }
        Ok(match self.choose(terms, None)?.base {
            Base::Current => self.current(),
            Base::AtLeast { row, .. } => Current::Row(row),
            Base::Own(policy) => Current::Chosen(policy),
        })
    }

    /// What a request's terms come to on this model. With a witness every exit is computed.
    pub(crate) fn choose(
        &self,
        terms: &PolicyTerms,
        witness: Option<Witness>,
    ) -> Result<Choice, Refusal> {
        let steering = Steering {
            depth_max: terms.max_depth.map(|d| self.exit_within(d)).transpose()?,
            witness,
        };
        let asked = [
            terms.spec.is_some(),
            terms.speedup.is_some(),
            terms.min_accuracy.is_some(),
        ];
        if asked.iter().filter(|asked| **asked).count() > 1 {
            return Err(Refusal::Validation(
                "`policy`: give one of `spec`, `speedup` and `min_accuracy`".to_owned(),
            ));
        }
        let base = if let Some(spec) = &terms.spec {
            Base::Own(self.own(spec)?)
        } else if let Some(speedup) = terms.speedup {
            Base::Own(self.at_speedup(speedup)?)
        } else if let Some(least) = terms.min_accuracy {
            Base::AtLeast {
                score: least,
                row: self.fastest_with(least)?,
            }
        } else {
            Base::Current
        };
        Ok(Choice { base, steering })
    }

    /// The policy of a choice, now, for a text that asks for this and for what it has chosen.
    pub(crate) fn resolve(&self, choice: &Choice, ask: Ask) -> Arc<Policy> {
        let governed = |governor: &Governor, min_accuracy| {
            governor.policy(&Ask {
                min_accuracy,
                ..ask
            })
        };
        let policy = match (&choice.base, self.current()) {
            (Base::Own(policy), _) => Arc::clone(policy),
            (Base::Current, Current::Governed(governor)) => governed(&governor, None),
            (Base::Current, _) => self.current_policy(),
            (Base::AtLeast { score, .. }, Current::Governed(governor)) => {
                governed(&governor, Some(*score))
            }
            (Base::AtLeast { row, .. }, Current::Row(now)) => {
                Arc::clone(&self.rows[now.min(*row)].policy)
            }
            (Base::AtLeast { row, .. }, Current::Chosen(_)) => Arc::clone(&self.rows[*row].policy),
        };
        choice.steering.apply(&policy)
    }

    fn own(&self, spec: &str) -> Result<Arc<Policy>, Refusal> {
        let policy = spec.parse().and_then(|spec| self.policy(&spec));
        policy.map_err(|error| Refusal::Validation(format!("`policy.spec`: {error}")))
    }

    fn at_speedup(&self, least: f64) -> Result<Arc<Policy>, Refusal> {
        let wrong = |problem| Err(Refusal::Validation(format!("`policy.speedup`: {problem}")));
        if !(least.is_finite() && least >= 1.0) {
            return wrong(format!("{least} is no speed-up; it is 1 or more"));
        }
        if least == 1.0 {
            return Ok(Arc::clone(&self.rows[0].policy));
        }
        let Some(calibration) = self.calibration() else {
            return wrong(NOT_CALIBRATED.to_owned());
        };
        if let Some(point) = calibration.at_speedup(least) {
            let policy = self.policy(&point.policy);
            return Ok(policy.expect("every point was built when the model was loaded"));
        }
        let usable = calibration.usable().map(|point| point.layer_speedup);
        let most = usable.fold(1.0, f64::max);
        wrong(format!("{least} is more than the {most:.2} that there is"))
    }

    /// The fastest row with at least this score.
    fn fastest_with(&self, least: f64) -> Result<usize, Refusal> {
        let wrong = |problem| {
            let problem = format!("`policy.min_accuracy`: {problem}");
            Err(Refusal::Validation(problem))
        };
        let Some(calibration) = self.calibration() else {
            return wrong(NOT_CALIBRATED.to_owned());
        };
        let keeps = |row: &Row| row.score.is_some_and(|score| score >= least);
        match self.rows.iter().rposition(keeps) {
            Some(row) => Ok(row),
            None => wrong(format!(
                "{least} is more than the full model's {:.4}",
                calibration.full_score
            )),
        }
    }

    /// The deepest exit that is no deeper.
    fn exit_within(&self, depth_max: usize) -> Result<Depth, Refusal> {
        let depths = self.exits.plan().depths();
        let exit = depths.iter().rev().find(|depth| depth.0 <= depth_max);
        exit.copied().ok_or_else(|| {
            Refusal::Validation(format!(
                "`policy.max_depth`: the first exit is at depth {}, not within {depth_max}",
                depths[0]
            ))
        })
    }
}

const NOT_CALIBRATED: &str = "this model is not calibrated; run badge calibrate, or give `spec`";
