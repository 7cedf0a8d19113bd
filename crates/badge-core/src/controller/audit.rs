//! The audit: whether early answers still agree with the full model's as the certificate says.

use std::collections::VecDeque;

use serde::Serialize;

/// ε: one early answer in so many is computed again to full depth, and only while it is calm.
pub const AUDIT_ONE_IN: u64 = 200;

/// How many audited answers are looked at.
const WINDOW: usize = 2000;

/// How far the lower bound of agreement may lie below the certified figure.
const TOLERANCE: f64 = 0.02;

/// The normal quantile of the bound: two-sided 95 %.
const QUANTILE: f64 = 1.96;

/// Agreement of early answers with the full model's, over the last 2000 that were audited.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Audit {
    window: VecDeque<bool>,
    agreed: usize,
    alarmed: bool,
}

/// What the audit has seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AuditReport {
    /// Answers in the window.
    pub samples: usize,
    /// The share of them that agreed; none without answers.
    pub agreement: Option<f64>,
    /// The Wilson lower bound of that share.
    pub lower_bound: f64,
    /// Whether agreement has fallen below the certificate since the controller began.
    pub alarm: bool,
}

impl Audit {
    /// Takes note of one answer. True when agreement is below the `certified` figure by more than 2
    /// points; the window then begins anew, as what follows is of another floor.
    ///
    /// A bound on few answers is low whatever they are: it counts once a stream that agrees exactly
    /// as often as certified would pass, or once the window is full.
    pub(super) fn record(&mut self, agreed: bool, certified: f64) -> bool {
        if self.window.len() == WINDOW && self.window.pop_front() == Some(true) {
            self.agreed -= 1;
        }
        self.window.push_back(agreed);
        self.agreed += usize::from(agreed);
        let (samples, least) = (self.window.len(), certified - TOLERANCE);
        let telling =
            samples == WINDOW || wilson_lower(certified * samples as f64, samples as f64) >= least;
        if !telling || wilson_lower(self.agreed as f64, samples as f64) >= least {
            return false;
        }
        self.window.clear();
        self.agreed = 0;
        self.alarmed = true;
        true
    }

    pub(super) fn report(&self) -> AuditReport {
        let samples = self.window.len();
        let share = self.agreed as f64 / samples as f64;
        AuditReport {
            samples,
            agreement: (samples > 0).then_some(share),
            lower_bound: wilson_lower(self.agreed as f64, samples as f64),
            alarm: self.alarmed,
        }
    }
}

/// The lower end of Wilson's score interval for `successes` of `trials` (Wilson, 1927); 0 without
/// trials.
///
/// `(p + z²/2n - z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n)`
fn wilson_lower(successes: f64, trials: f64) -> f64 {
    if trials <= 0.0 {
        return 0.0;
    }
    let share = (successes / trials).clamp(0.0, 1.0);
    let square = QUANTILE * QUANTILE / trials;
    let spread = (share * (1.0 - share) / trials + square / (4.0 * trials)).sqrt();
    let lower = (share + square / 2.0 - QUANTILE * spread) / (1.0 + square);
    lower.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers until the alarm when every so many disagree; none in 20 000.
    fn answers_to_alarm(certified: f64, one_in: usize) -> Option<usize> {
        let mut audit = Audit::default();
        (1..=20_000).find(|at| audit.record(at % one_in != 0, certified))
    }

    #[test]
    fn the_lower_bound_is_wilsons() {
        // 95 of 100: the textbook interval is 0.8882 to 0.9785.
        assert!((wilson_lower(95.0, 100.0) - 0.8882).abs() < 5e-5);
        assert!((wilson_lower(10.0, 10.0) - 0.7225).abs() < 5e-5);
        assert_eq!(wilson_lower(0.0, 0.0), 0.0);
        assert_eq!(wilson_lower(0.0, 50.0), 0.0);
    }

    #[test]
    fn agreement_as_certified_raises_no_alarm() {
        for (certified, one_in) in [(0.99, 100), (0.98, 50), (0.95, 20), (0.9, 10)] {
            assert_eq!(answers_to_alarm(certified, one_in), None, "{certified}");
        }
        assert_eq!(answers_to_alarm(0.99, 40_000), None);
    }

    #[test]
    fn agreement_far_below_the_certificate_raises_it_once_it_is_telling() {
        let at = answers_to_alarm(0.98, 10).unwrap();
        assert!((100..1000).contains(&at), "{at}");
        assert!(answers_to_alarm(0.5, 3).is_none());
        assert_eq!(answers_to_alarm(0.7, 2), Some(WINDOW));
    }

    #[test]
    fn an_alarm_stays_and_the_window_begins_anew() {
        let mut audit = Audit::default();
        while !audit.record(false, 0.98) {}
        let report = audit.report();
        assert_eq!((report.samples, report.agreement), (0, None));
        assert!(report.alarm);
        audit.record(true, 0.98);
        assert_eq!(audit.report().agreement, Some(1.0));
        assert!(audit.report().alarm);
    }

    #[test]
    fn old_answers_leave_the_window() {
        let mut audit = Audit::default();
        (0..WINDOW).for_each(|at| _ = audit.record(at >= 20, 0.9));
        assert_eq!(audit.report().agreement, Some(1.0 - 20.0 / WINDOW as f64));
        (0..20).for_each(|_| _ = audit.record(true, 0.9));
        let report = audit.report();
        assert_eq!((report.samples, report.agreement), (WINDOW, Some(1.0)));
    }
}
