//! The SLO controller against a model of a server, in simulated time.
//!
//! One server takes batches of at most 16 requests; to full depth a batch takes 1 ms, and 2 ms more for
//! each request; all of it comes block by block, so that a batch to a relative depth takes that
//! share. Requests arrive by a
//! [`Pattern`]; a [`Governor`] says how deep they go. It is a model, not a measurement: it says what
//! the law does when the depth that it commands is the depth that it gets.

mod plan;
mod presentation;
mod queue;

use badge_core::calibration::{
    Certificate, ExitCalibration, Goal, LossKind, Method, OperatingPoint,
};
use badge_core::controller::Ladder;
use badge_core::policy::PolicySpec;
use serde::{Deserialize, Serialize};

pub use plan::{Cell, Load, Plan, Row, Simulation};
pub use queue::simulate;

#[cfg(doc)]
use crate::traffic::Pattern;

/// Requests in a batch, at most.
pub const BATCH_MAX: usize = 16;

/// Seconds of a batch to full depth whatever is in it.
pub const BATCH_SECONDS: f64 = 0.001;

/// Seconds of one request to full depth.
pub const REQUEST_SECONDS: f64 = 0.002;

/// What is promised to callers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// The time, in seconds.
    pub slo: f64,
    /// The relative depth of the shallowest certified setting.
    pub floor: f64,
}

/// An SLO that leaves room for batches, and a floor that carries 2.9 times what full depth does.
pub const PROMISE: Promise = Promise {
    slo: 0.1,
    floor: 0.35,
};

/// Four times what a lone request takes, and a floor that carries four times what full depth does.
pub const TIGHT_PROMISE: Promise = Promise {
    slo: 4.0 * (BATCH_SECONDS + REQUEST_SECONDS),
    floor: 0.25,
};

/// Who decides how deep requests go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Governor {
    /// Nobody: one level for all. Everything is let in.
    Static {
        /// Which.
        level: StaticLevel,
    },
    /// The controller, in its law's own form.
    Law {
        /// Seconds between two ticks; none for a quarter of the SLO.
        tick: Option<f64>,
        /// What stands beside the ticks.
        variant: Variant,
    },
}

/// One end of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaticLevel {
    /// Full depth.
    Full,
    /// The floor.
    Floor,
}

/// What of the law is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Commands are considered anew at every batch; first come, first served.
    Whole,
    /// The same, and a standing queue is served from its end.
    LastComeFirst,
    /// Commands change at ticks alone.
    TicksAlone,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests that arrived.
    pub offered: usize,
    /// The share of them answered in time.
    pub in_time: f64,
    /// The share refused.
    pub refused: f64,
    /// The share that was let in and then given up, its time being over.
    pub expired: f64,
    /// Median and 99th percentile of the answers' sojourn, in milliseconds.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
    /// Mean relative depth of all answers.
    pub depth: f64,
    /// That of answers to requests that arrived in the burst; none without a burst.
    pub depth_in_burst: Option<f64>,
    /// That of those that arrived before it.
    pub depth_before: Option<f64>,
    /// Answers in time to requests of the burst, per second of it.
    pub goodput_in_burst: Option<f64>,
    /// Mean score of all answers.
    pub score: f64,
    /// The least score of any answer.
    pub score_least: f64,
    /// Seconds from the end of the burst until the command is full depth again.
    pub settled_seconds: Option<f64>,
    /// Changes of the level, per minute.
    pub changes_per_minute: f64,
}

/// Requests per second that can be answered at a relative depth, in full batches.
pub fn capacity(depth: f64) -> f64 {
    BATCH_MAX as f64 / (depth * (BATCH_SECONDS + REQUEST_SECONDS * BATCH_MAX as f64))
}

/// Certified settings from full depth down to `floor` in twentieths, scoring from 0.92 to 0.9: what a
/// calibration of a good model looks like, made up.
pub fn ladder(floor: f64) -> Ladder {
    const STEP: f64 = 0.05;
    let (full, least) = (0.92, 0.9);
    let steps = ((1.0 - floor) / STEP).round() as usize;
    let point = |step: usize| {
        let depth = 1.0 - (1.0 - floor) * step as f64 / steps as f64;
        let policy = format!("entropy:{}", 0.05 * step as f64);
        OperatingPoint {
            policy: policy.parse().expect("a threshold above 0"),
            score: full - (full - least) * step as f64 / steps as f64,
            mean_exit: 12.0 * depth,
            layer_speedup: 1.0 / depth,
            certified: true,
        }
    };
    Ladder::from_calibration(&calibration((1..=steps).map(point).collect(), full), None)
}

fn calibration(points: Vec<OperatingPoint>, full_score: f64) -> ExitCalibration {
    let policy = points.last().map_or(PolicySpec::Full, |p| p.policy.clone());
    ExitCalibration {
        version: ExitCalibration::VERSION,
        policy,
        goal: Goal::MaxDrop(0.02),
        certificate: Some(Certificate {
            method: Method::Ltt,
            loss: LossKind::Excess,
            loss_scale: None,
            epsilon: 0.03,
            confidence: Some(0.95),
            rows: 1000,
            chains: 1,
            mean_loss: 0.02,
        }),
        points,
        temperatures: Vec::new(),
        data_set: "simulation".to_owned(),
        split: "dev".to_owned(),
        split_sha256: String::new(),
        n: 1000,
        max_length: None,
        metric: "acc".to_owned(),
        full_score,
        model_sha256: String::new(),
        engine: "simulation".to_owned(),
        precision: "none".to_owned(),
        instruction_set: "none".to_owned(),
    }
}
