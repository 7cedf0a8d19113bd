//! Texts that wait for the engine, the most urgent first.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use badge_core::controller::{Class, PerClass, QueueOrder};
use badge_engine::Answer;
use badge_tasks::Encoding;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::operating_points::Choice;
use crate::refusal::Refusal;

/// Texts over which the mean length is taken.
const MEAN_TEXTS: f64 = 100.0;

/// Audits that wait at most: more of them are only older.
const AUDITS_MAX: usize = 64;

/// One text on its way to the engine.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) encoding: Encoding,
    /// The policy that it asks for.
    pub(crate) choice: Choice,
    /// Until when an answer is wanted; jobs are taken in this order.
    pub(crate) due: Instant,
    /// After which an answer is worth nothing, if the caller said so.
    pub(crate) deadline: Option<Instant>,
    /// When it was handed in, to be tokenised first.
    pub(crate) arrival: Instant,
    /// When it came to the queue.
    pub(crate) queued: Instant,
    /// How long it was tokenised.
    pub(crate) tokenization: Duration,
    pub(crate) class: Class,
    pub(crate) answer_to: AnswerTo,
}

/// Who is told the outcome of a job.
#[derive(Debug)]
pub(crate) enum AnswerTo {
    /// A caller, and the room that the text takes until then.
    Caller(
        oneshot::Sender<Result<Outcome, Refusal>>,
        Option<OwnedSemaphorePermit>,
    ),
    /// The audit: the deepest exit is asked what it would have said in the place of this answer.
    Audit {
        /// The early answer's class, or label for label whether it applies.
        decision: Vec<bool>,
    },
}

impl AnswerTo {
    /// Tells the outcome to a caller. One that has gone does not hear it.
    pub(crate) fn tell(self, outcome: Result<Outcome, Refusal>) {
        if let Self::Caller(reply, room) = self {
            // Who hears of it may come again at once.
            drop(room);
            let _ = reply.send(outcome);
        }
    }
}

/// What becomes of a text.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    pub(crate) tokens: usize,
    pub(crate) tokenization: Duration,
    /// When it came to the queue.
    pub(crate) queued: Instant,
    pub(crate) queue: Duration,
    pub(crate) compute: Duration,
}

impl Job {
    /// Whether nobody wants the answer any more: its deadline has passed, or its caller has gone.
    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        let is_late = self.deadline.is_some_and(|deadline| deadline <= now);
        is_late || matches!(&self.answer_to, AnswerTo::Caller(reply, _) if reply.is_closed())
    }
}

/// How much waits, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Pressure {
    pub(crate) requests: usize,
    pub(crate) tokens: usize,
    /// Age of the text that has waited longest, of those that nobody waits for too.
    pub(crate) oldest: Duration,
    /// The same of those that are promised a time.
    pub(crate) oldest_promised: Duration,
    /// Tokens that have come since the start.
    pub(crate) tokens_arrived: u64,
    /// Tokens of a text in the mean of the latest.
    pub(crate) text_tokens: f64,
}

/// Jobs by urgency.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// When a job is due, and its number, which keeps equals in order.
type Place = (Instant, u64);

#[derive(Debug, Default)]
struct Waiting {
    lines: PerClass<Line>,
    /// They wait for a calm moment, and nobody for them.
    audits: VecDeque<Job>,
    arrivals: u64,
    tokens_arrived: u64,
    text_tokens: f64,
    closed: bool,
}

/// The jobs of one class.
#[derive(Debug, Default)]
struct Line {
    jobs: BTreeMap<Place, Job>,
    /// When they were handed in.
    arrivals: BTreeSet<Place>,
    tokens: usize,
}

impl Queue {
    /// Adds a job, or gives it back when the queue is closed.
    pub(crate) fn push(&self, job: Job) -> Result<(), Box<Job>> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Box::new(job));
        }
        waiting.count(job.encoding.len());
        waiting.add(job);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Adds a job of the audit, unless there are better things to do.
    pub(crate) fn push_audit(&self, job: Job) {
        let mut waiting = self.lock();
        if !waiting.closed && waiting.audits.len() < AUDITS_MAX {
            waiting.audits.push_back(job);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// Puts a job back that the engine had no room for.
    pub(crate) fn put_back(&self, job: Job) {
        let mut waiting = self.lock();
        match job.answer_to {
            AnswerTo::Caller(..) => waiting.add(job),
            AnswerTo::Audit { .. } => waiting.audits.push_front(job),
        }
    }

    /// The most urgent job, or the newest where that is all that can still be in time.
    pub(crate) fn pop(&self, order: QueueOrder) -> Option<Job> {
        self.lock().take(order)
    }

    /// The most urgent job; waits for one. None when the queue is closed and empty.
    pub(crate) fn wait(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.take(QueueOrder::Fifo) {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            let woken = self.wake.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Forgets the jobs whose answers nobody wants any more, so that they take no room.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut waiting = self.lock();
        let mut dead = Vec::new();
        for class in Class::ALL {
            let line = waiting.lines.of_mut(class);
            let places = line.jobs.iter().filter(|(_, job)| job.is_dead(now));
            let places: Vec<Place> = places.map(|(place, _)| *place).collect();
            dead.extend(places.iter().filter_map(|place| line.remove(place)));
        }
        drop(waiting);
        for job in dead {
            job.answer_to.tell(Err(Refusal::Expired));
        }
    }

    /// Takes no more jobs. Those that wait are still given out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Takes no more jobs and forgets those that wait: their callers hear of it.
    pub(crate) fn abort(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let jobs = (
            std::mem::take(&mut waiting.lines),
            std::mem::take(&mut waiting.audits),
        );
        drop(waiting);
        drop(jobs);
    }

    /// Tokens that are taken before a job that is due then, by class.
    pub(crate) fn ahead(&self, due: Instant) -> PerClass<f64> {
        let waiting = self.lock();
        PerClass::from_fn(|class| waiting.lines.of(class).tokens_before(due) as f64)
    }

    /// How much waits, and how long.
    pub(crate) fn pressure(&self, now: Instant) -> Pressure {
        let waiting = self.lock();
        let lines = Class::ALL.map(|class| (class, waiting.lines.of(class)));
        let age = |line: &Line| {
            let oldest = line.arrivals.first();
            oldest.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
        };
        let ages = lines.iter().map(|(_, line)| age(line));
        let promised = lines.iter().filter(|(class, _)| *class != Class::Batch);
        Pressure {
            requests: lines.iter().map(|(_, line)| line.jobs.len()).sum(),
            tokens: lines.iter().map(|(_, line)| line.tokens).sum(),
            oldest: ages.max().unwrap_or_default(),
            oldest_promised: promised
                .map(|(_, line)| age(line))
                .max()
                .unwrap_or_default(),
            tokens_arrived: waiting.tokens_arrived,
            text_tokens: waiting.text_tokens,
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        Class::ALL
            .iter()
            .all(|class| waiting.lines.of(*class).jobs.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is whole before the lock is let go.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn count(&mut self, tokens: usize) {
        self.tokens_arrived += tokens as u64;
        let weight = 1.0 / (self.arrivals as f64 + 1.0).min(MEAN_TEXTS);
        self.text_tokens += weight * (tokens as f64 - self.text_tokens);
    }

    fn add(&mut self, job: Job) {
        let number = self.arrivals;
        self.arrivals += 1;
        self.lines.of_mut(job.class).add(number, job);
    }

    fn take(&mut self, order: QueueOrder) -> Option<Job> {
        let job = match order {
            QueueOrder::Fifo => self.take_first(),
            QueueOrder::Lifo => self.take_newest(),
        };
        job.or_else(|| self.audits.pop_front())
    }

    /// The job that is due first.
    fn take_first(&mut self) -> Option<Job> {
        let first = |class: &Class| self.lines.of(*class).jobs.keys().next().copied();
        let places = Class::ALL
            .iter()
            .filter_map(|class| Some((first(class)?, *class)));
        let (place, class) = places.min()?;
        self.lines.of_mut(class).remove(&place)
    }

    /// The newest of the most urgent class. Rare, and there are no more jobs than may be on their
    /// way.
    fn take_newest(&mut self) -> Option<Job> {
        let mut classes = Class::ALL.into_iter().rev();
        let class = classes.find(|class| !self.lines.of(*class).jobs.is_empty())?;
        let line = self.lines.of_mut(class);
        let newest = line
            .jobs
            .iter()
            .max_by_key(|((_, number), job)| (job.arrival, *number));
        let place = *newest?.0;
        line.remove(&place)
    }
}

impl Line {
    fn add(&mut self, number: u64, job: Job) {
        self.tokens += job.encoding.len();
        self.arrivals.insert((job.arrival, number));
        self.jobs.insert((job.due, number), job);
    }

    fn remove(&mut self, place: &Place) -> Option<Job> {
        let job = self.jobs.remove(place)?;
        self.tokens -= job.encoding.len();
        self.arrivals.remove(&(job.arrival, place.1));
        Some(job)
    }

    /// Tokens of those that are due no later. Mostly all are or none is.
    fn tokens_before(&self, due: Instant) -> usize {
        let last = self.jobs.keys().next_back();
        if last.is_some_and(|(last, _)| *last <= due) {
            return self.tokens;
        }
        let before = self.jobs.range(..=(due, u64::MAX));
        before.map(|(_, job)| job.encoding.len()).sum()
    }
}
