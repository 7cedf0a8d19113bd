//! The families of metrics and their labels.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use badge_core::exit::Depth;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::ModelMetrics;

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

/// Labels of a text's stages.
const STAGES: [&str; 3] = ["tokenize", "queue", "compute"];

/// Labels of why texts are refused.
const REASONS: [&str; 2] = ["concurrency", "slo"];

/// Labels of how a promise is not kept.
const BAD_CAUSES: [&str; 3] = ["late", "shed", "expired"];

/// Labels of who changes a policy.
const CHANGE_CAUSES: [&str; 2] = ["controller", "api"];

pub(super) type GaugeF64 = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) route: String,
    pub(super) code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteLabel {
    pub(super) route: String,
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
pub(super) struct BuildLabels {
    pub(super) version: &'static str,
    pub(super) instruction_set: String,
    pub(super) precision: String,
}

pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

pub(super) fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn sequences() -> Histogram {
    Histogram::new(SEQUENCES)
}

fn tokens() -> Histogram {
    Histogram::new(TOKENS)
}

/// The metrics that each model has its own of.
#[derive(Debug, Clone)]
pub(super) struct ModelFamilies {
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

impl ModelFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
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
            "Mean depth of the answers of the last ten seconds as a share of all blocks; NaN without",
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

    pub(super) fn of_model(&self, model: &str, depths: &[Depth]) -> ModelMetrics {
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
            tokenization_seconds: stage(STAGES[0]),
            queue_seconds: stage(STAGES[1]),
            compute_seconds: stage(STAGES[2]),
            batch_sequences: self.batch_sequences.get_or_create_owned(&label),
            batch_tokens: self.batch_tokens.get_or_create_owned(&label),
            queue_requests: self.queue_requests.get_or_create_owned(&label),
            queue_tokens: self.queue_tokens.get_or_create_owned(&label),
            queue_age: self.queue_age.get_or_create_owned(&label),
            expired: self.expired.get_or_create_owned(&label),
            abandoned: self.abandoned.get_or_create_owned(&label),
            shed: shed(REASONS[0]),
            shed_slo: shed(REASONS[1]),
            busy: self.busy.get_or_create_owned(&label),
            slo: self.slo.get_or_create_owned(&label),
            slo_good: self.slo_good.get_or_create_owned(&label),
            slo_late: cause(&self.slo_bad, BAD_CAUSES[0]),
            slo_shed: cause(&self.slo_bad, BAD_CAUSES[1]),
            slo_expired: cause(&self.slo_bad, BAD_CAUSES[2]),
            policy_level: self.policy_level.get_or_create_owned(&label),
            policy_score: self.policy_score.get_or_create_owned(&label),
            changes_by_controller: cause(&self.policy_changes, CHANGE_CAUSES[0]),
            changes_by_api: cause(&self.policy_changes, CHANGE_CAUSES[1]),
            audits: self.audits.get_or_create_owned(&label),
            audit_agreement: self.audit_agreement.get_or_create_owned(&label),
            audit_alarm: self.audit_alarm.get_or_create_owned(&label),
            demand: self.demand.get_or_create_owned(&label),
            recent: Arc::default(),
        }
    }
}

impl ModelFamilies {
    pub(super) fn forget(&self, model: &str, depths: &[Depth]) {
        let model = model.to_owned();
        let label = ModelLabel {
            model: model.clone(),
        };
        for family in [&self.batch_sequences, &self.batch_tokens] {
            family.remove(&label);
        }
        for family in [
            &self.depth_ratio,
            &self.queue_age,
            &self.slo,
            &self.policy_level,
            &self.policy_score,
            &self.audit_agreement,
            &self.demand,
        ] {
            family.remove(&label);
        }
        for family in [&self.queue_requests, &self.queue_tokens, &self.audit_alarm] {
            family.remove(&label);
        }
        for family in [
            &self.layers,
            &self.expired,
            &self.abandoned,
            &self.slo_good,
            &self.audits,
        ] {
            family.remove(&label);
        }
        self.busy.remove(&label);
        for depth in depths {
            let (model, layer) = (model.clone(), depth.0);
            self.exits.remove(&ExitLabels { model, layer });
        }
        for stage in STAGES {
            let model = model.clone();
            self.stages.remove(&StageLabels { model, stage });
        }
        for reason in REASONS {
            let model = model.clone();
            self.shed.remove(&ReasonLabels { model, reason });
        }
        for (family, causes) in [
            (&self.slo_bad, &BAD_CAUSES[..]),
            (&self.policy_changes, &CHANGE_CAUSES[..]),
        ] {
            for &cause in causes {
                let model = model.clone();
                family.remove(&CauseLabels { model, cause });
            }
        }
    }
}
