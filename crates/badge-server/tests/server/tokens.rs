//! `/tokenize` and `/decode`.

use serde_json::json;

use crate::setup::{Setup, post, tiny};

#[tokio::test]
async fn tokens_have_ids_pieces_and_places() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let one = post(&app, "/tokenize", json!({"inputs": "the cats"}))
        .await
        .json();
    let expected = json!([[
        {"id": 2, "text": "[CLS]", "special": true, "start": null, "stop": null},
        {"id": 5, "text": "the", "special": false, "start": 0, "stop": 3},
        {"id": 12, "text": "cat", "special": false, "start": 4, "stop": 7},
        {"id": 33, "text": "s", "special": false, "start": 7, "stop": 8},
        {"id": 3, "text": "[SEP]", "special": true, "start": null, "stop": null},
    ]]);
    assert_eq!(one, expected);
    let body = json!({"inputs": ["a", "the cats"], "add_special_tokens": false});
    let two = post(&app, "/tokenize", body).await.json();
    let ids = |row: usize| -> Vec<u64> {
        let row = two[row].as_array().unwrap();
        row.iter()
            .map(|token| token["id"].as_u64().unwrap())
            .collect()
    };
    assert_eq!((ids(0), ids(1)), (vec![6], vec![5, 12, 33]));
}

#[tokio::test]
async fn ids_become_texts_again() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let one = post(&app, "/decode", json!({"ids": [2, 5, 12, 15, 3]}))
        .await
        .json();
    assert_eq!(one, json!(["the cat sat"]));
    let body = json!({"ids": [[5], [2, 12, 3]], "skip_special_tokens": false});
    let two = post(&app, "/decode", body).await.json();
    assert_eq!(two, json!(["the", "[CLS] cat [SEP]"]));
}

#[tokio::test]
async fn nothing_is_refused() {
    let setup = Setup::new();
    let app = tiny(&setup);
    for (path, body) in [
        ("/tokenize", json!({"inputs": ""})),
        ("/tokenize", json!({"inputs": []})),
        ("/decode", json!({"ids": []})),
    ] {
        assert_eq!(post(&app, path, body).await.native_error().0, 400, "{path}");
    }
    let wrong = post(&app, "/decode", json!({"ids": [-1]}))
        .await
        .native_error();
    assert_eq!((wrong.0, wrong.1.as_str()), (422, "Validation"));
}
