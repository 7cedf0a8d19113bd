//! Synthetic traffic as text: `name:key=value,...`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};

use super::arrivals::{Arrivals, Segment};

/// Pieces that a period or a ramp is drawn with: the rate is off by half a percent at most.
const PIECES: usize = 200;

/// Seconds that a pattern lasts where nothing is said.
const SECONDS: f64 = 60.0;

/// A day; what is longer is a mistake.
const SECONDS_MAX: f64 = 86_400.0;

/// A rate over time, and how regular the arrivals are.
///
/// # Example
/// ```
/// use badge_lab::traffic::Pattern;
///
/// let text = "step:rate=200,peak=600,start=30,length=20,seconds=80,cv2=1";
/// let pattern: Pattern = text.parse()?;
/// assert_eq!(pattern.to_string(), text);
/// assert_eq!(pattern.shape.step(), Some((30.0, 50.0)));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pattern {
    /// How the rate changes.
    pub shape: Shape,
    /// How long it lasts.
    pub seconds: f64,
    /// Squared coefficient of variation of the gaps; 1 is Poisson.
    pub cv2: f64,
}

/// How a rate changes. Rates are in requests per second, times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// One rate, gaps exponential unless `cv2` says otherwise.
    Poisson {
        /// The rate.
        rate: f64,
    },
    /// One rate, in bunches: `cv2` is 4 unless said otherwise.
    Gamma {
        /// The rate.
        rate: f64,
    },
    /// A burst between two times of one rate.
    Step {
        /// The rate before and after.
        rate: f64,
        /// That of the burst.
        peak: f64,
        /// When it begins.
        start: f64,
        /// How long it lasts.
        length: f64,
    },
    /// Two rates in turns of random length, a Markov-modulated process.
    OnOff {
        /// The lower rate.
        low: f64,
        /// The higher one.
        high: f64,
        /// Mean length of a turn; it is exponential.
        turn: f64,
    },
    /// A wave.
    Sinusoid {
        /// The rate in the middle.
        mean: f64,
        /// How far it rises and falls.
        amplitude: f64,
        /// From crest to crest.
        period: f64,
    },
    /// A straight line.
    Ramp {
        /// The rate at the start.
        from: f64,
        /// The rate at the end.
        to: f64,
    },
}

/// Names with their keys, in the order in which they are written.
const SHAPES: [(&str, &[&str]); 6] = [
    ("poisson", &["rate"]),
    ("gamma", &["rate"]),
    ("step", &["rate", "peak", "start", "length"]),
    ("on-off", &["low", "high", "turn"]),
    ("sinusoid", &["mean", "amplitude", "period"]),
    ("ramp", &["from", "to"]),
];

impl Pattern {
    /// Whether a text is meant as a pattern: its name is one of theirs.
    pub fn is_meant_by(text: &str) -> bool {
        let name = text.split(':').next().unwrap_or_default();
        SHAPES.iter().any(|(known, _)| *known == name)
    }

    /// The same at `factor` times the rate.
    ///
    /// # Errors
    /// When the rates are no numbers any more.
    pub fn scaled(mut self, factor: f64) -> Result<Self> {
        match &mut self.shape {
            Shape::Poisson { rate } | Shape::Gamma { rate } => *rate *= factor,
            Shape::Step { rate, peak, .. } => {
                *rate *= factor;
                *peak *= factor;
            }
            Shape::OnOff { low, high, .. } => {
                *low *= factor;
                *high *= factor;
            }
            Shape::Sinusoid {
                mean, amplitude, ..
            } => {
                *mean *= factor;
                *amplitude *= factor;
            }
            Shape::Ramp { from, to } => {
                *from *= factor;
                *to *= factor;
            }
        }
        self.check()?;
        Ok(self)
    }

    /// Draws arrivals.
    ///
    /// # Errors
    /// When there are none, or too many.
    pub fn arrivals(&self, random: &mut ChaCha8Rng) -> Result<Arrivals> {
        let segments = self.segments(random);
        Arrivals::draw(&segments, self.cv2, random).with_context(|| format!("trace `{self}`"))
    }

    fn segments(&self, random: &mut ChaCha8Rng) -> Vec<Segment> {
        let whole = |rate: f64| vec![(self.seconds, rate)];
        let spans: Vec<(f64, f64)> = match self.shape {
            Shape::Poisson { rate } | Shape::Gamma { rate } => whole(rate),
            Shape::Step {
                rate,
                peak,
                start,
                length,
            } => vec![
                (start, rate),
                (length, peak),
                (self.seconds - start - length, rate),
            ],
            Shape::OnOff { low, high, turn } => self.turns((low, high), turn, random),
            Shape::Sinusoid {
                mean,
                amplitude,
                period,
            } => {
                let pieces = (self.seconds / period * PIECES as f64).ceil().min(1e6);
                let phase = |at: f64| std::f64::consts::TAU * at / period;
                self.pieces(pieces as usize, |at| mean + amplitude * phase(at).sin())
            }
            Shape::Ramp { from, to } => {
                self.pieces(PIECES, |at| from + (to - from) * at / self.seconds)
            }
        };
        let segment = |(seconds, rate)| Segment { seconds, rate };
        spans.into_iter().map(segment).collect()
    }

    fn pieces(&self, count: usize, rate: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let length = self.seconds / count as f64;
        let piece = |at: usize| (length, rate((at as f64 + 0.5) * length));
        (0..count).map(piece).collect()
    }

    fn turns(
        &self,
        (low, high): (f64, f64),
        turn: f64,
        random: &mut ChaCha8Rng,
    ) -> Vec<(f64, f64)> {
        let (mut spans, mut left, mut rates) = (Vec::new(), self.seconds, [low, high]);
        while left > 0.0 {
            let drawn: f64 = Exp1.sample(random);
            let length = (turn * drawn).min(left);
            spans.push((length, rates[0]));
            rates.reverse();
            left -= length;
        }
        spans
    }

    /// Everything that cannot be meant, by its key.
    fn check(&self) -> Result<()> {
        let time = |key: &str, value: f64| {
            ensure!(
                value > 0.0 && value <= SECONDS_MAX,
                "{key}={value} is no time above 0 and up to {SECONDS_MAX} s"
            );
            Ok(())
        };
        time("seconds", self.seconds)?;
        for (key, value) in self.shape.values() {
            match key {
                "length" | "turn" | "period" => time(key, value)?,
                _ => ensure!(
                    value >= 0.0 && value.is_finite(),
                    "{key}={value} is no number of 0 or more"
                ),
            }
        }
        ensure!(
            (0.0..=1000.0).contains(&self.cv2),
            "cv2={} is no number from 0 to 1000",
            self.cv2
        );
        match self.shape {
            Shape::Step { start, length, .. } if start + length > self.seconds => {
                bail!(
                    "the step lasts until {} s, the trace until seconds={}",
                    start + length,
                    self.seconds
                )
            }
            Shape::Sinusoid {
                mean, amplitude, ..
            } if amplitude > mean => {
                bail!("amplitude={amplitude} exceeds mean={mean}: no rate is below 0")
            }
            Shape::OnOff { turn, .. } if turn * 1e6 < self.seconds => {
                bail!("turn={turn} is too short for {} s", self.seconds)
            }
            _ => Ok(()),
        }
    }
}

impl Shape {
    /// Begin and end of the burst, if there is one.
    pub fn step(&self) -> Option<(f64, f64)> {
        match self {
            Self::Step { start, length, .. } => Some((*start, start + length)),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Poisson { .. } => "poisson",
            Self::Gamma { .. } => "gamma",
            Self::Step { .. } => "step",
            Self::OnOff { .. } => "on-off",
            Self::Sinusoid { .. } => "sinusoid",
            Self::Ramp { .. } => "ramp",
        }
    }

    fn values(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::Poisson { rate } | Self::Gamma { rate } => vec![("rate", rate)],
            Self::Step {
                rate,
                peak,
                start,
                length,
            } => vec![
                ("rate", rate),
                ("peak", peak),
                ("start", start),
                ("length", length),
            ],
            Self::OnOff { low, high, turn } => vec![("low", low), ("high", high), ("turn", turn)],
            Self::Sinusoid {
                mean,
                amplitude,
                period,
            } => vec![("mean", mean), ("amplitude", amplitude), ("period", period)],
            Self::Ramp { from, to } => vec![("from", from), ("to", to)],
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.shape.name())?;
        for (key, value) in self.shape.values() {
            write!(f, "{key}={value},")?;
        }
        write!(f, "seconds={},cv2={}", self.seconds, self.cv2)
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).with_context(|| format!("trace `{text}`"))
    }
}

fn parse(text: &str) -> Result<Pattern> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let Some((_, keys)) = SHAPES.iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = SHAPES.iter().map(|(known, _)| *known).collect();
        bail!("`{name}` is no pattern; use one of {}", names.join(", "));
    };
    let mut values = Values::default();
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        values.insert(part, keys)?;
    }
    let value = |key: &str| {
        let found = values.find(key);
        found.with_context(|| {
            format!(
                "`{key}` is missing; {name} has the keys {}",
                keys.join(", ")
            )
        })
    };
    let shape = match name {
        "poisson" => Shape::Poisson {
            rate: value("rate")?,
        },
        "gamma" => Shape::Gamma {
            rate: value("rate")?,
        },
        "step" => Shape::Step {
            rate: value("rate")?,
            peak: value("peak")?,
            start: value("start")?,
            length: value("length")?,
        },
        "on-off" => Shape::OnOff {
            low: value("low")?,
            high: value("high")?,
            turn: value("turn")?,
        },
        "sinusoid" => Shape::Sinusoid {
            mean: value("mean")?,
            amplitude: value("amplitude")?,
            period: value("period")?,
        },
        _ => Shape::Ramp {
            from: value("from")?,
            to: value("to")?,
        },
    };
    let bunched = matches!(shape, Shape::Gamma { .. });
    let pattern = Pattern {
        shape,
        seconds: values.find("seconds").unwrap_or(SECONDS),
        cv2: values
            .find("cv2")
            .unwrap_or(if bunched { 4.0 } else { 1.0 }),
    };
    pattern.check()?;
    Ok(pattern)
}

/// The keys that were typed.
#[derive(Default)]
struct Values(Vec<(String, f64)>);

impl Values {
    fn insert(&mut self, part: &str, keys: &[&str]) -> Result<()> {
        let (key, value) = part
            .split_once('=')
            .with_context(|| format!("`{part}` is no key=value"))?;
        ensure!(
            keys.contains(&key) || ["seconds", "cv2"].contains(&key),
            "`{key}` is no key of it; there are {}, seconds, cv2",
            keys.join(", ")
        );
        ensure!(self.find(key).is_none(), "`{key}` is there twice");
        let value = value
            .parse()
            .with_context(|| format!("{key}={value} is no number"))?;
        self.0.push((key.to_owned(), value));
        Ok(())
    }

    fn find(&self, key: &str) -> Option<f64> {
        let mut values = self.0.iter();
        values
            .find(|(known, _)| known == key)
            .map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn rates(text: &str, parts: usize) -> Vec<f64> {
        let pattern: Pattern = text.parse().unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let arrivals = pattern.arrivals(&mut random).unwrap();
        let length = pattern.seconds / parts as f64;
        let mut counts = vec![0.0; parts];
        for time in arrivals.times() {
            counts[((time / length) as usize).min(parts - 1)] += 1.0 / length;
        }
        counts
    }

    #[test]
    fn patterns_round_trip() {
        for text in [
            "poisson:rate=200,seconds=60,cv2=1",
            "gamma:rate=200,seconds=60,cv2=4",
            "step:rate=200,peak=600,start=30,length=20,seconds=80,cv2=0",
            "on-off:low=180,high=700,turn=0.5,seconds=80,cv2=1",
            "sinusoid:mean=300,amplitude=200,period=20,seconds=80,cv2=4",
            "ramp:from=0,to=500,seconds=30,cv2=1",
        ] {
            let pattern: Pattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
            assert!(Pattern::is_meant_by(text));
        }
        let short: Pattern = "gamma:rate=5".parse().unwrap();
        assert_eq!((short.seconds, short.cv2), (60.0, 4.0));
        assert!(!Pattern::is_meant_by("azure.csv"));
    }

    #[test]
    fn rates_follow_the_shape() {
        let near = |found: &[f64], expected: &[f64]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 0.05 * expected + 0.5,
                    "{found} {expected}"
                );
            }
        };
        let step = "step:rate=200,peak=600,start=20,length=20,seconds=60,cv2=0";
        near(&rates(step, 3), &[200.0, 600.0, 200.0]);
        near(
            &rates("ramp:from=0,to=400,seconds=80,cv2=0", 4),
            &[50.0, 150.0, 250.0, 350.0],
        );
        let wave = "sinusoid:mean=300,amplitude=200,period=40,seconds=40,cv2=0";
        let half = 200.0 * 2.0 / std::f64::consts::PI;
        near(&rates(wave, 2), &[300.0 + half, 300.0 - half]);
        let turns = rates("on-off:low=100,high=500,turn=0.5,seconds=400", 1);
        near(&turns, &[300.0]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_key() {
        for (text, part) in [
            ("pulse:rate=1", "`pulse`"),
            ("poisson", "`rate` is missing"),
            ("poisson:rate", "`rate` is no key=value"),
            ("poisson:rate=fast", "rate=fast"),
            ("poisson:rate=-1", "rate=-1"),
            ("poisson:rate=NaN", "rate=NaN"),
            ("poisson:rate=1,rate=2", "twice"),
            ("poisson:peak=1", "`peak`"),
            ("poisson:rate=1,seconds=0", "seconds=0"),
            ("poisson:rate=1,cv2=-1", "cv2=-1"),
            ("step:rate=1,peak=2,start=50,length=20", "until 70 s"),
            ("sinusoid:mean=1,amplitude=2,period=3", "amplitude=2"),
            ("on-off:low=1,high=2,turn=0", "turn=0"),
        ] {
            let error = format!("{:#}", text.parse::<Pattern>().unwrap_err());
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }
}
