//! Pages for people, and the document that describes all routes.

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use crate::setup::{Setup, call, get, tiny};

#[tokio::test]
async fn pages_are_whole_by_themselves() {
    let setup = Setup::new();
    let app = tiny(&setup);
    for path in ["/", "/docs"] {
        let answer = get(&app, path).await;
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        let text = answer.text();
        assert!(text.starts_with("<!doctype html>"), "{path}");
        // Nothing is fetched from elsewhere.
        for outside in [
            "//cdn",
            "src=\"http",
            "href=\"http",
            "@import",
            "<link rel=\"style",
        ] {
            assert!(!text.contains(outside), "{path}: {outside}");
        }
    }
}

#[tokio::test]
async fn every_route_of_the_document_is_there_and_takes_its_methods() {
    let setup = Setup::new();
    let app = tiny(&setup);
    let document = get(&app, "/api-doc/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25);
    for (path, methods) in paths {
        let path = path.replace("{model}", "tiny").replace("{version}", "1");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let request = Request::builder().method(method.as_str()).uri(&path);
            let answer = call(&app, request.body(Body::empty()).unwrap()).await;
            let status = answer.status.as_u16();
            assert!(![404, 405].contains(&status), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn the_document_refers_to_nothing_that_is_not_there() {
    let setup = Setup::new();
    let document = get(&tiny(&setup), "/api-doc/openapi.json").await.json();
    let mut open = vec![&document];
    let mut found = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(entries) => {
                if let Some(reference) = entries.get("$ref") {
                    let place = reference.as_str().unwrap().trim_start_matches('#');
                    assert!(document.pointer(place).is_some(), "{reference}");
                    found += 1;
                }
                open.extend(entries.values());
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    assert!(found > 50);
}
