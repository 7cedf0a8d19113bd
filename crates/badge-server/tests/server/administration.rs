//! Policies and models that change while requests run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use badge_server::{Server, http};
use serde_json::{Value, json};

use crate::setup::{Answer, Setup, call, get, load, post, post_with, settings};

fn both(server: &Arc<Server>) -> (Router, Router) {
    (
        http::app(Arc::clone(server)),
        http::admin(Arc::clone(server)),
    )
}

async fn put(app: &Router, body: Value) -> Answer {
    let request = axum::http::Request::put("/v1/policy");
    call(app, request.body(body.to_string().into()).unwrap()).await
}

async fn layer(app: &Router) -> String {
    let answer = post(app, "/predict", json!({"inputs": "the cat sat"})).await;
    answer.header("x-exit-layer").to_owned()
}

#[tokio::test]
async fn the_policy_changes_from_one_request_to_the_next() {
    let setup = Setup::new();
    let server = load(settings(vec![setup.calibrated("tiny")]));
    let (app, admin) = both(&server);
    assert_eq!(layer(&app).await, "3");
    for (policy, expected) in [
        (json!("full"), "5"),
        (json!("fixed:2"), "2"),
        (json!({"speedup": 4.0}), "1"),
        (json!({"min_accuracy": 0.9}), "5"),
        (json!("calibrated"), "3"),
    ] {
        let state = put(&admin, json!({"policy": policy})).await.json();
        assert_eq!(layer(&app).await, expected, "{policy}");
        let read = get(&app, "/v1/policy").await.json();
        assert_eq!(read["models"][0], state);
    }
    for policy in [json!("fixed:9"), json!({"max_depth": 2}), json!(3)] {
        assert_eq!(
            put(&admin, json!({"policy": policy})).await.status,
            422,
            "{policy}"
        );
    }
    assert_eq!(layer(&app).await, "3");
}

#[tokio::test]
async fn the_frontier_tells_what_speed_costs() {
    let setup = Setup::new();
    let (app, _) = both(&load(settings(vec![setup.calibrated("tiny")])));
    let frontier = get(&app, "/v1/policy/frontier").await.json();
    let points = frontier["points"].as_array().unwrap();
    let policies: Vec<_> = points
        .iter()
        .map(|p| p["policy"].as_str().unwrap())
        .collect();
    assert_eq!(policies, ["full", "fixed:3", "fixed:1"]);
    assert_eq!(points[2]["layer_speedup"], 5.0);
    assert_eq!(points[1]["score"], 0.85);
    let promise = get(&app, "/v1/policy").await.json()["models"][0]["certificate"].clone();
    assert!(
        promise
            .as_str()
            .unwrap()
            .starts_with("With 90 % confidence"),
        "{promise}"
    );
}

#[test]
fn a_calibration_of_other_weights_is_refused() {
    let setup = Setup::new();
    let source = setup.calibrated("tiny");
    setup.edit_json("tiny/config.json", |config| {
        config["note"] = json!("another");
    });
    let error = Server::load(settings(vec![source]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit_calibration.json was made for other weights"),
        "{error}"
    );
}

#[tokio::test]
async fn only_the_admin_listener_changes_things() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.calibrated("tiny")]);
    settings.admin_token = Some("t0ken".parse().unwrap());
    let (app, admin) = both(&load(settings));
    assert_eq!(put(&app, json!({"policy": "full"})).await.status, 405);
    let unload = "/v2/repository/models/tiny/unload";
    assert_eq!(post(&app, unload, json!({})).await.status, 404);
    assert_eq!(put(&admin, json!({"policy": "full"})).await.status, 401);
    assert_eq!(post(&admin, unload, json!({})).await.status, 401);
    assert_eq!(post(&admin, "/admin/drain", json!({})).await.status, 401);
    let headers = [("authorization", "Bearer t0ken")];
    let index = post_with(&admin, "/v2/repository/index", &headers, "")
        .await
        .json();
    assert_eq!(index[0]["state"], "READY");
}

#[tokio::test]
async fn models_come_and_go() {
    let setup = Setup::new();
    let other = setup.model("other", "bert_gelu");
    let (app, admin) = both(&load(settings(vec![setup.model("tiny", "albert")])));
    let load = "/v2/repository/models/other/load";
    assert_eq!(
        post_with(&admin, load, &[], "").await.status,
        404,
        "it came from nowhere"
    );
    let body = json!({"parameters": {"directory": other.directory}});
    post(&admin, load, body).await.json();
    assert_eq!(get(&app, "/v2/models/other/ready").await.status, 200);
    let body = json!({"inputs": "a", "model": "other"});
    assert_eq!(
        post(&app, "/predict", body.clone())
            .await
            .header("x-exit-layer"),
        "3"
    );
    post(&admin, "/v2/repository/models/other/unload", json!({}))
        .await
        .json();
    assert_eq!(post(&app, "/predict", body).await.status, 404);
    let metrics = get(&app, "/metrics").await.text();
    assert!(!metrics.contains("model=\"other\""), "{metrics}");
    let last = post(&admin, "/v2/repository/models/tiny/unload", json!({})).await;
    assert!(last.native_error().2.contains("only model"));
    assert_eq!(layer(&app).await, "5");
}

#[tokio::test]
async fn a_damaged_model_leaves_the_old_one_serving() {
    let setup = Setup::new();
    let (app, admin) = both(&load(settings(vec![setup.model("tiny", "albert")])));
    let before = post(&app, "/predict", json!({"inputs": "the cat"}))
        .await
        .json();
    let weights = std::fs::read(setup.path("tiny/model.safetensors")).unwrap();
    for damaged in [&weights[..weights.len() / 2], b"nonsense", b""] {
        setup.write("tiny/model.safetensors", damaged);
        let load = post_with(&admin, "/v2/repository/models/tiny/load", &[], "").await;
        let (status, kind, message) = load.native_error();
        assert_eq!((status, kind.as_str()), (422, "Validation"));
        assert!(message.contains("model.safetensors"), "{message}");
        assert_eq!(
            post_with(&admin, "/admin/reload", &[], "").await.status,
            422
        );
        let after = post(&app, "/predict", json!({"inputs": "the cat"}))
            .await
            .json();
        assert_eq!(after, before);
    }
    setup.write("tiny/model.safetensors", &weights);
    assert_eq!(
        post_with(&admin, "/admin/reload", &[], "").await.status,
        200
    );
    assert_eq!(get(&app, "/health").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_models_are_exchanged() {
    let setup = Setup::new();
    let first = setup.model("tiny", "albert");
    let second = setup.model("second", "bert_gelu");
    let (app, admin) = both(&load(settings(vec![first.clone()])));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (app, done) = (app.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut layers = std::collections::BTreeSet::new();
                while !done.load(Ordering::Relaxed) {
                    let inputs = json!([["the cat sat"], ["a dog"]]);
                    let answer = post(&app, "/predict", json!({"inputs": inputs})).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    layers.insert(answer.header("x-exit-layers-mean").to_owned());
                }
                layers
            })
        })
        .collect();
    for round in 0..8 {
        let directory = if round % 2 == 0 { &second } else { &first }
            .directory
            .clone();
        let body = json!({"parameters": {"directory": directory}});
        post(&admin, "/v2/repository/models/tiny/load", body)
            .await
            .json();
        tokio::time::sleep(std::time::Duration::from_millis(15)).await;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        // Every answer is of one model or the other, whole.
        let layers = client.await.unwrap();
        let known = ["3.000".to_owned(), "5.000".to_owned()];
        assert!(
            layers.iter().all(|layer| known.contains(layer)),
            "{layers:?}"
        );
    }
}

#[tokio::test]
async fn status_tells_of_the_latest_answers() {
    let setup = Setup::new();
    let (app, admin) = both(&load(settings(vec![setup.calibrated("tiny")])));
    let none = get(&app, "/v1/status").await.json();
    assert_eq!(none["latency_ms"], json!({"p50": null, "p99": null}));
    for _ in 0..4 {
        layer(&app).await;
    }
    let status = get(&admin, "/v1/status?model=tiny").await.json();
    assert!(status["latency_ms"]["p50"].as_f64().unwrap() > 0.0);
    assert_eq!(status["mean_depth"], 3.0);
    assert_eq!(
        status["exits"],
        json!([[1, 0], [2, 0], [3, 4], [4, 0], [5, 0]])
    );
    assert_eq!(status["queue"]["requests"], 0);
    assert_eq!(status["policy"], "fixed:3");
    assert_eq!(get(&app, "/v1/status?model=none").await.status, 404);
}
