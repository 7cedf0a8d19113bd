//! One temperature per exit, fitted on dev.

use badge_core::calibration::temperature::{Temperature, fit};
use badge_tasks::{LabelSpace, Target};
use badge_train::evaluate::ExitLogits;

/// The temperature of every exit in the order of the plan; none for regression.
///
/// A label that is decided by itself is a row of two classes, with the logits 0 and its own.
///
/// # Panics
/// When there is not one target of the label space per row.
pub fn temperatures(
    logits: &ExitLogits,
    targets: &[Target],
    space: &LabelSpace,
) -> Vec<Temperature> {
    assert_eq!(logits.rows(), targets.len(), "one target per row");
    if *space == LabelSpace::Regression {
        return Vec::new();
    }
    let of_exit = |exit| {
        let mut rows: Vec<([f32; 2], usize)> = Vec::new();
        let mut single: Vec<(&[f32], usize)> = Vec::new();
        for (row, target) in targets.iter().enumerate() {
            let logits = logits.logits(row, exit);
            match target {
                Target::Class(class) => single.push((logits, *class)),
                Target::Classes(set) => {
                    let labels = logits.iter().zip(set);
                    rows.extend(labels.map(|(logit, holds)| ([0.0, *logit], usize::from(*holds))));
                }
                Target::Value(_) => unreachable!("labels are classes or sets of them"),
            }
        }
        let labels = rows
            .iter()
            .map(|(logits, class)| (logits.as_slice(), *class));
        fit(single.into_iter().chain(labels))
    };
    (0..logits.exits).filter_map(of_exit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_has_its_own_and_labels_count_one_by_one() {
        // The first exit claims 98 % and is right in three rows of four; the second is fair.
        let right = |row: usize| usize::from(!row.is_multiple_of(4));
        let fair = 3.0_f32.ln();
        let logits = ExitLogits {
            exits: 2,
            outputs: 2,
            values: (0..8).flat_map(|_| [0.0, 4.0, 0.0, fair]).collect(),
            continue_probabilities: Vec::new(),
        };
        let targets: Vec<_> = (0..8).map(|row| Target::Class(right(row))).collect();
        let labels = ["no", "yes"].map(str::to_owned).to_vec();
        let space = LabelSpace::SingleLabel {
            labels: labels.clone(),
        };
        let of_classes: Vec<f64> = temperatures(&logits, &targets, &space)
            .iter()
            .map(|temperature| temperature.value)
            .collect();
        assert!((of_classes[0] - 4.0 / 3.0_f64.ln()).abs() < 1e-6);
        assert!((of_classes[1] - 1.0).abs() < 1e-6);

        // One label with the second class's logit.
        let logits = ExitLogits {
            exits: 2,
            outputs: 1,
            values: (0..8).flat_map(|_| [4.0, fair]).collect(),
            continue_probabilities: Vec::new(),
        };
        let targets: Vec<_> = (0..8)
            .map(|row| Target::Classes(vec![right(row) == 1]))
            .collect();
        let of_labels = temperatures(&logits, &targets, &LabelSpace::MultiLabel { labels });
        for (found, expected) in of_labels.iter().zip(of_classes) {
            assert!((found.value - expected).abs() < 1e-9);
        }
        assert!(temperatures(&logits, &targets, &LabelSpace::Regression).is_empty());
    }
}
