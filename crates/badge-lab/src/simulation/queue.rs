//! The event loop: arrivals, ticks and batches in simulated time.

use std::collections::VecDeque;

use badge_core::controller::{
    Admission, Ask, Command, Controller, Load, PerClass, QueueOrder, ServiceEstimate, Settings,
};

use super::{
    BATCH_MAX, BATCH_SECONDS, Governor, Outcome, Promise, REQUEST_SECONDS, StaticLevel, Variant,
    ladder,
};
use crate::traffic::Arrivals;

/// One answer.
#[derive(Debug, Clone, Copy)]
struct Answer {
    arrived: f64,
    seconds: f64,
    depth: f64,
    score: f64,
}

/// The server and all that has happened to it.
struct Server {
    governor: Governor,
    slo: f64,
    controller: Controller,
    estimate: ServiceEstimate,
    command: Option<Command>,
    queue: VecDeque<f64>,
    running: Option<Batch>,
    answers: Vec<Answer>,
    refused: usize,
    expired: usize,
    answered_since: usize,
    levels: Vec<(f64, usize)>,
}

#[derive(Debug, Clone)]
struct Batch {
    requests: Vec<f64>,
    depth: f64,
    score: f64,
    start: f64,
    end: f64,
}

/// Runs `arrivals` under `governor`, which has `promise` to keep; `burst` is when one begins and ends.
pub fn simulate(
    arrivals: &Arrivals,
    governor: Governor,
    promise: Promise,
    burst: Option<(f64, f64)>,
) -> Outcome {
    let mut server = Server::new(governor, promise);
    let tick = match governor {
        Governor::Static { .. } => f64::INFINITY,
        Governor::Law { tick, .. } => {
            tick.unwrap_or_else(|| server.controller.settings().tick_seconds())
        }
    };
    let mut next_tick = if tick.is_finite() { 0.0 } else { f64::INFINITY };
    let mut coming = arrivals.times().iter().copied().peekable();
    loop {
        let arrival = coming.peek().copied().unwrap_or(f64::INFINITY);
        let done = server.running.as_ref().map_or(f64::INFINITY, |b| b.end);
        let now = arrival.min(done);
        // Ticks go on for five seconds after the last request, so that depth can come back.
        if next_tick <= now.min(arrivals.seconds() + 5.0) {
            server.tick(next_tick);
            next_tick += tick;
        } else if now == f64::INFINITY {
            return server.outcome(arrivals, burst);
        } else if done <= arrival {
            server.finish(done);
            server.start(done);
        } else {
            coming.next();
            server.arrive(arrival);
            server.start(arrival);
        }
    }
}

impl Server {
    fn new(governor: Governor, promise: Promise) -> Self {
        let settings = Settings::new(promise.slo).expect("the SLO is a time");
        Self {
            governor,
            slo: promise.slo,
            controller: Controller::new(settings, ladder(promise.floor)),
            estimate: ServiceEstimate::default(),
            command: None,
            queue: VecDeque::new(),
            running: None,
            answers: Vec::new(),
            refused: 0,
            expired: 0,
            answered_since: 0,
            levels: Vec::new(),
        }
    }

    /// Work that waits.
    fn queued(&self) -> PerClass<f64> {
        PerClass {
            normal: self.queue.len() as f64,
            ..PerClass::default()
        }
    }

    /// What a running batch has yet to do.
    fn begun(&self, now: f64) -> f64 {
        self.running.as_ref().map_or(0.0, |batch| {
            let left = (batch.end - now) / (batch.end - batch.start);
            left.clamp(0.0, 1.0) * batch.requests.len() as f64 * batch.depth
        })
    }

    fn load(&self, now: f64) -> Load {
        let next = self.queue.len().clamp(1, BATCH_MAX);
        Load {
            now,
            queued: self.queued(),
            begun: self.begun(now),
            head_age: self.queue.front().map_or(0.0, |arrived| now - arrived),
            service: self.estimate.service(next as f64),
            answered: PerClass {
                normal: self.answered_since as f64,
                ..PerClass::default()
            },
            ..Load::default()
        }
    }

    fn tick(&mut self, now: f64) {
        let command = self.controller.tick(&self.load(now));
        self.answered_since = 0;
        self.publish(now, command);
    }

    fn publish(&mut self, now: f64, command: Command) {
        let level = command.levels.normal;
        if self.levels.last().is_none_or(|(_, last)| *last != level) {
            self.levels.push((now, level));
        }
        self.command = Some(command);
    }

    fn arrive(&mut self, now: f64) {
        let admission = self.command.map(|command| {
            let command = Command {
                service: self.load(now).service,
                ..command
            };
            command.admit((&self.queued(), self.begun(now)), &Ask::default())
        });
        match admission {
            Some(Admission::Refuse { .. }) => self.refused += 1,
            _ => self.queue.push_back(now),
        }
    }

    fn start(&mut self, now: f64) {
        if self.running.is_some() {
            return;
        }
        let mut order = QueueOrder::Fifo;
        if let Governor::Law { variant, .. } = self.governor {
            let before = self.queue.len();
            self.queue.retain(|arrived| now - arrived < self.slo);
            self.expired += before - self.queue.len();
            if variant != Variant::TicksAlone && !self.queue.is_empty() {
                let command = self.controller.reconsider(&self.load(now));
                self.publish(now, command);
            }
            if variant == Variant::LastComeFirst {
                order = self.command.map_or(order, |command| command.order);
            }
        }
        let take = self.queue.len().min(BATCH_MAX);
        if take == 0 {
            return;
        }
        let requests: Vec<f64> = match order {
            QueueOrder::Fifo => self.queue.drain(..take).collect(),
            QueueOrder::Lifo => self.queue.split_off(self.queue.len() - take).into(),
        };
        let oldest = requests.iter().copied().fold(now, f64::min);
        let (depth, score) = self.depth(self.slo - (now - oldest));
        let seconds = depth * (BATCH_SECONDS + REQUEST_SECONDS * take as f64);
        self.running = Some(Batch {
            requests,
            depth,
            score,
            start: now,
            end: now + seconds,
        });
    }

    /// Depth and score of what starts now, with so many seconds left of what is promised.
    fn depth(&self, slack: f64) -> (f64, f64) {
        let ladder = self.controller.ladder();
        let level = match (self.governor, self.command) {
            (Governor::Static { level }, _) => match level {
                StaticLevel::Full => 0,
                StaticLevel::Floor => ladder.levels().len() - 1,
            },
            (Governor::Law { .. }, Some(command)) => {
                let ask = Ask {
                    slack: Some(slack),
                    ..Ask::default()
                };
                command.level(ladder, &ask)
            }
            (Governor::Law { .. }, None) => 0,
        };
        let level = &ladder.levels()[level];
        (level.depth, level.score)
    }

    fn finish(&mut self, now: f64) {
        let Some(batch) = self.running.take() else {
            return;
        };
        let work = batch.requests.len() as f64;
        let to_full_depth = (batch.end - batch.start) / batch.depth;
        self.estimate.observe(work, to_full_depth);
        self.answered_since += batch.requests.len();
        let answer = |arrived: &f64| Answer {
            arrived: *arrived,
            seconds: now - arrived,
            depth: batch.depth,
            score: batch.score,
        };
        self.answers.extend(batch.requests.iter().map(answer));
    }

    fn outcome(&self, arrivals: &Arrivals, burst: Option<(f64, f64)>) -> Outcome {
        let offered = arrivals.times().len();
        let share = |count: usize| count as f64 / offered as f64;
        let in_time = |answer: &&Answer| answer.seconds <= self.slo;
        let mut seconds: Vec<f64> = self.answers.iter().map(|a| a.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let in_burst =
            |answer: &&Answer| burst.is_some_and(|(from, to)| (from..to).contains(&answer.arrived));
        let before = |answer: &&Answer| burst.is_some_and(|(from, _)| answer.arrived < from);
        let depth = |answer: &Answer| answer.depth;
        let minutes = arrivals.seconds() / 60.0;
        Outcome {
            offered,
            in_time: share(self.answers.iter().filter(in_time).count()),
            refused: share(self.refused),
            expired: share(self.expired),
            p50_ms: 1e3 * crate::quantile::of_sorted(&seconds, 0.5).unwrap_or(0.0),
            p99_ms: 1e3 * crate::quantile::of_sorted(&seconds, 0.99).unwrap_or(0.0),
            depth: mean(self.answers.iter().map(depth)).unwrap_or(1.0),
            depth_in_burst: mean(self.answers.iter().filter(in_burst).map(depth)),
            depth_before: mean(self.answers.iter().filter(before).map(depth)),
            goodput_in_burst: burst.map(|(from, to)| {
                let good = self.answers.iter().filter(in_burst).filter(in_time);
                good.count() as f64 / (to - from)
            }),
            score: mean(self.answers.iter().map(|a| a.score)).unwrap_or(0.0),
            score_least: (self.answers.iter().map(|a| a.score)).fold(1.0, f64::min),
            settled_seconds: burst.and_then(|(_, to)| self.settled(to)),
            changes_per_minute: self.levels.len().saturating_sub(1) as f64 / minutes,
        }
    }

    /// Seconds from `end` until the first moment at which everything may go to full depth again.
    fn settled(&self, end: f64) -> Option<f64> {
        let at_end = self.levels.iter().rev().find(|(at, _)| *at <= end);
        if at_end.is_none_or(|(_, level)| *level == 0) {
            return Some(0.0);
        }
        let mut after = self.levels.iter().filter(|(at, _)| *at > end);
        after.find(|(_, level)| *level == 0).map(|(at, _)| at - end)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}
