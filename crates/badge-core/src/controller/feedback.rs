//! The feedback loop: depth falls fast when requests are about to be late, and rises slowly after.

/// The most that one tick takes away: depth is at most halved.
const ATTACK_MOST: f64 = 0.5;

/// Below this share of the set-point things are calm; between it and the set-point depth is held,
/// so that it does not chatter.
const CALM_SHARE: f64 = 0.5;

/// H: calm ticks before depth begins to rise.
const CALM_TICKS: u32 = 10;

/// r: the share of the range between floor and full depth that a calm tick gives back.
const RELEASE: f64 = 0.05;

/// d_fb, and how long it has been calm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Feedback {
    depth: f64,
    calm: u32,
}

impl Default for Feedback {
    fn default() -> Self {
        Self {
            depth: 1.0,
            calm: 0,
        }
    }
}

impl Feedback {
    /// d_fb.
    pub(super) fn depth(self) -> f64 {
        self.depth
    }

    /// One tick: `sojourn` is what is predicted, `set_point` what is aimed at, both in seconds.
    ///
    /// ```text
    /// T̂ > T*        d ← max(floor, d · clip(T* / T̂, 0.5, 1)),  calm ← 0
    /// T̂ < 0.5 T*    calm ← calm + 1;  from 10 on  d ← min(1, d + 0.05 (1 - floor))
    /// else          calm ← 0
    /// ```
    pub(super) fn tick(&mut self, sojourn: f64, set_point: f64, floor: f64) {
        if sojourn > set_point {
            self.depth *= (set_point / sojourn).clamp(ATTACK_MOST, 1.0);
            self.calm = 0;
        } else if is_calm(sojourn, set_point) {
            self.calm = self.calm.saturating_add(1);
            if self.calm >= CALM_TICKS {
                self.depth += RELEASE * (1.0 - floor);
            }
        } else {
            self.calm = 0;
        }
        self.depth = self.depth.clamp(floor, 1.0);
    }
}

/// Whether so short a sojourn leaves time to spare.
pub(super) fn is_calm(sojourn: f64, set_point: f64) -> bool {
    sojourn < CALM_SHARE * set_point
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: f64 = 0.35;

    #[test]
    fn depth_falls_in_proportion_and_by_no_more_than_half() {
        for (sojourn, depth) in [(0.081, 0.08 / 0.081), (0.1, 0.8), (0.16, 0.5), (9.0, 0.5)] {
            let mut feedback = Feedback::default();
            feedback.tick(sojourn, 0.08, FLOOR);
            assert!((feedback.depth - depth).abs() < 1e-12, "{sojourn}");
        }
        let mut feedback = Feedback::default();
        (0..9).for_each(|_| feedback.tick(9.0, 0.08, FLOOR));
        assert_eq!(feedback.depth, FLOOR);
    }

    #[test]
    fn depth_rises_after_ten_calm_ticks_in_a_row() {
        let mut feedback = Feedback {
            depth: 0.5,
            calm: 0,
        };
        (0..9).for_each(|_| feedback.tick(0.01, 0.08, FLOOR));
        assert_eq!(feedback.depth, 0.5);
        // Neither calm nor late: counting begins anew.
        feedback.tick(0.05, 0.08, FLOOR);
        (0..9).for_each(|_| feedback.tick(0.01, 0.08, FLOOR));
        assert_eq!(feedback.depth, 0.5);
        feedback.tick(0.01, 0.08, FLOOR);
        assert!((feedback.depth - (0.5 + 0.05 * 0.65)).abs() < 1e-12);
    }

    #[test]
    fn nothing_moves_between_calm_and_late() {
        let mut feedback = Feedback {
            depth: 0.6,
            calm: 12,
        };
        for sojourn in [0.04, 0.06, 0.08] {
            feedback.tick(sojourn, 0.08, FLOOR);
            assert_eq!(feedback.depth, 0.6, "{sojourn}");
        }
    }

    #[test]
    fn a_floor_that_rises_takes_the_depth_with_it() {
        let mut feedback = Feedback {
            depth: 0.4,
            calm: 0,
        };
        feedback.tick(0.06, 0.08, 0.7);
        assert_eq!(feedback.depth, 0.7);
    }
}
