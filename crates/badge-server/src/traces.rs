//! Spans of requests, and their way to an OpenTelemetry collector.
//!
//! A request's span begins where it is observed and ends with its answer; `notes` is what its
//! handler knows of the texts. Ended spans wait in a bounded `queue` until a thread of their own
//! sends them (`export`): what does not fit is counted and forgotten, and no request ever waits.

mod export;
mod notes;
mod queue;
mod settings;
mod span;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::Result;
use crate::metrics::Metrics;
pub(crate) use notes::Notes;
use queue::{SpanQueue, Taker};
pub use settings::TraceSettings;
pub(crate) use span::{Ended, Incoming, Protocol, RequestSpan};

/// How long the last spans may take to reach the collector when the server goes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Begins spans and has them sent.
#[derive(Debug)]
pub(crate) struct Traces {
    tracer: SdkTracer,
    queue: Arc<SpanQueue>,
    /// Closed by the thread that sends when nothing is left.
    sent: watch::Receiver<()>,
}

impl Traces {
    /// Starts the thread that sends.
    ///
    /// # Errors
    /// Says which setting or variable is wrong.
    pub(crate) fn start(settings: &TraceSettings, metrics: &Metrics) -> Result<Self> {
        settings.check()?;
        let queue = Arc::new(SpanQueue::new(settings, metrics.spans().clone()));
        let resource = resource(settings.service_name.as_deref());
        let sent = export::start(settings, &resource, Arc::clone(&queue))?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Taker(Arc::clone(&queue)))
            .with_resource(resource)
            .build();
        let scope = InstrumentationScope::builder("badge-server");
        let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self {
            tracer: provider.tracer_with_scope(scope),
            queue,
            sent,
        })
    }

    /// Begins the span of a request, unless it is a probe that belongs to no trace.
    pub(crate) fn begin(&self, incoming: &Incoming<'_>) -> Option<RequestSpan> {
        RequestSpan::begin(&self.tracer, incoming)
    }

    /// Has all ended spans sent at once, and waits for it, but not for long. Later ones are lost.
    pub(crate) async fn flush(&self) {
        self.queue.close();
        let mut sent = self.sent.clone();
        let gone = async { while sent.changed().await.is_ok() {} };
        if timeout(FLUSH_TIMEOUT, gone).await.is_err() {
            let seconds = FLUSH_TIMEOUT.as_secs();
            tracing::warn!(seconds, "the collector did not take the last spans in time");
        }
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Who the spans are of: the given name, or that of the environment, or ours; with what else
/// `OTEL_RESOURCE_ATTRIBUTES` says.
fn resource(service_name: Option<&str>) -> Resource {
    let detected = Resource::builder().build();
    let name = detected.get(&Key::from_static_str("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let name = service_name.or_else(|| (!is_named).then_some("badge"));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    match name {
        Some(name) => builder.with_service_name(name.to_owned()).build(),
        None => builder.build(),
    }
}
