//! `/predict` and `/classify`, byte for byte where clients of others depend on it.

use serde_json::{Value, json};

use crate::setup::{Answer, Setup, app, get, post, post_with, settings, tiny};

/// The labels of an answer, in its order, and the sum of its scores.
fn labels(prediction: &Value) -> (Vec<String>, f64) {
    let scores = prediction.as_array().unwrap();
    let score = |entry: &Value| entry["score"].as_f64().unwrap();
    for entry in scores {
        let keys: Vec<_> = entry.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["score", "label"]);
    }
    assert!(scores.iter().map(score).is_sorted_by(|a, b| a >= b));
    let labels = scores
        .iter()
        .map(|e| e["label"].as_str().unwrap().to_owned());
    (labels.collect(), scores.iter().map(score).sum())
}

async fn predict(body: Value) -> Answer {
    let setup = Setup::new();
    post(&tiny(&setup), "/predict", body).await
}

#[tokio::test]
async fn one_text_has_all_labels_with_the_surest_first() {
    let answer = predict(json!({"inputs": "the cat sat on the mat"})).await;
    let (labels, sum) = labels(&answer.json());
    assert_eq!(labels.len(), 5);
    assert!((sum - 1.0).abs() < 1e-5);
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn scores_are_written_as_short_as_they_are() {
    let answer = predict(json!({"inputs": "the cat sat on the mat"})).await;
    let text = answer.text();
    let first = text
        .strip_prefix("[{\"score\":")
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    assert_eq!(first, first.parse::<f32>().unwrap().to_string());
}

#[tokio::test]
async fn texts_pairs_and_batches_have_the_shapes_of_the_peer() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let answer = async |inputs: Value| post(&app, "/predict", json!({"inputs": inputs})).await;
    let (text, other) = ("the cat sat", "a dog ran");
    let one = answer(json!(text)).await.json();
    let pair = answer(json!([text, other])).await;
    assert_eq!(pair.header("x-deprecation"), "pair-as-flat-list");
    let pair = pair.json();
    assert_ne!(one, pair);
    assert_eq!(answer(json!([text])).await.json(), one);
    assert_eq!(
        answer(json!([[text], [text, other]])).await.json(),
        json!([one, pair])
    );
    assert_eq!(answer(json!([[text]])).await.json(), json!([one]));
    let named = json!({"text": text, "text_pair": other});
    assert_eq!(answer(named.clone()).await.json(), pair);
    assert_eq!(
        answer(json!([named, {"text": text}])).await.json(),
        json!([pair, one])
    );
    let three = answer(json!([text, other, text])).await.json();
    assert_eq!(three[0], one);
    assert_eq!(three[2], one);
}

#[tokio::test]
async fn two_strings_are_a_batch_where_the_server_says_so() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.limits.pair_form = badge_server::PairForm::Batch;
    let app = app(settings);
    let answer = post(&app, "/predict", json!({"inputs": ["the cat", "a dog"]})).await;
    assert_eq!(answer.json().as_array().unwrap().len(), 2);
    assert!(!answer.headers.contains_key("x-deprecation"));
}

#[tokio::test]
async fn scores_are_what_the_request_asks_for() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let with = async |key: &str, value: Value| {
        let mut body = json!({"inputs": "the cat"});
        body[key] = value;
        post(&app, "/predict", body).await.json()
    };
    let raw = with("raw_scores", json!(true)).await;
    assert!((labels(&raw).1 - 1.0).abs() > 1e-3);
    assert_eq!(with("function_to_apply", json!("none")).await, raw);
    let sigmoid = with("function_to_apply", json!("sigmoid")).await;
    let logit = raw[0]["score"].as_f64().unwrap();
    let expected = 1.0 / (1.0 + (-logit).exp());
    assert!((sigmoid[0]["score"].as_f64().unwrap() - expected).abs() < 1e-6);
    assert_eq!(with("top_k", json!(2)).await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_activation_follows_from_the_problem_type() {
    let setup = Setup::new();
    let multi = app(settings(vec![setup.model("multi", "bert_relu")]));
    let (found, sum) = labels(
        &post(&multi, "/predict", json!({"inputs": "a"}))
            .await
            .json(),
    );
    assert_eq!(found.len(), 5);
    assert!((sum - 1.0).abs() > 1e-3, "labels do not exclude each other");
    let number = setup.model("number", "albert_groups");
    let raw = json!({"inputs": "a", "raw_scores": true});
    let declared = app(settings(vec![number.clone()]));
    let value = post(&declared, "/predict", json!({"inputs": "a"}))
        .await
        .json();
    assert_eq!(value, post(&declared, "/predict", raw).await.json());
    // One output of which nothing is said is a ranker's.
    setup.edit_json("number/config.json", |config| {
        config.as_object_mut().unwrap().remove("problem_type");
    });
    let ranker = app(settings(vec![number]));
    let score = post(&ranker, "/predict", json!({"inputs": "a"}))
        .await
        .json();
    let expected = 1.0 / (1.0 + (-value[0]["score"].as_f64().unwrap()).exp());
    assert!((score[0]["score"].as_f64().unwrap() - expected).abs() < 1e-6);
}

#[tokio::test]
async fn headers_say_where_time_went_and_where_the_text_left() {
    let answer = predict(json!({"inputs": "the cat sat", "policy": "fixed:2"})).await;
    for name in [
        "x-compute-time",
        "x-total-time",
        "x-tokenization-time",
        "x-queue-time",
        "x-inference-time",
        "x-queue-time-us",
        "x-inference-time-us",
    ] {
        answer.header(name).parse::<u64>().unwrap();
    }
    assert_eq!(answer.header("x-compute-characters"), "11");
    assert_eq!(answer.header("x-compute-tokens"), "5");
    assert_eq!(answer.header("x-exit-layer"), "2");
    assert!(answer.header("x-compute-type").starts_with("cpu-f32-"));
    assert!(answer.header("server-timing").starts_with("tok;dur="));
    let inputs = json!([["the cat"], ["a"], ["a dog"]]);
    let batch = predict(json!({"inputs": inputs, "policy": "fixed:4"})).await;
    assert_eq!(batch.header("x-exit-layers-mean"), "4.000");
}

#[tokio::test]
async fn requests_choose_their_policy() {
    let setup = Setup::new();
    let app = app(settings(vec![setup.calibrated("tiny")]));
    for (policy, layer) in [
        (json!(null), "3"),
        (json!("fixed:2"), "2"),
        (json!({"spec": "full"}), "5"),
        (json!({"speedup": 1.0}), "5"),
        (json!({"speedup": 1.5}), "3"),
        (json!({"speedup": 4.0}), "1"),
        (json!({"min_accuracy": 0.9}), "5"),
        (json!({"min_accuracy": 0.82}), "3"),
        (json!({"min_accuracy": 0.1}), "1"),
        (json!({"max_depth": 2}), "2"),
        (json!({"spec": "full", "max_layer": 4}), "4"),
        (json!({"speedup": 4.0, "max_depth": 4}), "1"),
    ] {
        let body = json!({"inputs": "the cat sat", "policy": policy});
        let answer = post(&app, "/predict", body).await;
        assert_eq!(answer.status, 200, "{policy}: {}", answer.text());
        assert_eq!(answer.header("x-exit-layer"), layer, "{policy}");
    }
    for (policy, problem) in [
        (json!("fixed:9"), "fixed:9"),
        (json!({"speedup": 9}), "5.00"),
        (json!({"min_accuracy": 0.99}), "0.9000"),
        (json!({"max_depth": 0}), "depth 1"),
        (json!({"spec": "full", "speedup": 2}), "one of"),
        (json!({"threshold": 2}), "`spec`"),
    ] {
        let body = json!({"inputs": "the cat sat", "policy": policy});
        let (status, kind, message) = post(&app, "/predict", body).await.native_error();
        assert_eq!((status, kind.as_str()), (422, "Validation"), "{policy}");
        assert!(message.contains(problem), "{policy}: {message}");
    }
}

#[tokio::test]
async fn details_tell_exit_reason_and_times() {
    let body = json!({"inputs": [["the cat"]], "policy": "fixed:2", "details": true});
    let answer = predict(body).await.json();
    let item = &answer[0];
    let keys: Vec<_> = item.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["predictions", "exit", "usage", "timing_us"]);
    assert_eq!(labels(&item["predictions"]).0.len(), 5);
    let exit = &item["exit"];
    assert_eq!(
        (&exit["layer"], &exit["num_layers"]),
        (&json!(2), &json!(5))
    );
    assert_eq!(exit["policy"], "fixed:2");
    assert_eq!(exit["reason"], "the policy answers at exit 2");
    let confidence = exit["confidence"].as_f64().unwrap();
    assert_eq!(
        confidence,
        item["predictions"][0]["score"].as_f64().unwrap()
    );
    assert_eq!(item["usage"]["tokens"], 4);
    assert!(item["timing_us"]["compute"].is_u64());
}

#[tokio::test]
async fn a_trace_shows_every_exit_until_the_text_left() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let body = json!({"inputs": "the cat sat", "policy": "full", "trace": true});
    let traced = post(&app, "/predict", body).await.json();
    let exits = traced["exits"].as_array().unwrap();
    let layers: Vec<_> = exits.iter().map(|e| e["layer"].as_u64().unwrap()).collect();
    assert_eq!(layers, [1, 2, 3, 4, 5]);
    for (exit, layer) in exits.iter().zip(layers) {
        // What an exit says on the way is what it answers when it is asked alone.
        let policy = format!("fixed:{layer}");
        let body = json!({"inputs": "the cat sat", "policy": policy});
        let alone = post(&app, "/predict", body).await.json();
        assert_eq!(exit["predictions"], alone);
    }
    assert_eq!(traced["predictions"], exits[4]["predictions"]);
}

#[tokio::test]
async fn several_models_answer_by_their_names() {
    let setup = Setup::new();
    let models = vec![
        setup.model("first", "albert"),
        setup.model("second", "bert_gelu"),
    ];
    let app = app(settings(models));
    let ask = async |model: Value| {
        let body = json!({"inputs": "the cat", "model": model, "policy": "full"});
        post(&app, "/predict", body).await
    };
    let (none, first) = (ask(json!(null)).await, ask(json!("first")).await);
    assert_eq!(none.json(), first.json());
    assert_eq!(ask(json!("second")).await.header("x-exit-layer"), "3");
    let (status, kind, message) = ask(json!("third")).await.native_error();
    assert_eq!((status, kind.as_str()), (404, "NotFound"));
    assert!(message.contains("first, second"), "{message}");
    let info = get(&app, "/info").await.json();
    assert_eq!(info["models"], json!(["first", "second"]));
}

#[tokio::test]
async fn classify_answers_as_infinity_does() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let body = json!({"model": "whatever", "input": ["the cat", "a dog"], "raw_scores": false});
    let answer = post(&app, "/classify", body).await.json();
    assert_eq!(answer["object"], "classify");
    assert_eq!(answer["model"], "tiny");
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 8, "total_tokens": 8})
    );
    let alone = post(&app, "/predict", json!({"inputs": "a dog"}))
        .await
        .json();
    assert_eq!(answer["data"][1], alone);
}

#[tokio::test]
async fn the_root_does_what_the_model_is_for() {
    let setup = Setup::new();
    let classifier = tiny(&setup);
    let body = json!({"inputs": "the cat"});
    let predicted = post(&classifier, "/predict", body.clone()).await.json();
    for path in ["/", "/invocations"] {
        assert_eq!(
            post(&classifier, path, body.clone()).await.json(),
            predicted
        );
    }
    let number = setup.model("ranker", "albert_groups");
    setup.edit_json("ranker/config.json", |config| {
        config.as_object_mut().unwrap().remove("problem_type");
    });
    let ranker = app(settings(vec![number]));
    let body = json!({"query": "cat", "texts": ["the cat"]});
    assert_eq!(post(&ranker, "/", body).await.json()[0]["index"], 0);
    let info = get(&ranker, "/info").await.json();
    assert!(info["model_type"].get("reranker").is_some(), "{info}");
}

#[tokio::test]
async fn long_texts_are_cut_or_refused() {
    let setup = Setup::new();
    let mut few = settings(vec![setup.model("tiny", "albert")]);
    few.model.length_max = Some(6);
    let app = app(few);
    let ask = async |text: &str, extra: Value| {
        let mut body = json!({"inputs": text});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        post(&app, "/predict", body).await
    };
    let long = "one two three four five six";
    let cut = ask(long, json!({})).await.json();
    assert_eq!(cut, ask("one two three four", json!({})).await.json());
    let left = ask(long, json!({"truncation_direction": "Left"}))
        .await
        .json();
    assert_eq!(left, ask("three four five six", json!({})).await.json());
    let refused = ask(long, json!({"truncate": false})).await.native_error();
    let message = "`inputs` must have less than 7 tokens. Given: 8".to_owned();
    assert_eq!(refused, (422, "Validation".to_owned(), message));
}

#[tokio::test]
async fn wrong_bodies_are_refused_in_one_sentence() {
    let setup = Setup::new();
    let app = tiny(&setup);
    for (body, status, kind, problem) in [
        ("", 422, "Validation", "line 1"),
        ("{", 422, "Validation", "line 1"),
        ("{}", 422, "Validation", "inputs"),
        (r#"{"inputs": 3}"#, 422, "Validation", "a pair of strings"),
        (
            r#"{"inputs": ""}"#,
            400,
            "Empty",
            "`inputs` cannot be empty",
        ),
        (
            r#"{"inputs": []}"#,
            400,
            "Empty",
            "`inputs` cannot be empty",
        ),
        (
            r#"{"inputs": [["a", "b", "c"]]}"#,
            422,
            "Validation",
            "3 strings",
        ),
        (
            r#"{"inputs": "a", "deadline_ms": -5}"#,
            422,
            "Validation",
            "deadline_ms",
        ),
        (
            r#"{"inputs": "a", "priority": "now"}"#,
            422,
            "Validation",
            "high",
        ),
        ("\u{feff}{}", 422, "Validation", "line 1"),
    ] {
        let answer = post_with(&app, "/predict", &[], body).await;
        let (found, word, message) = answer.native_error();
        assert_eq!((found, word.as_str()), (status, kind), "{body}: {message}");
        assert!(message.contains(problem), "{body}: {message}");
    }
    let deep = format!(r#"{{"inputs": {}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(post_with(&app, "/predict", &[], deep).await.status, 422);
    let invalid = b"{\"inputs\": \"\xff\xfe\"}".to_vec();
    assert_eq!(post_with(&app, "/predict", &[], invalid).await.status, 422);
}

#[tokio::test]
async fn parameters_ask_for_a_list_of_lists_as_the_hugging_face_client_does() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let ask = async |parameters: Value| {
        let body = json!({"inputs": "the cat sat", "parameters": parameters});
        post(&app, "/predict", body).await
    };
    let plain = post(&app, "/predict", json!({"inputs": "the cat sat"})).await;
    assert_eq!(ask(Value::Null).await.json(), plain.json());
    assert_eq!(ask(json!({})).await.json(), json!([plain.json()]));
    let two = ask(json!({"top_k": 2, "function_to_apply": null}))
        .await
        .json();
    assert_eq!(
        two[0].as_array().unwrap()[..],
        plain.json().as_array().unwrap()[..2]
    );
    let logits = post(
        &app,
        "/predict",
        json!({"inputs": "the cat sat", "raw_scores": true}),
    );
    let logits = logits.await.json();
    assert_eq!(
        ask(json!({"function_to_apply": "none"})).await.json(),
        json!([logits])
    );
    let wrong = ask(json!({"top_k": "all"})).await.native_error();
    assert_eq!(wrong.0, 422);
}
