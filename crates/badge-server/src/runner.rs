//! One thread per model: texts join the engine between two blocks and leave as they are settled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use badge_core::controller::{Ask, Class, Command, PerClass, QueueOrder};
use badge_core::distribution::{BinaryDistribution, Prediction};
use badge_engine::{Admission, Answer, Engine, Finished, TokenIds};

use crate::governor::{Governor, Observed};
use crate::incoming::Incoming;
use crate::metrics::ModelMetrics;
use crate::operating_points::{Choice, OperatingPoints};
use crate::queue::{AnswerTo, Job, Outcome, Queue};
use crate::refusal::Refusal;

/// How far back the controller looks for what it has kept.
const QUANTILE_WINDOW: Duration = Duration::from_secs(2);

/// What a model's thread shares with the rest of the server.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) queue: Queue,
    pub(crate) points: OperatingPoints,
    pub(crate) metrics: ModelMetrics,
    /// What is being tokenised.
    pub(crate) incoming: Incoming,
    /// What the thread has taken from the queue and not answered.
    in_engine: Mutex<InEngine>,
    /// Whether the thread has stopped because the engine failed.
    failed: AtomicBool,
}

impl Station {
    pub(crate) fn new(points: OperatingPoints, metrics: ModelMetrics) -> Self {
        Self {
            queue: Queue::default(),
            points,
            metrics,
            incoming: Incoming::default(),
            in_engine: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// What has been taken from the queue and not answered.
    pub(crate) fn in_engine(&self) -> InEngine {
        *self
            .in_engine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in the engine and has yet to run, in tokens through all blocks.
    pub(crate) fn begun(&self) -> f64 {
        self.in_engine().begun
    }

    /// Work that is done before a text of this class which is due then, by class, as if all of it
    /// went to full depth: what waits, and what is being tokenised.
    pub(crate) fn ahead(&self, class: Class, due: Instant) -> PerClass<f64> {
        let waiting = self.queue.ahead(due);
        let incoming = self.incoming.tokens();
        PerClass::from_fn(|of| {
            let incoming = if of < class { 0.0 } else { *incoming.of(of) };
            waiting.of(of) + incoming
        })
    }

    /// What the model's controller is told of.
    fn observed(&self, governor: &Governor, now: Instant) -> Observed {
        let pressure = self.queue.pressure(now);
        let due = now + governor.horizon();
        Observed {
            queued: self.ahead(Class::Normal, due),
            begun: self.begun(),
            oldest: pressure.oldest_promised,
            tokens_arrived: pressure.tokens_arrived as f64,
            // Where the engine is empty the next batch is one text.
            batch: (self.in_engine().tokens as f64).max(pressure.text_tokens),
        }
    }

    /// One tick of the model's controller.
    pub(crate) fn tick(&self, governor: &Governor, now: Instant) {
        let observed = self.observed(governor, now);
        let before = governor.command();
        let sojourns = || self.metrics.sojourns(now, QUANTILE_WINDOW);
        self.changed(&before, &governor.tick(now, &observed, sojourns));
    }

    /// What the command is at this moment, as texts are about to join the engine.
    fn reconsider(&self, governor: &Governor) {
        let now = Instant::now();
        let before = governor.command();
        let observed = self.observed(governor, now);
        self.changed(&before, &governor.reconsider(now, &observed));
    }

    fn changed(&self, before: &Command, after: &Command) {
        if before.levels != after.levels {
            self.metrics.changed_by_controller();
            tracing::debug!(
                depth = after.depth,
                level = after.levels.normal,
                sojourn_ms = after.sojourn * 1e3,
                "the controller changes the policy"
            );
        }
    }

    /// Brings the gauges up to date before they are read.
    pub(crate) fn refresh_metrics(&self, now: Instant) {
        self.metrics.refresh(self.queue.pressure(now), now);
        self.metrics.promise(&self.points.promise());
    }

    /// Whether texts are still answered.
    pub(crate) fn is_alive(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }
}

/// Drives an engine until the queue is closed and empty.
pub(crate) struct Runner {
    engine: Engine,
    station: Arc<Station>,
    /// The jobs in the engine, by the number under which they were admitted.
    live: Vec<Option<LiveJob>>,
    /// Tokens of the live jobs: what one step moves by one block.
    live_tokens: usize,
    /// When the last step ended, if there has been something to do ever since.
    busy_since: Option<Instant>,
}

/// A job whose text is in the engine.
struct LiveJob {
    job: Job,
    admitted: Instant,
    /// The relative depth to which texts of its policy run in the mean.
    depth: f64,
    blocks_run: usize,
}

/// What is in an engine, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct InEngine {
    pub(crate) tokens: usize,
    /// Tokens times the share of all blocks that they are expected to run yet.
    pub(crate) begun: f64,
}

/// Tells the rest of the server when the thread ends by a panic.
struct Fuse(Arc<Station>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
            self.0.queue.abort();
        }
    }
}

impl Runner {
    pub(crate) fn new(engine: Engine, station: Arc<Station>) -> Self {
        let sequences = engine.options().sequences_max;
        Self {
            engine,
            station,
            live: (0..sequences).map(|_| None).collect(),
            live_tokens: 0,
            busy_since: None,
        }
    }

    /// Runs until the queue is closed and all its jobs are answered.
    ///
    /// Should the engine panic, callers hear of it: their channels are dropped.
    pub(crate) fn run(mut self) {
        let fuse = Fuse(Arc::clone(&self.station));
        loop {
            if self.engine.live() == 0 {
                if self.station.queue.is_empty() {
                    self.busy_since = None;
                }
                let Some(job) = self.station.queue.wait() else {
                    break;
                };
                self.admit(job);
            }
            self.fill();
            if self.engine.live() > 0 {
                self.step();
            }
        }
        drop(fuse);
    }

    /// Lets waiting jobs join as long as there is room.
    fn fill(&mut self) {
        let governor = self.station.points.governor();
        if let Some(governor) = governor.as_ref()
            && !self.station.queue.is_empty()
        {
            self.station.reconsider(governor);
        }
        let tokens_max = governor
            .as_ref()
            .map_or(usize::MAX, |g| g.live_tokens_max());
        let order = governor.map_or(QueueOrder::Fifo, |governor| governor.order());
        while self.live_tokens < tokens_max {
            let Some(job) = self.station.queue.pop(order) else {
                break;
            };
            if !self.admit(job) {
                break;
            }
        }
        // What has left the queue is in here.
        self.publish();
    }

    /// Lets a job join unless nobody wants its answer. False when there was no room.
    fn admit(&mut self, job: Job) -> bool {
        let now = Instant::now();
        if job.is_dead(now) {
            job.answer_to.tell(Err(Refusal::Expired));
            return true;
        }
        if matches!(job.answer_to, AnswerTo::Audit { .. }) && !self.may_audit() {
            return true;
        }
        let Some(number) = self.live.iter().position(Option::is_none) else {
            self.station.queue.put_back(job);
            return false;
        };
        let governor = self.station.points.governor();
        // What is promised is a deadline too: who has waited long is answered early.
        let promised = governor.as_ref().filter(|_| job.class != Class::Batch);
        let promised = promised.map(|governor| job.arrival + governor.horizon());
        let until = [job.deadline, promised].into_iter().flatten().min();
        let ask = Ask {
            class: job.class,
            slack: until.map(|until| until.saturating_duration_since(now).as_secs_f64()),
            work: job.encoding.len() as f64,
            min_accuracy: None,
        };
        let policy = self.station.points.resolve(&job.choice, ask);
        let tokens = TokenIds {
            ids: &job.encoding.ids,
            type_ids: &job.encoding.type_ids,
        };
        match self.engine.admit(number as u64, tokens, &policy) {
            Ok(Admission::Accepted) => {
                self.live_tokens += job.encoding.len();
                self.live[number] = Some(LiveJob {
                    job,
                    admitted: now,
                    depth: governor
                        .as_ref()
                        .map_or(1.0, |governor| governor.depth_of(&policy)),
                    blocks_run: 0,
                });
                true
            }
            Ok(Admission::Full) => {
                self.station.queue.put_back(job);
                false
            }
            Err(error) => {
                job.answer_to.tell(Err(Refusal::Backend(error.to_string())));
                true
            }
        }
    }

    /// Whether there is time for work that nobody waits for.
    fn may_audit(&self) -> bool {
        let governor = self.station.points.governor();
        governor.is_some_and(|governor| governor.command().audit)
    }

    /// One block of every live sequence, and the answers of those that leave.
    fn step(&mut self) {
        let (start, tokens) = (Instant::now(), self.live_tokens);
        let report = self.engine.step();
        let end = Instant::now();
        let metrics = &self.station.metrics;
        metrics.step(report.advanced, tokens, end - start);
        let governor = self.station.points.governor();
        if let Some(governor) = &governor {
            // Letting texts in and out takes time too, the more so where connections want the same
            // processor: who waits has to wait for all of it.
            governor.stepped(tokens, end - self.busy_since.unwrap_or(start));
        }
        self.busy_since = Some(end);
        for live in self.live.iter_mut().flatten() {
            live.blocks_run += 1;
        }
        let finished: Vec<_> = self.engine.finished().collect();
        for Finished { request, answer } in finished {
            let place = self.live[request as usize].take();
            let live = place.expect("only live sequences finish");
            self.live_tokens -= live.job.encoding.len();
            self.finish(live, answer, governor.as_deref());
        }
        self.publish();
    }

    /// Tells an answer to whoever waits for it.
    fn finish(
        &self,
        live: LiveJob,
        answer: badge_engine::Result<Answer>,
        governor: Option<&Governor>,
    ) {
        let LiveJob { job, admitted, .. } = live;
        let metrics = &self.station.metrics;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                job.answer_to.tell(Err(Refusal::Backend(error.to_string())));
                return;
            }
        };
        if let AnswerTo::Audit { decision } = &job.answer_to {
            let agreed = *decision == decision_of(&answer);
            metrics.audited();
            if let Some(governor) = governor {
                governor.audited(agreed);
            }
            return;
        }
        metrics.left(answer.depth);
        let is_early = answer.depth < answer.policy().plan().deepest();
        // What a request chose for itself says nothing of what the controller chooses.
        let chooses = governor.filter(|_| job.choice.is_left_to_the_model());
        if chooses.is_some_and(|governor| governor.answered(job.class, is_early)) {
            self.audit(&job, &answer);
        }
        let outcome = Outcome {
            answer,
            tokens: job.encoding.len(),
            tokenization: job.tokenization,
            queued: job.queued,
            queue: admitted - job.queued,
            compute: admitted.elapsed(),
        };
        metrics.stages(&outcome);
        job.answer_to.tell(Ok(outcome));
    }

    /// Asks the deepest exit, when there is time, what it would have answered.
    fn audit(&self, job: &Job, answer: &Answer) {
        let now = Instant::now();
        let audit = Job {
            encoding: job.encoding.clone(),
            choice: Choice::full(&self.station.points),
            due: now,
            deadline: None,
            arrival: now,
            queued: now,
            tokenization: Duration::ZERO,
            class: Class::Batch,
            answer_to: AnswerTo::Audit {
                decision: decision_of(answer),
            },
        };
        self.station.queue.push_audit(audit);
    }

    /// Says what is in the engine.
    fn publish(&self) {
        let blocks = self.engine.config().backbone.blocks as f64;
        let mut in_engine = InEngine {
            tokens: self.live_tokens,
            ..InEngine::default()
        };
        for live in self.live.iter().flatten() {
            // One that is past the mean has a block to run at least.
            let left = (live.depth - live.blocks_run as f64 / blocks).max(1.0 / blocks);
            in_engine.begun += live.job.encoding.len() as f64 * left;
        }
        let place = self.station.in_engine.lock();
        *place.unwrap_or_else(PoisonError::into_inner) = in_engine;
    }
}

/// What an answer comes to: its class, or label for label whether it applies.
fn decision_of(answer: &Answer) -> Vec<bool> {
    match &answer.prediction {
        Prediction::SingleLabel(distribution) => {
            let classes = 0..distribution.classes();
            classes
                .map(|class| class == distribution.argmax())
                .collect()
        }
        Prediction::MultiLabel(labels) => labels.iter().map(BinaryDistribution::applies).collect(),
        // Numbers are near each other or far apart; nothing is certified of their agreement.
        Prediction::Regression(_) => Vec::new(),
    }
}
