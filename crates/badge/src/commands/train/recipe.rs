//! From flags to a method and the model that it trains; what does not go together is refused.

use anyhow::{Context, Result, bail, ensure};
use badge_core::bypass::{BypassConfig, BypassLayerNorm, BypassPlacement};
use badge_core::config::{EarlyExitConfig, Family, HeadConfig, ModelConfig};
use badge_core::exit::{Depth, ExitPlan, Pooler};
use badge_core::exit_head::ExitHead;
use badge_train::loss::KlDirection;
use badge_train::method::{LteTraining, MethodSpec, SecondStage};
use serde::{Deserialize, Serialize};

use super::TrainArgs;

/// Training methods by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MethodName {
    /// Joint training of all exits with block-wise bypasses.
    Badge,
    /// Joint training of all exits.
    Joint,
    /// Fine-tuning of the first m blocks with one exit, for one depth or for all.
    Single,
    /// The backbone with its deepest exit, then the other exits on it.
    TwoStage,
    /// The deepest exit and all exits in turns (BERxiT).
    Alternating,
    /// Joint training in which a block learns from the mean of the exits it feeds.
    GradientEquilibrium,
    /// Exits that use earlier states and imitate deeper ones.
    GlobalPastFuture,
}

/// Poolers by name.
#[derive(Debug, Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PoolerName {
    /// The pre-trained pooler for all exits.
    Shared,
    /// One pooler per exit.
    Own,
    /// No pooler.
    None,
}

/// Bypass LayerNorms by name.
#[derive(Debug, Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LayerNormName {
    /// Each bypass has its own.
    Own,
    /// The block's.
    Shared,
}

/// Placements of bypasses by name.
#[derive(Debug, Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PlacementName {
    /// The whole block, as the paper has it.
    Block,
    /// The attention; the feed-forward runs again for the exit.
    Mhsa,
    /// The feed-forward.
    Ffn,
}

/// Exit heads by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ExitHeadName {
    /// The first token's row.
    Linear,
    /// Attention over all rows, narrowed to a rank.
    Mha,
    /// FastBERT's attention classifier.
    MhaFastbert,
}

/// Losses of the second stage by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SecondStageName {
    /// The labels.
    Ce,
    /// The deepest exit's answers.
    Distillation,
}

/// Arguments of the KL divergence by name.
#[derive(Debug, Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum KlName {
    /// KL(teacher, student), as FastBERT's code has it.
    TeacherFirst,
    /// KL(student, teacher).
    StudentFirst,
}

/// Trainings of the learning-to-exit head by name.
#[derive(Debug, Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LteName {
    /// With the exits, in the method's last stage.
    Joint,
    /// By itself, on the frozen model.
    Frozen,
}

impl LteName {
    pub(super) fn training(self) -> LteTraining {
        match self {
            Self::Joint => LteTraining::Joint,
            Self::Frozen => LteTraining::Frozen,
        }
    }
}

/// Blocks that thaw: what Global Past-Future's authors took on MRPC and QQP.
const THAWING_BLOCKS: usize = 2;

impl TrainArgs {
    fn method_name(&self) -> MethodName {
        self.method.unwrap_or(MethodName::Badge)
    }

    /// Whether a model of every depth is to be trained.
    pub(super) fn is_of_all_depths(&self) -> bool {
        self.method_name() == MethodName::Single && self.depth.is_none()
    }

    /// The method, once it is known that no flag belongs to another one.
    pub(super) fn method(&self) -> Result<MethodSpec> {
        use MethodName::{Badge, GlobalPastFuture, Joint, Single, TwoStage};
        let method = self.method_name();
        let is_distilled = self.second_stage == Some(SecondStageName::Distillation);
        for (flag, is_given, goes, with) in [
            (
                "--depth",
                self.depth.is_some(),
                method == Single,
                "--method single",
            ),
            (
                "--exit-weights",
                self.exit_weights.is_some(),
                matches!(method, Badge | Joint),
                "--method badge and --method joint",
            ),
            (
                "--second-stage",
                self.second_stage.is_some(),
                method == TwoStage,
                "--method two-stage",
            ),
            (
                "--kl",
                self.kl.is_some(),
                is_distilled,
                "--second-stage distillation",
            ),
            (
                "--temperature",
                self.temperature.is_some(),
                is_distilled,
                "--second-stage distillation",
            ),
            (
                "--thawing-blocks",
                self.thawing_blocks.is_some(),
                method == GlobalPastFuture,
                "--method global-past-future",
            ),
        ] {
            ensure!(!is_given || goes, "{flag}: goes with {with} alone");
        }
        Ok(match method {
            Badge | Joint => MethodSpec::Joint {
                exit_weights: self.exit_weights.unwrap_or_default(),
            },
            Single => MethodSpec::Single,
            TwoStage => MethodSpec::TwoStage {
                second: self.second_stage(),
            },
            MethodName::Alternating => MethodSpec::Alternating,
            MethodName::GradientEquilibrium => MethodSpec::GradientEquilibrium,
            GlobalPastFuture => MethodSpec::GlobalPastFuture {
                thawing_blocks: self.thawing_blocks.unwrap_or(THAWING_BLOCKS),
            },
        })
    }

    fn second_stage(&self) -> SecondStage {
        match self.second_stage {
            None | Some(SecondStageName::Ce) => SecondStage::CrossEntropy,
            Some(SecondStageName::Distillation) => SecondStage::Distillation {
                direction: match self.kl {
                    Some(KlName::StudentFirst) => KlDirection::StudentFirst,
                    Some(KlName::TeacherFirst) | None => KlDirection::TeacherFirst,
                },
                temperature: self.temperature.unwrap_or(1.0),
            },
        }
    }

    /// The model to be trained on this backbone for these labels.
    pub(super) fn describe(&self, plain: &ModelConfig, head: HeadConfig) -> Result<ModelConfig> {
        let plain = match self.depth {
            None => plain.clone(),
            Some(depth) => plain
                .cut_to(Depth(depth))
                .map_err(|problem| anyhow::anyhow!("--depth: {problem}"))?,
        };
        let exits = self.early_exit(&plain)?;
        Ok(plain.with_exits(head, exits))
    }

    fn early_exit(&self, plain: &ModelConfig) -> Result<EarlyExitConfig> {
        let backbone = &plain.backbone;
        let config = self.train_config()?;
        let plan = match &self.exits {
            Some(_) if self.method_name() == MethodName::Single => {
                bail!("--exits: --method single has one exit, behind the last block")
            }
            Some(depths) => ExitPlan::new(depths.clone(), backbone.blocks)
                .map_err(|problem| anyhow::anyhow!("--exits: {problem}"))?,
            None if self.method_name() == MethodName::Single => {
                ExitPlan::new(vec![backbone.blocks], backbone.blocks)
                    .map_err(|problem| anyhow::anyhow!("--depth: {problem}"))?
            }
            None => ExitPlan::every_block(backbone.blocks),
        };
        // FastBERT drops its attention's probabilities and nothing behind them.
        let usual = match self.exit_head {
            Some(ExitHeadName::MhaFastbert) => 0.0,
            Some(ExitHeadName::Mha | ExitHeadName::Linear) | None => backbone.classifier_dropout,
        };
        let dropout = self.exit_dropout.unwrap_or(usual);
        ensure!(
            (0.0..1.0).contains(&dropout),
            "--exit-dropout: {dropout} is not in [0, 1)"
        );
        let bypass = self.bypass(backbone.hidden)?;
        let mut exits = EarlyExitConfig::new(
            plan,
            self.pooler(config.method, backbone.family),
            bypass,
            dropout,
        );
        exits.exit_head = self.exit_head()?;
        exits.max_length = Some(config.max_length.min(backbone.positions));
        let method = config.method();
        let exits = method.heads(exits);
        exits.check().map_err(|(key, problem)| {
            let flag = key.replace(['.', '_'], "-");
            anyhow::anyhow!("--{flag}: {problem}")
        })?;
        let checked = method.check(&exits).map_err(anyhow::Error::msg);
        checked.with_context(|| format!("--method {}", method.name()))?;
        Ok(exits)
    }

    fn pooler(&self, method: MethodSpec, family: Family) -> Pooler {
        match self.pooler {
            Some(PoolerName::Own) => Pooler::Own,
            Some(PoolerName::None) => Pooler::None,
            None if self.exit_head == Some(ExitHeadName::MhaFastbert) => Pooler::None,
            Some(PoolerName::Shared) => Pooler::Shared,
            None => method.usual_pooler(family),
        }
    }

    fn exit_head(&self) -> Result<Option<ExitHead>> {
        let heads = self.exit_head_heads.unwrap_or(2);
        let head = match self.exit_head {
            None | Some(ExitHeadName::Linear) => {
                let given = self.exit_head_rank.is_some() || self.exit_head_heads.is_some();
                ensure!(
                    !given,
                    "--exit-head-rank and --exit-head-heads go with --exit-head mha and \
                     mha-fastbert"
                );
                return Ok(None);
            }
            Some(ExitHeadName::Mha) => ExitHead::MhaBottleneck {
                rank: self.exit_head_rank.unwrap_or(32),
                heads,
            },
            Some(ExitHeadName::MhaFastbert) => ExitHead::MhaFastbert {
                dim: self.exit_head_rank.unwrap_or(128),
                heads,
            },
        };
        Ok(Some(head))
    }

    /// The bypasses: always with badge, never with joint, and where a flag asks for them with all
    /// other methods.
    fn bypass(&self, hidden: usize) -> Result<Option<BypassConfig>> {
        let default = BypassConfig::default();
        let is_given = self.bypass_rank.is_some()
            || self.bypass_activation.is_some()
            || self.bypass_bias.is_some()
            || self.bypass_layer_norm.is_some()
            || self.bypass_placement.is_some();
        match self.method_name() {
            MethodName::Badge => {}
            MethodName::Joint => {
                ensure!(
                    !is_given,
                    "--method joint has no bypasses; leave the --bypass-* flags out"
                );
                return Ok(None);
            }
            _ if !is_given => return Ok(None),
            _ => {}
        }
        let rank = self.bypass_rank.unwrap_or(default.rank);
        ensure!(
            (1..=hidden).contains(&rank),
            "--bypass-rank: {rank} is not in 1..={hidden}"
        );
        Ok(Some(BypassConfig {
            rank,
            activation: self.bypass_activation.unwrap_or(default.activation),
            bias: self.bypass_bias.unwrap_or(default.bias),
            layer_norm: match self.bypass_layer_norm {
                Some(LayerNormName::Shared) => BypassLayerNorm::Shared,
                Some(LayerNormName::Own) | None => BypassLayerNorm::Own,
            },
            placement: match self.bypass_placement {
                Some(PlacementName::Mhsa) => BypassPlacement::Mhsa,
                Some(PlacementName::Ffn) => BypassPlacement::Ffn,
                Some(PlacementName::Block) | None => BypassPlacement::Block,
            },
        }))
    }
}
