//! What huggingface_hub and tritonclient have said to a server, said again: `tests/clients/check.py
//! --record` wrote it down, and checked that those clients understood the answers.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use badge_core::policy::PolicySpec;
use badge_server::http;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use serde_json::Value;
use tower::ServiceExt;

use crate::calls::{called, framed_request, path, read};
use crate::setup::{Setup, call, load, settings};

/// How far numbers may lie apart: instruction sets add in other orders.
const TOLERANCE: f64 = 2e-5;

/// A request and its answer; bodies and messages are in base64.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Pair {
    Http {
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        body: String,
        status: u16,
        answer_headers: Vec<(String, String)>,
        answer: String,
    },
    Grpc {
        method: String,
        message: String,
        code: u16,
        answer: String,
    },
}

fn bytes(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap()
}

/// The same texts and shapes, and numbers that are nearly the same. When something was made, and by
/// which version, is another matter.
fn check_same(found: &Value, expected: &Value, what: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(found), keys(expected), "{what}");
            let changes = |key: &str| ["created", "version"].contains(&key);
            for (key, value) in found.iter().filter(|(key, _)| !changes(key)) {
                check_same(value, &expected[key], &format!("{what}.{key}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{what}");
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                check_same(found, expected, &format!("{what}[{index}]"));
            }
        }
        (Value::Number(found), Value::Number(expected)) => {
            let apart = found.as_f64().unwrap() - expected.as_f64().unwrap();
            assert!(apart.abs() <= TOLERANCE, "{what}: {found}, not {expected}");
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}

/// An answer whose JSON may have tensors of bytes behind it: both as JSON.
fn document(bytes: &[u8], json_length: Option<usize>) -> Value {
    let (json, mut rest) = bytes.split_at(json_length.unwrap_or(bytes.len()));
    if json.is_empty() {
        return Value::Null;
    }
    let mut json: Value = serde_json::from_slice(json).unwrap();
    for tensor in list(&mut json, "outputs") {
        let Some(size) = tensor["parameters"]["binary_data_size"].as_u64() else {
            continue;
        };
        let (own, others) = rest.split_at(size as usize);
        tensor["data"] = values(&tensor["datatype"], own);
        rest = others;
    }
    assert!(rest.is_empty(), "{} bytes belong to no tensor", rest.len());
    json
}

/// The elements of a list under a key; none where there is no such list.
fn list<'a>(json: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = json.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// The values of a tensor's bytes.
fn values(datatype: &Value, bytes: &[u8]) -> Value {
    match datatype.as_str().unwrap() {
        "FP32" => {
            let values = bytes.as_chunks().0.iter();
            values.map(|value| f32::from_le_bytes(*value)).collect()
        }
        "INT64" => {
            let values = bytes.as_chunks().0.iter();
            values.map(|value| i64::from_le_bytes(*value)).collect()
        }
        "INT32" => {
            let values = bytes.as_chunks().0.iter();
            values.map(|value| i32::from_le_bytes(*value)).collect()
        }
        // Texts with their lengths, as they are.
        _ => bytes.to_vec().into(),
    }
}

/// A message with the values of its raw tensors.
fn read_raw(mut json: Value) -> Value {
    let outputs = json["outputs"].as_array().cloned().unwrap_or_default();
    let raw = list(&mut json, "raw_output_contents");
    for (raw, tensor) in raw.zip(&outputs) {
        *raw = values(&tensor["datatype"], &bytes(raw.as_str().unwrap()));
    }
    json
}

async fn play(pair: Pair, rest: &Router, grpc: &Router) {
    match pair {
        Pair::Http {
            method,
            path,
            headers,
            body,
            status,
            answer_headers,
            answer,
        } => {
            let mut request = Request::builder().method(method.as_str()).uri(&path);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let found = call(rest, request.body(Body::from(bytes(&body))).unwrap()).await;
            assert_eq!(found.status, status, "{path}: {}", found.text());
            let length = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            let name = "inference-header-content-length";
            let expected = answer_headers.iter().find(|(header, _)| header == name);
            let expected = document(&bytes(&answer), length(expected.map(|(_, v)| v.as_str())));
            let found_length = found.headers.get(name).map(|value| value.to_str().unwrap());
            check_same(
                &document(&found.bytes, length(found_length)),
                &expected,
                &path,
            );
        }
        Pair::Grpc {
            method,
            message,
            code,
            answer,
        } => {
            let request = framed_request(&path(&method), &bytes(&message), &[]);
            let response = grpc.clone().oneshot(request).await.unwrap();
            let found = called(&method, response).await;
            assert_eq!(found.code, code, "{method}: {}", found.problem);
            if code == 0 {
                let expected = read_raw(read(&method, &bytes(&answer)));
                check_same(&read_raw(found.message), &expected, &method);
            }
        }
    }
}

#[tokio::test]
async fn recorded_clients_are_answered_as_they_were() {
    let pairs: Vec<Pair> = serde_json::from_str(include_str!("../clients/recorded.json")).unwrap();
    let of_grpc = pairs
        .iter()
        .filter(|pair| matches!(pair, Pair::Grpc { .. }))
        .count();
    assert!(
        of_grpc >= 8 && pairs.len() - of_grpc >= 20,
        "{of_grpc} of {}",
        pairs.len()
    );
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.model.policy = Some("full".parse::<PolicySpec>().unwrap());
    let server = load(settings);
    let (rest, grpc) = (http::app(server.clone()), http::grpc(server));
    for pair in pairs {
        play(pair, &rest, &grpc).await;
    }
}
