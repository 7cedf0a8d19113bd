//! What the controller publishes, and what follows from it for one request.

use serde::Serialize;

use super::class::{Class, PerClass};
use super::ladder::Ladder;
use super::load::{Service, cleaned_classes};
use super::order::QueueOrder;

/// The share of its time that a request may be predicted to take and still be let in: the forecast
/// is a mean, and a request that is let in and late has cost others theirs.
pub const ADMISSION_MARGIN: f64 = 0.9;

/// The longest advice on when to come again, in seconds: load changes sooner.
const RETRY_AFTER_MAX: f64 = 60.0;

/// The state of the law after a tick: plain data, to be published to those who form batches and
/// those who let requests in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Command {
    /// d: the relative depth of class `normal`.
    pub depth: f64,
    /// The floor in force: that of the ladder, or above it where the audit or the budget say so.
    pub floor: f64,
    /// The ladder's level for every class: 0 is full depth, and each one more spends accuracy.
    pub levels: PerClass<usize>,
    /// T̂: the predicted sojourn of the request that will wait longest, in seconds.
    pub sojourn: f64,
    /// T*: what it is steered at, in seconds.
    pub set_point: f64,
    /// Which end of a class's queue is served.
    pub order: QueueOrder,
    /// Whether there is time to audit: it is calm, though some answers are given early.
    pub audit: bool,
    /// λ̂ / μ̂: replicas that full depth for all would keep busy; none while the rate is not known.
    /// For an autoscaler; nothing here steers by it.
    pub demand: Option<f64>,
    /// The share of the accuracy budget's reserve that is spent, from 0 to 2; none without one.
    pub budget_spent: Option<f64>,
    /// The promised time, in seconds.
    pub slo: f64,
    /// How fast work gets done, as the command was given.
    pub service: Service,
}

/// What one request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ask {
    /// Its class.
    pub class: Class,
    /// The least certified score it is content with.
    pub min_accuracy: Option<f64>,
    /// Seconds left until its own deadline; none where the SLO is all it wants.
    pub slack: Option<f64>,
}

/// Whether a request is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Admit,
    /// Even at the floor it would be late.
    Refuse {
        /// When to try again, in whole seconds, at least 1.
        retry_after: u64,
    },
}

impl Command {
    /// Whether depth is as low as it gets.
    pub fn at_floor(&self) -> bool {
        self.depth <= self.floor && self.floor < 1.0
    }

    /// Whether a request that has `slack` seconds (none: the SLO) is let in behind `queued` work:
    ///
    /// ```text
    /// Q d_floor / μ̂ + Ŝ(d_floor)  ≤  0.9 · slack,   else come again after ⌈excess⌉ seconds
    /// ```
    ///
    /// As long as there is depth to give away the left side is small: requests are refused at the
    /// floor alone. To an idle server a request without a deadline of its own is always let in.
    pub fn admit(&self, queued: &PerClass<f64>, slack: Option<f64>) -> Admission {
        let queued = cleaned_classes(queued);
        if slack.is_none() && queued.total() == 0.0 {
            return Admission::Admit;
        }
        let drain = self.service.drain_seconds(&queued, self.floor, self.floor);
        let predicted = drain + self.service.batch_seconds(self.floor);
        let slack = slack.unwrap_or(self.slo);
        let allowed = ADMISSION_MARGIN * if slack.is_nan() { 0.0 } else { slack };
        if predicted <= allowed {
            return Admission::Admit;
        }
        let seconds = (predicted - allowed).ceil().clamp(1.0, RETRY_AFTER_MAX);
        Admission::Refuse {
            retry_after: seconds as u64,
        }
    }

    /// The level at which a request is answered that is about to be executed.
    ///
    /// Its class's level; with a deadline of its own the deepest one whose batch is done in time,
    /// be that deeper or shallower, and the floor where none is; never one below the certified
    /// score that it asks for.
    pub fn level(&self, ladder: &Ladder, ask: &Ask) -> usize {
        let level = match ask.slack {
            None => *self.levels.of(ask.class),
            Some(slack) => {
                let in_time =
                    |depth: f64| depth <= self.floor || self.service.batch_seconds(depth) <= slack;
                let levels = ladder.levels().iter();
                let deepest = levels.clone().position(|level| in_time(level.depth));
                let shallowest = ladder.at_depth(self.floor);
                deepest.unwrap_or(shallowest).min(shallowest)
            }
        };
        let asked = ask.min_accuracy;
        asked.map_or(level, |least| level.min(ladder.at_certified_score(least)))
    }
}
