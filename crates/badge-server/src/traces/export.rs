//! Sends batches of spans to the collector, from a thread of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_executor::block_on;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter;
use tokio::sync::watch;
use ureq::Agent;

use super::TraceSettings;
use super::queue::SpanQueue;
use crate::error::{Error, Result};

/// How long a collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: it says how many spans were refused, and why.
const ANSWER_MAX: u64 = 65_536;

/// How long to wait after a batch that was not taken, and at most after many.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How often it is said that spans are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// Starts the thread. The receiver hears of its end.
pub(super) fn start(
    settings: &TraceSettings,
    resource: &Resource,
    queue: Arc<SpanQueue>,
) -> Result<watch::Receiver<()>> {
    let client = Client::new();
    let problem = Arc::clone(&client.problem);
    let built = OtlpExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(settings.endpoint())
        .build();
    let mut exporter = built.map_err(|error| settings.refused(error.to_string()))?;
    exporter.set_resource(resource);
    let (end, ended) = watch::channel(());
    let sender = Sender {
        exporter,
        queue,
        problem,
        complaint: Complaint::default(),
    };
    thread::Builder::new()
        .name("traces".to_owned())
        .spawn(move || {
            sender.run();
            drop(end);
        })
        .map_err(|source| Error::System {
            what: "a thread for traces",
            source,
        })?;
    Ok(ended)
}

/// Takes batches from the queue and sends them.
struct Sender {
    exporter: OtlpExporter,
    queue: Arc<SpanQueue>,
    /// Why the latest request did not get through.
    problem: Arc<Mutex<String>>,
    complaint: Complaint,
}

impl Sender {
    /// Runs until the queue is closed and empty. A batch that the collector does not take after the
    /// exporter's few attempts is lost; the next one waits longer.
    fn run(mut self) {
        let (mut backoff, mut not_before) = (BACKOFF, None);
        let mut is_failing = false;
        while let Some(batch) = self.queue.batch(not_before) {
            let count = batch.len();
            if let Err(error) = block_on(self.exporter.export(batch)) {
                self.queue.metrics.not_taken(count);
                not_before = Some(Instant::now() + backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
                is_failing = true;
                let problem = self.problem();
                self.complain(&format!("{error}{problem}"));
            } else {
                self.queue.metrics.taken(count);
                (backoff, not_before) = (BACKOFF, None);
                if std::mem::take(&mut is_failing) {
                    tracing::info!("the collector takes spans again");
                }
                self.complain("they end faster than the collector takes them");
            }
        }
        self.queue.abandon();
    }

    /// Says that spans were lost since it was said last, if that is long ago.
    fn complain(&mut self, reason: &str) {
        let lost = self.queue.metrics.lost();
        if let Some(spans) = self.complaint.due(lost, Instant::now()) {
            tracing::warn!(spans, reason, "spans are lost");
        }
    }

    fn problem(&self) -> String {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *problem)
    }
}

/// What was last said of lost spans.
#[derive(Debug, Default)]
struct Complaint {
    lost: u64,
    at: Option<Instant>,
}

impl Complaint {
    /// How many were lost since the last complaint, if it is time for another one.
    fn due(&mut self, lost: u64, now: Instant) -> Option<u64> {
        let is_early = self.at.is_some_and(|at| now < at + COMPLAINT_INTERVAL);
        if is_early || lost == self.lost {
            return None;
        }
        self.at = Some(now);
        let before = std::mem::replace(&mut self.lost, lost);
        Some(lost - before)
    }
}

/// Posts batches. It blocks, on the thread that is there for it.
#[derive(Debug)]
struct Client {
    agent: Agent,
    /// The exporter says only that there was a problem; here is which.
    problem: Arc<Mutex<String>>,
}

impl Client {
    fn new() -> Self {
        let config = Agent::config_builder()
            // The exporter looks at the status, and headers with keys go to nobody else.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIMEOUT))
            .build();
        Self {
            agent: config.into(),
            problem: Arc::default(),
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(parts, body.as_ref()))?;
        let (parts, mut body) = response.into_parts();
        let bytes = body.with_config().limit(ANSWER_MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, bytes.into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.send(request);
        let problem = match &sent {
            Ok(_) => String::new(),
            Err(error) => format!(": {error}"),
        };
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        Ok(sent?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_that_spans_are_lost() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut complaint = Complaint::default();
        assert_eq!(complaint.due(0, at(0)), None);
        assert_eq!(complaint.due(5, at(1)), Some(5));
        assert_eq!(complaint.due(9, at(60)), None);
        assert_eq!(complaint.due(12, at(61)), Some(7));
        assert_eq!(complaint.due(12, at(200)), None);
    }
}
