//! How a server is built.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use badge_core::policy::PolicySpec;
use badge_engine::Precision;
use subtle::ConstantTimeEq;

use crate::error::{Error, Result};
use crate::model::ModelSource;
use crate::traces::TraceSettings;

/// All that a server is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The models; the first answers where a request names none.
    pub models: Vec<ModelSource>,
    /// What all models have in common.
    pub model: ModelSettings,
    /// What a request may ask for.
    pub limits: Limits,
    /// Threads that tokenise.
    pub tokenization_workers: usize,
    /// The key that inference asks for, if any.
    pub api_key: Option<Secret>,
    /// Where browsers may call from: origins, or nothing for all.
    pub cors_allow_origin: Vec<String>,
    /// Where inference is served.
    pub address: SocketAddr,
    /// Where gRPC is served, if anywhere.
    pub grpc_address: Option<SocketAddr>,
    /// Where policies and models can be changed, if anywhere.
    pub admin_address: Option<SocketAddr>,
    /// The key that the admin routes ask for, if any.
    pub admin_token: Option<Secret>,
    /// Where spans of requests go, if anywhere.
    pub traces: Option<TraceSettings>,
    /// Between the end of readiness and the end of listening, so that balancers notice.
    pub shutdown_delay: Duration,
    /// How long accepted requests may take after that.
    pub drain_timeout: Duration,
}

/// How models are loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// Numbers that the engine multiplies.
    pub precision: Precision,
    /// Threads of each model's engine.
    pub threads: usize,
    /// The policy; `None` for what a model was calibrated for, else every block.
    pub policy: Option<PolicySpec>,
    /// Tokens that one engine holds at a time.
    pub batch_tokens_max: usize,
    /// Sequences that one engine holds at a time.
    pub batch_requests_max: usize,
    /// Texts of one model that may be on their way, from tokens to answer.
    pub concurrent_requests_max: usize,
    /// Longest input in tokens; `None` for what a model was trained on, else all its positions.
    pub length_max: Option<usize>,
    /// Within how long texts are to be answered, if that is promised: a controller then chooses
    /// among the certified policies.
    pub slo: Option<Duration>,
    /// The score below which none of them may be certified; `None` for what the certificate says.
    pub accuracy_floor: Option<f64>,
}

/// What a request may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Texts of one request.
    pub client_batch_max: usize,
    /// Bytes of one body.
    pub payload_max: usize,
    /// Whether texts that are too long are cut where a request does not say.
    pub auto_truncate: bool,
    /// How long a request may take that does not say.
    pub default_deadline: Option<Duration>,
    /// How long the head of a request may take to arrive, and a connection to say nothing.
    pub head_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub answer_timeout: Duration,
    /// What two strings in a list are.
    pub pair_form: PairForm,
}

/// What `/predict` takes a flat list of strings for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PairForm {
    /// As text-embeddings-inference does: one is a text, two are a pair, more are a batch.
    #[default]
    Tei,
    /// A batch, however many there are.
    Batch,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            threads: badge_engine::kernels::threads::available_threads(),
            policy: None,
            batch_tokens_max: 2048,
            batch_requests_max: 64,
            concurrent_requests_max: 512,
            length_max: None,
            slo: None,
            accuracy_floor: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            client_batch_max: 32,
            payload_max: 2_000_000,
            auto_truncate: true,
            default_deadline: None,
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(30),
            pair_form: PairForm::default(),
        }
    }
}

impl Settings {
    /// The defaults for some models, on a port of the loopback interface that the system chooses.
    pub fn new(models: Vec<ModelSource>) -> Self {
        Self {
            models,
            model: ModelSettings::default(),
            limits: Limits::default(),
            tokenization_workers: default_tokenization_workers(),
            api_key: None,
            cors_allow_origin: Vec::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            grpc_address: None,
            admin_address: None,
            admin_token: None,
            traces: None,
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(25),
        }
    }

    /// Refuses settings of which nothing can be made.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> Result<()> {
        let (model, limits) = (&self.model, &self.limits);
        for (setting, count) in [
            ("--max-batch-tokens", model.batch_tokens_max),
            ("--max-batch-requests", model.batch_requests_max),
            ("--max-concurrent-requests", model.concurrent_requests_max),
            ("--max-client-batch-size", limits.client_batch_max),
            ("--payload-limit", limits.payload_max),
            ("--tokenization-workers", self.tokenization_workers),
        ] {
            if count == 0 {
                let problem = "must be at least 1".to_owned();
                return Err(Error::Setting { setting, problem });
            }
        }
        if limits.client_batch_max > model.concurrent_requests_max {
            let problem = format!(
                "a request of {} texts would never be accepted with --max-concurrent-requests {}",
                limits.client_batch_max, model.concurrent_requests_max
            );
            let setting = "--max-client-batch-size";
            return Err(Error::Setting { setting, problem });
        }
        self.check_promise()?;
        self.traces.as_ref().map_or(Ok(()), TraceSettings::check)?;
        if self.models.is_empty() {
            let problem = "give at least one model directory".to_owned();
            let setting = "--model";
            return Err(Error::Setting { setting, problem });
        }
        for (index, source) in self.models.iter().enumerate() {
            if self.models[..index].iter().any(|m| m.name == source.name) {
                let problem = format!(
                    "two models are called `{0}`; write --model NAME={1}",
                    source.name,
                    source.directory.display()
                );
                let setting = "--model";
                return Err(Error::Setting { setting, problem });
            }
        }
        Ok(())
    }
}

impl Settings {
    fn check_promise(&self) -> Result<()> {
        let model = &self.model;
        let (setting, problem) = match (model.slo, &model.policy, model.accuracy_floor) {
            (Some(_), Some(_), _) => (
                "--slo-ms",
                "the controller chooses the policy; leave --policy out",
            ),
            (None, _, Some(_)) => (
                "--accuracy-floor",
                "it bounds what the controller chooses; give --slo-ms",
            ),
            (_, _, Some(floor)) if !(0.0..=1.0).contains(&floor) => {
                ("--accuracy-floor", "a score lies between 0 and 1")
            }
            _ => return Ok(()),
        };
        let problem = problem.to_owned();
        Err(Error::Setting { setting, problem })
    }
}

/// One less than the machine's threads, at least one.
pub fn default_tokenization_workers() -> usize {
    let threads = badge_engine::kernels::threads::available_threads();
    (threads.saturating_sub(1)).clamp(1, 64)
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    ///
    /// # Errors
    /// A sentence that says why it is no key.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("a key cannot be empty".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a key consists of visible ASCII letters without spaces".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether it is this one, in a time that depends on the length alone.
    pub(crate) fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl std::str::FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_knows_itself_and_is_never_printed() {
        let secret = Secret::new(" s3cret\n").unwrap();
        assert!(secret.is("s3cret"));
        assert!(!secret.is("s3cre") && !secret.is("s3cret ") && !secret.is(""));
        assert_eq!(format!("{secret:?}"), "Secret");
        assert!(Secret::new(" ").is_err() && Secret::new("a b").is_err());
    }

    #[test]
    fn impossible_settings_name_their_flag() {
        let good = Settings::new(vec![ModelSource::parse("a=/x"), ModelSource::parse("b=/x")]);
        assert!(good.check().is_ok());
        let refused = |change: fn(&mut Settings), flag: &str| {
            let mut settings = good.clone();
            change(&mut settings);
            let message = settings.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{flag}: ")), "{message}");
        };
        refused(|s| s.models.clear(), "--model");
        refused(|s| s.models[1].name = "a".to_owned(), "--model");
        refused(|s| s.model.batch_tokens_max = 0, "--max-batch-tokens");
        refused(
            |s| s.limits.client_batch_max = 513,
            "--max-client-batch-size",
        );
        refused(|s| s.tokenization_workers = 0, "--tokenization-workers");
    }
}
