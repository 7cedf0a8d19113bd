//! Sending on time: one thread per connection, each taking the next request of the trace.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::client::Client;
use super::question::Question;
use super::{Event, Options, Outcome};
use crate::traffic::Arrivals;

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(50);

/// Memory of a connection's thread.
const STACK_BYTES: usize = 512 << 10;

/// Time for threads to be there before the trace begins.
const HEAD_START: Duration = Duration::from_millis(50);

/// Sends one request per arrival, the questions in turn, and waits for all answers.
///
/// A free connection takes the next request and sends it at its time. Where all are busy requests are
/// sent late, which their latency contains; `Summary::lag` says by how much.
/// `progress` is told how many requests have ended.
///
/// # Errors
/// When an option is impossible, or the server does not answer a first question.
pub fn run(
    options: &Options,
    arrivals: &Arrivals,
    questions: &[Question],
    progress: &mut dyn FnMut(usize),
) -> Result<Outcome> {
    options.check()?;
    ensure!(!questions.is_empty(), "there is no text to ask about");
    let client = Client::new(options);
    client.probe(&questions[0])?;
    let server = client.facts();
    let cpu_before = client.cpu_seconds();
    let events = send_all(
        &client,
        options.connections,
        (arrivals, questions),
        progress,
    )?;
    let cpu_after = client.cpu_seconds();
    Ok(Outcome {
        events,
        server,
        cpu_seconds: cpu_after
            .zip(cpu_before)
            .map(|(after, before)| after - before),
    })
}

fn send_all(
    client: &Client<'_>,
    connections: usize,
    (arrivals, questions): (&Arrivals, &[Question]),
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Event>> {
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let count = arrivals.times().len();
    let start = Instant::now() + HEAD_START;
    let connection = Connection {
        client,
        times: arrivals.times(),
        questions,
        start,
        next: &next,
        ended: &ended,
    };
    let mut events = thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..connections.min(count) {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            let connection = &connection;
            let thread = builder.spawn_scoped(scope, || connection.serve());
            if thread.is_err() {
                // The threads that there are find nothing left to do.
                next.store(count, Ordering::Relaxed);
            }
            threads.push(thread.context("--connections: no more threads can be started")?);
        }
        while threads.iter().any(|thread| !thread.is_finished()) {
            progress(ended.load(Ordering::Relaxed));
            thread::sleep(TOLD_EVERY);
        }
        let joined = threads.into_iter().map(ScopedJoinHandle::join);
        let events = joined.flat_map(|events| events.expect("a connection does not panic"));
        anyhow::Ok(events.collect::<Vec<Event>>())
    })?;
    progress(count);
    events.sort_by(|a, b| a.scheduled.total_cmp(&b.scheduled));
    Ok(events)
}

/// What the threads share.
struct Connection<'a> {
    client: &'a Client<'a>,
    times: &'a [f64],
    questions: &'a [Question],
    start: Instant,
    next: &'a AtomicUsize,
    ended: &'a AtomicUsize,
}

impl Connection<'_> {
    /// Takes requests until there are no more.
    fn serve(&self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(scheduled) = self.times.get(at) else {
                return events;
            };
            let due = self.start + Duration::from_secs_f64(*scheduled);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            let waited = sent.saturating_duration_since(due);
            let reply = self
                .client
                .ask(&self.questions[at % self.questions.len()], waited);
            let seconds = |moment: Instant| (moment - self.start).as_secs_f64();
            events.push(Event {
                scheduled: *scheduled,
                sent: seconds(sent).max(*scheduled),
                done: seconds(Instant::now()).max(*scheduled),
                fate: reply.fate,
                exit: reply.exit,
                level: reply.level,
                correct: reply.correct,
            });
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}
