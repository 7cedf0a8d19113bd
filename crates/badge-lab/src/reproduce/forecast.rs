//! How long a grid will still take.

/// Work and time of cells that ran here.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Forecast {
    work: f64,
    seconds: f64,
}

impl Forecast {
    /// Learns from a cell: its work, in rows that are seen times blocks, and its seconds.
    pub fn learn(&mut self, work: f64, seconds: f64) {
        self.work += work;
        self.seconds += seconds;
    }

    /// Seconds for so much work; nothing before the first cell. Runs that stop early make the
    /// forecast for others shorter, too.
    pub fn seconds(&self, work: f64) -> Option<f64> {
        (self.work > 0.0).then(|| self.seconds * work / self.work)
    }
}

/// A duration as people say it: `2 h 05 min`, `7 min`, `40 s`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min"),
        (..=47, _) => format!("{hours} h {minutes:02} min"),
        _ => format!("{} days {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_by_work_as_what_was_done() {
        let mut forecast = Forecast::default();
        assert_eq!(forecast.seconds(5.0), None);
        forecast.learn(10.0, 30.0);
        forecast.learn(30.0, 50.0);
        assert_eq!(forecast.seconds(5.0), Some(10.0));
    }

    #[test]
    fn durations_have_two_places_at_most() {
        for (seconds, text) in [
            (39.6, "40 s"),
            (427.0, "7 min"),
            (7500.0, "2 h 05 min"),
            (200_000.0, "2 days 7 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
