//! Where arrivals come from, and what is made of them.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::arrivals::Arrivals;
use super::pattern::Pattern;
use super::trace;

/// A pattern, or a file that holds a trace.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The text of a pattern; it is read when arrivals are drawn.
    Pattern(String),
    /// A file in one of the forms of [`trace::Format`].
    File(PathBuf),
}

/// How a trace is changed before it is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjustment {
    /// So many times as many requests.
    pub scale: f64,
    /// So many times faster.
    pub speedup: f64,
    /// Only the first seconds, after speeding up.
    pub seconds: Option<f64>,
}

/// What is to be sent when.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// The moments.
    pub arrivals: Arrivals,
    /// Begin and end of the burst, where the pattern has one.
    pub burst: Option<(f64, f64)>,
}

impl Source {
    /// Draws or reads the arrivals; the same seed gives the same ones.
    ///
    /// # Errors
    /// For a pattern or file that cannot be read, named with its key or line, and when nothing is
    /// left after the adjustment.
    pub fn traffic(&self, adjustment: Adjustment, seed: u64) -> Result<Traffic> {
        adjustment.check()?;
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let (arrivals, burst) = match self {
            Self::Pattern(text) => {
                let pattern: Pattern = text.parse()?;
                let arrivals = pattern.scaled(adjustment.scale)?.arrivals(random)?;
                (arrivals, pattern.shape.step())
            }
            Self::File(path) => (trace::read(path, adjustment.scale, random)?.0, None),
        };
        let faster = |moment: f64| moment / adjustment.speedup;
        let mut arrivals = arrivals.faster(adjustment.speedup)?;
        if let Some(seconds) = adjustment.seconds {
            arrivals = arrivals.first(seconds)?;
        }
        let burst = burst.map(|(from, to)| (faster(from), faster(to)));
        Ok(Traffic {
            burst: burst.filter(|(_, to)| *to <= arrivals.seconds()),
            arrivals,
        })
    }

    /// The file, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Pattern(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

impl Adjustment {
    /// # Errors
    /// Names the flag that holds something impossible.
    pub fn check(&self) -> Result<()> {
        let flags = [("--scale", self.scale), ("--speedup", self.speedup)];
        for (flag, value) in flags {
            ensure!(
                (1e-6..=1e6).contains(&value),
                "{flag}: {value} does not lie in 0.000001..=1000000"
            );
        }
        let seconds = self.seconds.unwrap_or(1.0);
        ensure!(
            seconds > 0.0 && seconds.is_finite(),
            "--seconds: {seconds} is no time above 0"
        );
        Ok(())
    }
}

impl FromStr for Source {
    type Err = Infallible;

    /// What has the name of a pattern is one, and so is what has a key's `=` and is no file, so that
    /// a misspelt name is told; everything else is a file.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let looks_like_one = || text.contains('=') && !Path::new(text).exists();
        Ok(if Pattern::is_meant_by(text) || looks_like_one() {
            Self::Pattern(text.to_owned())
        } else {
            Self::File(PathBuf::from(text))
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(text) => f.write_str(text),
            // Folders of one machine say nothing on another.
            Self::File(path) => path
                .file_name()
                .map_or(Ok(()), |name| f.write_str(&name.to_string_lossy())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_IT_IS: Adjustment = Adjustment {
        scale: 1.0,
        speedup: 1.0,
        seconds: None,
    };

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_and_files_are_told_apart() {
        assert!(source("poisson:rate=3").path().is_none());
        assert!(source("poisson").path().is_none());
        assert!(source("pulse:rate=3").path().is_none());
        let file = source("traces/azure21.csv");
        assert_eq!(file.path(), Some(Path::new("traces/azure21.csv")));
        assert_eq!(file.to_string(), "azure21.csv");
    }

    #[test]
    fn an_adjustment_changes_rate_pace_and_length() {
        let step = source("step:rate=10,peak=40,start=20,length=20,seconds=60,cv2=0");
        let plain = step.traffic(AS_IT_IS, 1).unwrap();
        assert_eq!(
            (plain.arrivals.times().len(), plain.burst),
            (1200, Some((20.0, 40.0)))
        );
        let adjusted = Adjustment {
            scale: 2.0,
            speedup: 4.0,
            seconds: Some(12.5),
        };
        let changed = step.traffic(adjusted, 1).unwrap();
        assert_eq!(
            (changed.arrivals.seconds(), changed.burst),
            (12.5, Some((5.0, 10.0)))
        );
        assert_eq!(changed.arrivals.times().len(), 2400 - 200);
        let cut = Adjustment {
            seconds: Some(30.0),
            ..AS_IT_IS
        };
        assert_eq!(step.traffic(cut, 1).unwrap().burst, None);
    }

    #[test]
    fn a_file_is_scaled_and_sped_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrivals.txt");
        let lines: Vec<String> = (0..1000).map(|at| format!("{},1", 10 * at)).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let adjusted = Adjustment {
            scale: 0.5,
            speedup: 2.0,
            seconds: None,
        };
        let traffic = Source::File(path).traffic(adjusted, 5).unwrap().arrivals;
        assert!((440..560).contains(&traffic.times().len()));
        assert!((traffic.seconds() - 4.995).abs() < 1e-9);
    }

    #[test]
    fn impossible_adjustments_are_refused_by_flag() {
        let wrong = [
            (
                Adjustment {
                    scale: 0.0,
                    ..AS_IT_IS
                },
                "--scale: 0",
            ),
            (
                Adjustment {
                    speedup: f64::NAN,
                    ..AS_IT_IS
                },
                "--speedup: NaN",
            ),
            (
                Adjustment {
                    seconds: Some(-1.0),
                    ..AS_IT_IS
                },
                "--seconds: -1",
            ),
        ];
        for (adjustment, text) in wrong {
            let error = source("poisson:rate=3").traffic(adjustment, 1).unwrap_err();
            assert!(format!("{error:#}").contains(text), "{error:#}");
        }
    }
}
