//! Moments of arrival, and how they are drawn from a rate.

use anyhow::{Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma};

/// The most arrivals that a run may have: beyond, times and texts alone would take gigabytes.
const ARRIVALS_MAX: usize = 50_000_000;

/// Moments at which requests arrive, in seconds from the start, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrivals {
    times: Vec<f64>,
    seconds: f64,
}

/// A span of time with one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// How long it lasts, in seconds.
    pub seconds: f64,
    /// Arrivals per second in the mean.
    pub rate: f64,
}

impl Arrivals {
    /// Arrivals at `times`, in any order, over `seconds`.
    ///
    /// # Errors
    /// When there are none, too many, or one lies outside of the span.
    pub fn new(mut times: Vec<f64>, seconds: f64) -> Result<Self> {
        ensure!(!times.is_empty(), "there is no arrival");
        ensure!(
            times.len() <= ARRIVALS_MAX,
            "{} arrivals are more than the {ARRIVALS_MAX} that a run may have; take a part of them",
            times.len()
        );
        times.sort_by(f64::total_cmp);
        ensure!(
            seconds.is_finite() && times[0] >= 0.0 && times[times.len() - 1] <= seconds,
            "arrivals from {} to {} s do not lie within {seconds} s",
            times[0],
            times[times.len() - 1]
        );
        Ok(Self { times, seconds })
    }

    /// A renewal process whose rate follows `segments` and whose gaps have the squared coefficient
    /// of variation `cv2`: 1 is Poisson, above 1 (gamma) arrivals come in bunches, 0 is like
    /// clockwork.
    ///
    /// Gaps of mean 1 are drawn and laid end to end in operational time Λ(t) = ∫ rate; an arrival is
    /// where Λ reaches their sum.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn draw(segments: &[Segment], cv2: f64, random: &mut ChaCha8Rng) -> Result<Self> {
        let expected: f64 = segments.iter().map(|s| s.seconds * s.rate).sum();
        ensure!(
            expected <= ARRIVALS_MAX as f64,
            "about {expected:.0} arrivals are more than the {ARRIVALS_MAX} that a run may have; \
             lower the rate or the time"
        );
        let gaps = Gaps::new(cv2)?;
        let mut times = Vec::with_capacity(expected as usize);
        let (mut begin, mut until_next) = (0.0, gaps.first(random));
        for segment in segments {
            let mut at = 0.0;
            while segment.rate > 0.0 && until_next <= (segment.seconds - at) * segment.rate {
                at += until_next / segment.rate;
                times.push(begin + at.min(segment.seconds));
                until_next = gaps.draw(random);
            }
            until_next -= (segment.seconds - at) * segment.rate;
            begin += segment.seconds;
        }
        Self::new(times, begin)
    }

    /// The moments, in seconds, ascending.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// How long the trace lasts, in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Those of the first `seconds`.
    ///
    /// # Errors
    /// When there is none.
    pub fn first(mut self, seconds: f64) -> Result<Self> {
        if seconds >= self.seconds {
            return Ok(self);
        }
        self.times.retain(|time| *time <= seconds);
        ensure!(
            !self.times.is_empty(),
            "there is no arrival in the first {seconds} s"
        );
        Ok(Self { seconds, ..self })
    }

    /// The same in a time that runs `factor` times faster.
    ///
    /// # Errors
    /// For a factor that is not above 0.
    pub fn faster(mut self, factor: f64) -> Result<Self> {
        ensure!(
            factor > 0.0 && factor.is_finite(),
            "{factor} is no factor above 0 to run faster by"
        );
        self.times.iter_mut().for_each(|time| *time /= factor);
        self.seconds /= factor;
        Ok(self)
    }

    /// `factor` times as many. Below 1 each arrival stays with that probability; above, each is
    /// repeated as often, the repetitions up to a second apart, as recorded traces know no more of
    /// who comes together.
    ///
    /// # Errors
    /// For a factor that is not above 0, or when nothing is left.
    pub fn scaled(self, factor: f64, random: &mut ChaCha8Rng) -> Result<Self> {
        ensure!(
            factor > 0.0 && factor.is_finite(),
            "{factor} is no factor above 0 to scale by"
        );
        ensure!(
            self.times.len() as f64 * factor <= ARRIVALS_MAX as f64,
            "{factor} times {} arrivals are more than the {ARRIVALS_MAX} that a run may have",
            self.times.len()
        );
        let mut times = Vec::with_capacity((self.times.len() as f64 * factor) as usize);
        for time in &self.times {
            let rest = usize::from(random.random::<f64>() < factor.fract());
            for copy in 0..factor.trunc() as usize + rest {
                let shift = if copy == 0 { 0.0 } else { random.random() };
                times.push((time + shift).min(self.seconds));
            }
        }
        Self::new(times, self.seconds)
    }
}

/// Gaps of mean 1.
enum Gaps {
    Equal,
    Exponential,
    Gamma(Gamma<f64>),
}

impl Gaps {
    fn new(cv2: f64) -> Result<Self> {
        ensure!(
            (0.0..=1000.0).contains(&cv2),
            "cv2={cv2} is no squared coefficient of variation from 0 to 1000"
        );
        Ok(if cv2 == 0.0 {
            Self::Equal
        } else if cv2 == 1.0 {
            Self::Exponential
        } else {
            Self::Gamma(Gamma::new(1.0 / cv2, cv2)?)
        })
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::Equal => 1.0,
            Self::Exponential => Exp1.sample(random),
            Self::Gamma(gamma) => gamma.sample(random),
        }
    }

    /// Clockwork begins in the middle of a gap, so that n seconds at rate r have n r arrivals.
    fn first(&self, random: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::Equal => 0.5,
            _ => self.draw(random),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn random() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(7)
    }

    fn segments(rates: &[f64]) -> Vec<Segment> {
        let segment = |rate: &f64| Segment {
            seconds: 100.0,
            rate: *rate,
        };
        rates.iter().map(segment).collect()
    }

    /// Squared coefficient of variation of the gaps.
    fn variation(times: &[f64]) -> f64 {
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = |gap: &f64| (gap - mean) * (gap - mean);
        gaps.iter().map(square).sum::<f64>() / gaps.len() as f64 / (mean * mean)
    }

    #[test]
    fn rate_and_variation_are_those_asked_for() {
        for cv2 in [0.0, 0.5, 1.0, 4.0, 8.0] {
            let arrivals = Arrivals::draw(&segments(&[200.0]), cv2, &mut random()).unwrap();
            let count = arrivals.times().len() as f64;
            // The count's deviation is √(cv2 · 20 000).
            assert!(
                (count - 2e4).abs() <= 4.0 * (cv2 * 2e4).sqrt(),
                "{cv2}: {count}"
            );
            let found = variation(arrivals.times());
            assert!((found - cv2).abs() <= 0.1 * cv2 + 1e-9, "{cv2}: {found}");
        }
    }

    #[test]
    fn the_rate_follows_the_segments() {
        let arrivals = Arrivals::draw(&segments(&[50.0, 0.0, 150.0]), 1.0, &mut random()).unwrap();
        let within = |from: f64| {
            let inside = |time: &&f64| (from..from + 100.0).contains(*time);
            arrivals.times().iter().filter(inside).count()
        };
        assert!((4700..5300).contains(&within(0.0)));
        assert_eq!(within(100.0), 0);
        assert!((14_500..15_500).contains(&within(200.0)));
        assert_eq!(arrivals.seconds(), 300.0);
    }

    #[test]
    fn clockwork_has_as_many_arrivals_as_it_says() {
        let arrivals = Arrivals::draw(&segments(&[3.0]), 0.0, &mut random()).unwrap();
        assert_eq!(arrivals.times().len(), 300);
        assert!((arrivals.times()[0] - 0.5 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_same_seed_draws_the_same_arrivals() {
        let draw = || Arrivals::draw(&segments(&[20.0]), 4.0, &mut random()).unwrap();
        assert_eq!(draw(), draw());
    }

    #[test]
    fn a_trace_can_be_cut_sped_up_and_scaled() {
        let times: Vec<f64> = (0..1000).map(f64::from).collect();
        let arrivals = || Arrivals::new(times.clone(), 1000.0).unwrap();
        let cut = arrivals().first(9.5).unwrap();
        assert_eq!((cut.times().len(), cut.seconds()), (10, 9.5));
        let fast = arrivals().faster(10.0).unwrap();
        assert_eq!((fast.times()[20], fast.seconds()), (2.0, 100.0));
        let fewer = arrivals().scaled(0.25, &mut random()).unwrap();
        assert!((190..310).contains(&fewer.times().len()));
        let more = arrivals().scaled(2.5, &mut random()).unwrap();
        assert!((2400..2600).contains(&more.times().len()));
        assert!(more.times().is_sorted() && more.times()[more.times().len() - 1] <= 1000.0);
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                arrivals().faster(factor).is_err()
                    && arrivals().scaled(factor, &mut random()).is_err()
            );
        }
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        assert!(Arrivals::new(Vec::new(), 1.0).is_err());
        assert!(Arrivals::new(vec![2.0], 1.0).is_err());
        assert!(Arrivals::new(vec![-1.0], 1.0).is_err());
        assert!(Arrivals::draw(&segments(&[1e9]), 1.0, &mut random()).is_err());
        assert!(Arrivals::draw(&segments(&[1.0]), f64::NAN, &mut random()).is_err());
        assert!(Arrivals::draw(&segments(&[0.0]), 1.0, &mut random()).is_err());
    }
}
