//! A run second by second.

use serde::{Deserialize, Serialize};

use super::summary::{Quantiles, accuracy, mean_depth};
use super::{Event, Fate, Options, Outcome};

/// A run in windows of equal length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Length of a window, in seconds.
    pub window_seconds: f64,
    /// The windows, from the start.
    pub windows: Vec<Window>,
}

/// What happened in one window. Requests belong to the window that they were scheduled in; only
/// `served` counts by when answers came.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// When it begins, in seconds.
    pub start: f64,
    /// Requests to be sent.
    pub offered: usize,
    /// Answers that came.
    pub served: usize,
    /// Requests whose answer was in time.
    pub in_time: usize,
    /// Requests that were refused.
    pub refused: usize,
    /// Median latency.
    pub p50_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Mean depth, as [`Summary::mean_depth`](super::Summary::mean_depth).
    pub depth: Option<f64>,
    /// Mean policy level.
    pub level: Option<f64>,
    /// Share of right labels.
    pub accuracy: Option<f64>,
}

/// The most windows; a longer run has longer ones.
const WINDOWS_MAX: f64 = 1200.0;

impl Timeline {
    /// Windows of one second, or of as many whole seconds as keep their number bearable.
    pub fn of(outcome: &Outcome, options: &Options, seconds: f64) -> Self {
        let length = (seconds / WINDOWS_MAX).ceil().max(1.0);
        let count = (seconds / length).ceil().max(1.0) as usize;
        let mut windows: Vec<Vec<&Event>> = vec![Vec::new(); count];
        let mut served = vec![0; count];
        let at = |moment: f64| ((moment / length) as usize).min(count - 1);
        for event in &outcome.events {
            windows[at(event.scheduled)].push(event);
            served[at(event.done)] += usize::from(event.fate == Fate::Served);
        }
        let slo = options.slo.as_secs_f64();
        let windows = windows.iter().zip(served).enumerate();
        let windows = windows.map(|(number, (events, served))| Window {
            start: number as f64 * length,
            served,
            ..Window::of(events, slo, outcome.server.blocks)
        });
        Self {
            window_seconds: length,
            windows: windows.collect(),
        }
    }
}

impl Window {
    fn of(events: &[&Event], slo: f64, blocks: Option<u64>) -> Self {
        let all = || events.iter().copied();
        let answered = || all().filter(|event| event.fate == Fate::Served);
        let latency = Quantiles::of(answered().map(Event::latency));
        let levels: Vec<f64> = all().filter_map(|event| event.level).collect();
        Self {
            start: 0.0,
            offered: events.len(),
            served: 0,
            in_time: answered().filter(|e| e.latency() <= slo).count(),
            refused: all().filter(|e| e.fate == Fate::Refused).count(),
            p50_ms: latency.p50,
            p99_ms: latency.p99,
            depth: mean_depth(all(), blocks),
            level: (!levels.is_empty()).then(|| levels.iter().sum::<f64>() / levels.len() as f64),
            accuracy: accuracy(all(), 1),
        }
    }
}
