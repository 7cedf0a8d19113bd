//! F1: the harmonic mean of precision and recall, in its averages.

use std::collections::BTreeMap;

use super::ratio;

/// True positives, false positives and false negatives of one label.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    true_positives: usize,
    false_positives: usize,
    false_negatives: usize,
}

impl Counts {
    /// Counts one sample of which the label was predicted and is true, or not.
    fn add(&mut self, predicted: bool, actual: bool) {
        self.true_positives += usize::from(predicted && actual);
        self.false_positives += usize::from(predicted && !actual);
        self.false_negatives += usize::from(!predicted && actual);
    }

    /// `F1 = 2 TP / (2 TP + FP + FN)`, 0 where nothing was predicted nor true.
    fn f1(self) -> f64 {
        let twice = 2.0 * self.true_positives as f64;
        ratio(
            twice,
            twice + (self.false_positives + self.false_negatives) as f64,
        )
    }
}

/// F1 of class 1 against all others.
///
/// # Panics
///
/// When the lengths differ.
pub fn binary_f1(predictions: &[usize], targets: &[usize]) -> f64 {
    assert_eq!(predictions.len(), targets.len());
    let mut counts = Counts::default();
    for (prediction, target) in predictions.iter().zip(targets) {
        counts.add(*prediction == 1, *target == 1);
    }
    counts.f1()
}

/// Plain mean of the F1 of every class that occurs among predictions or targets.
///
/// # Panics
///
/// When the lengths differ.
pub fn macro_f1(predictions: &[usize], targets: &[usize]) -> f64 {
    assert_eq!(predictions.len(), targets.len());
    let mut counts: BTreeMap<usize, Counts> = BTreeMap::new();
    for (prediction, target) in predictions.iter().zip(targets) {
        if prediction == target {
            counts.entry(*target).or_default().true_positives += 1;
        } else {
            counts.entry(*prediction).or_default().false_positives += 1;
            counts.entry(*target).or_default().false_negatives += 1;
        }
    }
    ratio(
        counts.values().map(|counts| counts.f1()).sum(),
        counts.len() as f64,
    )
}

/// F1 over the decisions on all labels together.
///
/// # Panics
///
/// When the lengths differ, or the sets of two samples do.
pub fn multi_label_micro_f1(predictions: &[&[bool]], targets: &[&[bool]]) -> f64 {
    let total =
        label_counts(predictions, targets)
            .into_iter()
            .fold(Counts::default(), |total, counts| Counts {
                true_positives: total.true_positives + counts.true_positives,
                false_positives: total.false_positives + counts.false_positives,
                false_negatives: total.false_negatives + counts.false_negatives,
            });
    total.f1()
}

/// Plain mean of every label's F1; a label never true and never predicted counts as 0.
///
/// # Panics
///
/// When the lengths differ, or the sets of two samples do.
pub fn multi_label_macro_f1(predictions: &[&[bool]], targets: &[&[bool]]) -> f64 {
    let counts = label_counts(predictions, targets);
    ratio(
        counts.iter().map(|counts| counts.f1()).sum(),
        counts.len() as f64,
    )
}

fn label_counts(predictions: &[&[bool]], targets: &[&[bool]]) -> Vec<Counts> {
    assert_eq!(predictions.len(), targets.len());
    let mut counts = vec![Counts::default(); targets.first().map_or(0, |set| set.len())];
    for (prediction, target) in predictions.iter().zip(targets) {
        assert_eq!(
            prediction.len(),
            counts.len(),
            "every set has a place for every label"
        );
        assert_eq!(
            target.len(),
            counts.len(),
            "every set has a place for every label"
        );
        for (label, counts) in counts.iter_mut().enumerate() {
            counts.add(prediction[label], target[label]);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn binary_f1_matches_scikit_learn() {
        // precision 2/3, recall 2/4.
        assert_near(
            binary_f1(&[1, 1, 1, 0, 0, 0], &[1, 1, 0, 1, 1, 0]),
            4.0 / 7.0,
        );
        assert_near(binary_f1(&[0, 0], &[0, 0]), 0.0);
        assert_near(binary_f1(&[0, 0], &[1, 1]), 0.0);
        assert_near(binary_f1(&[1, 1], &[1, 1]), 1.0);
    }

    #[test]
    fn macro_f1_matches_scikit_learn() {
        // f1_score([0,1,2,0,1,2], [0,2,1,0,0,1], average="macro") = (0.8 + 0 + 0) / 3.
        assert_near(
            macro_f1(&[0, 2, 1, 0, 0, 1], &[0, 1, 2, 0, 1, 2]),
            0.8 / 3.0,
        );
    }

    #[test]
    fn macro_f1_counts_a_class_that_was_only_predicted() {
        // Class 2 is never true: its F1 of 0 enters the mean, as in scikit-learn.
        assert_near(macro_f1(&[0, 2], &[0, 0]), (2.0 / 3.0) / 2.0);
    }

    #[test]
    fn label_never_seen_is_zero_in_the_macro_mean() {
        let set = |bits: &[bool]| bits.to_vec();
        let rows = [set(&[true, false]), set(&[true, false])];
        let rows: Vec<&[bool]> = rows.iter().map(Vec::as_slice).collect();
        assert_near(multi_label_macro_f1(&rows, &rows), 0.5);
        assert_near(multi_label_micro_f1(&rows, &rows), 1.0);
    }
}
