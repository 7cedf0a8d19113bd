//! Milliseconds of every form of exit, beside its parameters and multiply-accumulates.

use anyhow::{Result, ensure};
use badge_core::bypass::{BypassConfig, BypassPlacement};
use badge_core::checkpoint::layout::{self, Part};
use badge_core::config::{EarlyExitConfig, ModelConfig};
use badge_core::exit::{ExitPlan, Pooler};
use badge_core::exit_head::ExitHead;
use badge_train::Device;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::evaluate;
use badge_train::model::MultiExitModel;
use serde::{Deserialize, Serialize};

use super::random_inputs;
use super::shape::random_weights;
use super::timing::{Repeats, Times, in_turns};
use crate::evaluation::model_shape;
use crate::table::{Column, Table};

/// Everything that `bench heads` measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    /// One row a form and length, in the order of [`Form::ALL`].
    pub rows: Vec<HeadRow>,
}

/// What one form of exit costs at one length, batch size 1, computed by the trainer's model: the
/// engine does not know all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadRow {
    form: String,
    /// Tokens of the row.
    length: usize,
    /// Of one exit before the deepest: bypass, attention, own pooler and classifier.
    parameters: usize,
    /// Of one exit with its bypass and pooler.
    macs: u64,
    /// All blocks and the deepest exit alone, which has this form too.
    deepest_ms: f64,
    /// The same with an exit after every block.
    all_exits_ms: f64,
    /// `(all exits - deepest) / (M - 1)`, by the median ratio of runs in turns.
    ms_per_exit: f64,
    /// `ms_per_exit` over an M-th of `deepest_ms`.
    share_of_block: f64,
}

/// A form of exit, at the sizes of the paper's ablations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A classifier on the \[CLS\] row.
    Classifier,
    /// The shared pooler and a classifier.
    SharedPooler,
    /// A pooler of its own and a classifier.
    OwnPooler,
    /// A bypass of rank 16, the shared pooler and a classifier.
    Bypass(BypassPlacement),
    /// Attention in a bottleneck of 32, the shared pooler and a classifier.
    Mha,
    /// FastBERT's attention of size 128 and a classifier.
    MhaFastbert,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Classifier,
        Self::SharedPooler,
        Self::OwnPooler,
        Self::Bypass(BypassPlacement::Block),
        Self::Bypass(BypassPlacement::Mhsa),
        Self::Bypass(BypassPlacement::Ffn),
        Self::Mha,
        Self::MhaFastbert,
    ];

    /// As tables and records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classifier => "classifier",
            Self::SharedPooler => "shared pooler",
            Self::OwnPooler => "own pooler",
            Self::Bypass(BypassPlacement::Block) => "bypass, block",
            Self::Bypass(BypassPlacement::Mhsa) => "bypass, mhsa",
            Self::Bypass(BypassPlacement::Ffn) => "bypass, ffn",
            Self::Mha => "mha",
            Self::MhaFastbert => "mha-fastbert",
        }
    }

    fn pooler(self) -> Pooler {
        match self {
            Self::Classifier | Self::MhaFastbert => Pooler::None,
            Self::OwnPooler => Pooler::Own,
            Self::SharedPooler | Self::Bypass(_) | Self::Mha => Pooler::Shared,
        }
    }

    /// The model with exits of this form after every block.
    fn everywhere(self, config: &ModelConfig) -> ModelConfig {
        self.at(ExitPlan::every_block(config.backbone.blocks), config)
    }

    /// The model with the deepest exit alone.
    fn deepest(self, config: &ModelConfig) -> ModelConfig {
        let blocks = config.backbone.blocks;
        let plan = ExitPlan::new(vec![blocks], blocks).expect("the last block is one of them");
        self.at(plan, config)
    }

    fn at(self, plan: ExitPlan, config: &ModelConfig) -> ModelConfig {
        let bypass = match self {
            Self::Bypass(placement) => Some(BypassConfig {
                placement,
                ..BypassConfig::default()
            }),
            _ => None,
        };
        let mut exits = EarlyExitConfig::new(plan, self.pooler(), bypass, 0.0);
        exits.exit_head = match self {
            Self::Mha => Some(ExitHead::BOTTLENECK),
            Self::MhaFastbert => Some(ExitHead::FASTBERT),
            _ => None,
        };
        config.with_exits(config.head.clone(), exits)
    }
}

/// Measures every form on the backbone of `config` with random weights, its deepest exit alone and
/// all of them in turns, on rows of these lengths.
///
/// # Errors
///
/// When there is one block alone, or the framework refuses an operation.
pub fn heads(
    config: &ModelConfig,
    lengths: &[usize],
    (repeats, seed): (Repeats, u64),
    on_row: &mut dyn FnMut(),
) -> Result<Heads> {
    ensure!(
        config.backbone.blocks > 1,
        "one block has no exit before the deepest"
    );
    let mut rows = Vec::new();
    for form in Form::ALL {
        let model = |config: ModelConfig| -> Result<MultiExitModel> {
            let weights = random_weights(&config, seed)?;
            Ok(MultiExitModel::new(config, &weights, &Device::Cpu)?)
        };
        let models = [
            model(form.deepest(config))?,
            model(form.everywhere(config))?,
        ];
        for length in lengths {
            let input = random_inputs(config, &[*length], seed);
            let row = EncodedSplit::from_encodings(input, Vec::new(), 0);
            let times = in_turns(models.len(), repeats, |candidate| {
                evaluate(&models[candidate], &row, &mut |_| {})?;
                Ok(())
            })?;
            rows.push(HeadRow::of(form, models[1].config(), *length, &times));
            on_row();
        }
    }
    Ok(Heads { rows })
}

impl HeadRow {
    fn of(form: Form, config: &ModelConfig, length: usize, times: &[Times]) -> Self {
        let [deepest, all_exits] = times else {
            unreachable!("two models were timed")
        };
        let layout = layout::of_model(config);
        let of_first = layout.iter().filter(|spec| match spec.part {
            Part::Exit(exit) | Part::Bypass(exit) => exit.0 == 0,
            _ => false,
        });
        let shape = model_shape(config);
        let blocks = config.backbone.blocks as f64;
        let deepest_ms = 1e3 * deepest.median();
        let ms_per_exit = deepest_ms * (all_exits.ratio_to(deepest) - 1.0) / (blocks - 1.0);
        Self {
            form: form.name().to_owned(),
            length,
            parameters: of_first
                .map(|spec| spec.shape.iter().product::<usize>())
                .sum(),
            macs: shape.exit_macs(length) + shape.bypass_macs(),
            deepest_ms,
            all_exits_ms: 1e3 * all_exits.median(),
            ms_per_exit,
            share_of_block: ms_per_exit * blocks / deepest_ms,
        }
    }
}

impl Heads {
    /// A table of what was measured, for a terminal.
    pub fn to_text(&self) -> String {
        let mut table = Table::new([
            Column::text("exit"),
            Column::number("length"),
            Column::number("parameters"),
            Column::number("MACs"),
            Column::number("deepest alone ms"),
            Column::number("all exits ms"),
            Column::number("ms an exit"),
            Column::number("of a block"),
        ]);
        for row in &self.rows {
            table.push([
                row.form.clone(),
                row.length.to_string(),
                row.parameters.to_string(),
                row.macs.to_string(),
                format!("{:.2}", row.deepest_ms),
                format!("{:.2}", row.all_exits_ms),
                format!("{:.4}", row.ms_per_exit),
                format!("{:.1} %", 100.0 * row.share_of_block),
            ]);
        }
        table.to_text()
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::*;

    /// The paper's counts at D = 768 (its section 4.3): 26k of a bypass, 98k of an attention exit.
    #[test]
    fn parameters_are_those_of_the_paper() {
        let config = Shape::BertBase.config();
        // Eleven more exits of 0.02 s on top of 1.2 s.
        let times = [1.2, 1.42].map(|seconds| Times::from_seconds(vec![seconds]));
        let row = |form: Form| HeadRow::of(form, &form.everywhere(&config), 64, &times);
        let classifier = 768 * 2 + 2;
        let of = |form| row(form).parameters - classifier;
        assert_eq!(of(Form::Classifier), 0);
        assert_eq!(of(Form::SharedPooler), 0);
        assert_eq!(of(Form::OwnPooler), 768 * 768 + 768);
        assert_eq!(of(Form::Bypass(BypassPlacement::Block)), 26_112);
        assert_eq!(of(Form::Mha), 98_304);
        let fastbert = row(Form::MhaFastbert);
        assert_eq!(
            fastbert.parameters,
            768 * 128 + 128 + 5 * (128 * 128 + 128) + 2 * 128 + 2
        );
        assert!((fastbert.ms_per_exit - 20.0).abs() < 1e-9);
        assert!((fastbert.share_of_block - 0.2).abs() < 1e-9);
    }

    #[test]
    fn every_form_is_measured_at_every_length() {
        let config = serde_json::json!({
            "model_type": "bert", "vocab_size": 9, "hidden_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8
        });
        let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
        let repeats = Repeats {
            warm_ups: 0,
            runs: 1,
        };
        let mut told = 0;
        let heads = heads(&config, &[3, 8], (repeats, 1), &mut || told += 1).unwrap();
        assert_eq!((heads.rows.len(), told), (16, 16));
        assert!(heads.rows.iter().all(|row| row.deepest_ms > 0.0));
        assert_eq!(heads.to_text().lines().count(), 18);
    }
}
