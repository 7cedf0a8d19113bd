//! `/rerank` and its relatives.

use axum::Router;
use serde_json::{Value, json};

use crate::setup::{Setup, app, post, settings, tiny};

/// A server of a model with one output.
fn ranker(setup: &Setup) -> Router {
    let model = setup.model("ranker", "albert_groups");
    setup.edit_json("ranker/config.json", |config| {
        config.as_object_mut().unwrap().remove("problem_type");
    });
    app(settings(vec![model]))
}

const TEXTS: [&str; 3] = ["the cat sat", "a dog ran over the bridge", "stone"];

/// Each text's score when it is asked about alone, by `/predict`.
async fn scores_alone(app: &Router, query: &str) -> Vec<f64> {
    let mut scores = Vec::new();
    for text in TEXTS {
        let answer = post(app, "/predict", json!({"inputs": [[query, text]]}))
            .await
            .json();
        scores.push(answer[0][0]["score"].as_f64().unwrap());
    }
    scores
}

#[tokio::test]
async fn texts_come_back_by_falling_scores_with_their_indices() {
    let setup = Setup::new();
    let app = ranker(&setup);
    let scores = scores_alone(&app, "cat").await;
    let body = json!({"query": "cat", "texts": TEXTS, "return_text": true});
    let answer = post(&app, "/rerank", body).await;
    let ranks = answer.json();
    let ranks = ranks.as_array().unwrap();
    assert_eq!(ranks.len(), 3);
    let score = |rank: &Value| rank["score"].as_f64().unwrap();
    assert!(ranks.iter().map(score).is_sorted_by(|a, b| a >= b));
    for rank in ranks {
        let index = rank["index"].as_u64().unwrap() as usize;
        assert!((score(rank) - scores[index]).abs() < 1e-6);
        assert_eq!(rank["text"], TEXTS[index]);
    }
    let bare = post(&app, "/rerank", json!({"query": "cat", "texts": TEXTS}))
        .await
        .json();
    let keys: Vec<_> = bare[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["index", "score"]);
    let raw = json!({"query": "cat", "texts": TEXTS, "raw_scores": true});
    let raw = post(&app, "/rerank", raw).await.json();
    let logit = raw[0]["score"].as_f64().unwrap();
    assert!((1.0 / (1.0 + (-logit).exp()) - score(&bare[0])).abs() < 1e-6);
}

#[tokio::test]
async fn jina_and_cohere_get_their_own_shapes() {
    let setup = Setup::new();
    let app = ranker(&setup);
    let documents = json!(["the cat sat", {"text": "a dog ran over the bridge"}, "stone"]);
    let body = json!({"model": "any-name", "query": "cat", "documents": documents, "top_n": 2,
        "return_documents": true});
    let native = post(&app, "/rerank", json!({"query": "cat", "texts": TEXTS}))
        .await
        .json();
    let jina = post(&app, "/v1/rerank", body.clone()).await.json();
    let cohere = post(&app, "/v2/rerank", body).await.json();
    assert_eq!(
        (&jina["model"], &jina["object"]),
        (&json!("ranker"), &json!("rerank"))
    );
    assert!(jina["usage"]["total_tokens"].as_u64().unwrap() > 9);
    assert!(cohere["id"].is_string());
    for answer in [&jina, &cohere] {
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        for (result, rank) in results.iter().zip(native.as_array().unwrap()) {
            assert_eq!(result["index"], rank["index"]);
            assert_eq!(result["relevance_score"], rank["score"]);
            let index = rank["index"].as_u64().unwrap() as usize;
            assert_eq!(result["document"]["text"], TEXTS[index]);
        }
    }
}

#[tokio::test]
async fn errors_keep_the_form_of_their_route() {
    let setup = Setup::new();
    let app = ranker(&setup);
    let empty = json!({"query": "cat", "documents": []});
    let (status, body) = post(&app, "/v1/rerank", empty.clone()).await.error();
    assert_eq!(
        (status, body),
        (400, json!({"detail": "`documents` cannot be empty"}))
    );
    let (status, body) = post(&app, "/v2/rerank", empty).await.error();
    assert_eq!(
        (status, body),
        (400, json!({"message": "`documents` cannot be empty"}))
    );
    let (status, kind, message) = post(&app, "/rerank", json!({"query": "cat", "texts": []}))
        .await
        .native_error();
    assert_eq!((status, kind.as_str()), (400, "Empty"));
    assert_eq!(message, "`texts` cannot be empty");
    let no_query = json!({"query": "", "texts": ["a"]});
    assert_eq!(post(&app, "/rerank", no_query).await.native_error().0, 400);
}

#[tokio::test]
async fn a_classifier_of_many_labels_does_not_rank() {
    let setup = Setup::new();
    let body = json!({"query": "cat", "texts": ["a"]});
    let answer = post(&tiny(&setup), "/rerank", body).await.native_error();
    assert_eq!((answer.0, answer.1.as_str()), (424, "Backend"));
    assert!(
        answer.2.starts_with("model is not a re-ranker model"),
        "{}",
        answer.2
    );
}
