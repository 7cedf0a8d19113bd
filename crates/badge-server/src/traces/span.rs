//! The span of one request, and those of its texts.

use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderValue, Method, StatusCode};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::notes::{Noted, NotedText, Notes};

/// Routes that are asked all day by those who look after a server: they begin no traces.
const PROBES: [&str; 11] = [
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/ping",
    "/metrics",
    "/v2/health/live",
    "/v2/health/ready",
    "/grpc.health.v1.Health/Check",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

/// What requests come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

/// A request as it comes in.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) method: &'a Method,
    /// Where it leads, if anywhere. A path that nobody has thought of may hold anything.
    pub(crate) route: Option<&'a str>,
    /// The caller's span.
    pub(crate) caller: Option<SpanContext>,
    pub(crate) arrival: Instant,
}

/// How a request has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: StatusCode,
    /// The word for a refusal.
    pub(crate) refusal: Option<&'static str>,
    /// The code of gRPC, where its form was kept.
    pub(crate) grpc_code: Option<i64>,
}

/// The span of a request. Where it is dropped before its end, the caller has gone.
#[derive(Debug)]
pub(crate) struct RequestSpan {
    span: Span,
    tracer: SdkTracer,
    protocol: Protocol,
    clock: Clock,
    notes: Notes,
}

impl RequestSpan {
    pub(super) fn begin(tracer: &SdkTracer, incoming: &Incoming<'_>) -> Option<Self> {
        let is_probe = incoming.route.is_some_and(|route| PROBES.contains(&route));
        if is_probe && incoming.caller.is_none() {
            return None;
        }
        let clock = Clock {
            instant: incoming.arrival,
            system: SystemTime::now(),
        };
        let (name, attributes) = match incoming.protocol {
            Protocol::Http => http(incoming),
            Protocol::Grpc => grpc(incoming),
        };
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_start_time(clock.system)
            .with_attributes(attributes);
        let caller = incoming.caller.clone();
        let parent = caller.map_or_else(Context::new, |caller| {
            Context::new().with_remote_span_context(caller)
        });
        Some(Self {
            span: tracer.build_with_context(builder, &parent),
            tracer: tracer.clone(),
            protocol: incoming.protocol,
            clock,
            notes: Notes::default(),
        })
    }

    /// What the handler is to write down, if that is exported.
    pub(crate) fn notes(&self) -> Option<Notes> {
        let is_recording = self.span.is_recording();
        is_recording.then(|| self.notes.clone())
    }

    pub(crate) fn trace_id(&self) -> String {
        self.span.span_context().trace_id().to_string()
    }

    /// The `traceparent` header for the way back.
    pub(crate) fn header(&self) -> HeaderValue {
        let context = self.span.span_context();
        let (trace, span) = (context.trace_id(), context.span_id());
        let flags = context.trace_flags().to_u8();
        HeaderValue::from_str(&format!("00-{trace}-{span}-{flags:02x}"))
            .expect("hexadecimal digits are a header's value")
    }

    /// The request is answered.
    pub(crate) fn end(mut self, ended: &Ended) {
        if !self.span.is_recording() {
            return;
        }
        let code = ended.status.as_u16();
        // Whoever does not call in gRPC's form is answered as HTTP has it.
        let grpc_code = ended.grpc_code.filter(|_| self.protocol == Protocol::Grpc);
        self.span.set_attribute(match grpc_code {
            Some(code) => KeyValue::new("rpc.grpc.status_code", code),
            None => KeyValue::new("http.response.status_code", i64::from(code)),
        });
        if ended.status.is_server_error() {
            let kind = ended
                .refusal
                .map_or_else(|| code.to_string(), str::to_owned);
            self.span.set_attribute(KeyValue::new("error.type", kind));
            self.span.set_status(Status::error(""));
        }
        let noted = self.notes.take();
        let parent = self.span.span_context().clone();
        let parent = Context::new().with_remote_span_context(parent);
        for (index, text) in noted.first.iter().enumerate() {
            self.text((index, text), &parent);
        }
        self.span.set_attributes(attributes(noted));
        self.span.end();
    }

    /// The spans of one text.
    fn text(&self, (index, text): (usize, &NotedText), parent: &Context) {
        for (stage, start, duration) in text.stages {
            let mut attributes = vec![
                KeyValue::new("badge.text", index as i64),
                KeyValue::new("badge.tokens", text.tokens as i64),
            ];
            if stage == "compute" {
                attributes.push(KeyValue::new("badge.exit_layer", text.depth as i64));
                attributes.push(KeyValue::new("badge.policy", text.policy.clone()));
            }
            let start = self.clock.at(start);
            let builder = SpanBuilder::from_name(stage)
                .with_kind(SpanKind::Internal)
                .with_start_time(start)
                .with_attributes(attributes);
            let mut span = self.tracer.build_with_context(builder, parent);
            span.end_with_timestamp(start + duration);
        }
    }
}

/// The name of an HTTP request's span, and what is known of it.
fn http(incoming: &Incoming<'_>) -> (String, Vec<KeyValue>) {
    let method = match incoming.method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "CONNECT"
        | "TRACE") => known,
        // A method can be any word.
        _ => "_OTHER",
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.to_owned()),
        KeyValue::new("url.scheme", "http"),
    ];
    let method = if method == "_OTHER" { "HTTP" } else { method };
    let Some(route) = incoming.route else {
        return (method.to_owned(), attributes);
    };
    attributes.push(KeyValue::new("http.route", route.to_owned()));
    // What stands in the place of a parameter may be anything, too.
    if !route.contains('{') {
        attributes.push(KeyValue::new("url.path", route.to_owned()));
    }
    (format!("{method} {route}"), attributes)
}

/// The same of a call of gRPC.
fn grpc(incoming: &Incoming<'_>) -> (String, Vec<KeyValue>) {
    let mut attributes = vec![KeyValue::new("rpc.system", "grpc")];
    let path = incoming.route.and_then(|route| route.strip_prefix('/'));
    let Some((service, method)) = path.and_then(|path| path.split_once('/')) else {
        return ("grpc".to_owned(), attributes);
    };
    attributes.push(KeyValue::new("rpc.service", service.to_owned()));
    attributes.push(KeyValue::new("rpc.method", method.to_owned()));
    (format!("{service}/{method}"), attributes)
}

/// What is known of a request's texts as a whole; of one alone, also how it left.
fn attributes(noted: Noted) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(5);
    if let Some(model) = noted.model {
        attributes.push(KeyValue::new("badge.model", model));
        attributes.push(KeyValue::new("badge.texts", noted.texts as i64));
    }
    if !noted.first.is_empty() {
        attributes.push(KeyValue::new("badge.tokens", noted.tokens as i64));
    }
    if let (1, [text]) = (noted.texts, noted.first.as_slice()) {
        attributes.push(KeyValue::new("badge.exit_layer", text.depth as i64));
        attributes.push(KeyValue::new("badge.policy", text.policy.clone()));
    }
    attributes
}

/// One moment on two clocks.
#[derive(Debug, Clone, Copy)]
struct Clock {
    instant: Instant,
    system: SystemTime,
}

impl Clock {
    /// When a moment is. None of a request is before its arrival.
    fn at(&self, instant: Instant) -> SystemTime {
        let since = instant.checked_duration_since(self.instant);
        self.system + since.unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(protocol: Protocol, method: &str, route: Option<&str>) -> (String, Vec<String>) {
        let incoming = Incoming {
            protocol,
            method: &method.parse().unwrap(),
            route,
            caller: None,
            arrival: Instant::now(),
        };
        let (name, attributes) = match protocol {
            Protocol::Http => http(&incoming),
            Protocol::Grpc => grpc(&incoming),
        };
        let attributes = attributes.iter();
        let attributes = attributes.map(|pair| format!("{}={}", pair.key, pair.value));
        (name, attributes.collect())
    }

    #[test]
    fn names_and_attributes_hold_what_is_ours_alone() {
        let all = |protocol, method: &str, route, name: &str, expected: &[&str]| {
            let (found, attributes) = described(protocol, method, route);
            assert_eq!(found, name);
            assert_eq!(attributes, expected, "{name}");
        };
        let (post, http) = ("http.request.method=POST", "url.scheme=http");
        let plain = [post, http, "http.route=/predict", "url.path=/predict"];
        all(
            Protocol::Http,
            "POST",
            Some("/predict"),
            "POST /predict",
            &plain,
        );
        let route = "/v2/models/{model}/infer";
        let with_parameter = [post, http, "http.route=/v2/models/{model}/infer"];
        let name = "POST /v2/models/{model}/infer";
        all(Protocol::Http, "POST", Some(route), name, &with_parameter);
        all(Protocol::Http, "POST", None, "POST", &[post, http]);
        let other = ["http.request.method=_OTHER", http];
        all(Protocol::Http, "S3CRET", None, "HTTP", &other);
        let call = ["rpc.system=grpc", "rpc.service=a.B", "rpc.method=C"];
        all(Protocol::Grpc, "POST", Some("/a.B/C"), "a.B/C", &call);
        all(Protocol::Grpc, "POST", None, "grpc", &call[..1]);
    }
}
