//! What a Hugging Face `config.json` says about a model, and the `early_exit` key we add to it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bypass::BypassConfig;
use crate::distribution::PredictionKind;
use crate::error::{Error, Result};
use crate::exit::{Depth, ExitPlan, Pooler};
use crate::exit_head::ExitHead;

mod backbone;
mod keys;

pub use backbone::{BackboneConfig, Family};
use keys::Keys;

/// The name under which messages speak of the configuration.
pub const CONFIG_FILE: &str = "config.json";

/// A whole `config.json`: backbone, labels and exits.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The transformer under the exits.
    pub backbone: BackboneConfig,
    /// What the classifier's outputs mean.
    pub head: HeadConfig,
    /// Exits and bypasses; `None` for a plain Hugging Face model, whose one exit is its deepest.
    pub early_exit: Option<EarlyExitConfig>,
    /// Every key as it was read, so that writing loses nothing that others rely on.
    raw: Map<String, Value>,
}

/// The outputs of every exit: one logit per label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadConfig {
    /// Label names in the order of the logits (`id2label`); one name for regression.
    pub labels: Vec<String>,
    /// Which loss and which activation belong to the logits.
    pub problem: ProblemType,
}

/// Hugging Face's `problem_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProblemType {
    /// One class out of C: softmax and cross-entropy.
    #[serde(rename = "single_label_classification")]
    SingleLabel,
    /// Any subset of C labels: a sigmoid and a binary cross-entropy each.
    #[serde(rename = "multi_label_classification")]
    MultiLabel,
    /// One real number: identity and squared error.
    #[serde(rename = "regression")]
    Regression,
}

impl ProblemType {
    /// Hugging Face's name of this kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleLabel => "single_label_classification",
            Self::MultiLabel => "multi_label_classification",
            Self::Regression => "regression",
        }
    }
}

/// The `early_exit` key of `config.json`, version 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EarlyExitConfig {
    /// Version of this description.
    version: u32,
    /// Depths, counted from 1, that carry an exit.
    pub exits: ExitPlan,
    /// What stands between \[CLS\] and the classifiers.
    pub pooler: Pooler,
    /// The bypass of each exit, if there is one.
    pub bypass: Option<BypassConfig>,
    /// What each exit reads all rows through; none for an exit that reads \[CLS\] alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_head: Option<ExitHead>,
    /// Whether every exit uses the states of the exits before it and imitations of those behind
    /// (Global Past-Future; Liao et al., 2021).
    #[serde(skip_serializing_if = "is_false")]
    pub global_past_future: bool,
    /// Whether a learning-to-exit head says beside every exit whether to go on (BERxiT; Xin et
    /// al., 2021).
    #[serde(skip_serializing_if = "is_false")]
    pub lte: bool,
    /// Dropout before each exit's classifier, in training only.
    pub exit_dropout: f64,
    /// Longest input in tokens that the exits were trained on, which evaluation keeps to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
}

impl EarlyExitConfig {
    /// The version that this code writes and reads.
    pub const VERSION: u32 = 1;

    /// A description with the given parts.
    pub fn new(
        exits: ExitPlan,
        pooler: Pooler,
        bypass: Option<BypassConfig>,
        dropout: f64,
    ) -> Self {
        Self {
            version: Self::VERSION,
            exits,
            pooler,
            bypass,
            exit_head: None,
            global_past_future: false,
            lte: false,
            exit_dropout: dropout,
            max_length: None,
        }
    }

    /// Inputs of every exit's classifier, on a backbone of hidden size `d`.
    pub fn classifier_width(&self, d: usize) -> usize {
        self.exit_head.map_or(d, |head| head.width(d))
    }

    /// Refuses parts that do not go together.
    ///
    /// # Errors
    /// The key of `early_exit` that is wrong, and a sentence that says why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |key, problem: &str| Err((key, problem.to_owned()));
        if self.bypass.is_some_and(|b| !(1..=65_536).contains(&b.rank)) {
            return wrong("bypass.rank", "must lie in 1..=65536");
        }
        if let Some(head) = self.exit_head {
            head.check().map_err(|problem| ("exit_head", problem))?;
            if self.bypass.is_some() {
                let problem = "a bypass adjusts the first token's row alone, but an attention \
                               exit reads all rows; choose one of the two";
                return wrong("exit_head", problem);
            }
            if self.global_past_future {
                let problem = "global past-future reads the pooled first token of every block; \
                               it has no attention exits";
                return wrong("exit_head", problem);
            }
            if matches!(head, ExitHead::MhaFastbert { .. }) && self.pooler != Pooler::None {
                let problem = "FastBERT's exit has a dense layer of its own; it goes with the \
                               pooler `none`";
                return wrong("pooler", problem);
            }
        }
        if self.global_past_future && self.pooler != Pooler::Shared {
            let problem = "global past-future compares what one pooler makes of every block; it \
                           goes with the pooler `shared`";
            return wrong("pooler", problem);
        }
        Ok(())
    }

    fn from_value(value: &Value, backbone: &BackboneConfig) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            version: u32,
            exits: Vec<usize>,
            #[serde(default)]
            pooler: Pooler,
            #[serde(default)]
            bypass: Option<BypassConfig>,
            #[serde(default)]
            exit_head: Option<ExitHead>,
            #[serde(default)]
            global_past_future: Option<bool>,
            #[serde(default)]
            lte: Option<bool>,
            #[serde(default)]
            exit_dropout: Option<f64>,
            #[serde(default)]
            max_length: Option<usize>,
        }
        let wrong = |key: &str, problem: String| Error::ConfigKey {
            file: CONFIG_FILE.to_owned(),
            key: key.to_owned(),
            problem,
        };
        let version = value.get("version").and_then(Value::as_u64);
        if version != Some(u64::from(Self::VERSION)) {
            return Err(wrong(
                "early_exit.version",
                format!(
                    "found {version:?}, this program reads version {}",
                    Self::VERSION
                ),
            ));
        }
        let written: Written = serde_json::from_value(value.clone())
            .map_err(|e| wrong("early_exit", e.to_string()))?;
        let exits = ExitPlan::new(written.exits, backbone.blocks)
            .map_err(|problem| wrong("early_exit.exits", problem))?;
        let exit_dropout = written.exit_dropout.unwrap_or(backbone.classifier_dropout);
        if !(0.0..1.0).contains(&exit_dropout) {
            return Err(wrong(
                "early_exit.exit_dropout",
                format!("{exit_dropout} is not in [0, 1)"),
            ));
        }
        let read = Self {
            version: written.version,
            exits,
            pooler: written.pooler,
            bypass: written.bypass,
            exit_head: written.exit_head,
            global_past_future: written.global_past_future.unwrap_or(false),
            lte: written.lte.unwrap_or(false),
            exit_dropout,
            max_length: written.max_length,
        };
        match read.check() {
            Ok(()) => Ok(read),
            Err((key, problem)) => Err(wrong(&format!("early_exit.{key}"), problem)),
        }
    }
}

/// A key that is left out when it says no.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference to the field"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl ModelConfig {
    /// Reads the bytes of a `config.json`.
    ///
    /// # Errors
    /// Names the key that is missing or holds an impossible value.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).map_err(|source| Error::Json {
            file: CONFIG_FILE.to_owned(),
            source,
        })?;
        let Value::Object(raw) = value else {
            return Err(Error::ConfigKey {
                file: CONFIG_FILE.to_owned(),
                key: ".".to_owned(),
                problem: "the document must be a JSON object".to_owned(),
            });
        };
        let keys = Keys::new(&raw);
        let backbone = BackboneConfig::from_keys(&keys)?;
        let head = HeadConfig::from_keys(&keys)?;
        let early_exit = match raw.get("early_exit") {
            None | Some(Value::Null) => None,
            Some(value) => Some(EarlyExitConfig::from_value(value, &backbone)?),
        };
        Ok(Self {
            backbone,
            head,
            early_exit,
            raw,
        })
    }

    /// This backbone with other labels and exits: the configuration of the model that a
    /// fine-tuning run writes. ElasticBERT becomes BERT with a pooler per exit, which it is.
    pub fn with_exits(&self, head: HeadConfig, early_exit: EarlyExitConfig) -> Self {
        let mut config = self.clone();
        if config.backbone.family == Family::ElasticBert {
            config.backbone.family = Family::Bert;
            for key in ["max_output_layers", "num_output_layers"] {
                config.raw.shift_remove(key);
            }
        }
        config.head = head;
        config.early_exit = Some(early_exit);
        config
    }

    /// This configuration with the first blocks alone, up to `depth`.
    ///
    /// # Errors
    /// A sentence that says why it cannot be cut there.
    pub fn cut_to(&self, depth: Depth) -> Result<Self, String> {
        let backbone = &self.backbone;
        if !(1..=backbone.blocks).contains(&depth.0) {
            return Err(format!("{depth} lies outside 1..={}", backbone.blocks));
        }
        // Which blocks share weights follows from the number of all of them.
        if backbone.groups > 1 && backbone.family == Family::Albert && depth.0 < backbone.blocks {
            return Err(format!(
                "a backbone of {} groups of blocks cannot be cut",
                backbone.groups
            ));
        }
        let mut config = self.clone();
        config.backbone.blocks = depth.0;
        config.early_exit = None;
        Ok(config)
    }

    /// The exits: those of the `early_exit` key, or the deepest one of a plain model.
    pub fn exits(&self) -> EarlyExitConfig {
        self.early_exit.clone().unwrap_or_else(|| {
            let deepest = ExitPlan::new(vec![self.backbone.blocks], self.backbone.blocks)
                .expect("the deepest block alone is a plan");
            let dropout = self.backbone.classifier_dropout;
            EarlyExitConfig::new(deepest, Pooler::Shared, None, dropout)
        })
    }

    /// The bytes of a `config.json` that [`from_json`](Self::from_json) and Hugging Face's
    /// `transformers` both read. Keys that this code does not know are kept.
    pub fn to_json(&self) -> Vec<u8> {
        let mut object = self.raw.clone();
        self.backbone.write_keys(&mut object);
        self.head.write_keys(&mut object);
        if let Some(early_exit) = &self.early_exit {
            let architecture = format!("{}ForSequenceClassification", self.backbone.family.class());
            object.insert("architectures".to_owned(), Value::from(vec![architecture]));
            let remote = Map::from_iter([(
                "AutoModelForSequenceClassification".to_owned(),
                Value::from("modeling_badge.BadgeForSequenceClassification"),
            )]);
            object.insert("auto_map".to_owned(), Value::Object(remote));
            let value = serde_json::to_value(early_exit).expect("plain data serialises");
            object.insert("early_exit".to_owned(), value);
        }
        let mut bytes =
            serde_json::to_vec_pretty(&Value::Object(object)).expect("plain data serialises");
        bytes.push(b'\n');
        bytes
    }
}

impl HeadConfig {
    /// Number of logits of every exit, `C`.
    pub fn outputs(&self) -> usize {
        self.labels.len()
    }

    /// What the exits answer.
    pub fn prediction_kind(&self) -> PredictionKind {
        match self.problem {
            ProblemType::SingleLabel => PredictionKind::SingleLabel {
                classes: self.outputs(),
            },
            ProblemType::MultiLabel => PredictionKind::MultiLabel {
                labels: self.outputs(),
            },
            ProblemType::Regression => PredictionKind::Regression,
        }
    }

    fn from_keys(keys: &Keys) -> Result<Self> {
        let labels = keys.labels()?;
        let problem = match keys.text("problem_type")? {
            None if labels.len() == 1 => ProblemType::Regression,
            None | Some("single_label_classification") => ProblemType::SingleLabel,
            Some("multi_label_classification") => ProblemType::MultiLabel,
            Some("regression") => ProblemType::Regression,
            Some(other) => {
                let known = "single_label_classification, multi_label_classification or regression";
                return Err(Keys::wrong(
                    "problem_type",
                    format!("`{other}` is not {known}"),
                ));
            }
        };
        if problem == ProblemType::SingleLabel && labels.len() < 2 {
            return Err(Keys::wrong(
                "id2label",
                "one class cannot be told from itself".to_owned(),
            ));
        }
        if problem == ProblemType::Regression && labels.len() != 1 {
            let problem = format!("regression has one output, found {} labels", labels.len());
            return Err(Keys::wrong("id2label", problem));
        }
        Ok(Self { labels, problem })
    }

    fn write_keys(&self, object: &mut Map<String, Value>) {
        let numbered = || self.labels.iter().enumerate();
        let id2label: Map<_, _> = numbered()
            .map(|(i, label)| (i.to_string(), Value::from(label.as_str())))
            .collect();
        let label2id: Map<_, _> = numbered()
            .map(|(i, label)| (label.clone(), Value::from(i)))
            .collect();
        object.shift_remove("num_labels");
        object.insert("id2label".to_owned(), Value::Object(id2label));
        object.insert("label2id".to_owned(), Value::Object(label2id));
        object.insert("problem_type".to_owned(), Value::from(self.problem.name()));
    }
}

#[cfg(test)]
mod tests;
