//! The SLO controller: how deep to go so that answers are in time, and never below what is certified.
//!
//! A [`Ladder`] holds the settings that a calibration has certified. At every tick
//! ([`Settings::tick_seconds`]) a server tells the [`Controller`] its [`Load`] and publishes the
//! [`Command`] that comes back; [`Command::admit`] and [`Command::level`] say what follows for one
//! request. [`ServiceEstimate`] measures how fast batches get done.
//!
//! Everything here is a pure function of what it is given: time comes in as a number, nothing is
//! random, and the same loads give the same commands. The law and why it is as it is:
//! `docs/controller.md`.
//!
//! ```text
//! T̂    = max(w, Q d / μ̂) + Ŝ(d)                    predicted sojourn, at the level that runs
//! T*   = σ · SLO                                    what it is steered at
//! d_fb = a feedback loop on T̂ / T*                  fast attack, slow release
//! d_q  : Q d / μ̂ + s0 d = T*                        the depth at which the backlog just fits
//! d    = Θ(clip(min(d_fb, d_q), d_floor, 1))        the next deeper level's
//! ```

mod audit;
mod budget;
mod class;
mod command;
mod feedback;
mod ladder;
mod load;
mod order;
mod service_estimate;
mod set_point;
mod settings;
#[cfg(test)]
mod tests;

pub use audit::{AUDIT_ONE_IN, AuditMemory, AuditReport};
pub use class::{Class, PerClass};
pub use command::{ADMISSION_MARGIN, Admission, Ask, Command};
pub use ladder::{FixedReason, Ladder, Level};
pub use load::{Load, Service};
pub use order::QueueOrder;
pub use service_estimate::ServiceEstimate;
pub use settings::{
    Budget, SET_POINT_SHARE, SET_POINT_SHARES, Settings, TICK_SECONDS, TICKS_PER_SLO,
};

use audit::Audit;
use budget::VirtualQueue;
use feedback::{Feedback, is_calm};
use order::StandingQueue;
use set_point::SetPoint;

/// The state machine.
///
/// # Example
/// ```
/// use badge_core::controller::{Controller, Ladder, Load, PerClass, Service, Settings};
///
/// let mut controller = Controller::new(Settings::new(0.1)?, Ladder::full_only());
/// let load = Load {
///     now: 12.5,
///     queued: PerClass { normal: 400.0, ..PerClass::default() },
///     service: Service { rate: 1000.0, ..Service::default() },
///     ..Load::default()
/// };
/// let command = controller.tick(&load);
/// assert!((command.sojourn - 0.4).abs() < 1e-9);
/// // Late as everything is: without a certified level there is no depth to give away.
/// assert_eq!((command.depth, command.levels.normal), (1.0, 0));
/// # Ok::<(), badge_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Controller {
    settings: Settings,
    ladder: Ladder,
    /// The least depth that the audit trusts; 0 while it trusts every level.
    trusted: f64,
    feedback: Feedback,
    spent: VirtualQueue,
    standing: StandingQueue,
    set_point: SetPoint,
    audit: Audit,
    /// The levels of the last tick, which the present state of the queue comes from.
    levels: PerClass<usize>,
}

impl Controller {
    /// A controller that begins at full depth.
    pub fn new(settings: Settings, ladder: Ladder) -> Self {
        Self {
            settings,
            trusted: 0.0,
            ladder,
            feedback: Feedback::default(),
            spent: VirtualQueue::default(),
            standing: StandingQueue::default(),
            set_point: SetPoint::default(),
            audit: Audit::default(),
            levels: PerClass::default(),
        }
    }

    /// The same with what the audit of another controller of this calibration has found.
    pub fn with_audit(self, memory: &AuditMemory) -> Self {
        Self {
            trusted: memory.trusted,
            audit: memory.audit.clone(),
            ..self
        }
    }

    /// What is promised.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Promises something else from the next tick on; depth, budget and audit stay as they are.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The settings to choose among.
    pub fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// One tick, to be called every [`Settings::tick_seconds`].
    pub fn tick(&mut self, load: &Load) -> Command {
        let load = load.cleaned();
        let slo = self.settings.slo();
        if let Some(budget) = self.settings.budget() {
            let spent = (&load.answered, &self.levels);
            self.spent.tick(budget, &self.ladder, spent);
        }
        let measured = (load.sojourn_quantile, slo);
        let depths = self.depths(self.levels);
        self.set_point.tick(load.now, measured, depths.normal);
        let sojourn = load.sojourn(&depths);
        self.feedback
            .tick(sojourn, self.set_point_seconds(), self.floor());
        let command = self.command(&load);
        self.levels = command.levels;
        let waited = (load.head_age, slo);
        self.standing.tick(load.now, waited, command.at_floor());
        Command {
            order: self.standing.order(load.now),
            ..command
        }
    }

    /// What the command is at this moment, between two ticks: the backlog may have grown. To be
    /// asked when a batch is formed.
    pub fn reconsider(&self, load: &Load) -> Command {
        self.command(&load.cleaned())
    }

    /// Takes note of whether an early answer agreed with the full model's. Where agreement has fallen
    /// below the certificate the floor rises by one level, for good: the texts are no longer those
    /// of the calibration. Returns the new floor's level then.
    pub fn audited(&mut self, agreed: bool) -> Option<usize> {
        let floor_level = self.floor_level();
        let certified = self.ladder.levels()[floor_level].certified_agreement?;
        if floor_level == 0 || !self.audit.record(agreed, certified) {
            return None;
        }
        self.trusted = self.ladder.levels()[floor_level - 1].depth;
        Some(floor_level - 1)
    }

    /// Whether answers of this ladder can be audited: something is certified of their agreement.
    pub fn can_audit(&self) -> bool {
        let floor = &self.ladder.levels()[self.floor_level()];
        floor.certified_agreement.is_some()
    }

    /// What the audit has seen.
    pub fn audit(&self) -> AuditReport {
        self.audit.report()
    }

    /// What the audit has found, for a controller that comes after this one.
    pub fn audit_memory(&self) -> AuditMemory {
        AuditMemory {
            audit: self.audit.clone(),
            trusted: self.trusted,
        }
    }

    /// The shallowest level that may be used.
    fn floor_level(&self) -> usize {
        self.ladder.at_depth(self.trusted)
    }

    /// d_floor in force, which is a level's depth.
    fn floor(&self) -> f64 {
        let floor = self.ladder.levels()[self.floor_level()].depth;
        let budget = self.settings.budget();
        let floor = budget.map_or(floor, |budget| {
            self.spent.floor(budget, &self.ladder, floor)
        });
        self.ladder.levels()[self.ladder.at_depth(floor)].depth
    }

    /// T*, in seconds.
    fn set_point_seconds(&self) -> f64 {
        self.set_point.share() * self.settings.slo()
    }

    /// The levels of all classes where the law says `depth`.
    fn levels_at(&self, depth: f64, floor: f64) -> PerClass<usize> {
        PerClass::from_fn(|class| self.ladder.at_depth(class.depth(depth, floor)))
    }

    /// What texts run: the depths of their levels, not what the law says between two of them.
    fn depths(&self, levels: PerClass<usize>) -> PerClass<f64> {
        PerClass::from_fn(|class| self.ladder.levels()[*levels.of(class)].depth)
    }

    /// d_q: the greatest depth, from `floor` to 1, at whose levels the backlog is done in time. The
    /// floor where none is, 1 while the rate is not known.
    fn fitting_depth(&self, load: &Load, floor: f64) -> f64 {
        let fits = |depth: f64| {
            let depths = self.depths(self.levels_at(depth, floor));
            let fixed = load.service.fixed * depths.normal;
            load.drain_seconds(&depths) + fixed <= self.set_point_seconds()
        };
        if load.service.rate <= 0.0 || fits(1.0) {
            return 1.0;
        }
        let (mut fitting, mut exceeding) = (floor, 1.0);
        // Executed work rises with depth; 50 halvings leave no more than rounding.
        for _ in 0..50 {
            let middle = 0.5 * (fitting + exceeding);
            if fits(middle) {
                fitting = middle;
            } else {
                exceeding = middle;
            }
        }
        fitting
    }

    fn command(&self, load: &Load) -> Command {
        let floor = self.floor();
        let fitting = self.fitting_depth(load, floor);
        let levels = self.levels_at(self.feedback.depth().min(fitting).clamp(floor, 1.0), floor);
        let depths = self.depths(levels);
        let (sojourn, set_point) = (load.sojourn(&depths), self.set_point_seconds());
        let rate = load.service.rate;
        Command {
            depth: depths.normal,
            floor,
            floors: self.depths(self.levels_at(floor, floor)),
            levels,
            sojourn,
            set_point,
            order: self.standing.order(load.now),
            audit: depths.normal < 1.0 && is_calm(sojourn, set_point),
            demand: (rate > 0.0).then(|| (load.arrival_rate / rate).min(f64::MAX)),
            budget_spent: self
                .settings
                .budget()
                .map(|budget| self.spent.spent(budget)),
            slo: self.settings.slo(),
            service: load.service,
        }
    }
}

/// The page on the controller, whose example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/controller.md")]
struct ControllerPage;
