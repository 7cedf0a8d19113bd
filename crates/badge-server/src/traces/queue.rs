//! Ended spans that wait to be sent.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::TraceSettings;
use crate::metrics::SpanMetrics;

/// Ended spans, of which no more wait than may.
#[derive(Debug)]
pub(super) struct SpanQueue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    queue_max: usize,
    batch_max: usize,
    delay: Duration,
    pub(super) metrics: SpanMetrics,
}

#[derive(Debug, Default)]
struct Waiting {
    spans: VecDeque<SpanData>,
    /// Since when there are some.
    since: Option<Instant>,
    closed: bool,
}

impl SpanQueue {
    pub(super) fn new(settings: &TraceSettings, metrics: SpanMetrics) -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            queue_max: settings.queue_max,
            batch_max: settings.batch_max,
            delay: settings.delay,
            metrics,
        }
    }

    /// Adds a span, or counts it as lost where there is no room.
    fn push(&self, span: SpanData) {
        let mut waiting = self.lock();
        if waiting.closed || waiting.spans.len() >= self.queue_max {
            drop(waiting);
            self.metrics.overflowed();
            return;
        }
        waiting.spans.push_back(span);
        let count = waiting.spans.len();
        if waiting.since.is_none() {
            waiting.since = Some(Instant::now());
        }
        drop(waiting);
        if count == 1 || count == self.batch_max {
            self.wake.notify_one();
        }
    }

    /// The next spans to be sent, not before a moment: when a batch is full, the first of them has
    /// waited long enough, or the queue is closed. None when it is closed and empty.
    pub(super) fn batch(&self, not_before: Option<Instant>) -> Option<Vec<SpanData>> {
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            if waiting.closed {
                let is_some = !waiting.spans.is_empty();
                return is_some.then(|| waiting.take(self.batch_max, now));
            }
            let Some(since) = waiting.since else {
                let woken = self.wake.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let is_full = waiting.spans.len() >= self.batch_max;
            let due = if is_full { now } else { since + self.delay };
            let due = not_before.map_or(due, |not_before| due.max(not_before));
            if due <= now {
                return Some(waiting.take(self.batch_max, now));
            }
            let woken = self.wake.wait_timeout(waiting, due - now);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no more spans and waits for none.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Forgets what waits and counts it as lost, once nobody will come for it.
    pub(super) fn abandon(&self) {
        let left = std::mem::take(&mut self.lock().spans);
        self.metrics.not_taken(left.len());
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is whole before the lock is let go.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self, count: usize, now: Instant) -> Vec<SpanData> {
        let count = count.min(self.spans.len());
        let batch = self.spans.drain(..count).collect();
        self.since = (!self.spans.is_empty()).then_some(now);
        batch
    }
}

/// Takes spans as they end.
#[derive(Debug)]
pub(super) struct Taker(pub(super) Arc<SpanQueue>);

impl SpanProcessor for Taker {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::metrics::Metrics;

    /// A queue of seven spans in batches of three, into which spans are put by their names.
    fn queue(delay: Duration) -> (Arc<SpanQueue>, impl Fn(usize), Metrics) {
        let mut settings = TraceSettings::of_base("--otlp-endpoint", "http://a").unwrap();
        (settings.queue_max, settings.batch_max) = (7, 3);
        settings.delay = delay;
        let metrics = Metrics::new();
        let queue = Arc::new(SpanQueue::new(&settings, metrics.spans().clone()));
        let provider = SdkTracerProvider::builder().with_span_processor(Taker(Arc::clone(&queue)));
        let tracer = provider.build().tracer("test");
        let put = move |count: usize| {
            for number in 0..count {
                drop(tracer.start(number.to_string()));
            }
        };
        (queue, put, metrics)
    }

    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn full_batches_go_at_once_and_the_rest_when_the_queue_is_closed() {
        let (queue, put, metrics) = queue(LONG);
        put(9);
        let names = |batch: Option<Vec<SpanData>>| {
            let batch = batch.unwrap().into_iter();
            batch.map(|span| span.name.into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(queue.batch(None)), ["0", "1", "2"]);
        assert_eq!(names(queue.batch(None)), ["3", "4", "5"]);
        queue.close();
        put(1);
        assert_eq!(names(queue.batch(Some(Instant::now() + LONG))), ["6"]);
        assert!(queue.batch(None).is_none());
        let lost = "badge_trace_spans_dropped_total{reason=\"queue\"} 3";
        assert!(metrics.text().contains(lost), "{}", metrics.text());
    }

    #[test]
    fn a_lonely_span_goes_after_the_delay_and_nothing_before_its_time() {
        let delay = Duration::from_millis(40);
        let (queue, put, _metrics) = queue(delay);
        let start = Instant::now();
        put(1);
        assert_eq!(queue.batch(None).unwrap().len(), 1);
        assert!(start.elapsed() >= delay);
        put(3);
        let start = Instant::now();
        assert_eq!(queue.batch(Some(start + delay)).unwrap().len(), 3);
        assert!(start.elapsed() >= delay);
    }

    #[test]
    fn who_waits_for_spans_hears_of_the_end() {
        let (queue, _put, _metrics) = queue(LONG);
        let waiting = Arc::clone(&queue);
        let waiter = thread::spawn(move || waiting.batch(None).is_none());
        queue.close();
        assert!(waiter.join().unwrap());
    }
}
