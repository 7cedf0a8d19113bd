//! Spans of requests, as a collector gets them over a real socket.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post as route_post;
use badge_server::{Server, Settings, TraceSettings, http};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Held};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::calls;
use crate::setup::{Setup, get, metric, post_with, settings};
use crate::sockets::{ask, start};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const SERVER: i32 = 2;
const INTERNAL: i32 = 1;
const ERROR: i32 = 2;

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// A collector on a port of its own.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
        let taken = Arc::clone(&bodies);
        let take = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            taken.lock().unwrap().push(body);
            StatusCode::OK
        };
        let app = Router::new().route("/v1/traces", route_post(take));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(app.clone());
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        Self { url, bodies }
    }

    /// What has come, as bytes.
    fn bytes(&self) -> Vec<u8> {
        self.bodies.lock().unwrap().concat()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.bodies.lock().unwrap();
        let read = |body: &Bytes| ExportTraceServiceRequest::decode(body.clone()).unwrap();
        bodies.iter().map(read).collect()
    }

    fn all(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|r| r.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// All spans, once so many have come.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let wait = async {
            while self.all().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(Duration::from_secs(10), wait).await;
        let spans = self.all();
        assert!(waited.is_ok(), "{} of {count} spans came", spans.len());
        assert_eq!(spans.len(), count);
        spans
    }
}

/// Settings of a server of one model whose spans go to a collector at once.
fn traced(setup: &Setup, url: &str) -> Settings {
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    let mut traces = TraceSettings::of_base("--otlp-endpoint", url).unwrap();
    traces.delay = Duration::from_millis(10);
    settings.traces = Some(traces);
    settings
}

fn load(settings: Settings) -> (Router, Arc<Server>) {
    let server = Server::load(settings).unwrap();
    (http::app(Arc::clone(&server)), server)
}

fn written(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let value = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap() {
        Held::StringValue(text) => text,
        Held::IntValue(number) => number.to_string(),
        other => panic!("{}: {other:?}", pair.key),
    };
    let pairs = attributes.iter();
    pairs.map(|pair| (pair.key.as_str(), value(pair))).collect()
}

/// The span of the request, which is the only one of its kind.
fn of_request(spans: &[Span]) -> &Span {
    let mut servers = spans.iter().filter(|span| span.kind == SERVER);
    let server = servers.next().expect("a span of the request");
    assert!(servers.next().is_none());
    server
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn code_of(span: &Span) -> i32 {
    span.status.as_ref().map_or(0, |status| status.code)
}

#[tokio::test]
async fn a_request_is_a_span_of_its_callers_trace_with_spans_of_its_text() {
    let (setup, collector) = (Setup::new(), Collector::start().await);
    let mut settings = traced(&setup, &collector.url);
    settings.api_key = Some("s3cret".parse().unwrap());
    let (app, _server) = load(settings);
    let parent = traceparent("01");
    let headers = [
        ("traceparent", parent.as_str()),
        ("tracestate", "vendor=theirs"),
        ("x-request-id", "mine-1"),
        ("authorization", "Bearer s3cret"),
    ];
    let body = json!({"inputs": "the cat sat", "policy": "fixed:2"}).to_string();
    let answer = post_with(&app, "/predict", &headers, body).await;
    assert_eq!(answer.status, 200);
    let spans = collector.spans(4).await;
    let server = of_request(&spans);
    let expected = format!("00-{TRACE}-{}-01", hex(&server.span_id));
    assert_eq!(answer.header("traceparent"), expected);
    assert_eq!(hex(&server.parent_span_id), CALLER);
    assert_eq!(
        (server.name.as_str(), code_of(server)),
        ("POST /predict", 0)
    );
    let expected = [
        ("badge.exit_layer", "2"),
        ("badge.model", "tiny"),
        ("badge.policy", "fixed:2"),
        ("badge.texts", "1"),
        ("badge.tokens", "5"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/predict"),
        ("url.path", "/predict"),
        ("url.scheme", "http"),
    ];
    let expected = expected.map(|(name, value)| (name, value.to_owned()));
    assert_eq!(written(&server.attributes), expected.into());
    let mut before = server.start_time_unix_nano;
    for (span, name) in spans.iter().zip(["tokenize", "queue", "compute"]) {
        assert_eq!((span.name.as_str(), span.kind), (name, INTERNAL));
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.parent_span_id, server.span_id);
        assert!(before <= span.start_time_unix_nano, "{name}");
        before = span.end_time_unix_nano;
        let attributes = written(&span.attributes);
        assert_eq!(attributes["badge.tokens"], "5");
        let depth = attributes.get("badge.exit_layer").map(String::as_str);
        assert_eq!(depth, (name == "compute").then_some("2"));
    }
    assert!(before <= server.end_time_unix_nano);
    let resource = collector.requests()[0].resource_spans[0].resource.clone();
    let resource = resource.unwrap().attributes;
    assert_eq!(written(&resource)["service.name"], "badge");
    let bytes = String::from_utf8_lossy(&collector.bytes()).into_owned();
    for private in ["cat", "s3cret", "mine-1", "theirs"] {
        assert!(!bytes.contains(private), "{private}");
    }
    let sent = "badge_trace_spans_exported_total";
    assert_eq!(metric(&app, sent).await, 4.0);
}

#[tokio::test]
async fn many_texts_have_a_bounded_number_of_spans() {
    let (setup, collector) = (Setup::new(), Collector::start().await);
    let (app, _server) = load(traced(&setup, &collector.url));
    let texts: Vec<_> = (0..21).map(|index| vec![format!("text {index}")]).collect();
    let body = json!({"inputs": texts}).to_string();
    let answer = post_with(&app, "/predict", &[], body).await;
    assert_eq!(answer.status, 200);
    let spans = collector.spans(1 + 3 * 16).await;
    let attributes = written(&of_request(&spans).attributes);
    assert_eq!(attributes["badge.texts"], "21");
    assert_eq!(
        attributes["badge.tokens"],
        answer.header("x-compute-tokens")
    );
    assert!(!attributes.contains_key("badge.exit_layer"));
    let computed = spans.iter().filter(|span| span.name == "compute");
    let numbers: Vec<_> = computed
        .map(|span| written(&span.attributes)["badge.text"].clone())
        .collect();
    assert_eq!(numbers, (0..16).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn traces_are_begun_gone_on_with_or_left_alone() {
    let (setup, collector) = (Setup::new(), Collector::start().await);
    let (app, _server) = load(traced(&setup, &collector.url));
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        post_with(&app, path, headers, r#"{"inputs": "a"}"#).await
    };
    // A caller who does not want its trace recorded gets it back as it was.
    let unsampled = traceparent("00");
    let answer = ask("/predict", &[("traceparent", unsampled.as_str())]).await;
    let back = answer.header("traceparent");
    assert!(
        back.starts_with(&unsampled[..36]) && back.ends_with("-00"),
        "{back}"
    );
    assert_ne!(back, unsampled);
    // Probes and scrapes begin none.
    for path in ["/health", "/readyz", "/metrics"] {
        assert!(!get(&app, path).await.headers.contains_key("traceparent"));
    }
    // A request without a trace begins one, and so does one whose header is broken.
    for headers in [&[][..], &[("traceparent", "00-x-y-01")]] {
        let answer = ask("/predict", headers).await;
        let back = answer.header("traceparent").to_owned();
        assert!(back.ends_with("-01"), "{back}");
    }
    let spans = collector.spans(8).await;
    let servers: Vec<_> = spans.iter().filter(|span| span.kind == SERVER).collect();
    assert_eq!(servers.len(), 2);
    assert_ne!(servers[0].trace_id, servers[1].trace_id);
    assert!(servers.iter().all(|span| span.parent_span_id.is_empty()));
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE));
}

#[tokio::test]
async fn refusals_are_told_and_only_the_servers_own_are_errors() {
    let (setup, collector) = (Setup::new(), Collector::start().await);
    let (app, _server) = load(traced(&setup, &collector.url));
    let late = r#"{"inputs": "a", "deadline_ms": 0}"#;
    for (path, body, code) in [
        ("/predict", "", 422),
        ("/some/secret/path", "", 404),
        ("/v2/models/secret/infer", "{}", 404),
        ("/predict", late, 504),
    ] {
        assert_eq!(
            post_with(&app, path, &[], body).await.status,
            code,
            "{path}"
        );
    }
    let spans = collector.spans(4).await;
    let found: Vec<_> = spans
        .iter()
        .map(|span| {
            let attributes = written(&span.attributes);
            let code = attributes["http.response.status_code"].clone();
            let error = attributes.get("error.type").cloned();
            (
                span.name.clone(),
                code,
                error.unwrap_or_default(),
                code_of(span),
            )
        })
        .collect();
    let expected = [
        ("POST /predict", "422", "", 0),
        ("POST", "404", "", 0),
        ("POST /v2/models/{model}/infer", "404", "", 0),
        ("POST /predict", "504", "Timeout", ERROR),
    ];
    let expected = expected.map(|(name, code, kind, status)| {
        (name.to_owned(), code.to_owned(), kind.to_owned(), status)
    });
    assert_eq!(found, expected);
    assert_eq!(written(&spans[3].attributes)["badge.model"], "tiny");
    let bytes = String::from_utf8_lossy(&collector.bytes()).into_owned();
    assert!(!bytes.contains("secret"));
}

fn infer(model: &str) -> Value {
    json!({"model_name": model, "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1],
        "contents": {"bytes_contents": ["dGhlIGNhdA=="]}}]})
}

#[tokio::test]
async fn calls_of_grpc_have_spans_too() {
    let (setup, collector) = (Setup::new(), Collector::start().await);
    let server = Server::load(traced(&setup, &collector.url)).unwrap();
    let grpc = http::grpc(Arc::clone(&server));
    let (sampled, unsampled) = (traceparent("01"), traceparent("00"));
    let call = async |model: &str, headers: &[(&str, &str)]| {
        calls::call(&grpc, "ModelInfer", &infer(model), headers).await
    };
    let good = call("tiny", &[("traceparent", sampled.as_str())]).await;
    assert_eq!(good.code, 0);
    assert_eq!(
        call("tiny", &[("traceparent", unsampled.as_str())])
            .await
            .code,
        0
    );
    assert_eq!(call("other", &[]).await.code, 5);
    assert_eq!(call("tiny", &[("grpc-timeout", "0m")]).await.code, 4);
    calls::call(&grpc, "ServerReady", &json!({}), &[])
        .await
        .good();
    let spans = collector.spans(6).await;
    let servers: Vec<_> = spans.iter().filter(|span| span.kind == SERVER).collect();
    let codes: Vec<_> = servers
        .iter()
        .map(|span| {
            let attributes = written(&span.attributes);
            assert_eq!(attributes["rpc.system"], "grpc");
            assert_eq!(attributes["rpc.service"], "inference.GRPCInferenceService");
            assert_eq!(attributes["rpc.method"], "ModelInfer");
            assert_eq!(span.name, "inference.GRPCInferenceService/ModelInfer");
            (attributes["rpc.grpc.status_code"].clone(), code_of(span))
        })
        .collect();
    let codes: Vec<_> = codes
        .iter()
        .map(|(code, status)| (code.as_str(), *status))
        .collect();
    assert_eq!(codes, [("0", 0), ("5", 0), ("4", ERROR)]);
    let first = servers[0];
    let expected = format!("00-{TRACE}-{}-01", hex(&first.span_id));
    assert_eq!(good.headers["traceparent"], expected);
    assert_eq!(hex(&first.parent_span_id), CALLER);
    assert_eq!(written(&first.attributes)["badge.exit_layer"], "5");
    assert_eq!(written(&servers[2].attributes)["error.type"], "Timeout");
    let children = spans.iter().filter(|span| span.kind == INTERNAL);
    let children: Vec<_> = children.map(|span| span.parent_span_id.clone()).collect();
    assert_eq!(children, vec![first.span_id.clone(); 3]);
    assert!(!String::from_utf8_lossy(&collector.bytes()).contains("the cat"));
}

#[tokio::test]
async fn a_collector_that_is_down_fails_and_slows_no_request() {
    let setup = Setup::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (app, _server) = load(traced(&setup, &url));
    let begin = Instant::now();
    for _ in 0..30 {
        let answer = post_with(&app, "/predict", &[], r#"{"inputs": "a"}"#).await;
        assert_eq!(answer.status, 200);
    }
    // A single attempt with its repetitions takes as long.
    assert!(begin.elapsed() < Duration::from_secs(5));
    let lost = "badge_trace_spans_dropped_total{reason=\"collector\"}";
    let wait = async {
        while metric(&app, lost).await == 0.0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap();
    assert_eq!(metric(&app, "badge_trace_spans_exported_total").await, 0.0);
}

#[tokio::test]
async fn spans_for_which_there_is_no_room_are_counted() {
    let (setup, collector) = (Setup::new(), Collector::start().await);
    let mut settings = traced(&setup, &collector.url);
    let traces = settings.traces.as_mut().unwrap();
    (traces.queue_max, traces.delay) = (5, Duration::from_hours(1));
    let (app, _server) = load(settings);
    for _ in 0..3 {
        let answer = post_with(&app, "/predict", &[], r#"{"inputs": "a"}"#).await;
        assert_eq!(answer.status, 200);
    }
    let lost = "badge_trace_spans_dropped_total{reason=\"queue\"}";
    assert_eq!(metric(&app, lost).await, 7.0);
    assert!(collector.all().is_empty());
}

#[tokio::test]
async fn the_last_spans_are_sent_when_the_server_goes() {
    let (setup, collector) = (Setup::new(), Collector::start().await);
    let mut settings = traced(&setup, &collector.url);
    settings.traces.as_mut().unwrap().delay = Duration::from_hours(1);
    let running = start(Server::load(settings).unwrap()).await;
    let (code, _) = ask(running.address, &json!({"inputs": "a"})).await.unwrap();
    assert_eq!(code, 200);
    assert!(collector.all().is_empty());
    running.go().await.unwrap();
    assert_eq!(collector.all().len(), 4);
}

#[tokio::test]
async fn a_collector_that_says_nothing_does_not_keep_the_server() {
    let setup = Setup::new();
    // Connections are made by the system; nobody accepts them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let running = start(Server::load(traced(&setup, &url)).unwrap()).await;
    for _ in 0..3 {
        let (code, _) = ask(running.address, &json!({"inputs": "a"})).await.unwrap();
        assert_eq!(code, 200);
    }
    let begin = Instant::now();
    running.go().await.unwrap();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_server_does_not_start_with_a_collector_that_is_none() {
    let refused = |url: &str| {
        let error = TraceSettings::of_base("--otlp-endpoint", url).unwrap_err();
        assert!(
            error.to_string().starts_with("--otlp-endpoint: "),
            "{error}"
        );
    };
    refused("localhost:4317");
    refused("grpc://localhost:4317");
    let secure = TraceSettings::of_base("--otlp-endpoint", "https://localhost:4318").unwrap();
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.traces = Some(secure);
    assert!(Server::load(settings).is_ok());
}
