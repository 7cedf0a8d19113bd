//! The learning rate over the run.

/// Linear warm-up to a peak, then linear decay to zero at the last step; Hugging Face's
/// `get_linear_schedule_with_warmup`, whose very first step has rate 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearSchedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// All steps of the run.
    pub total: u64,
}

impl LinearSchedule {
    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let left = self.total.saturating_sub(step) as f64;
        let decay = self.total.saturating_sub(self.warmup).max(1) as f64;
        self.peak * left / decay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_climbs_to_its_peak_and_falls_to_zero() {
        let schedule = LinearSchedule {
            peak: 2.0,
            warmup: 10,
            total: 110,
        };
        let rates = [0, 5, 10, 60, 109, 110, 500].map(|step| schedule.rate(step));
        assert_eq!(rates, [0.0, 1.0, 2.0, 1.0, 0.02, 0.0, 0.0]);
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        assert_eq!(
            LinearSchedule {
                peak: 3.0,
                warmup: 0,
                total: 3
            }
            .rate(0),
            3.0
        );
    }
}
