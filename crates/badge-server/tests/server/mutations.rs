//! Good requests with damage done to them, seeded: each is answered, or refused in one sentence, and
//! harms nobody.

#[path = "../../../badge-core/tests/loader_fuzz/random.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod random;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use badge_server::http;
use prost_reflect::DynamicMessage;
use prost_reflect::prost::Message;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt;

use self::random::Random;
use crate::calls::{called, framed_request, method, path};
use crate::setup::{Answer, Setup, call, load, post, settings};

/// Damaged requests of each kind.
const CASES: u64 = 250;

/// How long one of them may take, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(20);

const INFER: &str = "/v2/models/tiny/infer";

/// What is written into requests: the ends of types, and what opens and does not close.
const WORDS: [&str; 20] = [
    "null",
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "9223372036854775807",
    "4294967296",
    "0.1e-400",
    "[",
    "{",
    "]",
    "}",
    "\"",
    ",",
    ":",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "true",
    "[[[[",
];

/// The bytes with one to four wounds.
fn damaged(bytes: &[u8], others: &[Vec<u8>], dice: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(4) {
        let from = dice.below(bytes.len().max(1));
        let to = (from + 1 + dice.below(12)).min(bytes.len());
        match dice.below(7) {
            0 if !bytes.is_empty() => bytes[from] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[from] = dice.below(256) as u8,
            2 => drop(bytes.drain(from.min(to)..to)),
            3 => {
                let piece = bytes[from.min(to)..to].repeat(1 + dice.below(9));
                bytes.splice(from..from, piece);
            }
            4 => {
                let word = WORDS[dice.below(WORDS.len())].bytes();
                bytes.splice(from..to, word);
            }
            5 => bytes.truncate(from),
            _ => {
                let other = &others[dice.below(others.len())];
                let piece = dice.below(other.len());
                let piece = other[piece..].iter().take(1 + dice.below(40)).copied();
                bytes.splice(from..from, piece.collect::<Vec<_>>());
            }
        }
    }
    bytes
}

/// Good bodies of every route that takes one.
fn bodies() -> Vec<(&'static str, Value)> {
    let texts =
        |data: Value| json!({"name": "text", "shape": [2], "datatype": "BYTES", "data": data});
    let ids =
        json!({"name": "input_ids", "shape": [1, 4], "datatype": "INT64", "data": [2, 5, 12, 3]});
    let mask = json!({"name": "attention_mask", "shape": [1, 4], "datatype": "INT32", "data": [1, 1, 1, 0]});
    vec![
        (
            "/predict",
            json!({"inputs": [["the cat"], ["a", "b"]], "policy": {"spec": "fixed:2",
            "deadline_ms": 60000}, "top_k": 2, "truncate": true, "priority": "high"}),
        ),
        (
            "/predict",
            json!({"inputs": {"text": "a", "text_pair": "b"}, "details": true, "trace": true,
            "parameters": {"function_to_apply": "sigmoid", "top_k": 3}}),
        ),
        (
            "/classify",
            json!({"input": ["the cat", "a dog"], "raw_scores": true, "model": "x"}),
        ),
        (
            "/rerank",
            json!({"query": "a", "texts": ["b", "c"], "return_text": true}),
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1}),
        ),
        (
            "/v2/rerank",
            json!({"query": "a", "documents": ["b", "c"], "top_n": 2, "model": "m"}),
        ),
        (
            "/tokenize",
            json!({"inputs": ["the cat", "a"], "add_special_tokens": true}),
        ),
        (
            "/decode",
            json!({"ids": [[2, 5, 12, 3]], "skip_special_tokens": true}),
        ),
        (
            INFER,
            json!({"id": "1", "inputs": [texts(json!(["the cat", "a dog"]))], "parameters":
            {"policy": "fixed:1", "priority": 2, "timeout": 60_000_000, "max_layer": 3}}),
        ),
        (
            INFER,
            json!({"inputs": [ids, mask], "outputs": [{"name": "logits"}]}),
        ),
    ]
}

/// An answer that is none of the server's own mistakes: good, or refused in one sentence.
fn check(answer: &Answer, request: &[u8]) {
    let request = String::from_utf8_lossy(request);
    let status = answer.status.as_u16();
    assert!(
        status == 200 || status == 504 || (400..500).contains(&status),
        "{status} for {request}: {}",
        answer.text()
    );
    if status == 200 {
        return;
    }
    let (_, body) = answer.error();
    let said = ["error", "detail", "message"]
        .iter()
        .find_map(|key| body[key].as_str());
    check_sentence(said.unwrap_or_default(), &request);
}

fn check_sentence(said: &str, request: &str) {
    assert!(
        !said.is_empty() && !said.contains('\n'),
        "{request}: {said:?}"
    );
    // What only a panic of a thread leads to.
    for mistake in [
        "tokeniser failed",
        "engine has stopped",
        "server made a mistake",
    ] {
        assert!(!said.contains(mistake), "{request}: {said}");
    }
}

async fn answered(app: &Router, request: Request<Body>, bytes: &[u8]) -> Answer {
    let answer = timeout(PATIENCE, call(app, request)).await;
    answer.unwrap_or_else(|_| panic!("no answer to {}", String::from_utf8_lossy(bytes)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_json_is_answered_or_refused_on_every_route() {
    let setup = Setup::new();
    let app = crate::setup::tiny(&setup);
    let good = async || {
        post(&app, "/predict", json!({"inputs": "the cat"}))
            .await
            .json()
    };
    let before = good().await;
    let all: Vec<_> = bodies()
        .iter()
        .map(|(_, body)| body.to_string().into_bytes())
        .collect();
    for (kind, ((route, _), body)) in bodies().iter().zip(&all).enumerate() {
        for case in 0..CASES {
            let mut dice = Random::new(kind as u64 * CASES + case, 0);
            let bytes = damaged(body, &all, &mut dice);
            let request = Request::post(*route).body(bytes.clone().into()).unwrap();
            check(&answered(&app, request, &bytes).await, &bytes);
        }
    }
    assert_eq!(good().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_tensors_of_bytes_are_answered_or_refused() {
    let setup = Setup::new();
    let app = crate::setup::tiny(&setup);
    let head = json!({"inputs": [
        {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 13}},
        {"name": "text_pair", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 10}}],
        "parameters": {"binary_data_output": true}});
    let head = head.to_string().into_bytes();
    let tail = b"\x03\0\0\0cat\x02\0\0\0an\x01\0\0\0a\x01\0\0\0b".to_vec();
    for case in 0..4 * CASES {
        let mut dice = Random::new((1 << 20) + case, 0);
        let parts = [head.clone(), tail.clone()];
        let (mut json, mut rest) = (head.clone(), tail.clone());
        match dice.below(3) {
            0 => json = damaged(&json, &parts, &mut dice),
            1 => rest = damaged(&rest, &parts, &mut dice),
            _ => rest = tail[..dice.below(tail.len().max(1))].to_vec(),
        }
        let length = match dice.below(8) {
            0 => dice.below(2 * head.len()),
            _ => json.len(),
        };
        let bytes = [json, rest].concat();
        let request = Request::post(INFER).header("inference-header-content-length", length);
        let request = request.body(bytes.clone().into()).unwrap();
        check(&answered(&app, request, &bytes).await, &bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_messages_of_grpc_are_answered_or_refused() {
    let setup = Setup::new();
    let grpc = http::grpc(load(settings(vec![setup.model("tiny", "albert")])));
    let text = json!({"name": "text", "datatype": "BYTES", "shape": [2],
        "contents": {"bytes_contents": ["Y2F0", "YQ=="]}});
    let raw = json!({"name": "input_ids", "datatype": "INT64", "shape": [1, 2]});
    let messages = [
        (
            "ModelInfer",
            json!({"model_name": "tiny", "id": "1", "inputs": [text], "parameters":
            {"policy": {"string_param": "fixed:1"}, "priority": {"uint64_param": 1},
            "speedup": {"double_param": 1.0}}, "outputs": [{"name": "logits"}]}),
        ),
        (
            "ModelInfer",
            json!({"model_name": "tiny", "inputs": [raw],
            "raw_input_contents": ["AgAAAAAAAAADAAAAAAAAAA=="]}),
        ),
        ("ModelMetadata", json!({"name": "tiny", "version": "1"})),
        (
            "Check",
            json!({"service": "inference.GRPCInferenceService"}),
        ),
    ];
    let encoded = |(name, message): &(&str, Value)| {
        let message = DynamicMessage::deserialize(method(name).input(), message).unwrap();
        message.encode_to_vec()
    };
    let all: Vec<_> = messages.iter().map(encoded).collect();
    for (kind, ((name, _), message)) in messages.iter().zip(&all).enumerate() {
        for case in 0..2 * CASES {
            let mut dice = Random::new((1 << 30) + kind as u64 * 2 * CASES + case, 0);
            let bytes = damaged(message, &all, &mut dice);
            let mut request = framed_request(&path(name), &bytes, &[]);
            if dice.below(5) == 0 {
                // The frame is damaged, too.
                let frame = [&[0, 0, 0, 0, bytes.len() as u8][..], &bytes].concat();
                *request.body_mut() = damaged(&frame, &all, &mut dice).into();
            }
            let answer = timeout(PATIENCE, grpc.clone().oneshot(request)).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer to {bytes:?}"));
            let answer = called(name, answer.unwrap()).await;
            assert!(
                [0, 3, 4, 5, 8, 9, 12].contains(&answer.code),
                "{bytes:?}: {answer:?}"
            );
            if answer.code != 0 {
                check_sentence(&answer.problem, &format!("{bytes:?}"));
            }
        }
    }
}

#[test]
fn damage_is_the_same_for_the_same_seed_and_not_for_another() {
    let all = [b"{\"inputs\": \"a\"}".to_vec()];
    let of = |seed| damaged(&all[0], &all, &mut Random::new(seed, 0));
    assert_eq!(of(7), of(7));
    let changed = (0..50).filter(|seed| of(*seed) != all[0]).count();
    assert!(changed > 40, "{changed}");
}
