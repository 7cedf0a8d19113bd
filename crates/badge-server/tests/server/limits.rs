//! What is refused: too much, too late, too slow, without a key.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::setup::{Answer, Setup, app, call, get, metric, post, post_with, settings, tiny};

#[tokio::test]
async fn a_request_beyond_the_room_is_refused_as_a_whole_and_told_when_to_come_again() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.model.concurrent_requests_max = 4;
    settings.limits.client_batch_max = 4;
    let app = app(settings);
    // Both have asked for room before either is answered: this runtime has one thread, and these
    // texts are too long to be tokenised on it.
    let three = [["a ".repeat(400)], ["b ".repeat(400)], ["c ".repeat(400)]];
    let batch = || post(&app, "/predict", json!({"inputs": three}));
    let (first, second) = tokio::join!(batch(), batch());
    assert_eq!(first.json().as_array().unwrap().len(), 3);
    let (status, kind, message) = second.native_error();
    assert_eq!((status, kind.as_str()), (429, "Overloaded"));
    assert_eq!(message, "Model is overloaded");
    assert!(second.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(second.header("x-retry-after-ms").parse::<u64>().unwrap() >= 1000);
    // The room is free again, and all three were counted.
    batch().await.json();
    let line = "badge_shed_total{model=\"tiny\",reason=\"concurrency\"}";
    assert_eq!(metric(&app, line).await, 3.0);
}

#[tokio::test]
async fn a_deadline_that_has_passed_costs_nothing() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let late = post(&app, "/predict", json!({"inputs": "a", "deadline_ms": 0})).await;
    let (status, kind, _) = late.native_error();
    assert_eq!((status, kind.as_str()), (504, "Timeout"));
    let headers = [("x-request-deadline-ms", "0")];
    let late = post_with(&app, "/predict", &headers, r#"{"inputs": "a"}"#).await;
    assert_eq!(late.status, 504);
    let good = post_with(
        &app,
        "/predict",
        &[("grpc-timeout", "9S")],
        r#"{"inputs": "a"}"#,
    )
    .await;
    assert_eq!(good.status, 200);
    for (line, count) in [
        ("badge_layers_executed_total{model=\"tiny\"}", 5.0),
        ("badge_expired_total{model=\"tiny\"}", 2.0),
        ("badge_abandoned_total{model=\"tiny\"}", 0.0),
        // Nothing was promised.
        ("badge_slo_bad_total{model=\"tiny\",cause=\"expired\"}", 0.0),
    ] {
        assert_eq!(metric(&app, line).await, count, "{line}");
    }
}

#[tokio::test]
async fn texts_of_callers_that_have_gone_are_never_computed() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.model.batch_requests_max = 1;
    let app = app(settings);
    let long = "the old red stone bridge ".repeat(90);
    let batch: Vec<_> = (0..24).map(|_| [&long]).collect();
    let busy = post(&app, "/predict", json!({"inputs": batch}));
    let vanishing = async {
        // The other request is on its way to the queue; this one comes after it, as it is not so
        // short that it would be tokenised at once.
        let body = json!({"inputs": "a ".repeat(400), "priority": "batch"});
        let request = post(&app, "/predict", body);
        let patience = std::time::Duration::from_millis(1);
        tokio::time::timeout(patience, request).await.is_err()
    };
    let (answered, has_vanished) = tokio::join!(busy, vanishing);
    assert!(has_vanished);
    assert_eq!(answered.json().as_array().unwrap().len(), 24);
    post(
        &app,
        "/predict",
        json!({"inputs": "a", "priority": "batch"}),
    )
    .await
    .json();
    assert_eq!(
        metric(&app, "badge_abandoned_total{model=\"tiny\"}").await,
        1.0
    );
    assert_eq!(
        metric(&app, "badge_exits_total{model=\"tiny\",layer=\"5\"}").await,
        25.0
    );
}

#[tokio::test]
async fn bodies_and_batches_have_their_limits() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.limits.payload_max = 200;
    settings.limits.client_batch_max = 3;
    let app = app(settings);
    let large = json!({"inputs": "a".repeat(300)}).to_string();
    for announced in [true, false] {
        let mut request = Request::post("/predict");
        let body = if announced {
            request = request.header("content-length", large.len());
            Body::from(large.clone())
        } else {
            // In pieces, without a length.
            let pieces = large.as_bytes().chunks(64).map(<[u8]>::to_vec);
            let pieces: Vec<_> = pieces.map(Ok::<_, std::io::Error>).collect();
            Body::from_stream(Pieces(pieces.into_iter()))
        };
        let (status, kind, message) = call(&app, request.body(body).unwrap()).await.native_error();
        assert_eq!((status, kind.as_str()), (413, "Validation"), "{message}");
        assert!(message.contains("200"), "{message}");
    }
    let (status, kind, message) = post(&app, "/predict", json!({"inputs": ["a", "b", "c", "d"]}))
        .await
        .native_error();
    assert_eq!((status, kind.as_str()), (422, "Validation"));
    assert_eq!(message, "batch size 4 > maximum allowed batch size 3");
}

/// A body that comes in pieces.
struct Pieces<I>(I);

impl<I: Iterator<Item = Result<Vec<u8>, std::io::Error>> + Unpin> futures_core::Stream
    for Pieces<I>
{
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn inference_asks_for_the_key_and_health_does_not() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.api_key = Some("s3cret".parse().unwrap());
    let app = app(settings);
    let ask = async |authorization: &str| -> Answer {
        let headers = [("authorization", authorization)];
        post_with(&app, "/predict", &headers, r#"{"inputs": "a"}"#).await
    };
    for (authorization, status) in [
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
        ("Bearer s3cre", 401),
        ("Bearer s3cret2", 401),
        ("Basic s3cret", 401),
        ("s3cret", 401),
        ("Bearer", 401),
    ] {
        let answer = ask(authorization).await;
        assert_eq!(answer.status, status, "{authorization}: {}", answer.text());
        assert!(!answer.text().contains("s3cret"));
    }
    let bare = post(&app, "/predict", json!({"inputs": "a"})).await;
    assert_eq!(bare.header("www-authenticate"), "Bearer");
    assert_eq!(bare.native_error().1, "Unauthorized");
    for path in ["/health", "/info", "/metrics", "/livez", "/readyz"] {
        assert_eq!(get(&app, path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_told_apart() {
    let setup = Setup::new();
    let app = tiny(&setup);
    assert_eq!(
        post(&app, "/nothing", json!({})).await.native_error().0,
        404
    );
    let wrong = get(&app, "/predict").await;
    assert_eq!(wrong.native_error().0, 405);
    let embed: (u16, Value) = post(&app, "/embed", json!({"inputs": "a"})).await.error();
    assert_eq!(embed.0, 404);
}
