//! The paper's own figures, as facts cited from it: what stands beside ours.
//!
//! Source: Wei Zhu, Peng Wang, Yuan Ni, Guotong Xie, Xiaoling Wang, "BADGE: Speeding Up BERT
//! Inference after Deployment via Block-wise BypAsses and DiverGence-Based Early Exiting", ACL 2023
//! Industry Track. Scores in percent, medians of five seeds, on the paper's splits and backbones:
//! they are not comparable with figures on other rows or encoders, and tables say so.

use badge_core::bypass::BypassPlacement;
use serde::{Deserialize, Serialize};

use super::variant::{BypassShape, Method, Variant};

/// A table or figure of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaperTable {
    /// Training methods.
    Table1,
    /// Placements of bypasses.
    Table2,
    /// Bottleneck dimensions.
    Table3,
    /// Hyper-parameters that the search found.
    Table5,
    /// Backbones.
    Table6,
    /// Speed-score curves, which the paper shows without numbers.
    Figure2,
}

/// S-avg and S-best of one row, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PaperFigure {
    /// S-avg.
    pub average: f64,
    /// S-best.
    pub best: f64,
}

/// The tasks of Table 1, in its order.
pub const TASKS: [&str; 6] = ["RTE", "MRPC", "MNLI", "QID", "DoS", "QDR"];

type Row = [(f64, f64); 6];

/// Table 1: (S-avg, S-best) by task.
const TABLE_1: [(Method, Row); 8] = [
    (
        Method::Single,
        [
            (67.5, 77.6),
            (85.4, 89.1),
            (76.4, 83.7),
            (89.5, 92.3),
            (82.9, 88.0),
            (83.3, 87.3),
        ],
    ),
    (
        Method::TwoStage,
        [
            (68.9, 77.6),
            (83.0, 89.1),
            (76.2, 83.7),
            (89.3, 91.9),
            (82.5, 88.0),
            (81.9, 87.3),
        ],
    ),
    (
        Method::Joint,
        [
            (66.8, 72.5),
            (84.4, 87.9),
            (76.0, 83.8),
            (89.2, 91.1),
            (81.6, 87.3),
            (82.2, 87.2),
        ],
    ),
    (
        Method::JointMha,
        [
            (67.5, 75.9),
            (84.8, 87.9),
            (76.8, 83.2),
            (89.3, 91.5),
            (81.7, 87.6),
            (82.3, 87.1),
        ],
    ),
    (
        Method::GradientEquilibrium,
        [
            (67.3, 77.4),
            (84.2, 88.4),
            (76.5, 83.6),
            (89.2, 91.8),
            (82.4, 88.0),
            (82.4, 87.0),
        ],
    ),
    (
        Method::Alternating,
        [
            (68.5, 77.8),
            (84.6, 88.3),
            (76.6, 82.9),
            (88.6, 90.6),
            (82.3, 87.8),
            (81.5, 86.8),
        ],
    ),
    (
        Method::GlobalPastFuture,
        [
            (68.1, 78.4),
            (84.3, 88.1),
            (75.9, 82.9),
            (89.1, 92.3),
            (82.4, 87.9),
            (82.4, 87.1),
        ],
    ),
    (
        Method::Badge,
        [
            (70.2, 77.9),
            (86.0, 89.6),
            (77.8, 83.8),
            (90.0, 92.4),
            (83.2, 88.1),
            (84.3, 87.2),
        ],
    ),
];

/// Table 2: placements on RTE and QID.
const TABLE_2: [(BypassPlacement, [(f64, f64); 2]); 3] = [
    (BypassPlacement::Block, [(70.2, 77.9), (90.0, 92.4)]),
    (BypassPlacement::Mhsa, [(68.4, 77.3), (89.4, 91.7)]),
    (BypassPlacement::Ffn, [(69.6, 77.8), (89.7, 92.1)]),
];

/// Table 3: bottleneck dimensions on RTE and QID.
const TABLE_3: [(usize, [(f64, f64); 2]); 5] = [
    (64, [(70.2, 77.8), (89.9, 92.1)]),
    (32, [(70.1, 77.6), (90.0, 92.2)]),
    (16, [(70.2, 77.9), (90.0, 92.4)]),
    (8, [(70.0, 78.0), (89.8, 92.3)]),
    (4, [(69.9, 77.8), (89.7, 92.0)]),
];

/// S-avg and S-best on two tasks.
type OnTwoTasks = [(f64, f64); 2];

/// Table 6: backbones and methods on RTE and QID.
const TABLE_6: [(&str, Method, OnTwoTasks); 6] = [
    ("ElasticBERT", Method::Joint, [(62.3, 70.7), (88.6, 92.0)]),
    (
        "ElasticBERT",
        Method::Alternating,
        [(63.1, 70.9), (88.4, 91.6)],
    ),
    ("ElasticBERT", Method::Badge, [(64.5, 72.3), (89.3, 92.1)]),
    ("BERT-base", Method::Joint, [(61.5, 68.9), (87.5, 91.3)]),
    (
        "BERT-base",
        Method::Alternating,
        [(61.9, 69.3), (87.7, 91.2)],
    ),
    ("BERT-base", Method::Badge, [(62.7, 70.5), (88.9, 92.5)]),
];

/// Table 5: batch size, learning rate and activation of the best BADGE models.
const TABLE_5: [(&str, usize, f64, &str); 6] = [
    ("RTE", 16, 1e-5, "gelu"),
    ("MRPC", 16, 2e-5, "tanh"),
    ("MNLI", 1024, 5e-5, "gelu"),
    ("QID", 128, 1e-5, "gelu"),
    ("DoS", 128, 2e-5, "relu"),
    ("QDR", 1024, 3e-5, "leaky_relu"),
];

/// The tasks of Tables 2, 3 and 6.
const ABLATION_TASKS: [&str; 2] = ["RTE", "QID"];

impl PaperTable {
    /// How texts name it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Table1 => "Table 1",
            Self::Table2 => "Table 2",
            Self::Table3 => "Table 3",
            Self::Table5 => "Table 5",
            Self::Table6 => "Table 6",
            Self::Figure2 => "Figure 2",
        }
    }

    /// The paper's figures for a variant on one of its tasks and, in Table 6, backbones.
    pub fn figure(
        self,
        variant: &Variant,
        task: &str,
        backbone: Option<&str>,
    ) -> Option<PaperFigure> {
        let ablation = |row: &[(f64, f64); 2]| {
            let at = ABLATION_TASKS.iter().position(|name| *name == task)?;
            Some(row[at])
        };
        let shape = variant.bypass;
        let (average, best) = match self {
            Self::Table1 => {
                let at = TASKS.iter().position(|name| *name == task)?;
                let row = TABLE_1
                    .iter()
                    .find(|(method, _)| *method == variant.method)?;
                row.1[at]
            }
            Self::Table2 => {
                let BypassShape { placement, rank } = shape?;
                let row = TABLE_2
                    .iter()
                    .find(|(of, _)| *of == placement && rank == 16)?;
                ablation(&row.1)?
            }
            Self::Table3 => {
                let BypassShape { placement, rank } = shape?;
                let is_block = placement == BypassPlacement::Block;
                let row = TABLE_3.iter().find(|(of, _)| *of == rank && is_block)?;
                ablation(&row.1)?
            }
            Self::Table6 => {
                let row = TABLE_6
                    .iter()
                    .find(|(of, method, _)| Some(*of) == backbone && *method == variant.method)?;
                ablation(&row.2)?
            }
            Self::Table5 | Self::Figure2 => return None,
        };
        Some(PaperFigure { average, best })
    }

    /// The paper's batch size, learning rate and activation for a task, of Table 5.
    pub fn hyper_parameters(self, task: &str) -> Option<(usize, f64, &'static str)> {
        let row = TABLE_5.iter().find(|(name, ..)| *name == task)?;
        (self == Self::Table5).then_some((row.1, row.2, row.3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(method: Method, bypass: Option<BypassShape>) -> Variant {
        Variant {
            method,
            bypass,
            lte: false,
        }
    }

    #[test]
    fn tables_agree_where_they_repeat_a_figure() {
        let block = BypassShape {
            placement: BypassPlacement::Block,
            rank: 16,
        };
        let badge = variant(Method::Badge, Some(block));
        for task in ["RTE", "QID"] {
            let first = PaperTable::Table1.figure(&badge, task, None);
            assert!(first.is_some());
            assert_eq!(first, PaperTable::Table2.figure(&badge, task, None));
            assert_eq!(first, PaperTable::Table3.figure(&badge, task, None));
        }
    }

    #[test]
    fn what_the_paper_does_not_report_stays_empty() {
        let distilled = variant(Method::TwoStageDistillation, None);
        assert_eq!(PaperTable::Table1.figure(&distilled, "RTE", None), None);
        let joint = variant(Method::Joint, None);
        assert_eq!(PaperTable::Table1.figure(&joint, "SST-2", None), None);
        assert_eq!(
            PaperTable::Table6.figure(&joint, "RTE", Some("ALBERT-base")),
            None
        );
        let figure = PaperTable::Table6.figure(&joint, "RTE", Some("BERT-base"));
        assert_eq!(
            figure,
            Some(PaperFigure {
                average: 61.5,
                best: 68.9
            })
        );
        assert_eq!(PaperTable::Figure2.figure(&joint, "RTE", None), None);
    }
}
