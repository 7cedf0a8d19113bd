//! What the controller is asked to keep.

use serde::Serialize;

use crate::error::{Error, Result};

/// σ: the share of the SLO that the law steers at; the rest is room for what it cannot foresee
/// (ecosystem survey: 0.7, 0.8 and 0.9 traded p99 for depth; 0.8 is the middle).
pub const SET_POINT_SHARE: f64 = 0.8;

/// The bounds within which σ may be moved by measured quantiles.
pub const SET_POINT_SHARES: [f64; 2] = [0.6, 0.95];

/// Ticks per SLO: reacting within a quarter of the promised time leaves room for the reaction.
pub const TICKS_PER_SLO: f64 = 4.0;

/// The shortest and longest time between two ticks, in seconds: below, measuring costs more than it
/// tells; above, a burst has done its harm.
pub const TICK_SECONDS: [f64; 2] = [0.005, 0.25];

/// The longest SLO that can be meant, in seconds: a day.
const SLO_MAX: f64 = 86_400.0;

/// The promise to callers, and the one to those who pay for accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Settings {
    slo: f64,
    budget: Option<Budget>,
}

/// How much accuracy a long burst may spend in all.
///
/// Without one, the certified floor alone limits how shallow answers get, for as long as load
/// lasts. With one, answers below `mean_score` are paid from a reserve, which answers above it
/// fill up again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Budget {
    /// A_mean: the score that answers are to have in the mean.
    pub mean_score: f64,
    /// Z_max, in answers: how many expected mistakes beyond that mean may be made before the floor
    /// begins to rise. After twice as many it has risen to where A_mean is kept.
    pub reserve: f64,
}

impl Settings {
    /// The promise that requests are answered within `slo` seconds.
    ///
    /// # Errors
    /// [`Error::Setting`] for what is no time between 0 and a day.
    pub fn new(slo: f64) -> Result<Self> {
        if !(slo > 0.0 && slo <= SLO_MAX) {
            let problem = format!("{slo} s is no time above 0 and up to a day");
            return Err(setting("slo", problem));
        }
        Ok(Self { slo, budget: None })
    }

    /// The same with a budget of accuracy.
    ///
    /// # Errors
    /// [`Error::Setting`] for a mean score outside of 0..=1 or a reserve that is not above 0.
    pub fn with_budget(self, budget: Budget) -> Result<Self> {
        if !(0.0..=1.0).contains(&budget.mean_score) {
            let problem = format!("{} is no score between 0 and 1", budget.mean_score);
            return Err(setting("mean score", problem));
        }
        if !(budget.reserve > 0.0 && budget.reserve.is_finite()) {
            let problem = format!("{} is no number of answers above 0", budget.reserve);
            return Err(setting("reserve", problem));
        }
        Ok(Self {
            budget: Some(budget),
            ..self
        })
    }

    /// The promised time, in seconds.
    pub fn slo(&self) -> f64 {
        self.slo
    }

    /// The budget of accuracy, if there is one.
    pub fn budget(&self) -> Option<Budget> {
        self.budget
    }

    /// Δ: the time between two ticks, in seconds: a quarter of the SLO, from 5 to 250 ms.
    pub fn tick_seconds(&self) -> f64 {
        let [shortest, longest] = TICK_SECONDS;
        (self.slo / TICKS_PER_SLO).clamp(shortest, longest)
    }
}

fn setting(name: &'static str, problem: String) -> Error {
    Error::Setting { name, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_come_four_times_within_the_slo_inside_of_bounds() {
        for (slo, tick) in [(0.1, 0.025), (0.008, 0.005), (10.0, 0.25)] {
            let settings = Settings::new(slo).unwrap();
            assert!((settings.tick_seconds() - tick).abs() < 1e-12, "{slo}");
        }
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        for slo in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e6] {
            let error = Settings::new(slo).unwrap_err().to_string();
            assert!(error.starts_with("slo: "), "{error}");
        }
        let settings = Settings::new(0.1).unwrap();
        for (mean_score, reserve, name) in [
            (1.5, 10.0, "mean score"),
            (f64::NAN, 10.0, "mean score"),
            (0.9, 0.0, "reserve"),
            (0.9, f64::INFINITY, "reserve"),
        ] {
            let budget = Budget {
                mean_score,
                reserve,
            };
            let error = settings.with_budget(budget).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
