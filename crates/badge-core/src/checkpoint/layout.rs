//! Which tensors a model has: name, shape and how a fresh one starts.

use super::names::{self, ModuleName};
use crate::bypass::{BypassConfig, BypassLayerNorm};
use crate::config::{BackboneConfig, EarlyExitConfig, Family, ModelConfig};
use crate::exit::{ExitIndex, Pooler};
use crate::exit_head::ExitHead;

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape; linear weights are `[outputs, inputs]` as in PyTorch.
    pub shape: Vec<usize>,
    /// The value that a tensor has when no checkpoint provides it.
    pub initial: Initial,
    /// What of the model it belongs to.
    pub part: Part,
}

/// What of a model a tensor belongs to: training methods choose by it what learns, and counts of
/// parameters go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Embeddings, blocks, and the pooler under its pre-trained name.
    Backbone,
    /// Classifier, own pooler and attention of an exit.
    Exit(ExitIndex),
    /// The bypass of an exit.
    Bypass(ExitIndex),
    /// Global Past-Future's imitations and gate.
    PastFuture,
    /// The learning-to-exit head.
    LearningToExit,
}

/// How a fresh tensor starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Initial {
    /// Normal with this standard deviation.
    Normal(f64),
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// A copy of another tensor of the model.
    CopyOf(String),
}

/// All tensors of the model that a configuration describes, in forward order.
pub fn of_model(config: &ModelConfig) -> Vec<TensorSpec> {
    let exits = config.exits();
    let mut layout = Layout {
        specs: Vec::new(),
        std: config.backbone.initializer_range,
        part: Part::Backbone,
    };
    layout.embeddings(&config.backbone);
    layout.blocks(&config.backbone);
    for depth in exits.exits.depths() {
        layout.exit(config, &exits, depth.index());
    }
    if exits.global_past_future {
        layout.past_future(config, &exits);
    }
    if exits.lte {
        layout.part = Part::LearningToExit;
        let width = exits.classifier_width(config.backbone.hidden);
        layout.linear(&names::learning_to_exit(), 1, width);
    }
    layout.specs
}

struct Layout {
    specs: Vec<TensorSpec>,
    std: f64,
    /// What the tensors that come next belong to.
    part: Part,
}

impl Layout {
    fn push(&mut self, name: String, shape: Vec<usize>, initial: Initial) {
        self.specs.push(TensorSpec {
            name,
            shape,
            initial,
            part: self.part,
        });
    }

    /// A linear layer without a bias.
    fn matrix(&mut self, module: &ModuleName, outputs: usize, inputs: usize) {
        let initial = Initial::Normal(self.std);
        self.push(module.weight(), vec![outputs, inputs], initial);
    }

    fn linear(&mut self, module: &ModuleName, outputs: usize, inputs: usize) {
        self.matrix(module, outputs, inputs);
        self.push(module.bias(), vec![outputs], Initial::Zeros);
    }

    fn norm(&mut self, module: &ModuleName, size: usize) {
        self.push(module.weight(), vec![size], Initial::Ones);
        self.push(module.bias(), vec![size], Initial::Zeros);
    }

    fn embeddings(&mut self, config: &BackboneConfig) {
        let tables = [
            (names::word_embeddings(config.family), config.vocabulary),
            (names::position_embeddings(config.family), config.positions),
            (
                names::token_type_embeddings(config.family),
                config.token_types,
            ),
        ];
        for (name, rows) in tables {
            self.push(
                name,
                vec![rows, config.embedding],
                Initial::Normal(self.std),
            );
        }
        self.norm(&names::embeddings_norm(config.family), config.embedding);
        if config.family == Family::Albert {
            self.linear(&names::embedding_mapping(), config.hidden, config.embedding);
        }
    }

    fn blocks(&mut self, config: &BackboneConfig) {
        // On ALBERT only the first block of a group brings new tensors.
        let mut groups_seen = 0;
        for block in 0..config.blocks {
            if config.family == Family::Albert {
                if config.group_of(block) < groups_seen {
                    continue;
                }
                groups_seen += 1;
            }
            for inner in 0..config.inner_layers {
                self.layer(config, block, inner);
            }
        }
    }

    fn layer(&mut self, config: &BackboneConfig, block: usize, inner: usize) {
        let (d, f) = (config.hidden, config.intermediate);
        let layer = names::layer(config, block, inner);
        for module in [
            &layer.query,
            &layer.key,
            &layer.value,
            &layer.attention_output,
        ] {
            self.linear(module, d, d);
        }
        self.norm(&layer.attention_norm, d);
        self.linear(&layer.intermediate, f, d);
        self.linear(&layer.output, d, f);
        self.norm(&layer.output_norm, d);
    }

    /// Everything of the exit after a block, its bypass included.
    fn exit(&mut self, config: &ModelConfig, exits: &EarlyExitConfig, index: ExitIndex) {
        let (backbone, block) = (&config.backbone, index.0);
        let width = exits.classifier_width(backbone.hidden);
        self.pooler(backbone, exits, block);
        self.part = Part::Exit(index);
        if let Some(head) = exits.exit_head {
            self.attention(head, backbone.hidden, block);
        }
        let classifier = names::exit_classifier(backbone, block);
        self.linear(&classifier, config.head.outputs(), width);
        if let Some(bypass) = &exits.bypass {
            self.part = Part::Bypass(index);
            self.bypass(backbone, bypass, block);
        }
    }

    fn attention(&mut self, head: ExitHead, d: usize, block: usize) {
        let names = names::exit_attention(block);
        let narrowing = [&names.query, &names.key, &names.value];
        match head {
            ExitHead::MhaBottleneck { rank, .. } => {
                for module in narrowing {
                    self.matrix(module, rank, d);
                }
                self.matrix(&names.output, d, rank);
            }
            ExitHead::MhaFastbert { dim, .. } => {
                self.linear(&names.input, dim, d);
                for module in narrowing.into_iter().chain([&names.output, &names.dense]) {
                    self.linear(module, dim, dim);
                }
            }
        }
    }

    fn past_future(&mut self, config: &ModelConfig, exits: &EarlyExitConfig) {
        let (d, c) = (config.backbone.hidden, config.head.outputs());
        self.part = Part::PastFuture;
        for (position, depth) in exits.exits.depths().iter().enumerate() {
            let block = depth.index().0;
            // Nothing lies before the first exit that could imitate it.
            if position > 0 {
                self.linear(&names::future_state(block), d, d);
            }
            self.linear(&names::gate_features(block), c, d);
        }
        self.linear(&names::past_future_gate(), c, c);
    }

    /// The pooler that the exit after `block` reads, unless another exit brought it already.
    fn pooler(&mut self, config: &BackboneConfig, exits: &EarlyExitConfig, block: usize) {
        let d = config.hidden;
        let deepest = block + 1 == config.blocks;
        let shared = names::backbone_pooler(config.family);
        // The pre-trained one goes with the backbone even where the deepest exit owns it.
        self.part = match exits.pooler {
            Pooler::Own if !deepest => Part::Exit(ExitIndex(block)),
            _ => Part::Backbone,
        };
        match exits.pooler {
            Pooler::None => {}
            Pooler::Shared if !deepest => {}
            Pooler::Shared => self.linear(&shared, d, d),
            Pooler::Own if deepest => self.linear(&shared, d, d),
            Pooler::Own => {
                let own = names::exit_pooler(config, block);
                self.push(own.weight(), vec![d, d], Initial::CopyOf(shared.weight()));
                self.push(own.bias(), vec![d], Initial::CopyOf(shared.bias()));
            }
        }
    }

    /// `W_up` starts at zero, so that a fresh bypass changes nothing (`H'_m = H_m`), and the own
    /// LayerNorm as a copy of the block's last.
    fn bypass(&mut self, config: &BackboneConfig, bypass: &BypassConfig, block: usize) {
        let (d, r) = (config.hidden, bypass.rank);
        let (down, up) = (names::bypass_down(block), names::bypass_up(block));
        self.push(down.weight(), vec![r, d], Initial::Normal(self.std));
        self.push(up.weight(), vec![d, r], Initial::Zeros);
        if bypass.bias {
            self.push(down.bias(), vec![r], Initial::Zeros);
            self.push(up.bias(), vec![d], Initial::Zeros);
        }
        if bypass.layer_norm == BypassLayerNorm::Own {
            let own = names::bypass_norm(block);
            let replaced = names::bypassed_norm(config, bypass.placement, block);
            self.push(own.weight(), vec![d], Initial::CopyOf(replaced.weight()));
            self.push(own.bias(), vec![d], Initial::CopyOf(replaced.bias()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HeadConfig;
    use crate::exit::ExitPlan;

    fn albert_base(exits: Option<EarlyExitConfig>) -> ModelConfig {
        let json = serde_json::json!({
            "model_type": "albert", "vocab_size": 30000, "hidden_size": 768,
            "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072
        });
        let config = ModelConfig::from_json(json.to_string().as_bytes()).unwrap();
        let head: HeadConfig = config.head.clone();
        match exits {
            None => config,
            Some(exits) => config.with_exits(head, exits),
        }
    }

    fn parameters(specs: &[TensorSpec], part: &str) -> usize {
        let of_part = specs.iter().filter(|s| s.name.starts_with(part));
        of_part.map(|s| s.shape.iter().product::<usize>()).sum()
    }

    #[test]
    fn albert_base_has_its_published_parameter_count() {
        let specs = of_model(&albert_base(None));
        assert_eq!(parameters(&specs, "albert."), 11_683_584);
        assert_eq!(parameters(&specs, ""), 11_683_584 + 2 * 768 + 2);
    }

    #[test]
    fn twelve_bypasses_add_313k_parameters() {
        let exits = EarlyExitConfig::new(
            ExitPlan::every_block(12),
            Pooler::Shared,
            Some(BypassConfig::default()),
            0.1,
        );
        let specs = of_model(&albert_base(Some(exits)));
        assert_eq!(parameters(&specs, "bypasses."), 12 * 26_112);
        assert_eq!(parameters(&specs, "exits."), 11 * (2 * 768 + 2));
    }

    #[test]
    fn every_head_form_has_the_tensors_of_its_formula() {
        let with = |change: &dyn Fn(&mut EarlyExitConfig)| {
            let mut exits = EarlyExitConfig::new(
                ExitPlan::new(vec![4, 8, 12], 12).unwrap(),
                Pooler::Shared,
                None,
                0.1,
            );
            change(&mut exits);
            of_model(&albert_base(Some(exits)))
        };
        let of_part = |specs: &[TensorSpec], part: Part| {
            let of_part = specs.iter().filter(|s| s.part == part);
            of_part
                .map(|s| s.shape.iter().product::<usize>())
                .sum::<usize>()
        };
        let deepest = Part::Exit(ExitIndex(11));
        let bottleneck = with(&|exits| exits.exit_head = Some(ExitHead::BOTTLENECK));
        assert_eq!(of_part(&bottleneck, deepest), 98_304 + 2 * 769);
        let fastbert = with(&|exits| {
            exits.exit_head = Some(ExitHead::FASTBERT);
            exits.pooler = Pooler::None;
            exits.lte = true;
        });
        assert_eq!(of_part(&fastbert, deepest), 181_250);
        assert_eq!(of_part(&fastbert, Part::LearningToExit), 129);
        let past_future = with(&|exits| exits.global_past_future = true);
        let imitations = 2 * (768 * 768 + 768);
        let gates = 3 * 2 * 769 + 2 * 2 + 2;
        assert_eq!(of_part(&past_future, Part::PastFuture), imitations + gates);
        assert_eq!(of_part(&past_future, Part::LearningToExit), 0);
    }

    #[test]
    fn no_tensor_is_listed_twice_and_every_copy_has_its_source() {
        for pooler in [Pooler::Shared, Pooler::Own, Pooler::None] {
            let bypass = BypassConfig {
                bias: true,
                ..BypassConfig::default()
            };
            let plan = ExitPlan::new(vec![2, 5, 12], 12).unwrap();
            let exits = EarlyExitConfig::new(plan, pooler, Some(bypass), 0.1);
            let specs = of_model(&albert_base(Some(exits)));
            let names: std::collections::BTreeSet<_> = specs.iter().map(|s| &s.name).collect();
            assert_eq!(names.len(), specs.len());
            for spec in &specs {
                if let Initial::CopyOf(source) = &spec.initial {
                    let source = specs.iter().find(|s| s.name == *source).unwrap();
                    assert_eq!(source.shape, spec.shape);
                }
            }
        }
    }
}
