//! The audit: whether early answers still agree with the full model's as the certificate says.

use std::collections::VecDeque;

use serde::Serialize;

/// ε: one early answer in so many is computed again to full depth, and only while it is calm.
pub const AUDIT_ONE_IN: u64 = 200;

/// How many audited answers are looked at.
const WINDOW: usize = 2000;

/// Answers below which nothing is told: bounds on fewer say little, and are looked at often.
const TELLING: usize = 100;

/// How far the upper bound of agreement may lie below the certified figure.
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

/// What an audit has found, which outlives the promise under which it did: the texts are no longer
/// those of the calibration, whatever is promised of the time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuditMemory {
    pub(super) audit: Audit,
    /// The least depth that is still trusted.
    pub(super) trusted: f64,
}

/// What the audit has seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AuditReport {
    /// Answers in the window.
    pub samples: usize,
    /// The share of them that agreed; none without answers.
    pub agreement: Option<f64>,
    /// The Wilson upper bound of that share.
    pub upper_bound: f64,
    /// Whether agreement has fallen below the certificate since the controller began.
    pub alarm: bool,
}

impl Audit {
    /// Takes note of one answer. True when agreement is surely below the `certified` figure by more
    /// than 2 points; the window then begins anew, as what follows is of another floor.
    ///
    /// It is the upper bound that must fall so low. The lower one of a stream that agrees exactly as
    /// often as certified does so by chance before long, the sooner the lower the figure, and an
    /// alarm takes speed away for good.
    pub(super) fn record(&mut self, agreed: bool, certified: f64) -> bool {
        if self.window.len() == WINDOW && self.window.pop_front() == Some(true) {
            self.agreed -= 1;
        }
        self.window.push_back(agreed);
        self.agreed += usize::from(agreed);
        let samples = self.window.len();
        let upper = wilson_upper(self.agreed as f64, samples as f64);
        if samples < TELLING || upper >= certified - TOLERANCE {
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
            upper_bound: wilson_upper(self.agreed as f64, samples as f64),
            alarm: self.alarmed,
        }
    }
}

/// The upper end of Wilson's score interval for `successes` of `trials` (Wilson, 1927); 1 without
/// trials.
///
/// `(p + z²/2n + z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n)`
fn wilson_upper(successes: f64, trials: f64) -> f64 {
    if trials <= 0.0 {
        return 1.0;
    }
    let share = (successes / trials).clamp(0.0, 1.0);
    let square = QUANTILE * QUANTILE / trials;
    let spread = (share * (1.0 - share) / trials + square / (4.0 * trials)).sqrt();
    let upper = (share + square / 2.0 + QUANTILE * spread) / (1.0 + square);
    upper.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers until the alarm of a random stream with this agreement; none in 4000, which at one
    /// audit in 200 answers are 800 000.
    fn answers_to_alarm(certified: f64, agreement: f64, seed: u64) -> Option<usize> {
        let mut audit = Audit::default();
        let mut state = seed;
        // Knuth's linear congruential generator; its high bits are good enough for a coin.
        let mut agrees = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64 <= agreement
        };
        (1..=4000).find(|_| audit.record(agrees(), certified))
    }

    fn alarms(certified: f64, agreement: f64) -> Vec<usize> {
        let alarm = |seed| answers_to_alarm(certified, agreement, seed);
        (0..200).filter_map(alarm).collect()
    }

    #[test]
    fn the_upper_bound_is_wilsons() {
        // 95 of 100: the textbook interval is 0.8882 to 0.9785.
        assert!((wilson_upper(95.0, 100.0) - 0.9785).abs() < 5e-5);
        assert!((wilson_upper(0.0, 10.0) - 0.2775).abs() < 5e-5);
        assert_eq!(wilson_upper(0.0, 0.0), 1.0);
        assert_eq!(wilson_upper(50.0, 50.0), 1.0);
    }

    #[test]
    fn agreement_as_certified_hardly_ever_raises_an_alarm() {
        for certified in [0.99, 0.98, 0.95, 0.9, 0.8] {
            let alarms = alarms(certified, certified).len();
            assert!(alarms <= 10, "{certified}: {alarms} of 200 streams");
        }
    }

    #[test]
    fn agreement_far_below_the_certificate_raises_it_soon() {
        for (certified, agreement) in [(0.98, 0.9), (0.95, 0.85), (0.9, 0.75)] {
            let mut alarms = alarms(certified, agreement);
            alarms.sort_unstable();
            assert!(alarms.len() >= 199, "{certified}: {}", alarms.len());
            assert!(alarms[100] < 500, "{certified}: {}", alarms[100]);
        }
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
        // One in a hundred disagrees, as the certificate allows.
        (0..WINDOW).for_each(|at| _ = audit.record(at % 100 != 0, 0.9));
        assert_eq!(audit.report().agreement, Some(0.99));
        // Behind 1901 more the last of them has left.
        (0..1901).for_each(|_| _ = audit.record(true, 0.9));
        let report = audit.report();
        assert_eq!((report.samples, report.agreement), (WINDOW, Some(1.0)));
    }
}
