//! The SLO controller at work: it is told of the load once per tick and says how deep to go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use badge_core::controller::{
    Admission, Ask, AuditMemory, AuditReport, Class, Command, Controller, Ladder, Load, PerClass,
    QueueOrder, ServiceEstimate, Settings,
};
use badge_core::policy::{ModelExits, Policy};

use crate::metrics::Promise;

/// How often the measured quantile is looked at: sorting latencies costs more than a tick.
const QUANTILE_PERIOD: Duration = Duration::from_millis(500);

/// Answers without which a quantile of sojourn times says nothing.
const QUANTILE_ANSWERS: usize = 200;

/// The quantile of sojourn times that the SLO is about.
const QUANTILE: f64 = 0.99;

/// The share of the SLO that texts may spend together in the engine: with more of them in it, each
/// block would take longer, and who waits outside can still be given a shallower policy.
const ENGINE_SHARE: f64 = 0.25;

/// A controller with the policies of its levels.
#[derive(Debug)]
pub(crate) struct Governor {
    ladder: Ladder,
    policies: Vec<Arc<Policy>>,
    blocks: f64,
    state: Mutex<State>,
    command: RwLock<Command>,
    /// The score that was asked for, if one was.
    accuracy_floor: Option<f64>,
}

#[derive(Debug)]
struct State {
    controller: Controller,
    service: ServiceEstimate,
    start: Instant,
    next_tick: Instant,
    next_quantile: Instant,
    quantile: Option<f64>,
    /// Work that had arrived at the last tick, and when that was.
    arrived: (f64, Instant),
    arrival_rate: f64,
    answered: PerClass<f64>,
    /// Early answers since the last one that was audited.
    since_audit: u64,
}

/// What a governor is told at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Observed {
    /// Tokens ahead of a text of class `normal` that comes now, by class, in full-depth units.
    pub(crate) queued: PerClass<f64>,
    /// Tokens in the engine times the share of all blocks that they are expected to run yet.
    pub(crate) begun: f64,
    /// How long the text that has waited longest has been waiting, of those that are promised a
    /// time.
    pub(crate) oldest: Duration,
    /// Tokens that have come since the start.
    pub(crate) tokens_arrived: f64,
    /// Tokens of the next batch.
    pub(crate) batch: f64,
}

impl Governor {
    /// A governor of a model, at full depth; `audited` is what has been found of its early answers
    /// before.
    ///
    /// # Errors
    /// When a certified policy does not fit the model.
    pub(crate) fn new(
        settings: Settings,
        (ladder, accuracy_floor): (Ladder, Option<f64>),
        audited: &AuditMemory,
        exits: &ModelExits,
    ) -> badge_core::Result<Self> {
        let policies = ladder.levels().iter();
        let policies = policies.map(|level| level.policy.build_for(exits).map(Arc::new));
        let controller = Controller::new(settings, ladder.clone());
        let mut controller = controller.with_audit(audited);
        let now = Instant::now();
        Ok(Self {
            policies: policies.collect::<Result<_, _>>()?,
            command: RwLock::new(controller.tick(&Load::default())),
            blocks: exits.plan().deepest().0 as f64,
            ladder,
            state: Mutex::new(State {
                controller,
                service: ServiceEstimate::default(),
                start: now,
                next_tick: now,
                next_quantile: now,
                quantile: None,
                arrived: (0.0, now),
                arrival_rate: 0.0,
                answered: PerClass::default(),
                since_audit: 0,
            }),
            accuracy_floor,
        })
    }

    /// Promises something else from the next tick on.
    pub(crate) fn set_settings(&self, settings: Settings) {
        let mut state = self.state();
        state.controller.set_settings(settings);
        state.next_tick = Instant::now();
    }

    /// The promised time.
    pub(crate) fn slo(&self) -> Duration {
        Duration::from_secs_f64(self.state().controller.settings().slo())
    }

    /// Within how long a text of class `normal` is due: what is promised.
    pub(crate) fn horizon(&self) -> Duration {
        Duration::from_secs_f64(self.command().slo)
    }

    /// The score that was asked for, if one was.
    pub(crate) fn accuracy_floor(&self) -> Option<f64> {
        self.accuracy_floor
    }

    /// What there is to choose among.
    pub(crate) fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// What holds now.
    pub(crate) fn command(&self) -> Command {
        *self.command.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the audit has seen.
    pub(crate) fn audit(&self) -> AuditReport {
        self.state().controller.audit()
    }

    /// Takes over what the audit of a governor before this one has found.
    pub(crate) fn remember(&self, audited: &AuditMemory) {
        let mut state = self.state();
        state.controller = state.controller.clone().with_audit(audited);
    }

    /// What the audit has found, for whoever governs next.
    pub(crate) fn audit_memory(&self) -> AuditMemory {
        self.state().controller.audit_memory()
    }

    /// What is promised, how it is kept, and what by.
    pub(crate) fn promise(&self) -> Promise {
        let (command, audit) = (self.command(), self.audit());
        let level = &self.ladder.levels()[command.levels.normal];
        Promise {
            slo: Some(self.slo()),
            level: command.depth,
            score: Some(level.score),
            agreement: audit.agreement,
            alarm: audit.alarm,
            demand: command.demand,
        }
    }

    /// The policy of a text that is about to join the engine.
    pub(crate) fn policy(&self, ask: &Ask) -> Arc<Policy> {
        let level = self.command().level(&self.ladder, ask);
        Arc::clone(&self.policies[level])
    }

    /// Whether texts are let in behind `queued` work.
    pub(crate) fn admit(&self, ahead: (&PerClass<f64>, f64), ask: &Ask) -> Admission {
        self.command().admit(ahead, ask)
    }

    /// The relative depth to which texts run under a policy in the mean, all blocks where it is none
    /// of the ladder's.
    pub(crate) fn depth_of(&self, policy: &Arc<Policy>) -> f64 {
        let mut policies = self.policies.iter();
        let level = policies.position(|other| Arc::ptr_eq(other, policy));
        level.map_or(1.0, |level| self.ladder.levels()[level].depth)
    }

    /// Which end of a class's queue is served.
    pub(crate) fn order(&self) -> QueueOrder {
        self.command().order
    }

    /// Tokens that may be in the engine at a time: as many as it can take through all blocks within
    /// a share of the SLO, though not so few that most of the time goes into what a pass costs
    /// whatever is in it. All that fit while nothing has been measured.
    pub(crate) fn live_tokens_max(&self) -> usize {
        let command = self.command();
        let (service, depth) = (command.service, command.depth);
        if service.per_work <= 0.0 {
            return usize::MAX;
        }
        let in_time = (ENGINE_SHARE * command.slo / depth - service.fixed) / service.per_work;
        let worthwhile = service.fixed / service.per_work;
        in_time.max(worthwhile) as usize
    }

    /// Takes note of a step that moved so many tokens one block on. As all blocks are alike, all of
    /// them would take as many times longer.
    pub(crate) fn stepped(&self, tokens: usize, duration: Duration) {
        let seconds = duration.as_secs_f64() * self.blocks;
        self.state().service.observe(tokens as f64, seconds);
    }

    /// Takes note of an answer by a policy of the ladder. True when it is one to be audited.
    pub(crate) fn answered(&self, class: Class, is_early: bool) -> bool {
        let audits = self.command().audit;
        let mut state = self.state();
        *state.answered.of_mut(class) += 1.0;
        if !is_early || !audits || !state.controller.can_audit() {
            return false;
        }
        state.since_audit += 1;
        let is_due = state.since_audit >= badge_core::controller::AUDIT_ONE_IN;
        if is_due {
            state.since_audit = 0;
        }
        is_due
    }

    /// Takes note of whether an early answer was that of the full model.
    pub(crate) fn audited(&self, agreed: bool) {
        if let Some(level) = self.state().controller.audited(agreed) {
            let policy = self.policies[level].spec();
            tracing::warn!(
                level,
                %policy,
                "early answers agree less with the full model's than the certificate says; the \
                 floor is raised"
            );
        }
    }

    /// When the next tick is due.
    pub(crate) fn next_tick(&self) -> Instant {
        self.state().next_tick
    }

    /// One tick. `sojourns` gives the latest sojourn times in seconds, when it is asked.
    pub(crate) fn tick(
        &self,
        now: Instant,
        observed: &Observed,
        sojourns: impl FnOnce() -> Vec<f64>,
    ) -> Command {
        let mut state = self.state();
        let state = &mut *state;
        let tick = state.controller.settings().tick_seconds();
        state.next_tick = now + Duration::from_secs_f64(tick);
        if now >= state.next_quantile {
            state.next_quantile = now + QUANTILE_PERIOD;
            state.quantile = quantile(sojourns());
        }
        state.follow_arrivals(now, observed.tokens_arrived);
        let load = Load {
            answered: std::mem::take(&mut state.answered),
            sojourn_quantile: state.quantile,
            ..state.load(now, observed)
        };
        self.publish(state.controller.tick(&load))
    }

    /// What the command is between two ticks: the backlog may have grown.
    pub(crate) fn reconsider(&self, now: Instant, observed: &Observed) -> Command {
        let state = self.state();
        self.publish(state.controller.reconsider(&state.load(now, observed)))
    }

    fn publish(&self, command: Command) -> Command {
        *self.command.write().unwrap_or_else(PoisonError::into_inner) = command;
        command
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn load(&self, now: Instant, observed: &Observed) -> Load {
        Load {
            now: now.saturating_duration_since(self.start).as_secs_f64(),
            queued: observed.queued,
            begun: observed.begun,
            head_age: observed.oldest.as_secs_f64(),
            service: self.service.service(observed.batch),
            arrival_rate: self.arrival_rate,
            ..Load::default()
        }
    }

    /// λ̂, over about a second.
    fn follow_arrivals(&mut self, now: Instant, arrived: f64) {
        let seconds = now.duration_since(self.arrived.1).as_secs_f64();
        if seconds > 0.0 {
            let rate = (arrived - self.arrived.0).max(0.0) / seconds;
            self.arrival_rate += (1.0 - (-seconds).exp()) * (rate - self.arrival_rate);
            self.arrived = (arrived, now);
        }
    }
}

fn quantile(mut seconds: Vec<f64>) -> Option<f64> {
    if seconds.len() < QUANTILE_ANSWERS {
        return None;
    }
    seconds.sort_by(f64::total_cmp);
    let last = seconds.len() - 1;
    Some(seconds[(QUANTILE * last as f64).ceil() as usize])
}

#[cfg(test)]
mod tests {
    use badge_core::calibration::ExitCalibration;
    use badge_core::controller::AUDIT_ONE_IN;
    use badge_core::distribution::PredictionKind;
    use badge_core::exit::ExitPlan;

    use super::*;
    use crate::calibrated::tests::certified;

    /// A governor whose engine does 5000 full-depth tokens a second, 100 at a time.
    fn governor(floor: Option<f64>) -> Governor {
        governor_of(&certified(), floor)
    }

    fn governor_of(calibration: &ExitCalibration, floor: Option<f64>) -> Governor {
        let kind = PredictionKind::SingleLabel { classes: 2 };
        let exits = ModelExits::new(ExitPlan::every_block(5), kind);
        let settings = Settings::new(0.1).unwrap();
        let ladder = Ladder::from_calibration(calibration, floor);
        let audited = AuditMemory::default();
        let governor = Governor::new(settings, (ladder, floor), &audited, &exits).unwrap();
        for _ in 0..200 {
            governor.stepped(100, Duration::from_millis(4));
        }
        governor
    }

    /// So many ticks with so much work waiting; gives the policy of class normal afterwards.
    fn ticks(governor: &Governor, start: &mut Instant, count: usize, waiting: f64) -> String {
        for _ in 0..count {
            *start += Duration::from_millis(25);
            let observed = Observed {
                begun: 0.0,
                queued: PerClass {
                    normal: waiting,
                    ..PerClass::default()
                },
                batch: 100.0,
                ..Observed::default()
            };
            governor.tick(*start, &observed, Vec::new);
        }
        governor.policy(&Ask::default()).spec().to_string()
    }

    #[test]
    fn depth_follows_the_backlog_and_comes_back() {
        let governor = governor(None);
        let mut now = Instant::now();
        assert_eq!(ticks(&governor, &mut now, 4, 0.0), "full");
        // 2000 tokens are 0.4 s of work at full depth: four times what is promised.
        assert_eq!(ticks(&governor, &mut now, 20, 2000.0), "fixed:1");
        let least = Ask {
            min_accuracy: Some(0.8),
            ..Ask::default()
        };
        // Nothing but full depth is certified to keep more than the certificate's 0.7.
        assert_eq!(governor.policy(&least).spec().to_string(), "full");
        assert_eq!(ticks(&governor, &mut now, 80, 0.0), "full");
    }

    #[test]
    fn at_the_floor_requests_are_refused_that_would_be_late() {
        let governor = governor(None);
        let mut now = Instant::now();
        ticks(&governor, &mut now, 20, 20_000.0);
        let behind = |normal: f64| PerClass {
            normal,
            ..PerClass::default()
        };
        // 20000 tokens at a fifth of the depth are 0.8 s.
        let none = Ask::default();
        let refused = governor.admit((&behind(20_000.0), 0.0), &none);
        assert!(matches!(refused, Admission::Refuse { retry_after: 1 }));
        assert_eq!(
            governor.admit((&behind(100.0), 0.0), &none),
            Admission::Admit
        );
        let patient = Ask {
            class: Class::Batch,
            slack: Some(5.0),
            ..none
        };
        let patient = governor.admit((&behind(20_000.0), 0.0), &patient);
        assert_eq!(patient, Admission::Admit);
    }

    #[test]
    fn between_two_ticks_depth_follows_a_backlog_that_grows() {
        let governor = governor(None);
        let mut now = Instant::now();
        assert_eq!(ticks(&governor, &mut now, 4, 0.0), "full");
        let observed = Observed {
            begun: 0.0,
            queued: PerClass {
                normal: 2000.0,
                ..PerClass::default()
            },
            batch: 100.0,
            ..Observed::default()
        };
        governor.reconsider(now, &observed);
        let policy = |governor: &Governor| governor.policy(&Ask::default()).spec().to_string();
        assert_eq!(policy(&governor), "fixed:1");
        // It was no tick: nothing has been learnt.
        governor.reconsider(now, &Observed::default());
        assert_eq!(policy(&governor), "full");
    }

    #[test]
    fn a_floor_above_what_is_certified_leaves_full_depth_alone() {
        let governor = governor(Some(0.8));
        assert!(governor.ladder().fixed().is_some());
        let mut now = Instant::now();
        assert_eq!(ticks(&governor, &mut now, 20, 20_000.0), "full");
    }

    #[test]
    fn tokens_in_the_engine_are_as_many_as_the_promise_allows() {
        let governor = governor(None);
        let mut now = Instant::now();
        ticks(&governor, &mut now, 1, 0.0);
        // A quarter of 100 ms, at 5000 tokens a second.
        assert!((124..=125).contains(&governor.live_tokens_max()));
    }

    #[test]
    fn one_early_answer_in_so_many_is_audited_when_it_is_calm() {
        let governor = governor(None);
        let mut now = Instant::now();
        let early = |count: u64| {
            (0..count)
                .filter(|_| governor.answered(Class::Normal, true))
                .count()
        };
        assert_eq!(
            early(3 * AUDIT_ONE_IN),
            0,
            "nothing leaves early at full depth"
        );
        ticks(&governor, &mut now, 20, 2000.0);
        ticks(&governor, &mut now, 2, 0.0);
        assert!(governor.command().audit);
        assert_eq!(early(3 * AUDIT_ONE_IN), 3);
        assert!(!governor.answered(Class::Normal, false));
        governor.audited(true);
        assert_eq!(governor.promise().agreement, Some(1.0));
    }

    #[test]
    fn what_nothing_is_certified_of_is_not_audited() {
        let mut calibration = certified();
        calibration.metric = "mcc".to_owned();
        let governor = governor_of(&calibration, None);
        let mut now = Instant::now();
        ticks(&governor, &mut now, 20, 2000.0);
        ticks(&governor, &mut now, 2, 0.0);
        assert!(governor.command().audit);
        let audited = (0..3 * AUDIT_ONE_IN).any(|_| governor.answered(Class::Normal, true));
        assert!(!audited, "there is nothing to compare agreement with");
    }
}
