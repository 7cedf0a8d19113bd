//! What is compared: training methods, with the bypasses and exits that go with them.

use std::fmt;

use anyhow::{Result, ensure};
use badge_core::activation::Activation;
use badge_core::bypass::{BypassConfig, BypassPlacement};
use badge_core::config::{EarlyExitConfig, ModelConfig};
use badge_core::exit::ExitPlan;
use badge_core::exit_head::ExitHead;
use badge_train::loss::KlDirection;
use badge_train::method::{LteTraining, MethodSpec, SecondStage};
use serde::{Deserialize, Serialize};

/// A row of the paper's Table 1, or a relative of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A model of every depth with one exit.
    Single,
    /// The backbone first, then the exits on labels (2ST).
    TwoStage,
    /// The backbone first, then the exits on the deepest exit's answers.
    TwoStageDistillation,
    /// All exits together (JT).
    Joint,
    /// The same with exits that attend to all tokens (JT+MHA exit).
    JointMha,
    /// Joint training with rescaled gradients (GradEquil).
    GradientEquilibrium,
    /// The deepest exit and all exits in turns (ALT).
    Alternating,
    /// Exits that look back and ahead (Global Past-Future).
    GlobalPastFuture,
    /// Joint training with block-wise bypasses.
    Badge,
}

/// Blocks that thaw: what Global Past-Future's authors took on MRPC and QQP.
const THAWING_BLOCKS: usize = 2;

impl Method {
    /// All of them, in the order of the paper's Table 1.
    pub const ALL: [Self; 9] = [
        Self::Single,
        Self::TwoStage,
        Self::TwoStageDistillation,
        Self::Joint,
        Self::JointMha,
        Self::GradientEquilibrium,
        Self::Alternating,
        Self::GlobalPastFuture,
        Self::Badge,
    ];

    /// The name in experiment files and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::TwoStage => "two-stage",
            Self::TwoStageDistillation => "two-stage-distillation",
            Self::Joint => "joint",
            Self::JointMha => "joint-mha",
            Self::GradientEquilibrium => "gradient-equilibrium",
            Self::Alternating => "alternating",
            Self::GlobalPastFuture => "global-past-future",
            Self::Badge => "badge",
        }
    }

    /// What the paper calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Single => "Single exits",
            Self::TwoStage => "2ST",
            Self::TwoStageDistillation => "2ST, distilled",
            Self::Joint => "JT",
            Self::JointMha => "JT+MHA exit",
            Self::GradientEquilibrium => "GradEquil",
            Self::Alternating => "ALT",
            Self::GlobalPastFuture => "Global Past-Future",
            Self::Badge => "BADGE",
        }
    }

    /// Its place in the paper's Table 1, from 0: the number of its colour.
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Whether its exits read through bypasses.
    pub const fn has_bypass(self) -> bool {
        matches!(self, Self::Badge)
    }

    /// The training method.
    pub fn spec(self) -> MethodSpec {
        match self {
            Self::Single => MethodSpec::Single,
            Self::TwoStage => MethodSpec::TwoStage {
                second: SecondStage::CrossEntropy,
            },
            Self::TwoStageDistillation => MethodSpec::TwoStage {
                second: SecondStage::Distillation {
                    direction: KlDirection::TeacherFirst,
                    temperature: 1.0,
                },
            },
            Self::Joint | Self::JointMha | Self::Badge => MethodSpec::Joint {
                exit_weights: badge_train::method::ExitWeights::Uniform,
            },
            Self::Alternating => MethodSpec::Alternating,
            Self::GradientEquilibrium => MethodSpec::GradientEquilibrium,
            Self::GlobalPastFuture => MethodSpec::GlobalPastFuture {
                thawing_blocks: THAWING_BLOCKS,
            },
        }
    }

    fn exit_head(self) -> Option<ExitHead> {
        (self == Self::JointMha).then_some(ExitHead::BOTTLENECK)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The part of a bypass that experiments vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BypassShape {
    /// The part of the block that it goes around.
    pub placement: BypassPlacement,
    /// Bottleneck dimension r.
    pub rank: usize,
}

/// What a row of a table stands for: everything that is compared, nothing that is searched or
/// drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The training method.
    pub method: Method,
    /// The bypasses, of methods that have some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bypass: Option<BypassShape>,
    /// Whether a learning-to-exit head is trained on the frozen model afterwards.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub lte: bool,
}

impl Variant {
    /// The model to be trained on this backbone, every block of which has an exit unless the
    /// method has a single one.
    ///
    /// # Errors
    /// When method, bypasses and backbone do not go together.
    pub fn early_exit(
        &self,
        plain: &ModelConfig,
        (activation, max_length): (Option<Activation>, usize),
    ) -> Result<EarlyExitConfig> {
        let backbone = &plain.backbone;
        let blocks = backbone.blocks;
        let plan = if self.method == Method::Single {
            ExitPlan::new(vec![blocks], blocks).map_err(anyhow::Error::msg)?
        } else {
            ExitPlan::every_block(blocks)
        };
        let bypass = self.bypass.map(|BypassShape { placement, rank }| {
            let default = BypassConfig::default();
            BypassConfig {
                rank,
                placement,
                activation: activation.unwrap_or(default.activation),
                ..default
            }
        });
        if let Some(bypass) = bypass {
            ensure!(
                bypass.rank <= backbone.hidden,
                "key `ranks`: {} is more than the backbone's {} dimensions",
                bypass.rank,
                backbone.hidden
            );
        }
        let pooler = self.method.spec().usual_pooler(backbone.family);
        let dropout = backbone.classifier_dropout;
        let mut exits = EarlyExitConfig::new(plan, pooler, bypass, dropout);
        exits.exit_head = self.method.exit_head();
        exits.max_length = Some(max_length.min(backbone.positions));
        let method = self.method.spec().build(self.lte_training());
        let exits = method.heads(exits);
        exits
            .check()
            .map_err(|(key, problem)| anyhow::anyhow!("{key}: {problem}"))?;
        method.check(&exits).map_err(anyhow::Error::msg)?;
        Ok(exits)
    }

    /// When its learning-to-exit head learns, if it has one.
    pub fn lte_training(&self) -> Option<LteTraining> {
        self.lte.then_some(LteTraining::Frozen)
    }
}

/// `badge`, `badge-ffn-r8`: the paper's own bypass is not named.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.method)?;
        if let Some(BypassShape { placement, rank }) = self.bypass {
            if placement != BypassPlacement::Block {
                write!(f, "-{}", placement.name())?;
            }
            if rank != 16 {
                write!(f, "-r{rank}")?;
            }
        }
        Ok(())
    }
}
