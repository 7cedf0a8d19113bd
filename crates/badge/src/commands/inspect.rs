//! `badge inspect`: what a model directory holds, and whether every tensor of it is sound.

mod contents;
mod cost;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use badge_core::bypass::BypassPlacement;
use badge_core::config::{EarlyExitConfig, Family, ModelConfig};
use badge_core::exit_head::ExitHead;
use badge_lab::table::{Column, Table};
use badge_tasks::{Tokenizer, file};
use badge_train::weights::read_config;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use self::contents::{FileFacts, Kind, Weights, files_of};
use self::cost::Cost;
use super::facts::Facts;
use super::{Session, Verdict, sources};

/// Flags of `badge inspect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  badge inspect runs/rte --tokens 64")]
pub(crate) struct InspectArgs {
    /// Model directory or hub id
    #[arg(value_name = "DIR|HUB_ID")]
    model: String,
    /// Length of the input whose cost is counted [default: 128, or the model's longest]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
}

/// The calibration that may lie beside the weights.
const CALIBRATION_FILE: &str = "exit_calibration.json";

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    directory: &'a Path,
    kind: &'static str,
    family: &'static str,
    sizes: Sizes,
    problem: &'static str,
    labels: &'a [String],
    early_exit: Option<&'a EarlyExitConfig>,
    weights: Weights,
    tokenizer_vocabulary: usize,
    cost: Cost,
    files: Vec<FileFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<Value>,
}

/// `config.json` as it is understood: defaults filled in.
#[derive(Debug, Serialize)]
struct Sizes {
    vocabulary: usize,
    embedding: usize,
    hidden: usize,
    blocks: usize,
    /// ALBERT's blocks share weights: groups of blocks, and layers in each block.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inner_layers: Option<usize>,
    heads: usize,
    intermediate: usize,
    activation: String,
    positions: usize,
    token_types: usize,
}

pub(crate) fn run(args: &InspectArgs, session: Session) -> Result<Verdict> {
    let directory = sources::model_directory(&args.model, session.console)?;
    let config = read_config(&directory)?;
    let positions = config.backbone.positions;
    let tokens = args.tokens.unwrap_or(positions.min(128));
    ensure!(
        (1..=positions).contains(&tokens),
        "--tokens: {tokens} does not lie in 1..={positions}, the model's positions"
    );
    let weights = Weights::read(&directory, &config)?;
    let tokenizer = Tokenizer::from_directory(&directory)?;
    let outcome = Outcome {
        kind: weights.kind.name(),
        family: config.backbone.family.model_type(),
        sizes: Sizes::of(&config),
        problem: config.head.problem.name(),
        labels: &config.head.labels,
        early_exit: config.early_exit.as_ref(),
        weights,
        tokenizer_vocabulary: tokenizer.vocabulary_size(),
        cost: Cost::of(&config, tokens),
        files: files_of(&directory)?,
        calibration: calibration(&directory)?,
        directory: &directory,
    };
    let (known, vocabulary) = (outcome.tokenizer_vocabulary, config.backbone.vocabulary);
    if known > vocabulary {
        session.console.note(&format!(
            "note: the tokeniser knows {known} tokens, the embedding table only {vocabulary}"
        ));
    }
    session.console.result(&outcome, &outcome.report())?;
    Ok(Verdict::Done)
}

fn calibration(directory: &Path) -> Result<Option<Value>> {
    let path = directory.join(CALIBRATION_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = file::read_text(&path)?;
    let value = serde_json::from_str(&text)
        .with_context(|| format!("{}: not valid JSON", path.display()))?;
    Ok(Some(value))
}

impl Sizes {
    fn of(config: &ModelConfig) -> Self {
        let backbone = &config.backbone;
        let of_albert = |size| (backbone.family == Family::Albert).then_some(size);
        Self {
            vocabulary: backbone.vocabulary,
            embedding: backbone.embedding,
            hidden: backbone.hidden,
            blocks: backbone.blocks,
            groups: of_albert(backbone.groups),
            inner_layers: of_albert(backbone.inner_layers),
            heads: backbone.heads,
            intermediate: backbone.intermediate,
            activation: backbone.activation.to_string(),
            positions: backbone.positions,
            token_types: backbone.token_types,
        }
    }

    fn block(&self) -> String {
        format!(
            "{} of hidden size {}, {} heads, feed-forward {}, {}",
            self.blocks, self.hidden, self.heads, self.intermediate, self.activation
        )
    }

    fn sharing(&self) -> Option<String> {
        let (groups, layers) = (self.groups?, self.inner_layers?);
        let plural =
            |count, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        Some(format!(
            "in {} of {}",
            plural(groups, "group"),
            plural(layers, "layer")
        ))
    }

    fn embeddings(&self) -> String {
        format!(
            "{} tokens x {}, {} positions, {} token types",
            self.vocabulary, self.embedding, self.positions, self.token_types
        )
    }
}

impl Outcome<'_> {
    fn report(&self) -> String {
        let mut files = Table::new([
            Column::text("file"),
            Column::number("bytes"),
            Column::text("sha256"),
        ]);
        for file in &self.files {
            let short = file.sha256.chars().take(12).collect();
            files.push([file.name.clone(), file.bytes.to_string(), short]);
        }
        format!(
            "{}: {}\n\n{}\n{}\n{}",
            self.directory.display(),
            self.kind,
            self.facts().to_text(),
            self.cost.report(),
            files.to_text(),
        )
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        facts.add("family", self.family);
        facts.add("blocks", self.sizes.block());
        if let Some(sharing) = self.sizes.sharing() {
            facts.add("shared", sharing);
        }
        facts.add("embeddings", self.sizes.embeddings());
        facts.add("tokeniser", format!("{} tokens", self.tokenizer_vocabulary));
        // A backbone's labels are those of another task, or Hugging Face's defaults.
        if self.weights.kind != Kind::Backbone {
            facts.add("problem", self.problem);
            facts.add("labels", self.labels.join(", "));
            facts.add("exits", self.exits());
            facts.add("bypasses", self.bypasses());
        }
        facts.add("parameters", self.weights.parameters.to_string());
        facts.add(
            "tensors",
            format!(
                "{}, each of the right shape and finite",
                self.weights.tensors
            ),
        );
        for (name, tensors) in [
            ("start fresh", &self.weights.missing),
            ("have no use", &self.weights.unused),
        ] {
            if !tensors.is_empty() {
                facts.add(name, tensors.join("\n"));
            }
        }
        if let Some(calibration) = &self.calibration {
            let policy = calibration.get("policy").and_then(Value::as_str);
            facts.add("calibration", policy.unwrap_or(CALIBRATION_FILE));
        }
        facts
    }

    fn exits(&self) -> String {
        let Some(exits) = self.early_exit else {
            return "one, after the deepest block".to_owned();
        };
        let depths = exits.exits.depths();
        let depths: Vec<_> = depths.iter().map(ToString::to_string).collect();
        let pooler = format!("{:?}", exits.pooler).to_lowercase();
        let mut text = format!("after blocks {}; pooler: {pooler}", depths.join(", "));
        match exits.exit_head {
            None => {}
            Some(ExitHead::MhaBottleneck { rank, heads }) => {
                let _ = write!(text, "; attention narrowed to {rank}, {heads} heads");
            }
            Some(ExitHead::MhaFastbert { dim, heads }) => {
                let _ = write!(text, "; FastBERT's attention of size {dim}, {heads} heads");
            }
        }
        for (is_there, what) in [
            (exits.global_past_future, "; global past-future"),
            (exits.lte, "; learning to exit"),
        ] {
            if is_there {
                text += what;
            }
        }
        text
    }

    fn bypasses(&self) -> String {
        let bypass = self.early_exit.and_then(|exits| exits.bypass);
        bypass.map_or("none".to_owned(), |bypass| {
            let norm = format!("{:?}", bypass.layer_norm).to_lowercase();
            let bias = if bypass.bias { "with" } else { "without" };
            format!(
                "around the {}, of rank {}, {}, {bias} biases; LayerNorm: {norm}",
                match bypass.placement {
                    BypassPlacement::Block => "block",
                    BypassPlacement::Mhsa => "attention",
                    BypassPlacement::Ffn => "feed-forward",
                },
                bypass.rank,
                bypass.activation
            )
        })
    }
}
