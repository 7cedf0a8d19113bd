//! Health, metrics, ids, and coming and going over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use badge_server::{Listeners, Server, http, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

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

/// A server on a port of its own.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(server: Arc<Server>) -> Running {
    let listeners = Listeners::bind(server.settings()).await.unwrap();
    let address = listeners.address();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(server, listeners, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        stop,
        task,
    }
}

/// One request over a connection of its own: status and body.
async fn ask(address: SocketAddr, body: &Value) -> std::io::Result<(u16, String)> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.is_empty() {
        // The port was closed before the request was read: it was never accepted.
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.unwrap_or(0), body.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_when_the_server_goes_under_load() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.shutdown_delay = Duration::from_millis(60);
    let server = load(settings);
    let running = start(Arc::clone(&server)).await;
    let address = running.address;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut answered = 0;
                let body = json!({"inputs": "the cat sat on the mat"});
                // Until the port is closed; whoever was let in is answered.
                while let Ok(stream) = ask(address, &body).await {
                    assert_eq!(stream.0, 200, "{}", stream.1);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(server.is_ready());
    running.stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!server.is_ready(), "readiness ends first");
    let during = ask(address, &json!({"inputs": "a"})).await.unwrap();
    assert_eq!(during.0, 200, "the delay is for those who have not noticed");
    running.task.await.unwrap();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_vanishing_clients_harm_nobody() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.limits.body_timeout = Duration::from_millis(150);
    settings.drain_timeout = Duration::from_secs(2);
    let running = start(load(settings)).await;
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 15\r\n\r\n";
    // One that never sends its body, one that goes after half of it, and a storm of others.
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(format!("{head}{{\"inp").as_bytes())
        .await
        .unwrap();
    drop(half);
    for _ in 0..100 {
        drop(TcpStream::connect(running.address).await.unwrap());
    }
    let good = ask(running.address, &json!({"inputs": "a"})).await.unwrap();
    assert_eq!(good.0, 200);
    let mut answer = vec![0; 64];
    let read = slow.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
}
