//! What is counted and timed, in the form that Prometheus reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use badge_core::exit::Depth;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

use crate::queue::{Dead, Outcome, Pressure};

/// Seconds: 1-2-5 from a quarter of a millisecond to ten seconds.
const SECONDS: [f64; 15] = [
    0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Sequences of one step.
const SEQUENCES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Tokens of one step.
const TOKENS: [f64; 10] = [
    8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 8192.0,
];

/// Answers that are remembered for what people look at.
const RECENT_MAX: usize = 8192;

type GaugeF64 = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExitLabels {
    model: String,
    layer: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    model: String,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    model: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    model: String,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    instruction_set: String,
    precision: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn sequences() -> Histogram {
    Histogram::new(SEQUENCES)
}

fn tokens() -> Histogram {
    Histogram::new(TOKENS)
}

/// All metrics of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<RouteLabel>,
    build: Family<BuildLabels, Gauge>,
    families: ModelFamilies,
}

/// The metrics that each model has its own of.
#[derive(Debug, Clone)]
struct ModelFamilies {
    stages: Histograms<StageLabels>,
    batch_sequences: Histograms<ModelLabel>,
    batch_tokens: Histograms<ModelLabel>,
    exits: Family<ExitLabels, Counter>,
    layers: Family<ModelLabel, Counter>,
    depth_ratio: Family<ModelLabel, GaugeF64>,
    queue_requests: Family<ModelLabel, Gauge>,
    queue_tokens: Family<ModelLabel, Gauge>,
    queue_age: Family<ModelLabel, GaugeF64>,
    expired: Family<ModelLabel, Counter>,
    abandoned: Family<ModelLabel, Counter>,
    shed: Family<ReasonLabels, Counter>,
    busy: Family<ModelLabel, Counter<f64, AtomicU64>>,
    slo: Family<ModelLabel, GaugeF64>,
    slo_good: Family<ModelLabel, Counter>,
    slo_bad: Family<CauseLabels, Counter>,
    policy_level: Family<ModelLabel, GaugeF64>,
    policy_score: Family<ModelLabel, GaugeF64>,
    policy_changes: Family<CauseLabels, Counter>,
    audits: Family<ModelLabel, Counter>,
    audit_agreement: Family<ModelLabel, GaugeF64>,
    audit_alarm: Family<ModelLabel, Gauge>,
    demand: Family<ModelLabel, GaugeF64>,
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
    arrivals: u64,
    token_blocks: u64,
    busy: Duration,
}

/// One of the latest answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecentAnswer {
    pub(crate) at: Instant,
    /// From the request's arrival to its answer.
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
        let mut registry = Registry::with_prefix("badge");
        let families = ModelFamilies::register(&mut registry);
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            build: Family::default(),
            families,
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
            registry: Mutex::new(registry),
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

    /// The metrics of a model.
    pub(crate) fn of_model(&self, model: &str, depths: &[Depth]) -> ModelMetrics {
        self.families.of_model(model, depths)
    }

    /// All of them as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).expect("writing to a string cannot fail");
        text
    }
}

impl ModelFamilies {
    fn register(registry: &mut Registry) -> Self {
        let families = Self {
            stages: Family::new_with_constructor(seconds),
            batch_sequences: Family::new_with_constructor(sequences),
            batch_tokens: Family::new_with_constructor(tokens),
            exits: Family::default(),
            layers: Family::default(),
            depth_ratio: Family::default(),
            queue_requests: Family::default(),
            queue_tokens: Family::default(),
            queue_age: Family::default(),
            expired: Family::default(),
            abandoned: Family::default(),
            shed: Family::default(),
            busy: Family::default(),
            slo: Family::default(),
            slo_good: Family::default(),
            slo_bad: Family::default(),
            policy_level: Family::default(),
            policy_score: Family::default(),
            policy_changes: Family::default(),
            audits: Family::default(),
            audit_agreement: Family::default(),
            audit_alarm: Family::default(),
            demand: Family::default(),
        };
        families.register_work(registry);
        families.register_promise(registry);
        families
    }

    fn register_work(&self, registry: &mut Registry) {
        let f = self.clone();
        let s = Unit::Seconds;
        registry.register_with_unit(
            "stage_duration",
            "Time of one text in each stage",
            s,
            f.stages,
        );
        registry.register("batch_size", "Texts of one block's pass", f.batch_sequences);
        registry.register("batch_tokens", "Tokens of one block's pass", f.batch_tokens);
        registry.register("exits", "Texts by the block after which they left", f.exits);
        registry.register("layers_executed", "Blocks run, text by text", f.layers);
        registry.register(
            "depth_ratio",
            "Mean depth of the latest answers as a share of all blocks",
            f.depth_ratio,
        );
        registry.register("queue_requests", "Texts that wait", f.queue_requests);
        registry.register("queue_tokens", "Tokens that wait", f.queue_tokens);
        registry.register_with_unit(
            "queue_oldest_age",
            "Age of the text that has waited longest",
            Unit::Seconds,
            f.queue_age,
        );
        registry.register("expired", "Texts whose deadline passed first", f.expired);
        registry.register("abandoned", "Texts whose caller had gone", f.abandoned);
        registry.register("shed", "Texts that were refused", f.shed);
        registry.register_with_unit("engine_busy", "Time spent computing", Unit::Seconds, f.busy);
    }

    fn register_promise(&self, registry: &mut Registry) {
        let f = self.clone();
        let s = Unit::Seconds;
        registry.register_with_unit("slo", "The promised time; 0 without a promise", s, f.slo);
        registry.register("slo_good", "Texts answered within it", f.slo_good);
        registry.register("slo_bad", "Texts that were not", f.slo_bad);
        let level = "Relative depth of the policy that runs: 1 is every block";
        registry.register("policy_level", level, f.policy_level);
        let score = "Score on dev of the policy that runs; 0 where it is not known";
        registry.register("policy_expected_accuracy", score, f.policy_score);
        registry.register("policy_changes", "Changes of the policy", f.policy_changes);
        registry.register("audit_samples", "Early answers that were audited", f.audits);
        let share = "Share of the audited answers that the full model gives too";
        registry.register("audit_agreement_ratio", share, f.audit_agreement);
        let alarm = "1 when agreement has fallen below the certificate";
        registry.register("policy_audit_alarm", alarm, f.audit_alarm);
        let demand = "Replicas that full depth for all would keep busy";
        registry.register("demand_replicas", demand, f.demand);
    }

    fn of_model(&self, model: &str, depths: &[Depth]) -> ModelMetrics {
        let model = model.to_owned();
        let label = ModelLabel {
            model: model.clone(),
        };
        let exit = |depth: &Depth| {
            let (model, layer) = (model.clone(), depth.0);
            let labels = ExitLabels { model, layer };
            self.exits.get_or_create_owned(&labels)
        };
        let stage = |stage| {
            let model = model.clone();
            self.stages
                .get_or_create_owned(&StageLabels { model, stage })
        };
        let shed = |reason| {
            let model = model.clone();
            let labels = ReasonLabels { model, reason };
            self.shed.get_or_create_owned(&labels)
        };
        let cause = |family: &Family<CauseLabels, Counter>, cause| {
            let model = model.clone();
            family.get_or_create_owned(&CauseLabels { model, cause })
        };
        ModelMetrics {
            depths: depths.to_vec(),
            exits: depths.iter().map(exit).collect(),
            layers: self.layers.get_or_create_owned(&label),
            depth_ratio: self.depth_ratio.get_or_create_owned(&label),
            tokenization_seconds: stage("tokenize"),
            queue_seconds: stage("queue"),
            compute_seconds: stage("compute"),
            batch_sequences: self.batch_sequences.get_or_create_owned(&label),
            batch_tokens: self.batch_tokens.get_or_create_owned(&label),
            queue_requests: self.queue_requests.get_or_create_owned(&label),
            queue_tokens: self.queue_tokens.get_or_create_owned(&label),
            queue_age: self.queue_age.get_or_create_owned(&label),
            expired: self.expired.get_or_create_owned(&label),
            abandoned: self.abandoned.get_or_create_owned(&label),
            shed: shed("concurrency"),
            shed_slo: shed("slo"),
            busy: self.busy.get_or_create_owned(&label),
            slo: self.slo.get_or_create_owned(&label),
            slo_good: self.slo_good.get_or_create_owned(&label),
            slo_late: cause(&self.slo_bad, "late"),
            slo_shed: cause(&self.slo_bad, "shed"),
            slo_expired: cause(&self.slo_bad, "expired"),
            policy_level: self.policy_level.get_or_create_owned(&label),
            policy_score: self.policy_score.get_or_create_owned(&label),
            changes_by_controller: cause(&self.policy_changes, "controller"),
            changes_by_api: cause(&self.policy_changes, "api"),
            audits: self.audits.get_or_create_owned(&label),
            audit_agreement: self.audit_agreement.get_or_create_owned(&label),
            audit_alarm: self.audit_alarm.get_or_create_owned(&label),
            demand: self.demand.get_or_create_owned(&label),
            recent: Arc::default(),
        }
    }
}

impl ModelMetrics {
    /// A text has come.
    pub(crate) fn arrived(&self, texts: usize) {
        self.recent().arrivals += texts as u64;
    }

    /// Texts were refused since too many are on their way.
    pub(crate) fn refused(&self, texts: usize) {
        self.shed.inc_by(texts as u64);
        self.slo_shed.inc_by(texts as u64);
    }

    /// Texts were refused since they would have been late even at the floor.
    pub(crate) fn refused_by_controller(&self, texts: usize) {
        self.shed_slo.inc_by(texts as u64);
        self.slo_shed.inc_by(texts as u64);
    }

    /// A text was answered after so long, which was or was not within the promise.
    pub(crate) fn kept(&self, latency: Duration, slo: Duration) {
        if latency <= slo {
            self.slo_good.inc();
        } else {
            self.slo_late.inc();
        }
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

    /// A job was not computed.
    pub(crate) fn dead(&self, dead: Dead) {
        match dead {
            Dead::Abandoned => self.abandoned.inc(),
            Dead::Expired => {
                self.slo_expired.inc();
                self.expired.inc()
            }
        };
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
        if !latest.is_empty() {
            let depths: usize = latest.iter().map(|answer| answer.depth.0).sum();
            let mean = depths as f64 / latest.len() as f64;
            self.depth_ratio.set(mean / blocks as f64);
        }
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_are_those_that_dashboards_ask_for() {
        let metrics = Metrics::new();
        metrics.build("avx2", "f32");
        metrics.request("/predict", 200, Duration::from_millis(3));
        let model = metrics.of_model("tiny", &[Depth(2), Depth(5)]);
        model.left(Depth(5));
        model.step(3, 21, Duration::from_millis(1));
        model.dead(Dead::Expired);
        model.refused(4);
        model.arrived(2);
        model.refresh(
            Pressure {
                requests: 6,
                tokens: 60,
                oldest: Duration::from_millis(250),
                ..Pressure::default()
            },
            Instant::now(),
        );
        let text = metrics.text();
        for line in [
            "badge_requests_total{route=\"/predict\",code=\"200\"} 1",
            "badge_request_duration_seconds_bucket{le=\"0.005\",route=\"/predict\"} 1",
            "badge_exits_total{model=\"tiny\",layer=\"5\"} 1",
            "badge_exits_total{model=\"tiny\",layer=\"2\"} 0",
            "badge_layers_executed_total{model=\"tiny\"} 3",
            "badge_queue_requests{model=\"tiny\"} 6",
            "badge_queue_tokens{model=\"tiny\"} 60",
            "badge_queue_oldest_age_seconds{model=\"tiny\"} 0.25",
            "badge_expired_total{model=\"tiny\"} 1",
            "badge_shed_total{model=\"tiny\",reason=\"concurrency\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("badge_build_info{version="), "{text}");
        let work = model.work();
        assert_eq!((work.arrivals, work.token_blocks), (2, 21));
        assert_eq!(model.exits(), [(Depth(2), 0), (Depth(5), 1)]);
        assert_eq!(model.losses(), [4, 1, 0]);
    }

    #[test]
    fn only_the_latest_answers_are_remembered() {
        let model = Metrics::new().of_model("tiny", &[Depth(1)]);
        let start = Instant::now();
        for ms in 0..5 {
            model.answered(RecentAnswer {
                at: start + Duration::from_millis(100 * ms),
                latency: Duration::from_millis(ms),
                depth: Depth(1),
            });
        }
        let now = start + Duration::from_millis(450);
        let latest = model.latest(now, Duration::from_millis(200));
        let latencies: Vec<_> = latest.iter().map(|a| a.latency.as_millis()).collect();
        assert_eq!(latencies, [4, 3]);
    }
}
