//! Every request is timed, counted, traced, logged and given an id; none of its texts is.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::failure::Told;
use super::{App, grpc};
use crate::server::Server;
use crate::traces::{Ended, Incoming, Notes, Protocol, RequestSpan};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// When a request came, and where to write down what becomes of it, for handlers.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    /// Where its span is recorded.
    pub(crate) notes: Option<Notes>,
}

impl Arrival {
    /// Of a request that nobody observes.
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            notes: None,
        }
    }

    /// That of this request.
    pub(crate) fn of(request: &Request) -> Self {
        let arrival = request.extensions().get::<Self>();
        arrival.map_or_else(Self::now, Self::clone)
    }
}

/// Times, counts, traces and logs a request.
pub(crate) async fn observe(State(server): App, request: Request, next: Next) -> Response {
    observed(&server, Protocol::Http, request, next).await
}

/// The same for a call of gRPC.
pub(crate) async fn observe_call(State(server): App, request: Request, next: Next) -> Response {
    observed(&server, Protocol::Grpc, request, next).await
}

async fn observed(
    server: &Server,
    protocol: Protocol,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let matched = matched.as_ref().map(MatchedPath::as_str);
    let id = request_id(request.headers());
    let caller = Trace::of(request.headers());
    let span = server.traces.as_ref().and_then(|traces| {
        traces.begin(&Incoming {
            protocol,
            method: request.method(),
            route: matched,
            caller: caller.as_ref().map(Trace::context),
            arrival: start,
        })
    });
    let notes = span.as_ref().and_then(RequestSpan::notes);
    let arrival = Arrival { at: start, notes };
    request.extensions_mut().insert(arrival);
    let mut response = next.run(request).await;
    let duration = start.elapsed();
    let told = response.extensions().get::<Told>().copied();
    let status = told.map_or(response.status(), |told| told.status);
    // A path that nobody has thought of may hold anything: it is no label.
    let route = matched.unwrap_or("unknown");
    server.metrics.request(route, status.as_u16(), duration);
    let (trace_id, header) = match (&span, caller) {
        (Some(span), _) => (span.trace_id(), Some(span.header())),
        (None, Some(caller)) => {
            let header = caller.header();
            (caller.id, Some(header))
        }
        (None, None) => (String::new(), None),
    };
    log(&Observed {
        route,
        status,
        duration,
        told: told.map_or("", |told| told.kind),
        id: id.to_str().unwrap_or_default(),
        trace_id: &trace_id,
    });
    if let Some(span) = span {
        span.end(&Ended {
            status,
            refusal: told.map(|told| told.kind),
            grpc_code: grpc::code(response.headers()),
        });
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Some(header) = header {
        headers.insert(TRACE_PARENT, header);
    }
    response
}

/// What the log is told of a request.
struct Observed<'a> {
    route: &'a str,
    status: StatusCode,
    duration: Duration,
    told: &'static str,
    id: &'a str,
    trace_id: &'a str,
}

fn log(observed: &Observed<'_>) {
    let Observed {
        route,
        told,
        trace_id,
        ..
    } = *observed;
    let (code, request_id) = (observed.status.as_u16(), observed.id);
    let ms = observed.duration.as_secs_f64() * 1e3;
    if observed.status.is_server_error() {
        tracing::warn!(route, code, ms, told, request_id, trace_id, "failed");
    } else if observed.status.is_client_error() {
        tracing::info!(route, code, ms, told, request_id, trace_id, "refused");
    } else {
        tracing::debug!(route, code, ms, request_id, trace_id, "answered");
    }
}

/// The caller's id if it is a decent one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let decent = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(decent);
    given.map_or_else(
        || {
            let id = format!("{:016x}", random());
            HeaderValue::from_str(&id).expect("hexadecimal digits are a header's value")
        },
        HeaderValue::clone,
    )
}

/// A number that nobody else has.
pub(super) fn random() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // The keys of the standard hasher are random for each process.
    static KEYS: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    KEYS.hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A W3C trace that this request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trace {
    id: String,
    /// The caller's span.
    parent: String,
    flags: String,
}

impl Trace {
    /// That of the `traceparent` header, if it is well-formed.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(TRACE_PARENT)?.to_str().ok()?;
        let parts: Vec<_> = text.split('-').collect();
        let [version, id, parent, flags] = parts.get(..4)?.try_into().ok()?;
        let hex = |text: &str, digits| {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            text.len() == digits && text.bytes().all(is_digit)
        };
        let zeros = |text: &str| text.bytes().all(|byte| byte == b'0');
        let sound = hex(version, 2) && hex(id, 32) && hex(parent, 16) && hex(flags, 2);
        let known = version != "ff" && (version != "00" || parts.len() == 4);
        (sound && known && !zeros(id) && !zeros(parent)).then(|| Self {
            id: id.to_owned(),
            parent: parent.to_owned(),
            flags: flags.to_owned(),
        })
    }

    /// The caller's span, as the parent of ours.
    fn context(&self) -> SpanContext {
        const DIGITS: &str = "the digits have been looked at";
        let id = TraceId::from_hex(&self.id).expect(DIGITS);
        let parent = SpanId::from_hex(&self.parent).expect(DIGITS);
        let flags = u8::from_str_radix(&self.flags, 16).expect(DIGITS);
        // What else callers say of their trace is theirs, and goes to no collector from here.
        let state = TraceState::default();
        SpanContext::new(id, parent, TraceFlags::new(flags), true, state)
    }

    /// The header for the way back: the same trace, a span of ours.
    fn header(&self) -> HeaderValue {
        let text = format!("00-{}-{:016x}-{}", self.id, random() | 1, self.flags);
        HeaderValue::from_str(&text).expect("hexadecimal digits are a header's value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, value: &str) -> HeaderMap {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        HeaderMap::from_iter([(name.clone(), value)])
    }

    #[test]
    fn ids_are_the_callers_or_new() {
        let own = request_id(&headers(&REQUEST_ID, "abc-1"));
        assert_eq!(own, "abc-1");
        let (first, second) = (
            request_id(&HeaderMap::new()),
            request_id(&headers(&REQUEST_ID, "two words")),
        );
        assert!(first != second && first.len() == 16 && second.len() == 16);
        assert_ne!(
            request_id(&headers(&REQUEST_ID, &"x".repeat(129))).len(),
            129
        );
    }

    #[test]
    fn a_trace_goes_on_under_its_id() {
        let (id, flags) = ("4bf92f3577b34da6a3ce929d0e0e4736", "01");
        let parent = format!("00-{id}-00f067aa0ba902b7-{flags}");
        let trace = Trace::of(&headers(&TRACE_PARENT, &parent)).unwrap();
        let header = trace.header();
        let header = header.to_str().unwrap();
        assert!(header.starts_with(&format!("00-{id}-")) && header.ends_with("-01"));
        assert!(!header.contains("00f067aa0ba902b7"));
        let context = trace.context();
        assert!(context.is_valid() && context.is_remote() && context.is_sampled());
        let span = context.span_id().to_string();
        assert_eq!(
            (context.trace_id().to_string().as_str(), &*span),
            (id, "00f067aa0ba902b7")
        );
        for bad in [
            "",
            "00-x-y-z",
            &parent.replace("4bf9", "4BF9"),
            &parent.replace(id, &"0".repeat(32)),
            &format!("{parent}-more"),
            &parent.replacen("00-", "ff-", 1),
        ] {
            assert_eq!(Trace::of(&headers(&TRACE_PARENT, bad)), None, "{bad}");
        }
    }
}
