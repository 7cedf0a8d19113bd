//! What came of a run, in numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Event, Fate, Options, Outcome};
use crate::quantile::of_sorted;

/// The span over which accuracy is compared, in seconds: shorter ones hold too few answers.
const ACCURACY_SPAN: f64 = 10.0;

/// The policy level at which every block may run.
const FULL_DEPTH: f64 = 1.0;

/// Labelled answers that such a span must hold.
const ACCURACY_ANSWERS: usize = 50;

/// The metrics of a run. "Proteus" marks those whose formulas are that paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests that were to be sent.
    pub offered: usize,
    /// Those that got an answer (status 200).
    pub served: usize,
    /// Answers within the SLO.
    pub in_time: usize,
    /// Requests refused with 429.
    pub refused: usize,
    /// Requests that expired in the server, 504.
    pub expired: usize,
    /// Requests that failed, by status.
    pub failed: BTreeMap<u16, usize>,
    /// Requests without any answer.
    pub lost: usize,
    /// From the start of the trace to the last answer or the trace's end.
    pub seconds: f64,
    /// The SLO, in milliseconds.
    pub slo_ms: f64,
    /// in time / offered.
    pub attainment: f64,
    /// (offered - served + late) / offered (Proteus).
    pub slo_violation_ratio: f64,
    /// refused / offered.
    pub refused_share: f64,
    /// expired / offered.
    pub expired_share: f64,
    /// Requests a second that were to be sent.
    pub offered_per_second: f64,
    /// Answers a second (Proteus: average throughput).
    pub throughput: f64,
    /// Answers in time a second.
    pub goodput: f64,
    /// Latency of answers.
    pub latency_ms: Quantiles,
    /// How long refusals took.
    pub refusal_ms: Quantiles,
    /// Share of right labels among labelled answers (Proteus: effective accuracy).
    pub effective_accuracy: Option<f64>,
    /// That of the best 10 s less that of the worst, of those that hold 50 labelled answers
    /// (Proteus: maximum accuracy drop); none of fewer than two.
    pub accuracy_drop_max: Option<f64>,
    /// Mean relative depth where the number of blocks is known, else mean exit in blocks.
    pub mean_depth: Option<f64>,
    /// Changes of the server's policy level from one answer to the next, per minute.
    pub level_changes_per_minute: Option<f64>,
    /// CPU seconds of the server per 1000 answers.
    pub cpu_seconds_per_1000: Option<f64>,
    /// The burst alone, for traces that have one.
    pub burst: Option<Burst>,
    /// How late requests were sent: the generator's own share in the latencies.
    pub lag_ms: Quantiles,
}

/// Requests that were to be sent during a burst.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    /// How many.
    pub offered: usize,
    /// The share answered in time.
    pub attainment: f64,
    /// Answers in time per second of the burst.
    pub goodput: f64,
    /// Their mean depth.
    pub mean_depth: Option<f64>,
    /// Share of right labels.
    pub effective_accuracy: Option<f64>,
    /// Seconds from the end of the burst to the first request whose answer came when the server's
    /// policy was full depth; none where there is no such request, or the server does not tell.
    pub recovered_seconds: Option<f64>,
    /// Seconds from the end of the burst to the last request whose answer came when it was not.
    pub settled_seconds: Option<f64>,
}

/// Quantiles by nearest rank, in milliseconds; none of none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// The median.
    pub p50: Option<f64>,
    /// 95 %.
    pub p95: Option<f64>,
    /// 99 %.
    pub p99: Option<f64>,
    /// 99.9 %.
    pub p999: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

impl Quantiles {
    /// Of times in seconds.
    pub(super) fn of(seconds: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = seconds.map(|seconds| 1e3 * seconds).collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            p50: of_sorted(&sorted, 0.5),
            p95: of_sorted(&sorted, 0.95),
            p99: of_sorted(&sorted, 0.99),
            p999: of_sorted(&sorted, 0.999),
            max: sorted.last().copied(),
        }
    }
}

impl Summary {
    /// The metrics of a run over a trace of `seconds` with a `burst` from one moment to another.
    pub fn of(
        outcome: &Outcome,
        options: &Options,
        (seconds, burst): (f64, Option<(f64, f64)>),
    ) -> Self {
        let events = &outcome.events;
        let offered = events.len();
        let with = |fate: Fate| events.iter().filter(move |event| event.fate == fate);
        let count = |fate: Fate| with(fate).count();
        let served = count(Fate::Served);
        let slo = options.slo.as_secs_f64();
        let in_time = with(Fate::Served).filter(|e| e.latency() <= slo).count();
        let seconds = events
            .iter()
            .map(|event| event.done)
            .fold(seconds, f64::max);
        let share = |part: usize| part as f64 / offered.max(1) as f64;
        let per_second = |part: usize| part as f64 / seconds.max(f64::MIN_POSITIVE);
        let late = served - in_time;
        Self {
            offered,
            served,
            in_time,
            refused: count(Fate::Refused),
            expired: count(Fate::Expired),
            failed: failures(events),
            lost: count(Fate::Lost),
            seconds,
            slo_ms: 1e3 * slo,
            attainment: share(in_time),
            slo_violation_ratio: share(offered - served + late),
            refused_share: share(count(Fate::Refused)),
            expired_share: share(count(Fate::Expired)),
            offered_per_second: per_second(offered),
            throughput: per_second(served),
            goodput: per_second(in_time),
            latency_ms: Quantiles::of(with(Fate::Served).map(Event::latency)),
            refusal_ms: Quantiles::of(with(Fate::Refused).map(Event::latency)),
            effective_accuracy: accuracy(events.iter(), 1),
            accuracy_drop_max: accuracy_drop(events, seconds),
            mean_depth: mean_depth(events.iter(), outcome.server.blocks),
            level_changes_per_minute: level_changes(events).map(|c| 60.0 * c / seconds),
            cpu_seconds_per_1000: outcome
                .cpu_seconds
                .filter(|_| served > 0)
                .map(|cpu| 1e3 * cpu / served as f64),
            burst: burst.map(|burst| Burst::of(outcome, slo, burst)),
            lag_ms: Quantiles::of(events.iter().map(Event::lag)),
        }
    }
}

impl Burst {
    fn of(outcome: &Outcome, slo: f64, (from, to): (f64, f64)) -> Self {
        let all = outcome.events.iter();
        let inside = all.filter(|event| (from..to).contains(&event.scheduled));
        let offered = inside.clone().count();
        let good = inside
            .clone()
            .filter(|event| event.fate == Fate::Served && event.latency() <= slo)
            .count();
        Self {
            offered,
            attainment: good as f64 / offered.max(1) as f64,
            goodput: good as f64 / (to - from),
            mean_depth: mean_depth(inside.clone(), outcome.server.blocks),
            effective_accuracy: accuracy(inside, 1),
            recovered_seconds: after(&outcome.events, to)
                .find(|(_, level)| *level >= FULL_DEPTH)
                .map(|(seconds, _)| seconds),
            settled_seconds: settled(&outcome.events, to),
        }
    }
}

fn failures(events: &[Event]) -> BTreeMap<u16, usize> {
    let mut failed = BTreeMap::new();
    for event in events {
        if let Fate::Failed(status) = event.fate {
            *failed.entry(status).or_default() += 1;
        }
    }
    failed
}

/// The share of right labels; none of fewer than `least` labelled answers.
pub(super) fn accuracy<'a>(events: impl Iterator<Item = &'a Event>, least: usize) -> Option<f64> {
    let (mut right, mut labelled) = (0_usize, 0_usize);
    for correct in events.filter_map(|event| event.correct) {
        labelled += 1;
        right += usize::from(correct);
    }
    (labelled >= least.max(1)).then(|| right as f64 / labelled as f64)
}

fn accuracy_drop(events: &[Event], seconds: f64) -> Option<f64> {
    let spans = (seconds / ACCURACY_SPAN).ceil() as usize;
    let mut rest = events;
    let mut accuracies = Vec::new();
    for span in 1..=spans {
        let end = span as f64 * ACCURACY_SPAN;
        let (inside, after) = rest.split_at(rest.partition_point(|e| e.scheduled < end));
        accuracies.extend(accuracy(inside.iter(), ACCURACY_ANSWERS));
        rest = after;
    }
    if accuracies.len() < 2 {
        return None;
    }
    let best = accuracies.iter().copied().reduce(f64::max)?;
    let worst = accuracies.iter().copied().reduce(f64::min)?;
    Some(best - worst)
}

/// Mean exit over M, or mean exit where M is not known.
pub(super) fn mean_depth<'a>(
    events: impl Iterator<Item = &'a Event>,
    blocks: Option<u64>,
) -> Option<f64> {
    let (sum, count) = (events.filter_map(|event| event.exit))
        .fold((0.0, 0_u64), |(sum, count), exit| (sum + exit, count + 1));
    let whole = blocks.filter(|blocks| *blocks > 0).unwrap_or(1) as f64;
    (count > 0).then(|| sum / count as f64 / whole)
}

/// Changes between answers in the order in which they came; none without levels.
fn level_changes(events: &[Event]) -> Option<f64> {
    let mut levels: Vec<(f64, f64)> = (events.iter())
        .filter_map(|event| Some((event.done, event.level?)))
        .collect();
    levels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let changes = levels.windows(2).filter(|pair| pair[0].1 != pair[1].1);
    (!levels.is_empty()).then(|| changes.count() as f64)
}

/// Requests after a moment whose answers told the policy level: seconds since then, and the level.
fn after(events: &[Event], end: f64) -> impl Iterator<Item = (f64, f64)> {
    let after = events.iter().filter(move |event| event.scheduled > end);
    after.filter_map(move |event| Some((event.scheduled - end, event.level?)))
}

fn settled(events: &[Event], end: f64) -> Option<f64> {
    let reduced = |latest: f64, (seconds, level): (f64, f64)| {
        if level < FULL_DEPTH { seconds } else { latest }
    };
    after(events, end).next()?;
    Some(after(events, end).fold(0.0, reduced))
}
