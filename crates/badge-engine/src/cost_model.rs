//! What the engine has learnt of its own times: the measure behind `schedule`.

use badge_core::exit::Depth;

/// Running estimates, from the engine's own steps.
#[derive(Debug)]
pub(crate) struct CostModel {
    curve: Curve,
    /// One a depth, from 0.
    exit_rates: Vec<ExitRate>,
}

/// The share of sequences that leave where they may.
#[derive(Debug, Clone, Copy, Default)]
struct ExitRate {
    share: f64,
    sequences: f64,
}

/// How many rows each way computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prospect {
    /// Rows computed together.
    pub(crate) together: f64,
    /// \[CLS\] rows computed first.
    pub(crate) cls: f64,
    /// Rows that are then expected to be left.
    pub(crate) rest: f64,
    /// The probability that nobody is left.
    pub(crate) all_leave: f64,
}

/// Seconds that the last layer takes after keys and values, by the number of rows.
///
/// One point per power of two: within one, times are close to proportional.
#[derive(Debug, Default)]
struct Curve {
    points: [Option<Point>; BUCKETS],
}

#[derive(Debug, Clone, Copy)]
struct Point {
    rows: f64,
    seconds: f64,
}

/// 2^24 rows are more than any memory holds.
const BUCKETS: usize = 24;

/// Weight of a time below the estimate. Times have a floor and no ceiling (another process, a
/// page fault, cold caches at the start), so that the lower ones tell more.
const WEIGHT_OF_FASTER: f64 = 0.5;

/// Weight of a time above the estimate, enough to follow a machine that has slowed down.
const WEIGHT_OF_SLOWER: f64 = 1.0 / 16.0;

/// An exit rate is the plain average of this many sequences, then follows the later ones: policies
/// and texts change, hour by hour in a server.
const SEQUENCES_REMEMBERED: f64 = 32.0;

/// A single row takes about as long as this many: the weights are read all the same.
const ROWS_AT_LEAST: f64 = 8.0;

impl Prospect {
    pub(crate) const NOTHING: Self = Self {
        together: 0.0,
        cls: 0.0,
        rest: 0.0,
        all_leave: 1.0,
    };
}

impl CostModel {
    /// Nothing is known yet; every sequence is expected to go on.
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            curve: Curve::default(),
            exit_rates: vec![ExitRate::default(); blocks],
        }
    }

    /// Takes note of the time that a layer took for `rows` rows.
    pub(crate) fn measured(&mut self, rows: usize, seconds: f64) {
        self.curve.measured(rows, seconds);
    }

    /// Takes note of what became of a sequence that might have left.
    pub(crate) fn decided(&mut self, depth: Depth, left: bool) {
        let rate = &mut self.exit_rates[depth.index().0];
        rate.sequences = SEQUENCES_REMEMBERED.min(rate.sequences + 1.0);
        rate.share += (f64::from(u8::from(left)) - rate.share) / rate.sequences;
    }

    /// The probability that a sequence which may leave at `depth` does.
    pub(crate) fn exit_rate(&self, depth: Depth) -> f64 {
        self.exit_rates[depth.index().0].share
    }

    /// The same once enough sequences have been seen to tell; until then 1.
    pub(crate) fn known_exit_rate(&self, depth: Depth) -> f64 {
        let rate = self.exit_rates[depth.index().0];
        if rate.sequences < SEQUENCES_REMEMBERED {
            1.0
        } else {
            rate.share
        }
    }

    /// Whether \[CLS\] first is expected to take less time than all rows together; no as long as
    /// nothing has been measured.
    pub(crate) fn prefers_cls_first(&self, prospect: &Prospect) -> bool {
        let Prospect {
            together,
            cls,
            rest,
            all_leave,
        } = *prospect;
        let Some(together) = self.curve.seconds(together) else {
            return false;
        };
        let second = if all_leave < 1.0 {
            let rows = rest / (1.0 - all_leave);
            self.curve
                .seconds(rows)
                .map(|seconds| (1.0 - all_leave) * seconds)
        } else {
            Some(0.0)
        };
        let first = self.curve.seconds(cls);
        first
            .zip(second)
            .is_some_and(|(first, second)| first + second < together)
    }
}

impl Curve {
    fn measured(&mut self, rows: usize, seconds: f64) {
        assert!(rows > 0, "a layer computes at least a row");
        let bucket = (rows.ilog2() as usize).min(BUCKETS - 1);
        let rows = rows as f64;
        let Some(point) = &mut self.points[bucket] else {
            self.points[bucket] = Some(Point { rows, seconds });
            return;
        };
        // Compared at the same number of rows.
        let expected = point.seconds * rows / point.rows;
        let weight = if seconds < expected {
            WEIGHT_OF_FASTER
        } else {
            WEIGHT_OF_SLOWER
        };
        point.seconds += weight * (seconds - point.seconds);
        point.rows += weight * (rows - point.rows);
    }

    /// The time of `rows` rows: on the line between the two nearest measured points, or in
    /// proportion beyond the outermost, down to the time that reading the weights takes.
    fn seconds(&self, rows: f64) -> Option<f64> {
        let points = || self.points.iter().flatten();
        let below = points().rfind(|point| point.rows <= rows);
        let above = points().find(|point| point.rows > rows);
        match (below, above) {
            (Some(a), Some(b)) => {
                let share = (rows - a.rows) / (b.rows - a.rows);
                Some(a.seconds + share * (b.seconds - a.seconds))
            }
            (Some(one), None) | (None, Some(one)) => {
                let scale = rows.max(ROWS_AT_LEAST) / one.rows.max(ROWS_AT_LEAST);
                Some(one.seconds * scale)
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(times: &[(usize, f64)]) -> CostModel {
        let mut model = CostModel::new(12);
        for (rows, seconds) in times {
            model.measured(*rows, *seconds);
        }
        model
    }

    fn one_sequence(rows: f64, exit_rate: f64) -> Prospect {
        Prospect {
            together: rows,
            cls: 1.0,
            rest: rows * (1.0 - exit_rate),
            all_leave: exit_rate,
        }
    }

    #[test]
    fn without_a_measurement_rows_are_computed_together() {
        assert!(!model(&[]).prefers_cls_first(&one_sequence(128.0, 1.0)));
    }

    #[test]
    fn cls_first_pays_where_leaving_is_likely_and_a_row_is_cheap() {
        let model = model(&[(1, 1.0), (128, 10.0)]);
        assert!(model.prefers_cls_first(&one_sequence(128.0, 0.2)));
        assert!(!model.prefers_cls_first(&one_sequence(128.0, 0.05)));
        // Four rows take hardly longer than one: reading the weights is all there is.
        assert!(!model.prefers_cls_first(&one_sequence(4.0, 0.5)));
    }

    #[test]
    fn times_between_measured_points_lie_on_a_line() {
        let curve = model(&[(4, 2.0), (64, 8.0)]).curve;
        let seconds = |rows| curve.seconds(rows).unwrap();
        assert_eq!(seconds(4.0), 2.0);
        assert_eq!(seconds(34.0), 5.0);
        assert_eq!(seconds(128.0), 16.0);
        assert_eq!(seconds(1.0), 2.0);
    }

    #[test]
    fn a_preempted_step_hardly_moves_the_estimate() {
        let mut model = model(&[(64, 8.0)]);
        model.measured(64, 16.0);
        assert_eq!(model.curve.seconds(64.0), Some(8.5));
        model.measured(64, 7.5);
        assert_eq!(model.curve.seconds(64.0), Some(8.0));
    }

    #[test]
    fn exit_rates_follow_what_sequences_do() {
        let mut model = model(&[]);
        for left in [true, true, false, true] {
            model.decided(Depth(3), left);
        }
        assert!((model.exit_rate(Depth(3)) - 0.75).abs() < 1e-9);
        assert_eq!(model.exit_rate(Depth(4)), 0.0);
        for _ in 0..200 {
            model.decided(Depth(3), false);
        }
        assert!(model.exit_rate(Depth(3)) < 0.01);
    }
}
