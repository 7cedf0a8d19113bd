//! What is counted and timed, in the form that Prometheus reads.

mod families;
mod spans;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use badge_core::exit::Depth;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use families::{
    BuildLabels, GaugeF64, Histograms, ModelFamilies, RequestLabels, RouteLabel, seconds,
};
pub(crate) use spans::SpanMetrics;

use crate::process::ProcessCollector;
use crate::queue::{Outcome, Pressure};

/// Answers that are remembered for what people look at.
const RECENT_MAX: usize = 8192;

/// All metrics of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<RouteLabel>,
    build: Family<BuildLabels, Gauge>,
    families: ModelFamilies,
    spans: SpanMetrics,
}

/// One model's metrics, looked up once.
#[derive(Debug, Clone)]
pub(crate) struct ModelMetrics {
    depths: Vec<Depth>,
    exits: Vec<Counter>,
    layers: Counter,
    depth_ratio: GaugeF64,
    tokenization_seconds: Histogram,
    queue_seconds: Histogram,
    compute_seconds: Histogram,
    batch_sequences: Histogram,
    batch_tokens: Histogram,
    queue_requests: Gauge,
    queue_tokens: Gauge,
    queue_age: GaugeF64,
    expired: Counter,
    abandoned: Counter,
    shed: Counter,
    shed_slo: Counter,
    busy: Counter<f64, AtomicU64>,
    slo: GaugeF64,
    slo_good: Counter,
    slo_late: Counter,
    slo_shed: Counter,
    slo_expired: Counter,
    policy_level: GaugeF64,
    policy_score: GaugeF64,
    changes_by_controller: Counter,
    changes_by_api: Counter,
    audits: Counter,
    audit_agreement: GaugeF64,
    audit_alarm: Gauge,
    demand: GaugeF64,
    recent: Arc<Mutex<Recent>>,
}

/// The latest answers, and what has been done since the start.
#[derive(Debug, Default)]
struct Recent {
    answers: VecDeque<RecentAnswer>,
    /// When texts that are promised a time were answered or given up, and after how long.
    sojourns: VecDeque<(Instant, Duration)>,
    arrivals: u64,
    token_blocks: u64,
    busy: Duration,
}

impl Recent {
    fn take_note(&mut self, texts: usize, at: Instant, sojourn: Duration) {
        let texts = std::iter::repeat_n((at, sojourn), texts.min(RECENT_MAX));
        self.sojourns.extend(texts);
        let excess = self.sojourns.len().saturating_sub(RECENT_MAX);
        self.sojourns.drain(..excess);
    }
}

/// Why texts are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shed {
    /// Too many are on their way.
    Concurrency,
    /// They would be late even at the floor.
    Slo,
}

/// One of the latest answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecentAnswer {
    pub(crate) at: Instant,
    /// From when the request was read to its answer.
    pub(crate) latency: Duration,
    pub(crate) depth: Depth,
}

/// What is promised of a model, how it is kept, and what by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Promise {
    pub(crate) slo: Option<Duration>,
    /// Relative depth of the policy that runs; 0 where it is not known.
    pub(crate) level: f64,
    /// Its score on dev.
    pub(crate) score: Option<f64>,
    /// Share of audited answers that the full model gives too.
    pub(crate) agreement: Option<f64>,
    pub(crate) alarm: bool,
    pub(crate) demand: Option<f64>,
}

/// What a model's thread has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Work {
    /// Texts that have come.
    pub(crate) arrivals: u64,
    /// Tokens times blocks that have been computed.
    pub(crate) token_blocks: u64,
    /// Time spent computing.
    pub(crate) busy: Duration,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut all = Registry::default();
        all.register_collector(Box::new(ProcessCollector));
        let registry = all.sub_registry_with_prefix("badge");
        let families = ModelFamilies::register(registry);
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            build: Family::default(),
            families,
            spans: SpanMetrics::register(registry),
            registry: Mutex::default(),
        };
        registry.register("requests", "Requests by answer", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register("build_info", "What runs here", metrics.build.clone());
        Self {
            registry: Mutex::new(all),
            ..metrics
        }
    }

    /// Says what computes.
    pub(crate) fn build(&self, instruction_set: &str, precision: &str) {
        let labels = BuildLabels {
            version: env!("CARGO_PKG_VERSION"),
            instruction_set: instruction_set.to_owned(),
            precision: precision.to_owned(),
        };
        self.build.get_or_create(&labels).set(1);
    }

    /// Counts a request that has been answered.
    pub(crate) fn request(&self, route: &str, code: u16, duration: Duration) {
        let route = route.to_owned();
        let labels = RouteLabel { route };
        let seconds = self.request_seconds.get_or_create(&labels);
        seconds.observe(duration.as_secs_f64());
        // A guard that is held while another one is asked for would wait for itself.
        drop(seconds);
        let RouteLabel { route } = labels;
        let labels = RequestLabels { route, code };
        self.requests.get_or_create(&labels).inc();
    }

    /// What becomes of spans.
    pub(crate) fn spans(&self) -> &SpanMetrics {
        &self.spans
    }

    /// The metrics of a model.
    pub(crate) fn of_model(&self, model: &str, depths: &[Depth]) -> ModelMetrics {
        self.families.of_model(model, depths)
    }

    /// Forgets the metrics of a model that is gone.
    pub(crate) fn forget(&self, model: &str, depths: &[Depth]) {
        self.families.forget(model, depths);
    }

    /// All of them as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).expect("writing to a string cannot fail");
        text
    }
}

impl ModelMetrics {
    /// A text has come.
    pub(crate) fn arrived(&self, texts: usize) {
        self.recent().arrivals += texts as u64;
    }

    /// Texts were refused; `is_promised` where they were promised a time.
    pub(crate) fn shed(&self, texts: usize, shed: Shed, is_promised: bool) {
        let counter = match shed {
            Shed::Concurrency => &self.shed,
            Shed::Slo => &self.shed_slo,
        };
        counter.inc_by(texts as u64);
        if is_promised {
            self.slo_shed.inc_by(texts as u64);
        }
    }

    /// Texts were answered at a moment and after so long, which was or was not within the promise.
    pub(crate) fn kept(&self, texts: usize, (at, latency): (Instant, Duration), slo: Duration) {
        let counter = if latency <= slo {
            &self.slo_good
        } else {
            &self.slo_late
        };
        counter.inc_by(texts as u64);
        self.recent().take_note(texts, at, latency);
    }

    /// The deadline of texts passed first. Of those that are promised a time, that counts as late.
    pub(crate) fn expired(&self, texts: usize, at: Instant, slo: Option<Duration>) {
        self.expired.inc_by(texts as u64);
        if let Some(slo) = slo {
            self.slo_expired.inc_by(texts as u64);
            self.recent().take_note(texts, at, slo * 2);
        }
    }

    /// The caller of texts went first.
    pub(crate) fn abandoned(&self, texts: usize) {
        self.abandoned.inc_by(texts as u64);
    }

    /// Somebody has changed the policy.
    pub(crate) fn changed_by_api(&self) {
        self.changes_by_api.inc();
    }

    /// A controller has changed it.
    pub(crate) fn changed_by_controller(&self) {
        self.changes_by_controller.inc();
    }

    /// An early answer was audited.
    pub(crate) fn audited(&self) {
        self.audits.inc();
    }

    /// What is promised, how it is kept, and what by.
    pub(crate) fn promise(&self, promise: &Promise) {
        self.slo
            .set(promise.slo.map_or(0.0, |slo| slo.as_secs_f64()));
        self.policy_level.set(promise.level);
        self.policy_score.set(promise.score.unwrap_or(0.0));
        self.audit_agreement.set(promise.agreement.unwrap_or(0.0));
        self.audit_alarm.set(i64::from(promise.alarm));
        self.demand.set(promise.demand.unwrap_or(0.0));
    }

    /// A step has moved so many sequences with so many tokens one block on.
    pub(crate) fn step(&self, sequences: usize, tokens: usize, duration: Duration) {
        self.batch_sequences.observe(sequences as f64);
        self.batch_tokens.observe(tokens as f64);
        self.layers.inc_by(sequences as u64);
        self.busy.inc_by(duration.as_secs_f64());
        let mut recent = self.recent();
        recent.token_blocks += tokens as u64;
        recent.busy += duration;
    }

    /// A text has left at a depth.
    pub(crate) fn left(&self, depth: Depth) {
        if let Ok(position) = self.depths.binary_search(&depth) {
            self.exits[position].inc();
        }
    }

    /// How long a text was in each stage.
    pub(crate) fn stages(&self, outcome: &Outcome) {
        for (histogram, duration) in [
            (&self.tokenization_seconds, outcome.tokenization),
            (&self.queue_seconds, outcome.queue),
            (&self.compute_seconds, outcome.compute),
        ] {
            histogram.observe(duration.as_secs_f64());
        }
    }

    /// A text has been answered.
    pub(crate) fn answered(&self, answer: RecentAnswer) {
        let mut recent = self.recent();
        if recent.answers.len() == RECENT_MAX {
            recent.answers.pop_front();
        }
        recent.answers.push_back(answer);
    }

    /// The latest answers, not older than that.
    pub(crate) fn latest(&self, now: Instant, age_max: Duration) -> Vec<RecentAnswer> {
        let recent = self.recent();
        let young = |answer: &&RecentAnswer| now.saturating_duration_since(answer.at) <= age_max;
        recent
            .answers
            .iter()
            .rev()
            .take_while(young)
            .copied()
            .collect()
    }

    /// How long the latest texts took that are promised a time, in seconds.
    pub(crate) fn sojourns(&self, now: Instant, age_max: Duration) -> Vec<f64> {
        let recent = self.recent();
        let young = |(at, _): &&(Instant, Duration)| now.saturating_duration_since(*at) <= age_max;
        let latest = recent.sojourns.iter().rev().take_while(young);
        latest.map(|(_, sojourn)| sojourn.as_secs_f64()).collect()
    }

    /// What has been done since the start.
    pub(crate) fn work(&self) -> Work {
        let recent = self.recent();
        Work {
            arrivals: recent.arrivals,
            token_blocks: recent.token_blocks,
            busy: recent.busy,
        }
    }

    /// Texts that left at each depth since the start.
    pub(crate) fn exits(&self) -> Vec<(Depth, u64)> {
        let counts = self.exits.iter().map(Counter::get);
        self.depths.iter().copied().zip(counts).collect()
    }

    /// Texts that were refused, that expired and whose callers went, since the start.
    pub(crate) fn losses(&self) -> [u64; 3] {
        let [shed, shed_slo, expired, abandoned] =
            [&self.shed, &self.shed_slo, &self.expired, &self.abandoned].map(Counter::get);
        [shed + shed_slo, expired, abandoned]
    }

    /// Brings the gauges up to date before they are read.
    pub(crate) fn refresh(&self, pressure: Pressure, now: Instant) {
        self.queue_requests.set(pressure.requests as i64);
        self.queue_tokens.set(pressure.tokens as i64);
        self.queue_age.set(pressure.oldest.as_secs_f64());
        let latest = self.latest(now, Duration::from_secs(10));
        let blocks = self.depths.last().map_or(1, |depth| depth.0);
        let depths: usize = latest.iter().map(|answer| answer.depth.0).sum();
        // Of no answers there is no mean, and an old one is none of now: NaN, a gap in a chart.
        let mean = depths as f64 / latest.len() as f64;
        self.depth_ratio.set(mean / blocks as f64);
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
