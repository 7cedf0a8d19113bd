//! The server under load, as a client sees it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::question::{Question, answered_label};
use super::{Fate, Options};

/// What a server says of itself in `/info`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServerFacts {
    /// Its model.
    pub model: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What it computes with.
    pub compute: Option<String>,
    /// Number of blocks, M.
    pub blocks: Option<u64>,
}

/// Connections that are kept open and shared by all threads, and what to send over them.
pub(super) struct Client<'a> {
    agent: Agent,
    options: &'a Options,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reply {
    pub(super) fate: Fate,
    pub(super) exit: Option<f64>,
    pub(super) level: Option<f64>,
    pub(super) correct: Option<bool>,
}

impl Reply {
    const LOST: Self = Self {
        fate: Fate::Lost,
        exit: None,
        level: None,
        correct: None,
    };
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(options.timeout))
            .max_redirects(0)
            // A new connection is made only when all that there are carry a request.
            .max_idle_connections(options.connections)
            .max_idle_connections_per_host(options.connections)
            // What is measured is the server, not what lies between.
            .proxy(None)
            .build();
        Self {
            agent: config.into(),
            options,
        }
    }

    /// Asks one question; `waited` is for how long it should have been on its way already.
    pub(super) fn ask(&self, question: &Question, waited: Duration) -> Reply {
        let Ok((response, body)) = self.post(question, waited) else {
            return Reply::LOST;
        };
        let fate = match response.status().as_u16() {
            200 => Fate::Served,
            429 => Fate::Refused,
            504 => Fate::Expired,
            status => Fate::Failed(status),
        };
        let served = fate == Fate::Served;
        let number = |name: &str| served.then(|| header(&response, name)).flatten();
        let label = question.label.as_ref().filter(|_| served);
        Reply {
            fate,
            exit: number("x-exit-layer").or_else(|| number("x-exit-layers-mean")),
            level: number("x-policy-level"),
            correct: label.map(|label| answered_label(&body).as_ref() == Some(label)),
        }
    }

    /// Asks one question to see whether the server is there and answers as it should.
    pub(super) fn probe(&self, question: &Question) -> Result<()> {
        let url = &self.options.url;
        let (response, body) = self
            .post(question, Duration::ZERO)
            .with_context(|| format!("--url: {url} gives no answer"))?;
        let status = response.status().as_u16();
        // Under load a refusal is an answer too.
        if !matches!(status, 200 | 429 | 503 | 504) {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.chars().take(200).collect();
            bail!("--url: {url}/predict answers with status {status}: {text}");
        }
        if status == 200 && answered_label(&body).is_none() {
            bail!("--url: {url}/predict answers, but not with labels and scores");
        }
        Ok(())
    }

    fn post(
        &self,
        question: &Question,
        waited: Duration,
    ) -> Result<(Response<Body>, Vec<u8>), ureq::Error> {
        let url = format!("{}/predict", self.options.url.trim_end_matches('/'));
        let mut request = self.agent.post(url);
        request = request.header("content-type", "application/json");
        if let Some(deadline) = self.options.deadline {
            let left = deadline.saturating_sub(waited).as_millis().max(1);
            request = request.header("x-request-deadline-ms", left.to_string());
        }
        if let Some(key) = &self.options.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(&question.body)?;
        let body = response.body_mut().read_to_vec()?;
        Ok((response, body))
    }

    /// What `/info` says; nothing of a server that has none.
    pub(super) fn facts(&self) -> ServerFacts {
        let text = self.get("info").unwrap_or_default();
        let info: Value = serde_json::from_str(&text).unwrap_or_default();
        let word = |key: &str| info.get(key)?.as_str().map(str::to_owned);
        ServerFacts {
            model: word("model_id"),
            version: word("version"),
            compute: word("compute_path").or_else(|| word("model_dtype")),
            blocks: info.get("num_layers").and_then(Value::as_u64),
        }
    }

    /// CPU seconds of the server's process so far, from its metrics.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let text = self.get("metrics")?;
        let mut lines = text.lines();
        lines.find_map(|line| {
            line.strip_prefix("process_cpu_seconds_total ")?
                .trim()
                .parse()
                .ok()
        })
    }

    fn get(&self, path: &str) -> Option<String> {
        let url = format!("{}/{path}", self.options.url.trim_end_matches('/'));
        let mut request = self.agent.get(url);
        if let Some(key) = &self.options.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        (response.status().as_u16() == 200).then_some(text)
    }
}

fn header(response: &Response<Body>, name: &str) -> Option<f64> {
    let value: f64 = response.headers().get(name)?.to_str().ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}
