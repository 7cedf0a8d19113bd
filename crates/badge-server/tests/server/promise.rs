//! A promised time, and depth that is given away to keep it.

use std::time::{Duration, Instant};

use axum::Router;
use badge_engine::Precision;
use badge_server::http;
use serde_json::{Value, json};

use crate::setup::{Setup, app, call, get, load, metric, post, settings};

async fn layer(app: &Router) -> String {
    let answer = post(app, "/predict", json!({"inputs": "the cat sat"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-exit-layer").to_owned()
}

async fn state(app: &Router) -> Value {
    get(app, "/v1/policy").await.json()["models"][0].clone()
}

/// A server of a certified model that promises so much time.
fn promising(setup: &Setup, slo_ms: u64) -> Router {
    let mut settings = settings(vec![setup.calibrated("tiny")]);
    settings.model.slo = Some(Duration::from_millis(slo_ms));
    app(settings)
}

#[tokio::test]
async fn an_idle_server_is_of_full_depth_and_says_what_it_may_choose() {
    let setup = Setup::new();
    let app = promising(&setup, 1000);
    assert_eq!(layer(&app).await, "5");
    let state = state(&app).await;
    assert_eq!(
        (&state["mode"], &state["slo_ms"]),
        (&json!("controlled"), &json!(1000.0))
    );
    let levels = state["ladder"]["levels"].as_array().unwrap();
    let policies: Vec<_> = levels.iter().map(|level| level["policy"].clone()).collect();
    assert_eq!(policies, ["full", "fixed:3", "fixed:1"]);
    assert_eq!(metric(&app, "badge_slo_seconds{model=\"tiny\"}").await, 1.0);
    assert_eq!(
        metric(&app, "badge_slo_good_total{model=\"tiny\"}").await,
        1.0
    );
    assert_eq!(
        metric(&app, "badge_policy_expected_accuracy{model=\"tiny\"}").await,
        0.9
    );
    let status = get(&app, "/v1/status").await.json();
    assert_eq!(status["slo_ms"], 1000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_burst_depth_is_given_away_and_taken_back_afterwards() {
    let setup = Setup::new();
    let app = promising(&setup, 40);
    let long = "the old red stone bridge ".repeat(90);
    let batch: Vec<_> = (0..32).map(|_| [&long]).collect();
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let app = app.clone();
            // A proxy's time-out is no way past the promise.
            let deadline_ms = (client % 2 == 0).then_some(15_000);
            let body = json!({"inputs": batch, "deadline_ms": deadline_ms});
            tokio::spawn(async move {
                let (mut shallow, mut refused) = (0, 0);
                let end = Instant::now() + Duration::from_millis(1500);
                while Instant::now() < end {
                    let answer = post(&app, "/predict", body.clone()).await;
                    match answer.status.as_u16() {
                        200 => {
                            let mean: f64 = answer.header("x-exit-layers-mean").parse().unwrap();
                            shallow += usize::from(mean < 4.5);
                        }
                        429 => {
                            answer.header("retry-after").parse::<u64>().unwrap();
                            refused += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
                (shallow, refused)
            })
        })
        .collect();
    let mut sums = [(0, 0); 2];
    for (index, client) in clients.into_iter().enumerate() {
        let (shallow, refused) = client.await.unwrap();
        let sum = &mut sums[index % 2];
        *sum = (sum.0 + shallow, sum.1 + refused);
    }
    assert!(sums[0].0 + sums[1].0 > 0, "no answer came early: {sums:?}");
    assert!(
        sums[0].1 > 0 && sums[1].1 > 0,
        "nothing was refused, though even the floor was too slow: {sums:?}"
    );
    let shed = metric(&app, "badge_shed_total{model=\"tiny\",reason=\"slo\"}").await;
    assert!(shed > 0.0);
    let changes = "badge_policy_changes_total{model=\"tiny\",cause=\"controller\"}";
    assert!(metric(&app, changes).await >= 1.0);
    let end = Instant::now() + Duration::from_secs(20);
    while layer(&app).await != "5" {
        assert!(
            Instant::now() < end,
            "depth never came back: {}",
            state(&app).await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_promise_is_made_changed_and_taken_back_while_serving() {
    let setup = Setup::new();
    let server = load(settings(vec![setup.calibrated("tiny")]));
    let (app, admin) = (http::app(server.clone()), http::admin(server));
    let put = async |body: Value| {
        let request = axum::http::Request::put("/v1/policy");
        call(&admin, request.body(body.to_string().into()).unwrap()).await
    };
    assert_eq!(state(&app).await["mode"], "chosen");
    let promised = put(json!({"slo_ms": 50, "accuracy_floor": 0.6}))
        .await
        .json();
    assert_eq!(
        (&promised["slo_ms"], &promised["accuracy_floor"]),
        (&json!(50.0), &json!(0.6))
    );
    assert_eq!(layer(&app).await, "5");
    // More than the certificate says: full depth is all there is, and the answer says why.
    let strict = put(json!({"slo_ms": 50, "accuracy_floor": 0.85}))
        .await
        .json();
    assert_eq!(strict["ladder"]["fixed"]["reason"], "floor_too_high");
    put(json!({"policy": "fixed:2"})).await.json();
    assert_eq!(layer(&app).await, "2");
    assert_eq!(state(&app).await["slo_ms"], json!(null));
    for wrong in [
        json!({"slo_ms": 0}),
        json!({"slo_ms": -1}),
        json!({"slo_ms": 50, "policy": "full"}),
        json!({"accuracy_floor": 0.5}),
        json!({"slo_ms": 50, "accuracy_floor": 50}),
        json!({}),
    ] {
        assert_eq!(put(wrong.clone()).await.native_error().0, 422, "{wrong}");
    }
    assert_eq!(layer(&app).await, "2");
}

#[tokio::test]
async fn a_model_without_a_certificate_keeps_full_depth_and_says_so() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.model.slo = Some(Duration::from_millis(1));
    let app = app(settings);
    let state = state(&app).await;
    assert_eq!(state["ladder"]["fixed"]["reason"], "not_calibrated");
    assert_eq!(state["policy"], "full");
}

#[tokio::test]
async fn a_certificate_of_other_answers_certifies_nothing() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.calibrated("tiny")]);
    settings.model.precision = Precision::Bf16;
    settings.model.slo = Some(Duration::from_secs(1));
    let app = app(settings);
    let state = state(&app).await;
    assert_eq!(state["ladder"]["fixed"]["reason"], "other_precision");
    assert_eq!(state["certificate"], json!(null));
    assert_eq!(state["policy"], "full");
    // What was measured may still be asked for.
    let body = json!({"inputs": "a", "policy": {"speedup": 1.5}});
    let answer = post(&app, "/predict", body).await;
    assert_eq!(answer.header("x-exit-layer"), "3");
}
