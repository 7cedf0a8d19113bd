//! What the controller is told at every tick.

use serde::Serialize;

use super::class::{Class, PerClass};

/// Numbers beyond this are taken for it: with times and work below it no product overflows.
const LARGEST: f64 = 1e12;

/// The state of a server at one moment.
///
/// **Work** is counted in full-depth units: one unit is one token through all M blocks, so that a
/// request of n tokens that has yet to run b blocks is n b / M units. Times are in seconds.
///
/// What is not a finite number of 0 or more is taken for 0, which means "nothing known".
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Load {
    /// The time, from any fixed moment on; it does not run backwards.
    pub now: f64,
    /// Q: work that waits and is done before a request of class `normal` that comes now, by class,
    /// as if all of it went to full depth. Work of class `batch` that can wait longer than such a
    /// request does not count.
    pub queued: PerClass<f64>,
    /// B: work that has begun and is yet to be executed, at the depths that it was given: no later
    /// command takes any of it away.
    pub begun: f64,
    /// w: how long the request that has waited longest has been waiting, of those that are promised
    /// the SLO: not of class `batch`.
    pub head_age: f64,
    /// How fast work gets done.
    pub service: Service,
    /// λ̂: work that arrives, in units per second. It is reported as demand and steers nothing.
    pub arrival_rate: f64,
    /// Answers since the last tick; they are what a budget of accuracy counts.
    pub answered: PerClass<f64>,
    /// The quantile of measured sojourn times that the SLO is about (such as p99), over the last
    /// seconds, requests that were given up as too late among them. It moves the set-point; none
    /// leaves that where it is.
    pub sojourn_quantile: Option<f64>,
}

/// How fast work gets done: measured, or known.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Service {
    /// μ̂: work executed in a second, in units per second; 0 while nothing has been measured.
    pub rate: f64,
    /// s0: seconds that a batch to full depth takes whatever is in it. It comes with every block,
    /// so that a batch to relative depth d takes d of it.
    pub fixed: f64,
    /// c: seconds per unit of executed work.
    pub per_work: f64,
    /// Work of the next batch, in units.
    pub batch: f64,
}

impl Service {
    /// Ŝ(d) = (s0 + c · batch) d: seconds that the next batch takes at relative depth `depth`.
    pub fn batch_seconds(&self, depth: f64) -> f64 {
        (self.fixed + self.per_work * self.batch) * depth
    }

    /// The same of a batch that has room for `work` units.
    pub(super) fn with_room_for(self, work: f64) -> Self {
        Self {
            batch: self.batch.max(cleaned(work)),
            ..self
        }
    }

    /// Seconds until `queued` and `begun` work is done where the classes run to these `depths`:
    /// (Σ Q_c d_c + B) / μ̂; 0 while the rate is not known.
    pub fn drain_seconds(
        &self,
        (queued, begun): (&PerClass<f64>, f64),
        depths: &PerClass<f64>,
    ) -> f64 {
        if self.rate <= 0.0 {
            return 0.0;
        }
        let of = |class: Class| queued.of(class) * depths.of(class);
        let executed: f64 = Class::ALL.into_iter().map(of).sum();
        ((executed + begun) / self.rate).min(LARGEST)
    }

    pub(super) fn cleaned(self) -> Self {
        Self {
            rate: cleaned(self.rate),
            fixed: cleaned(self.fixed),
            per_work: cleaned(self.per_work),
            batch: cleaned(self.batch),
        }
    }
}

impl Load {
    /// T̂, in seconds, where the classes run to these depths.
    pub(super) fn sojourn(&self, depths: &PerClass<f64>) -> f64 {
        let drain = self.drain_seconds(depths);
        self.head_age.max(drain) + self.service.batch_seconds(depths.normal)
    }

    /// Seconds until all work is done that a newcomer finds, where what waits runs to these depths.
    pub(super) fn drain_seconds(&self, depths: &PerClass<f64>) -> f64 {
        self.service
            .drain_seconds((&self.queued, self.begun), depths)
    }

    /// The same with everything impossible taken for 0.
    pub(super) fn cleaned(&self) -> Self {
        Self {
            now: cleaned(self.now),
            queued: cleaned_classes(&self.queued),
            begun: cleaned(self.begun),
            head_age: cleaned(self.head_age),
            service: self.service.cleaned(),
            arrival_rate: cleaned(self.arrival_rate),
            answered: cleaned_classes(&self.answered),
            sojourn_quantile: self.sojourn_quantile.filter(|seconds| seconds.is_finite()),
        }
    }
}

pub(super) fn cleaned_classes(values: &PerClass<f64>) -> PerClass<f64> {
    PerClass::from_fn(|class| cleaned(*values.of(class)))
}

pub(super) fn cleaned(value: f64) -> f64 {
    if value.is_finite() {
        value.clamp(0.0, LARGEST)
    } else {
        0.0
    }
}
