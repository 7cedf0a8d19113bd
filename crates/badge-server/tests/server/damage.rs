//! Damaged bodies: whatever comes, the answer is a refusal or a result, never a fault.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::setup::{Setup, app, call, get, post, settings};

/// Numbers that look random and follow from a seed (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// Pieces that decoders stumble over.
const PIECES: [&str; 18] = [
    "null",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "[[",
    "}}",
    ",",
    ":",
    "\\u0000",
    "\\ud800",
    "\"\u{0}\"",
    "true",
    "0.5",
    "\"shape\":[9,9]",
    "\u{feff}",
];

fn damage(body: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(body.len() + 1);
        match numbers.below(5) {
            0 => body.truncate(at),
            1 => {
                let piece = PIECES[numbers.below(PIECES.len())];
                body.splice(at..at, piece.bytes());
            }
            2 if at < body.len() => body[at] = numbers.below(256) as u8,
            3 => {
                let end = (at + numbers.below(8)).min(body.len());
                body.drain(at..end);
            }
            _ => {
                let end = (at + numbers.below(16)).min(body.len());
                let piece = body[at..end].to_vec();
                body.splice(at..at, piece);
            }
        }
    }
}

/// Good requests to begin with: their path and body, and the length of the JSON where tensors'
/// bytes follow it.
fn seeds() -> Vec<(&'static str, Vec<u8>, Option<usize>)> {
    let json = |path, body: Value| (path, body.to_string().into_bytes(), None);
    let binary = json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES",
        "parameters": {"binary_data_size": 5}}]});
    let head = binary.to_string().into_bytes();
    let length = head.len();
    let binary = [&head[..], b"\x01\0\0\0a"].concat();
    let infer = "/v2/models/tiny/infer";
    let ids = json!({"inputs": [
        {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [[2, 5, 3]]},
        {"name": "attention_mask", "shape": [1, 3], "datatype": "INT64", "data": [1, 1, 1]}],
        "parameters": {"priority": 1, "timeout": 5_000_000, "max_layer": 2},
        "outputs": [{"name": "logits", "parameters": {"binary_data": true}}]});
    vec![
        json(
            "/predict",
            json!({"inputs": [["a", "b"], ["c"]], "details": true, "trace": true,
            "policy": {"speedup": 1.5, "max_depth": 2, "deadline_ms": 900, "priority": "high"}}),
        ),
        json(
            "/classify",
            json!({"input": ["a", "b"], "raw_scores": true}),
        ),
        json(
            "/rerank",
            json!({"query": "a", "texts": ["b", "c"], "return_text": true}),
        ),
        json(
            "/v2/rerank",
            json!({"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1}),
        ),
        json(
            "/tokenize",
            json!({"inputs": ["a b"], "add_special_tokens": false}),
        ),
        json(
            "/decode",
            json!({"ids": [[2, 5, 3]], "skip_special_tokens": true}),
        ),
        json(infer, ids),
        (infer, binary, Some(length)),
    ]
}

#[tokio::test]
async fn damaged_bodies_are_refused_or_answered() {
    let setup = Setup::new();
    let app = app(settings(vec![setup.calibrated("tiny")]));
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    for case in 0..1600 {
        let seeds = seeds();
        let (path, mut body, length) = seeds[case % seeds.len()].clone();
        damage(&mut body, &mut numbers);
        let mut request = Request::post(path);
        if let Some(length) = length {
            let length = length + numbers.below(3) - 1;
            request = request.header("inference-header-content-length", length);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let answer = call(&app, request.body(Body::from(body)).unwrap()).await;
        let status = answer.status.as_u16();
        // 424: a model of five labels does not rank. 504: a damaged deadline may have passed.
        let is_fine = status < 500 || status == 504;
        assert!(
            is_fine,
            "case {case}, {path}: {status} for {text}\n{}",
            answer.text()
        );
        refused += usize::from(status >= 400);
    }
    assert!(refused > 800, "only {refused} were damaged beyond use");
    assert_eq!(get(&app, "/livez").await.status, 200);
    post(&app, "/predict", json!({"inputs": "a"})).await.json();
}
