//! How fast work gets done, from the batches that have been executed.

use super::load::Service;

/// Batches over which the rate is averaged: it has to follow a machine that slows down.
const RATE_BATCHES: f64 = 10.0;

/// Batches over which fixed and variable time are told apart: enough of different sizes.
const FIT_BATCHES: f64 = 100.0;

/// Shares of work's variance below which batches count as all of one size.
const SAME_SIZE: f64 = 1e-6;

/// Estimates μ̂, s0 and c of a [`Service`] from executed batches.
///
/// μ̂ is work over seconds, both averaged exponentially over about ten batches. s0 and c are the
/// line `seconds = s0 + c · work` with the least squares over about a hundred; where batches are all
/// of one size, or the line would make no sense, all time counts as variable.
///
/// # Example
/// ```
/// use badge_core::controller::ServiceEstimate;
///
/// let mut estimate = ServiceEstimate::default();
/// for batch in 0..200 {
///     let work = f64::from(1 + batch % 16);
///     estimate.observe(work, 0.001 + 0.002 * work);
/// }
/// let service = estimate.service(16.0);
/// assert!((service.fixed - 0.001).abs() < 1e-6);
/// assert!((service.per_work - 0.002).abs() < 1e-6);
/// assert!((service.batch_seconds(0.5) - 0.0165).abs() < 1e-5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ServiceEstimate {
    rate: Means,
    fit: Means,
}

/// Exponentially weighted means; all 0 before the first batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Means {
    batches: u32,
    work: f64,
    seconds: f64,
    work_work: f64,
    work_seconds: f64,
}

impl Means {
    /// Until there are so many batches, the plain mean of those that there are.
    fn observe(&mut self, (work, seconds): (f64, f64), batches: f64) {
        self.batches = self.batches.saturating_add(1);
        let weight = 1.0 / f64::from(self.batches).min(batches);
        let follow = |mean: &mut f64, value: f64| *mean += weight * (value - *mean);
        follow(&mut self.work, work);
        follow(&mut self.seconds, seconds);
        follow(&mut self.work_work, work * work);
        follow(&mut self.work_seconds, work * seconds);
    }

    /// s0 and c.
    fn line(&self) -> (f64, f64) {
        if self.work <= 0.0 {
            return (0.0, 0.0);
        }
        let proportional = (0.0, self.seconds / self.work);
        let variance = self.work_work - self.work * self.work;
        if variance <= SAME_SIZE * self.work * self.work {
            return proportional;
        }
        let slope = (self.work_seconds - self.work * self.seconds) / variance;
        let fixed = self.seconds - slope * self.work;
        if slope > 0.0 && fixed >= 0.0 {
            (fixed, slope)
        } else {
            proportional
        }
    }
}

impl ServiceEstimate {
    /// Takes note of a batch of `work` units (its tokens) that would have taken so many seconds to
    /// full depth: a block's pass as many times longer as there are blocks. What is not above 0 is
    /// passed over.
    pub fn observe(&mut self, work: f64, seconds: f64) {
        // Squares of larger numbers would leave too few digits for the line.
        let range = 1e-9..=1e9;
        if range.contains(&work) && range.contains(&seconds) {
            self.rate.observe((work, seconds), RATE_BATCHES);
            self.fit.observe((work, seconds), FIT_BATCHES);
        }
    }

    /// What is known, for a next batch of `batch` units to full depth.
    pub fn service(&self, batch: f64) -> Service {
        let rate = if self.rate.seconds > 0.0 {
            self.rate.work / self.rate.seconds
        } else {
            0.0
        };
        let (fixed, per_work) = self.fit.line();
        Service {
            rate,
            fixed,
            per_work,
            batch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_the_first_batch() {
        let mut estimate = ServiceEstimate::default();
        for (work, seconds) in [
            (0.0, 1.0),
            (1.0, 0.0),
            (f64::NAN, 1.0),
            (1.0, f64::INFINITY),
        ] {
            estimate.observe(work, seconds);
        }
        let service = estimate.service(8.0);
        assert_eq!((service.rate, service.batch_seconds(1.0)), (0.0, 0.0));
    }

    #[test]
    fn batches_of_one_size_are_all_variable_time() {
        let mut estimate = ServiceEstimate::default();
        (0..50).for_each(|_| estimate.observe(4.0, 0.02));
        let service = estimate.service(8.0);
        assert!((service.rate - 200.0).abs() < 1e-9);
        assert_eq!(service.fixed, 0.0);
        assert!((service.batch_seconds(1.0) - 0.04).abs() < 1e-9);
    }

    #[test]
    fn the_rate_follows_a_machine_that_slows_down() {
        let mut estimate = ServiceEstimate::default();
        (0..50).for_each(|_| estimate.observe(4.0, 0.02));
        (0..30).for_each(|_| estimate.observe(4.0, 0.04));
        assert!((estimate.service(1.0).rate - 100.0).abs() < 10.0);
    }
}
