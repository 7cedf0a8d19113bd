//! Folders with tiny models, servers of them, and requests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use badge_server::{ModelSource, Server, Settings, http};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// A folder with models in it.
pub(crate) struct Setup {
    folder: TempDir,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    /// Puts a model of the fixtures beside the tokeniser that fits its vocabulary.
    pub(crate) fn model(&self, name: &str, fixture: &str) -> ModelSource {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        let directory = self.path(name);
        fs::create_dir_all(&directory).unwrap();
        for file in ["config.json", "model.safetensors"] {
            let source = fixtures.join("parity").join(fixture).join(file);
            fs::copy(source, directory.join(file)).unwrap();
        }
        let source = fixtures.join("tokenizer/tokenizer.json");
        fs::copy(source, directory.join("tokenizer.json")).unwrap();
        ModelSource::new(name, directory)
    }

    /// The same with an operating point at half the depth and one at a fifth.
    pub(crate) fn calibrated(&self, name: &str) -> ModelSource {
        let source = self.model(name, "albert");
        let point = |policy: &str, score: f64, mean_exit: f64| {
            json!({"policy": policy, "score": score, "mean_exit": mean_exit,
                "layer_speedup": 5.0 / mean_exit, "certified": true})
        };
        let calibration = json!({
            "version": 2, "policy": "fixed:3", "goal": {"max_drop": 0.1},
            "certificate": {"method": "ltt", "loss": "excess", "loss_scale": null,
                "epsilon": 0.2, "confidence": 0.9, "rows": 100, "chains": 1, "mean_loss": 0.0},
            "points": [point("full", 0.9, 5.0), point("fixed:3", 0.85, 3.0),
                point("fixed:1", 0.8, 1.0)],
            "temperatures": [1.0, 1.0, 1.0, 1.0, 1.0], "data_set": "tiny", "split": "dev",
            "split_sha256": "", "n": 200, "metric": "acc", "full_score": 0.9,
            "model_sha256": badge_tasks::hash::model_sha256(&source.directory).unwrap(),
            "engine": "engine", "precision": "f32", "instruction_set": "scalar"
        });
        self.write(
            &format!("{name}/exit_calibration.json"),
            calibration.to_string(),
        );
        source
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Changes a JSON file.
    pub(crate) fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        edit(&mut value);
        self.write(name, value.to_string());
    }
}

/// Settings for tests: one thread, as the models are tiny.
pub(crate) fn settings(models: Vec<ModelSource>) -> Settings {
    let mut settings = Settings::new(models);
    settings.model.threads = 1;
    settings
}

/// A server of one model: five ALBERT blocks with an exit each, five labels.
pub(crate) fn tiny(setup: &Setup) -> Router {
    app(settings(vec![setup.model("tiny", "albert")]))
}

pub(crate) fn app(settings: Settings) -> Router {
    http::app(Server::load(settings).unwrap())
}

pub(crate) fn load(settings: Settings) -> Arc<Server> {
    Server::load(settings).unwrap()
}

/// Calls a router with a request as it is.
pub(crate) async fn call(app: &Router, request: Request<Body>) -> Answer {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        bytes: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
    }
}

pub(crate) async fn get(app: &Router, path: &str) -> Answer {
    call(app, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(app: &Router, path: &str, body: Value) -> Answer {
    post_with(app, path, &[], body.to_string()).await
}

pub(crate) async fn post_with(
    app: &Router,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    call(app, request.body(body.into()).unwrap()).await
}

impl Answer {
    /// The JSON of an answer that must be good.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// Status and JSON of an answer that must be an error.
    pub(crate) fn error(&self) -> (u16, Value) {
        assert!(!self.status.is_success(), "{}", self.text());
        let text = self.text();
        let json = serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("{text}"));
        (self.status.as_u16(), json)
    }

    /// An error as text-embeddings-inference writes it: status, word and message.
    pub(crate) fn native_error(&self) -> (u16, String, String) {
        let (status, json) = self.error();
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["error", "error_type"]);
        let text = |key: &str| json[key].as_str().unwrap().to_owned();
        (status, text("error_type"), text("error"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no header {name}: {:?}", self.headers));
        value.to_str().unwrap()
    }
}

/// The value of one metric, zero if it is not there.
pub(crate) async fn metric(app: &Router, line: &str) -> f64 {
    let text = get(app, "/metrics").await.text();
    let found = text
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}
