//! The Open Inference Protocol over gRPC: what it says is what REST says.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use badge_server::{Settings, http};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::calls::{call, called, connect, framed_request, path, request};
use crate::setup::{self, Setup, get, load, metric, post, settings};
use crate::sockets::{last_words, start};

/// Both routers of one server: gRPC's, and the other.
fn both(settings: Settings) -> (Router, Router) {
    let server = load(settings);
    (http::grpc(server.clone()), http::app(server))
}

fn tiny(setup: &Setup) -> (Router, Router) {
    both(settings(vec![setup.model("tiny", "albert")]))
}

/// A request of texts.
fn texts(texts: &[&str]) -> Value {
    let data: Vec<_> = texts.iter().map(|text| base64(text.as_bytes())).collect();
    json!({"model_name": "tiny", "inputs": [{"name": "text", "datatype": "BYTES",
        "shape": [texts.len()], "contents": {"bytes_contents": data}}]})
}

/// Bytes as JSON holds those of messages.
fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn bytes(text: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap()
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().unwrap();
    let found = outputs.iter().find(|output| output["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {answer}"))
}

#[tokio::test]
async fn server_and_models_describe_themselves_as_over_rest() {
    let setup = Setup::new();
    let (grpc, rest) = tiny(&setup);
    let ask = async |name: &str, message: Value| call(&grpc, name, &message, &[]).await.good();
    let none = || json!({});
    assert_eq!(ask("ServerLive", none()).await, json!({"live": true}));
    assert_eq!(ask("ServerReady", none()).await, json!({"ready": true}));
    let server = get(&rest, "/v2").await.json();
    assert_eq!(ask("ServerMetadata", none()).await, server);
    let metadata = get(&rest, "/v2/models/tiny").await.json();
    for version in ["", "1"] {
        let tiny = json!({"name": "tiny", "version": version});
        assert_eq!(ask("ModelMetadata", tiny.clone()).await, metadata);
        assert_eq!(ask("ModelReady", tiny).await, json!({"ready": true}));
    }
    for method in ["ModelReady", "ModelMetadata"] {
        for unknown in [
            json!({"name": "other"}),
            json!({"name": "tiny", "version": "2"}),
        ] {
            let answer = call(&grpc, method, &unknown, &[]).await;
            assert_eq!(answer.bad().0, 5, "{}", answer.problem);
        }
    }
    for service in ["", "inference.GRPCInferenceService"] {
        let health = ask("Check", json!({"service": service})).await;
        assert_eq!(health, json!({"status": "SERVING"}));
    }
    let other = call(&grpc, "Check", &json!({"service": "a"}), &[]).await;
    assert_eq!(other.bad().0, 5);
}

#[tokio::test]
async fn a_server_that_goes_away_is_not_ready() {
    let setup = Setup::new();
    let server = load(settings(vec![setup.model("tiny", "albert")]));
    let grpc = http::grpc(server.clone());
    server.drain();
    for (method, message, answer) in [
        ("ServerLive", json!({}), json!({"live": true})),
        ("ServerReady", json!({}), json!({})),
        ("ModelReady", json!({"name": "tiny"}), json!({})),
        ("Check", json!({}), json!({"status": "NOT_SERVING"})),
    ] {
        let found = call(&grpc, method, &message, &[]).await.good();
        assert_eq!(found, answer, "{method}");
    }
}

/// The values of a typed tensor as the JSON of REST, where an f32 is written as one, and as bytes.
fn values(tensor: &Value) -> (String, Vec<u8>) {
    let of = |field: &str| tensor["contents"][field].as_array().unwrap().iter();
    match tensor["datatype"].as_str().unwrap() {
        "FP32" => {
            let values: Vec<_> = of("fp32_contents")
                .map(|value| value.as_f64().unwrap() as f32)
                .collect();
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (serde_json::to_string(&values).unwrap(), bytes.collect())
        }
        "INT64" => {
            let values: Vec<_> = of("int64_contents").map(|v| v.as_i64().unwrap()).collect();
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (serde_json::to_string(&values).unwrap(), bytes.collect())
        }
        "INT32" => {
            let values = of("int_contents").map(|value| value.as_i64().unwrap() as i32);
            let values: Vec<_> = values.collect();
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (serde_json::to_string(&values).unwrap(), bytes.collect())
        }
        _ => {
            let texts: Vec<_> = of("bytes_contents").map(bytes).collect();
            let bytes = texts.iter().flat_map(|text| length_and(text));
            let texts = texts.iter().map(|text| std::str::from_utf8(text).unwrap());
            (
                json!(texts.collect::<Vec<_>>()).to_string(),
                bytes.collect(),
            )
        }
    }
}

/// A text behind its length in four bytes.
fn length_and(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes(), text].concat()
}

#[tokio::test]
async fn tensors_go_out_as_they_came_in_with_the_values_of_rest() {
    let setup = Setup::new();
    let (grpc, rest) = tiny(&setup);
    let words = ["the cat sat", "a dog", "der Baß"];
    let mut request = texts(&words);
    request["id"] = json!("7");
    request["parameters"] = json!({"policy": {"string_param": "fixed:2"}});
    let typed = call(&grpc, "ModelInfer", &request, &[]).await;
    assert_eq!(typed.headers["x-exit-layers-mean"], "2.000");
    assert_eq!(typed.headers["x-request-id"].len(), 16);
    let typed = typed.good();
    let head = ["id", "model_name", "model_version"].map(|key| typed[key].clone());
    assert_eq!(head, ["7", "tiny", "1"]);
    assert_eq!(typed["parameters"], request["parameters"]);
    assert_eq!(typed.get("raw_output_contents"), None);
    let body = json!({"parameters": {"policy": "fixed:2"}, "inputs": [{"name": "text",
        "shape": [3], "datatype": "BYTES", "data": words}]});
    let expected = post(&rest, "/v2/models/tiny/infer", body).await.json();
    let expected = expected["outputs"].as_array().unwrap();
    for (tensor, expected) in typed["outputs"].as_array().unwrap().iter().zip(expected) {
        for key in ["name", "datatype", "shape"] {
            assert_eq!(tensor[key], expected[key]);
        }
        assert_eq!(values(tensor).0, expected["data"].to_string());
    }
    // The same as bytes.
    let written = words.map(|word| length_and(word.as_bytes())).concat();
    request["inputs"][0]["contents"].take();
    request["raw_input_contents"] = json!([base64(&written)]);
    let raw = call(&grpc, "ModelInfer", &request, &[]).await.good();
    let outputs = raw["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 5);
    for (index, tensor) in outputs.iter().enumerate() {
        assert_eq!(tensor.get("contents"), None);
        let found = bytes(&raw["raw_output_contents"][index]);
        assert_eq!(
            found,
            values(&typed["outputs"][index]).1,
            "{}",
            tensor["name"]
        );
    }
}

#[tokio::test]
async fn token_ids_come_in_and_the_outputs_that_are_asked_for_go_out() {
    let setup = Setup::new();
    let (grpc, _) = tiny(&setup);
    let logits = async |mut request: Value| {
        request["outputs"] = json!([{"name": "logits"}]);
        let answer = call(&grpc, "ModelInfer", &request, &[]).await.good();
        assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
        output(&answer, "logits").clone()
    };
    let by_text = logits(texts(&["the cat"])).await;
    assert_eq!(by_text["shape"], json!([1, 5]));
    let tensor = |name: &str, datatype: &str, contents: Value| {
        json!({"name": name, "shape": [1, 6],
        "datatype": datatype, "contents": contents})
    };
    let ids = json!({"int64_contents": [2, 5, 12, 3, 0, 0]});
    let mask = json!({"int_contents": [1, 1, 1, 1, 0, 0]});
    let inputs = [
        tensor("input_ids", "INT64", ids),
        tensor("attention_mask", "INT32", mask),
    ];
    let by_ids = logits(json!({"model_name": "tiny", "inputs": inputs})).await;
    assert_eq!(by_ids, by_text);
}

/// The request of one text with another value of a key.
fn with(key: &str, value: Value) -> Value {
    let mut request = texts(&["a"]);
    request[key] = value;
    request
}

/// The same with another value in its tensor.
fn tensor(change: &Value) -> Value {
    let mut request = texts(&["a"]);
    let tensor = request["inputs"][0].as_object_mut().unwrap();
    tensor.extend(change.as_object().unwrap().clone());
    request
}

/// Calls for inference that are refused, each with its code and a part of what is said. Answers of
/// gRPC all have the status 200; metrics know better.
async fn refused(cases: impl IntoIterator<Item = (Value, u16, &str)>) {
    let setup = Setup::new();
    let (grpc, rest) = tiny(&setup);
    let mut count = 0.0;
    for (request, code, problem) in cases {
        let answer = call(&grpc, "ModelInfer", &request, &[]).await;
        let (found, message) = answer.bad();
        assert_eq!(found, code, "{request}: {message}");
        assert!(message.contains(problem), "{request}: {message}");
        count += 1.0;
    }
    let route = "route=\"/inference.GRPCInferenceService/ModelInfer\"";
    let line = |code: u16| format!("badge_requests_total{{{route},code=\"{code}\"}}");
    let told = metric(&rest, &line(400)).await + metric(&rest, &line(404)).await;
    assert_eq!(told, count);
    assert_eq!(metric(&rest, &line(200)).await, 0.0);
}

#[tokio::test]
async fn what_is_wrong_with_a_tensor_is_said() {
    let contents = |contents: Value| tensor(&json!({"contents": contents}));
    let mut cut = contents(json!(null));
    cut["raw_input_contents"] = json!(["AQ=="]);
    let numbers = json!({"datatype": "INT32", "contents": {"int_contents": [1]}});
    refused([
        (with("inputs", json!([])), 3, "no tensor of texts"),
        (texts(&[""]), 3, "empty"),
        (texts(&[]), 3, "empty"),
        (
            tensor(&json!({"shape": [2]})),
            3,
            "tensor `text`: the shape [2]",
        ),
        (tensor(&json!({"shape": [-1]})), 3, "tensor `text`: no size"),
        (
            tensor(&json!({"datatype": "FP32"})),
            3,
            "tensor `text`: its datatype is `FP32`",
        ),
        (
            tensor(&json!({"datatype": "INT64"})),
            3,
            "tensor `text`: its values belong into",
        ),
        (
            contents(json!({"bytes_contents": ["/w=="]})),
            3,
            "tensor `text`: text 0 is not UTF-8",
        ),
        (
            tensor(&numbers),
            3,
            "tensor `text`: texts have the datatype BYTES",
        ),
        (
            with("raw_input_contents", json!(["AQ==", "AQ=="])),
            3,
            "2 for 1 tensors",
        ),
        (
            with("raw_input_contents", json!(["AQ=="])),
            3,
            "tensor `text`: it has `contents`",
        ),
        (cut, 3, "tensor `text`: text 0 is cut off"),
    ])
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_names_and_parameters_is_said() {
    let parameter = |name: &str, value: Value| with("parameters", json!({name: value}));
    refused([
        (with("model_name", json!("other")), 5, "no model `other`"),
        (with("model_version", json!("2")), 5, "tiny version 2"),
        (
            with("outputs", json!([{"name": "odds"}])),
            3,
            "`outputs`: no `odds`",
        ),
        (
            parameter("policy", json!({"string_param": "fast"})),
            3,
            "fast",
        ),
        (
            parameter("policy", json!({"bool_param": true})),
            3,
            "parameter `policy`",
        ),
        (
            parameter("priority", json!({"int64_param": -1})),
            3,
            "parameter `priority`",
        ),
        (
            parameter("speedup", json!({"double_param": "NaN"})),
            3,
            "parameter `speedup`",
        ),
        (
            parameter("timeout", json!({"string_param": "1"})),
            3,
            "parameter `timeout`",
        ),
    ])
    .await;
}

#[tokio::test]
async fn deadlines_come_as_metadata_or_as_a_parameter() {
    let setup = Setup::new();
    let (grpc, rest) = tiny(&setup);
    let late = call(
        &grpc,
        "ModelInfer",
        &texts(&["a"]),
        &[("grpc-timeout", "0m")],
    )
    .await;
    assert_eq!(
        late.bad(),
        (4, "the deadline passed before the model could answer")
    );
    let mut request = texts(&["a"]);
    request["parameters"] = json!({"timeout": {"int64_param": 9_000_000},
        "priority": {"uint64_param": 1}});
    let good = call(&grpc, "ModelInfer", &request, &[("grpc-timeout", "0m")]).await;
    assert_eq!(good.code, 0, "{}", good.problem);
    let wrong = call(
        &grpc,
        "ModelInfer",
        &texts(&["a"]),
        &[("grpc-timeout", "soon")],
    )
    .await;
    assert_eq!(wrong.bad().0, 3);
    assert!(wrong.problem.contains("grpc-timeout"), "{}", wrong.problem);
    let line = "badge_expired_total{model=\"tiny\"}";
    assert_eq!(metric(&rest, line).await, 1.0);
}

#[tokio::test]
async fn limits_and_the_key_hold_here_too() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.api_key = Some("s3cret".parse().unwrap());
    settings.limits.payload_max = 4000;
    settings.limits.client_batch_max = 3;
    settings.model.concurrent_requests_max = 4;
    let (grpc, _) = both(settings);
    let bare = call(&grpc, "ModelInfer", &texts(&["a"]), &[]).await;
    assert_eq!(bare.bad().0, 16);
    assert_eq!(call(&grpc, "ServerReady", &json!({}), &[]).await.code, 0);
    let key = [("authorization", "Bearer s3cret")];
    let ask = async |words: &[&str]| call(&grpc, "ModelInfer", &texts(words), &key).await;
    let many = ask(&["a"; 4]).await;
    assert_eq!(
        many.bad(),
        (3, "batch size 4 > maximum allowed batch size 3")
    );
    let large = ask(&[&"a".repeat(4000)]).await;
    assert_eq!(large.bad().0, 8);
    assert!(
        large.problem.contains("--payload-limit"),
        "{}",
        large.problem
    );
    assert_eq!(large.headers.get("grpc-retry-pushback-ms"), None);
    // Both have asked for room before either is answered: this runtime has one thread, and these
    // texts are too long to be tokenised on it.
    let long = "a ".repeat(400);
    let three = [long.as_str(); 3];
    let (first, second) = tokio::join!(ask(&three), ask(&three));
    assert_eq!(first.code, 0, "{}", first.problem);
    assert_eq!(second.bad(), (8, "Model is overloaded"));
    for name in ["grpc-retry-pushback-ms", "x-retry-after-ms"] {
        let ms = second.headers[name].to_str().unwrap();
        assert!(ms.parse::<u64>().unwrap() >= 1000, "{ms}");
    }
    assert!(second.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn calls_that_are_none_of_ours_are_refused() {
    let setup = Setup::new();
    let (grpc, _) = tiny(&setup);
    let response = async |request: Request<Body>| {
        tower::ServiceExt::oneshot(grpc.clone(), request)
            .await
            .unwrap()
    };
    for other in [
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/a",
        "/predict",
    ] {
        let answer = response(framed_request(other, b"", &[])).await;
        assert_eq!(answer.headers()["grpc-status"], "12", "{other}");
    }
    let get = Request::get(path("ServerLive"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(response(get).await.headers()["grpc-status"], "12");
    let json = Request::post(path("ServerLive")).header("content-type", "application/json");
    assert_eq!(
        response(json.body(Body::empty()).unwrap()).await.status(),
        415
    );
    let mut compressed = framed_request(&path("ServerLive"), b"", &[("grpc-encoding", "gzip")]);
    *compressed.body_mut() = Body::from(&b"\x01\0\0\0\0"[..]);
    let answer = response(compressed).await;
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert_eq!(answer.headers()["grpc-accept-encoding"], "identity");
    let broken = response(framed_request(&path("ModelInfer"), b"\x0a\xff", &[])).await;
    assert_eq!(broken.headers()["grpc-status"], "3");
}

/// Settings with a port for gRPC.
fn listening(setup: &Setup) -> Settings {
    let mut settings = setup::settings(vec![setup.model("tiny", "albert")]);
    settings.grpc_address = Some(([127, 0, 0, 1], 0).into());
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_a_connection() {
    let setup = Setup::new();
    let running = start(load(listening(&setup))).await;
    let sender = connect(running.grpc.unwrap()).await;
    let calls = (0..20).map(|index| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let mut message = texts(&["the cat sat"]);
            message["id"] = json!(index.to_string());
            let request = request("ModelInfer", &message, &[]);
            let response = sender.send_request(request).await.unwrap();
            let answer = called("ModelInfer", response).await.good();
            assert_eq!(answer["id"], index.to_string());
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    running.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_silent_connections_do_not_hold_up_the_end() {
    let setup = Setup::new();
    let running = start(load(listening(&setup))).await;
    let address = running.grpc.unwrap();
    let mut idle = connect(address).await;
    let live = request("ServerLive", &json!({}), &[]);
    let response = idle.send_request(live).await.unwrap();
    assert_eq!(called("ServerLive", response).await.code, 0);
    let silent = TcpStream::connect(address).await.unwrap();
    // One that has introduced itself and answers nothing, not even a ping.
    let mut deaf = TcpStream::connect(address).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    tokio::io::AsyncWriteExt::write_all(&mut deaf, preface)
        .await
        .unwrap();
    let begin = Instant::now();
    running.go().await.unwrap();
    let time = begin.elapsed();
    assert!(time < Duration::from_secs(2), "{time:?}");
    drop((silent, deaf, idle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_on_their_way_are_answered_before_the_end() {
    let setup = Setup::new();
    let mut settings = listening(&setup);
    settings.model.batch_requests_max = 1;
    let running = start(load(settings)).await;
    let mut sender = connect(running.grpc.unwrap()).await;
    let long = "the old red stone bridge ".repeat(90);
    let message = texts(&[long.as_str(); 32]);
    let response = sender.send_request(request("ModelInfer", &message, &[]));
    let response = tokio::spawn(response);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !response.is_finished(),
        "it was answered before the end began"
    );
    let gone = running.go();
    let answer = called("ModelInfer", response.await.unwrap().unwrap()).await;
    assert_eq!(output(&answer.good(), "label")["shape"], json!([32]));
    gone.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_call_is_let_go_and_one_with_calls_is_not() {
    let setup = Setup::new();
    let mut settings = listening(&setup);
    settings.limits.head_timeout = Duration::from_millis(200);
    let running = start(load(settings)).await;
    let address = running.grpc.unwrap();
    let mut used = connect(address).await;
    let live = || request("ServerLive", &json!({}), &[]);
    used.send_request(live()).await.unwrap();
    let silent = TcpStream::connect(address).await.unwrap();
    timeout(Duration::from_secs(5), last_words(silent))
        .await
        .unwrap();
    let response = used.send_request(live()).await.unwrap();
    assert_eq!(called("ServerLive", response).await.code, 0);
    running.go().await.unwrap();
}
