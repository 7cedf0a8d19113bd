//! What the controller publishes, and what follows from it for one request.

use serde::Serialize;

use super::class::{Class, PerClass};
use super::ladder::Ladder;
use super::load::{Service, cleaned, cleaned_classes};
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
    /// d: the relative depth of class `normal`, which is its level's.
    pub depth: f64,
    /// The floor in force: that of the ladder, or a deeper level's where the audit or the budget say
    /// so.
    pub floor: f64,
    /// How deep every class goes where `normal` goes to the floor.
    pub floors: PerClass<f64>,
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
    /// Its own work to full depth, in units; 0 where that is not known.
    pub work: f64,
}

impl Ask {
    fn slack(&self) -> Option<f64> {
        let slack = self.slack?;
        Some(if slack.is_nan() { 0.0 } else { slack })
    }

    /// The seconds that it may take: what its class is promised, and no more than it has left. Work
    /// of class `batch` may take as long as it says.
    fn allowed(&self, slo: f64) -> f64 {
        let promised = slo * self.class.patience();
        match (self.slack(), self.class) {
            (None, _) => promised,
            (Some(slack), Class::Batch) => slack,
            (Some(slack), _) => slack.min(promised),
        }
    }
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

    /// Whether a request is let in behind work that is done before it: `queued`, by class, as if it
    /// went to full depth, and `begun`, as deep as it was let go ([`Load::begun`](super::Load::begun)).
    ///
    /// ```text
    /// (Q d_floor + B) / μ̂ + Ŝ(d_floor)  ≤  0.9 · min(SLO, slack),   else come again after ⌈excess⌉ seconds
    /// ```
    ///
    /// Ŝ is of a batch with room for the request's own work. As long as there is depth to give away
    /// the left side is small: requests are refused at the floor alone. Work of class `batch` has
    /// 20 times the SLO, or its own deadline. An idle server lets everything in that may hope to
    /// meet the request's own deadline.
    pub fn admit(&self, (queued, begun): (&PerClass<f64>, f64), ask: &Ask) -> Admission {
        let (queued, begun) = (cleaned_classes(queued), cleaned(begun));
        let allowed = match (queued.total() + begun == 0.0, ask.slack()) {
            (true, None) => return Admission::Admit,
            (true, Some(slack)) => slack,
            (false, _) => ask.allowed(self.slo),
        };
        let batch = self.service.with_room_for(ask.work);
        let floor = *self.floors.of(ask.class);
        let drain = self.service.drain_seconds((&queued, begun), &self.floors);
        let excess = drain + batch.batch_seconds(floor) - ADMISSION_MARGIN * allowed;
        if excess <= 0.0 {
            return Admission::Admit;
        }
        let seconds = excess.ceil().clamp(1.0, RETRY_AFTER_MAX);
        Admission::Refuse {
            retry_after: seconds as u64,
        }
    }

    /// The level at which a request is answered that is about to be executed.
    ///
    /// Its class's level; a shallower one where that is not done by a deadline of its own: the
    /// deepest that is, or the floor; never one below the certified score that it asks for.
    pub fn level(&self, ladder: &Ladder, ask: &Ask) -> usize {
        let of_class = *self.levels.of(ask.class);
        let level = ask.slack.map_or(of_class, |slack| {
            let batch = self.service.with_room_for(ask.work);
            let in_time = |depth: f64| batch.batch_seconds(depth) <= slack;
            let mut levels = ladder.levels().iter();
            let deepest = levels.position(|level| in_time(level.depth));
            let shallowest = ladder.at_depth(self.floor);
            of_class.max(deepest.map_or(shallowest, |level| level.min(shallowest)))
        });
        let asked = ask.min_accuracy;
        asked.map_or(level, |least| level.min(ladder.at_certified_score(least)))
    }
}
