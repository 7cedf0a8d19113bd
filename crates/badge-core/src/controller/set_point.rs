//! The outer loop: the set-point follows the quantile that was measured.

use super::settings::{SET_POINT_SHARE, SET_POINT_SHARES};

/// Seconds between two steps: long against a burst.
const PERIOD: f64 = 10.0;

/// The step.
const STEP: f64 = 0.02;

/// σ, and what has been seen since it was last moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SetPoint {
    share: f64,
    begun: Option<f64>,
    /// The worst quantile since then.
    worst: Option<f64>,
    reduced: bool,
}

impl Default for SetPoint {
    fn default() -> Self {
        Self {
            share: SET_POINT_SHARE,
            begun: None,
            worst: None,
            reduced: false,
        }
    }
}

impl SetPoint {
    /// σ.
    pub(super) fn share(self) -> f64 {
        self.share
    }

    /// One tick. Every 10 s σ goes down by 0.02 where the measured quantile has exceeded the SLO at
    /// any tick, and up by as much where it has not though depth was reduced. While everything ran
    /// to full depth a short quantile says nothing of the set-point, and σ stays.
    pub(super) fn tick(&mut self, now: f64, (quantile, slo): (Option<f64>, f64), depth: f64) {
        self.reduced |= depth < 1.0;
        self.worst = match (self.worst, quantile) {
            (Some(worst), Some(quantile)) => Some(worst.max(quantile)),
            (worst, quantile) => worst.or(quantile),
        };
        let begun = *self.begun.get_or_insert(now);
        if now - begun < PERIOD {
            return;
        }
        let step = match self.worst.take() {
            Some(seconds) if seconds > slo => -STEP,
            Some(_) if self.reduced => STEP,
            _ => 0.0,
        };
        let [least, most] = SET_POINT_SHARES;
        self.share = (self.share + step).clamp(least, most);
        self.begun = Some(now);
        self.reduced = depth < 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u32, quantile: Option<f64>, depth: f64) -> f64 {
        let mut set_point = SetPoint::default();
        for second in 0..=seconds {
            set_point.tick(f64::from(second), (quantile, 0.1), depth);
        }
        set_point.share()
    }

    #[test]
    fn it_moves_every_ten_seconds_toward_the_quantile_within_bounds() {
        assert!((after(10, Some(0.2), 0.5) - 0.78).abs() < 1e-12);
        assert!((after(10, Some(0.05), 0.5) - 0.82).abs() < 1e-12);
        assert_eq!(after(9, Some(0.2), 0.5), 0.8);
        assert_eq!(after(1000, Some(0.2), 0.5), 0.6);
        assert_eq!(after(1000, Some(0.05), 0.5), 0.95);
    }

    #[test]
    fn one_bad_moment_of_a_period_counts_whenever_it_was() {
        let mut set_point = SetPoint::default();
        for second in 0..=10_u32 {
            let quantile = if second == 4 { 0.2 } else { 0.05 };
            set_point.tick(f64::from(second), (Some(quantile), 0.1), 0.5);
        }
        assert!((set_point.share() - 0.78).abs() < 1e-12);
        // The next period begins anew.
        for second in 11..=20_u32 {
            set_point.tick(f64::from(second), (Some(0.05), 0.1), 0.5);
        }
        assert!((set_point.share() - 0.8).abs() < 1e-12);
    }

    #[test]
    fn it_stays_without_a_quantile_and_while_nothing_was_reduced() {
        assert_eq!(after(1000, None, 0.5), 0.8);
        assert_eq!(after(1000, Some(0.05), 1.0), 0.8);
    }
}
