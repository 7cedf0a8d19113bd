//! Samples at random.

use badge_core::distribution::PredictionKind;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::policy_sample::Sample;

/// Answers of every kind, most of them single-label.
pub(crate) fn kind() -> impl Strategy<Value = PredictionKind> {
    prop_oneof![
        4 => (2usize..6).prop_map(|classes| PredictionKind::SingleLabel { classes }),
        1 => (1usize..5).prop_map(|labels| PredictionKind::MultiLabel { labels }),
        1 => Just(PredictionKind::Regression),
    ]
}

/// Samples with answers of one kind; one to 13 exits.
pub(crate) fn sample_of(kind: PredictionKind) -> impl Strategy<Value = Sample> {
    // Small logits make near ties, large ones sure exits.
    (1usize..14, select(vec![0.3f32, 2.0, 8.0])).prop_flat_map(move |(exits, size)| {
        let logits = vec(vec(-size..size, kind.logits()), exits);
        (logits, vec(0f32..=1.0, exits)).prop_map(move |(logits, doubts)| Sample {
            kind,
            logits,
            doubts,
        })
    })
}

/// Samples with answers of any kind.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    kind().prop_flat_map(sample_of)
}

/// Samples of single-label tasks.
pub(crate) fn single_label() -> impl Strategy<Value = Sample> {
    (2usize..6).prop_flat_map(|classes| sample_of(PredictionKind::SingleLabel { classes }))
}
