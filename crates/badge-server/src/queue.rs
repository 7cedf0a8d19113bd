//! Texts that wait for the engine, the most urgent first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use badge_core::controller::{Class, PerClass, QueueOrder};
use badge_engine::Answer;
use badge_tasks::Encoding;
use tokio::sync::oneshot;

use crate::operating_points::Choice;
use crate::refusal::Refusal;

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
    /// When it came to the queue.
    pub(crate) arrival: Instant,
    /// How long it was tokenised.
    pub(crate) tokenization: Duration,
    pub(crate) class: Class,
    pub(crate) answer_to: AnswerTo,
}

/// Who is told the outcome of a job.
#[derive(Debug)]
pub(crate) enum AnswerTo {
    /// A caller.
    Caller(oneshot::Sender<Result<Outcome, Refusal>>),
    /// The audit: the deepest exit is asked what it would have said in the place of this answer.
    Audit {
        /// The early answer's class, or label for label whether it applies.
        decision: Vec<bool>,
    },
}

impl AnswerTo {
    /// Tells the outcome to a caller. One that has gone does not hear it.
    pub(crate) fn tell(self, outcome: Result<Outcome, Refusal>) {
        if let Self::Caller(reply) = self {
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
    pub(crate) queue: Duration,
    pub(crate) compute: Duration,
}

/// Why a job need not be computed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dead {
    /// Its caller has gone.
    Abandoned,
    /// Its deadline has passed.
    Expired,
}

impl Job {
    /// Whether nobody wants the answer any more.
    pub(crate) fn dead(&self, now: Instant) -> Option<Dead> {
        if let AnswerTo::Caller(reply) = &self.answer_to
            && reply.is_closed()
        {
            return Some(Dead::Abandoned);
        }
        let passed = self.deadline.is_some_and(|deadline| deadline <= now);
        passed.then_some(Dead::Expired)
    }
}

/// How much waits, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Pressure {
    pub(crate) requests: usize,
    pub(crate) tokens: usize,
    /// The tokens by class.
    pub(crate) tokens_by_class: PerClass<f64>,
    /// Tokens that have come since the start.
    pub(crate) tokens_arrived: u64,
    /// Age of the job that has waited longest.
    pub(crate) oldest: Duration,
}

/// Jobs by urgency.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: BinaryHeap<Entry>,
    arrivals: u64,
    tokens: PerClass<usize>,
    tokens_arrived: u64,
    closed: bool,
}

/// A job with its number, which keeps equals in order.
#[derive(Debug)]
struct Entry {
    number: u64,
    job: Job,
}

impl Ord for Entry {
    /// The greatest is the one to be taken next.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_due = other.job.due.cmp(&self.job.due);
        by_due.then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl Queue {
    /// Adds a job, or gives it back when the queue is closed.
    pub(crate) fn push(&self, job: Job) -> Result<(), Box<Job>> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Box::new(job));
        }
        waiting.tokens_arrived += job.encoding.len() as u64;
        waiting.add(job);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Puts a job back that the engine had no room for.
    pub(crate) fn put_back(&self, job: Job) {
        self.lock().add(job);
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

    /// Takes no more jobs. Those that wait are still given out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Takes no more jobs and forgets those that wait: their callers hear of it.
    pub(crate) fn abort(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let jobs = std::mem::take(&mut waiting.jobs);
        waiting.tokens = PerClass::default();
        drop(waiting);
        drop(jobs);
    }

    /// How much waits, and how long.
    pub(crate) fn pressure(&self, now: Instant) -> Pressure {
        let waiting = self.lock();
        // An audit waits for a calm moment, and nobody for it.
        let with_caller = |entry: &&Entry| matches!(entry.job.answer_to, AnswerTo::Caller(_));
        let jobs = waiting.jobs.iter().filter(with_caller);
        let oldest = jobs.map(|entry| entry.job.arrival).min();
        Pressure {
            requests: waiting.jobs.len(),
            tokens: Class::ALL
                .iter()
                .map(|class| waiting.tokens.of(*class))
                .sum(),
            tokens_by_class: PerClass::from_fn(|class| *waiting.tokens.of(class) as f64),
            tokens_arrived: waiting.tokens_arrived,
            oldest: oldest.map_or(Duration::ZERO, |oldest| {
                now.saturating_duration_since(oldest)
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is whole before the lock is let go.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, job: Job) {
        *self.tokens.of_mut(job.class) += job.encoding.len();
        let number = self.arrivals;
        self.arrivals += 1;
        self.jobs.push(Entry { number, job });
    }

    fn take(&mut self, order: QueueOrder) -> Option<Job> {
        let Entry { job, .. } = match order {
            QueueOrder::Fifo => self.jobs.pop()?,
            QueueOrder::Lifo => self.take_newest()?,
        };
        *self.tokens.of_mut(job.class) -= job.encoding.len();
        Some(job)
    }

    /// The newest of the most urgent class. Rare, and there are no more jobs than may be on their
    /// way.
    fn take_newest(&mut self) -> Option<Entry> {
        let mut entries = std::mem::take(&mut self.jobs).into_vec();
        let newest = (entries.iter().enumerate())
            .max_by_key(|(_, entry)| (entry.job.class, entry.job.arrival, entry.number))
            .map(|(index, _)| index);
        let taken = newest.map(|index| entries.swap_remove(index));
        self.jobs = entries.into();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job of so many tokens that is due after so many milliseconds.
    fn job(start: Instant, tokens: u32, due_ms: u64) -> (Job, impl Sized) {
        let (reply, receiver) = oneshot::channel();
        let job = Job {
            encoding: Encoding {
                ids: vec![1; tokens as usize],
                type_ids: vec![0; tokens as usize],
            },
            choice: Choice::default(),
            due: start + Duration::from_millis(due_ms),
            deadline: None,
            arrival: start,
            tokenization: Duration::ZERO,
            class: Class::Normal,
            answer_to: AnswerTo::Caller(reply),
        };
        (job, receiver)
    }

    #[test]
    fn the_most_urgent_is_taken_first_and_equals_in_their_order() {
        let (queue, start) = (Queue::default(), Instant::now());
        let mut receivers = Vec::new();
        for (tokens, due) in [(1, 50), (2, 10), (3, 50), (4, 10), (5, 20)] {
            let (job, receiver) = job(start, tokens, due);
            receivers.push(receiver);
            queue.push(job).unwrap();
        }
        let now = start + Duration::from_millis(7);
        let pressure = queue.pressure(now);
        assert_eq!((pressure.requests, pressure.tokens), (5, 15));
        assert_eq!(pressure.oldest, Duration::from_millis(7));
        assert_eq!(
            (pressure.tokens_by_class.normal, pressure.tokens_arrived),
            (15.0, 15)
        );
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(QueueOrder::Fifo))
            .map(|job| job.encoding.len())
            .collect();
        assert_eq!(order, [2, 4, 5, 1, 3]);
        let nothing = Pressure {
            tokens_arrived: 15,
            ..Pressure::default()
        };
        assert_eq!(queue.pressure(now), nothing);
    }

    #[test]
    fn where_a_queue_stands_the_newest_of_the_most_urgent_class_comes_first() {
        let (queue, start) = (Queue::default(), Instant::now());
        let mut receivers = Vec::new();
        for (tokens, class) in [
            (1, Class::High),
            (2, Class::Normal),
            (3, Class::High),
            (4, Class::Batch),
        ] {
            let (mut job, receiver) = job(start, tokens, 0);
            job.class = class;
            job.arrival += Duration::from_millis(u64::from(tokens));
            receivers.push(receiver);
            queue.push(job).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(QueueOrder::Lifo))
            .map(|job| job.encoding.len())
            .collect();
        assert_eq!(order, [3, 1, 2, 4]);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_takes_no_more() {
        let (queue, start) = (Queue::default(), Instant::now());
        let (first, _kept) = job(start, 3, 0);
        queue.push(first).unwrap();
        queue.close();
        let (second, _kept) = job(start, 3, 0);
        assert!(queue.push(second).is_err());
        assert!(queue.wait().is_some());
        assert!(queue.wait().is_none());
    }

    #[test]
    fn a_job_is_dead_when_its_caller_has_gone_or_its_deadline_has_passed() {
        let start = Instant::now();
        let (mut waiting, receiver) = job(start, 1, 0);
        assert_eq!(waiting.dead(start), None);
        waiting.deadline = Some(start + Duration::from_millis(5));
        assert_eq!(waiting.dead(start), None);
        let later = start + Duration::from_millis(5);
        assert_eq!(waiting.dead(later), Some(Dead::Expired));
        drop(receiver);
        assert_eq!(waiting.dead(later), Some(Dead::Abandoned));
    }
}
