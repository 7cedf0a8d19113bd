//! Health, metrics, ids and origins.

use std::sync::Arc;

use badge_server::http;
use serde_json::json;

use crate::setup::{Setup, get, load, metric, post, post_with, settings, tiny};

#[tokio::test]
async fn readiness_ends_before_liveness() {
    let setup = Setup::new();
    let server = load(settings(vec![setup.model("tiny", "albert")]));
    let app = http::app(Arc::clone(&server));
    for path in ["/health", "/ping", "/readyz", "/livez", "/healthz"] {
        let answer = get(&app, path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, ""),
            "{path}"
        );
    }
    server.drain();
    for (path, status) in [("/health", 503), ("/readyz", 503), ("/livez", 200)] {
        assert_eq!(get(&app, path).await.status, status, "{path}");
    }
    let (_, kind, _) = get(&app, "/health").await.native_error();
    assert_eq!(kind, "Unhealthy");
    // What still comes is answered: balancers need a moment.
    post(&app, "/predict", json!({"inputs": "a"})).await.json();
}

#[tokio::test]
async fn metrics_count_each_request_once() {
    let setup = Setup::new();
    let app = tiny(&setup);
    for _ in 0..3 {
        post(
            &app,
            "/predict",
            json!({"inputs": "a", "policy": "fixed:2"}),
        )
        .await
        .json();
    }
    post(&app, "/predict", json!({"inputs": ""}))
        .await
        .native_error();
    get(&app, "/some/path").await.native_error();
    for (line, value) in [
        ("badge_requests_total{route=\"/predict\",code=\"200\"}", 3.0),
        ("badge_requests_total{route=\"/predict\",code=\"400\"}", 1.0),
        ("badge_requests_total{route=\"unknown\",code=\"404\"}", 1.0),
        (
            "badge_request_duration_seconds_count{route=\"/predict\"}",
            4.0,
        ),
        ("badge_exits_total{model=\"tiny\",layer=\"2\"}", 3.0),
        ("badge_layers_executed_total{model=\"tiny\"}", 6.0),
        (
            "badge_stage_duration_seconds_count{model=\"tiny\",stage=\"queue\"}",
            3.0,
        ),
        ("badge_queue_requests{model=\"tiny\"}", 0.0),
        ("badge_depth_ratio{model=\"tiny\"}", 0.4),
    ] {
        assert_eq!(metric(&app, line).await, value, "{line}");
    }
    let answer = get(&app, "/metrics").await;
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(answer.text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn ids_and_traces_come_back() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("x-request-id", "mine-1"), ("traceparent", parent)];
    let answer = post_with(&app, "/predict", &headers, r#"{"inputs": "a"}"#).await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let trace = answer.header("traceparent");
    assert!(
        trace.starts_with(&parent[..36]) && trace != parent,
        "{trace}"
    );
    let refused = post_with(&app, "/predict", &headers, "").await;
    assert_eq!(refused.header("x-request-id"), "mine-1");
    let own = get(&app, "/health").await;
    assert_eq!(own.header("x-request-id").len(), 16);
}

#[tokio::test]
async fn pages_of_any_origin_may_call_unless_some_are_named() {
    let setup = Setup::new();
    let origin = [("origin", "https://example.org")];
    let answer = post_with(&tiny(&setup), "/predict", &origin, r#"{"inputs": "a"}"#).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let mut few = settings(vec![setup.model("tiny", "albert")]);
    few.cors_allow_origin = vec!["https://here.example".to_owned()];
    let app = crate::setup::app(few);
    let answer = post_with(&app, "/predict", &origin, r#"{"inputs": "a"}"#).await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}
