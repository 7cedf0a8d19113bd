//! The Open Inference Protocol over REST.

use axum::Router;
use serde_json::{Value, json};

use crate::setup::{Setup, app, get, post, post_with, settings, tiny};

const INFER: &str = "/v2/models/tiny/infer";

fn texts(texts: &[&str]) -> Value {
    json!({"name": "text", "shape": [texts.len()], "datatype": "BYTES", "data": texts})
}

/// The data of an output.
fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().unwrap();
    let found = outputs.iter().find(|output| output["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {answer}"))
}

#[tokio::test]
async fn server_and_models_describe_themselves() {
    let setup = Setup::new();
    let app = tiny(&setup);
    assert_eq!(get(&app, "/v2").await.json()["name"], "badge");
    assert_eq!(
        get(&app, "/v2/health/live").await.json(),
        json!({"live": true})
    );
    let ready = get(&app, "/v2/health/ready").await.json();
    assert_eq!(ready, json!({"live": true, "ready": true}));
    for path in ["/v2/models/tiny", "/v2/models/tiny/versions/1"] {
        let metadata = get(&app, path).await.json();
        assert_eq!(
            (&metadata["name"], &metadata["versions"]),
            (&json!("tiny"), &json!(["1"]))
        );
        assert_eq!(metadata["platform"], "badge_safetensors");
        let outputs = metadata["outputs"].as_array().unwrap();
        let probabilities = outputs
            .iter()
            .find(|o| o["name"] == "probabilities")
            .unwrap();
        assert_eq!(probabilities["datatype"], "FP32");
        assert_eq!(probabilities["shape"], json!([-1, 5]));
        let ready = get(&app, &format!("{path}/ready")).await.json();
        assert_eq!(ready, json!({"name": "tiny", "ready": true}));
    }
    for path in ["/v2/models/other", "/v2/models/tiny/versions/2"] {
        let (status, body) = get(&app, path).await.error();
        assert_eq!(status, 404);
        let keys: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["error"]);
    }
}

#[tokio::test]
async fn models_are_listed_in_the_order_of_the_command_line() {
    let setup = Setup::new();
    let models = vec![setup.model("b", "albert"), setup.model("a", "albert")];
    let app = app(settings(models));
    let list = get(&app, "/v2/models").await.json();
    assert_eq!(list, json!({"models": ["b", "a"]}));
}

#[tokio::test]
async fn texts_come_in_as_bytes_and_probabilities_go_out_as_numbers() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let request = json!({"id": "7", "inputs": [texts(&["the cat sat", "a dog"])],
        "parameters": {"policy": "fixed:2"}});
    let answer = post(&app, INFER, request).await.json();
    assert_eq!(answer["id"], "7");
    assert_eq!(answer["model_name"], "tiny");
    assert_eq!(answer["model_version"], "1");
    assert_eq!(answer["parameters"], json!({"policy": "fixed:2"}));
    let probabilities = output(&answer, "probabilities");
    assert_eq!(probabilities["shape"], json!([2, 5]));
    let values = probabilities["data"].as_array().unwrap();
    let sum: f64 = values[..5].iter().map(|v| v.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    assert_eq!(output(&answer, "exit_layer")["data"], json!([2, 2]));
    // The same as the other routes say.
    let body = json!({"inputs": [["the cat sat"]], "policy": "fixed:2"});
    let predicted = post(&app, "/predict", body).await.json();
    assert_eq!(
        output(&answer, "label")["data"][0],
        predicted[0][0]["label"]
    );
    assert_eq!(
        output(&answer, "confidence")["data"][0],
        predicted[0][0]["score"]
    );
    let id = output(&answer, "label_id")["data"][0].as_u64().unwrap();
    assert_eq!(predicted[0][0]["label"], format!("LABEL_{id}"));
    assert_eq!(values[id as usize], predicted[0][0]["score"]);
}

#[tokio::test]
async fn pairs_columns_and_token_ids_come_in_too() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let logits = async |inputs: Value| {
        let request = json!({"inputs": inputs, "outputs": [{"name": "logits"}]});
        let answer = post(&app, INFER, request).await.json();
        assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
        output(&answer, "logits")["data"].clone()
    };
    let pair = json!({"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "the cat"]});
    let by_shape = logits(json!([pair])).await;
    let second =
        json!({"name": "text_pair", "shape": [1], "datatype": "BYTES", "data": ["the cat"]});
    assert_eq!(logits(json!([texts(&["a"]), second])).await, by_shape);
    let column = json!({"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": [["the cat"]]});
    let by_text = logits(json!([column])).await;
    let tensor = |name: &str, data: Value| json!({"name": name, "shape": [1, 6], "datatype": "INT64", "data": data});
    // [CLS] the cat [SEP], and padding that the mask hides.
    let ids = tensor("input_ids", json!([[2, 5, 12, 3, 0, 0]]));
    let mask = tensor("attention_mask", json!([1, 1, 1, 1, 0, 0]));
    assert_eq!(logits(json!([ids, mask])).await, by_text);
}

#[tokio::test]
async fn tensors_travel_as_bytes_both_ways() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let words = ["the cat", "a dog ran"];
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend((word.len() as u32).to_le_bytes());
        bytes.extend(word.as_bytes());
    }
    let json = json!({
        "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES",
            "parameters": {"binary_data_size": bytes.len()}}],
        "outputs": [
            {"name": "probabilities", "parameters": {"binary_data": true}},
            {"name": "label"},
        ],
    });
    let head = json.to_string();
    let length = head.len().to_string();
    let body = [head.as_bytes(), &bytes].concat();
    let headers = [("inference-header-content-length", length.as_str())];
    let answer = post_with(&app, INFER, &headers, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    let length: usize = answer
        .header("inference-header-content-length")
        .parse()
        .unwrap();
    let (head, rest) = answer.bytes.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    let tensor = output(&head, "probabilities");
    assert_eq!(tensor["parameters"]["binary_data_size"], 40);
    let values: Vec<_> = (rest.as_chunks::<4>().0.iter())
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    assert_eq!(values.len(), 10);
    let plain = post(&app, INFER, json!({"inputs": [texts(&words)]}))
        .await
        .json();
    let written = output(&plain, "probabilities")["data"].as_array().unwrap();
    let written: Vec<_> = written.iter().map(|v| v.as_f64().unwrap() as f32).collect();
    assert_eq!(written, values);
    assert_eq!(
        output(&head, "label")["data"],
        output(&plain, "label")["data"]
    );
}

#[tokio::test]
async fn parameters_have_tritons_names_and_ours() {
    let setup = Setup::new();
    let app = app(settings(vec![setup.calibrated("tiny")]));
    let ask = async |parameters: Value| {
        let request = json!({"inputs": [texts(&["the cat"])], "parameters": parameters});
        post(&app, INFER, request).await
    };
    for (parameters, layer) in [
        (json!({}), 3),
        (json!({"max_layer": 2, "priority": 1}), 2),
        (json!({"min_accuracy": 0.9, "priority": 9}), 5),
        (json!({"speedup": 4.0, "timeout": 10_000_000}), 1),
    ] {
        let answer = ask(parameters.clone()).await.json();
        assert_eq!(
            output(&answer, "exit_layer")["data"],
            json!([layer]),
            "{parameters}"
        );
    }
    let (status, body) = ask(json!({"policy": "nonsense"})).await.error();
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("nonsense"));
}

#[tokio::test]
async fn wrong_tensors_are_refused_in_one_sentence() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let tensor = |name: &str, shape: Value, datatype: &str, data: Value| json!([{"name": name, "shape": shape, "datatype": datatype, "data": data}]);
    let ids = |shape: Value, data: Value| tensor("input_ids", shape, "INT64", data);
    for (inputs, status, problem) in [
        (json!([]), 400, "no tensor of texts"),
        (
            tensor("text", json!([2]), "BYTES", json!(["a"])),
            400,
            "`text`",
        ),
        (
            tensor("text", json!([1]), "INT64", json!([1])),
            400,
            "BYTES",
        ),
        (tensor("text", json!([1]), "FP16", json!([1])), 400, "FP16"),
        (
            tensor("text", json!([1, 3]), "BYTES", json!(["a", "b", "c"])),
            400,
            "[n, 2]",
        ),
        (tensor("text", json!([0]), "BYTES", json!([])), 400, "empty"),
        (
            tensor("text", json!([1]), "BYTES", json!([""])),
            400,
            "empty",
        ),
        (ids(json!([1, 2]), json!([2, 99])), 400, "99 is no token id"),
        (ids(json!([1, 2]), json!([2, -1])), 400, "-1 is no token id"),
        (ids(json!([2]), json!([2, 3])), 400, "[n, s]"),
        (ids(json!([1, 600]), json!(vec![5; 600])), 400, "1 to 512"),
        (
            ids(json!([10_000_000_000_000_u64, 0]), json!([])),
            400,
            "row 0 has 0 tokens",
        ),
    ] {
        let (found, body) = post(&app, INFER, json!({"inputs": inputs})).await.error();
        let message = body["error"].as_str().unwrap();
        assert_eq!(found, status, "{inputs}: {message}");
        assert!(message.contains(problem), "{inputs}: {message}");
    }
    let none = json!({"inputs": [texts(&["a"])], "outputs": [{"name": "odds"}]});
    assert_eq!(post(&app, INFER, none).await.error().0, 400);
}

/// Asks with a header length that does not fit the body.
async fn with_length(app: &Router, length: &str) -> u16 {
    let headers = [("inference-header-content-length", length)];
    let body = json!({"inputs": [texts(&["a"])]}).to_string();
    post_with(app, INFER, &headers, body).await.status.as_u16()
}

#[tokio::test]
async fn header_lengths_that_lie_are_refused() {
    let setup = Setup::new();
    let app = tiny(&setup);
    for length in ["0", "5", "100000", "-1", "x", "18446744073709551616"] {
        assert_eq!(with_length(&app, length).await, 400, "{length}");
    }
}
