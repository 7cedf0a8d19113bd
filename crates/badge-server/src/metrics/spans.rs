//! What becomes of spans.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// How many spans went to the collector, and how many were lost.
#[derive(Debug, Clone)]
pub(crate) struct SpanMetrics {
    exported: Counter,
    overflowed: Counter,
    not_taken: Counter,
}

impl SpanMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let dropped = Family::<ReasonLabel, Counter>::default();
        let of = |reason| dropped.get_or_create_owned(&ReasonLabel { reason });
        let metrics = Self {
            exported: Counter::default(),
            overflowed: of("queue"),
            not_taken: of("collector"),
        };
        let exported = metrics.exported.clone();
        registry.register("trace_spans_exported", "Spans that were sent", exported);
        registry.register("trace_spans_dropped", "Spans that were lost", dropped);
        metrics
    }

    /// There was no room for a span.
    pub(crate) fn overflowed(&self) {
        self.overflowed.inc();
    }

    /// The collector has taken spans.
    pub(crate) fn taken(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// It has not.
    pub(crate) fn not_taken(&self, spans: usize) {
        self.not_taken.inc_by(spans as u64);
    }

    /// Spans that were lost since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.overflowed.get() + self.not_taken.get()
    }
}
