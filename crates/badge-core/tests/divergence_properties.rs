//! Bounds, symmetries and special values of the divergences, over random distributions.

use std::f64::consts::LN_2;

use badge_core::distribution::Distribution;
use badge_core::divergence::Divergence;
use proptest::collection::vec;
use proptest::prelude::*;

/// Sums over `f32` probabilities, each off by at most 6e-8 of itself, and logarithms up to 60.
const TOLERANCE: f64 = 1e-5;

fn distribution(classes: usize) -> impl Strategy<Value = Distribution> {
    vec(-30f32..30.0, classes).prop_map(|logits| Distribution::from_logits(&logits).unwrap())
}

fn pair() -> impl Strategy<Value = (Distribution, Distribution)> {
    (1usize..9).prop_flat_map(|classes| (distribution(classes), distribution(classes)))
}

/// Pairs close to each other and to the uniform distribution, where classes change places.
fn close_pair() -> impl Strategy<Value = (Distribution, Distribution)> {
    (2usize..6)
        .prop_flat_map(|classes| (vec(-0.1f32..0.1, classes), vec(-0.1f32..0.1, classes)))
        .prop_map(|(p, q)| {
            (
                Distribution::from_logits(&p).unwrap(),
                Distribution::from_logits(&q).unwrap(),
            )
        })
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * (1.0 + a.abs().max(b.abs()))
}

/// The largest difference between the probabilities of one class.
fn distance(p: &Distribution, q: &Distribution) -> f32 {
    let pairs = p.probabilities().iter().zip(q.probabilities());
    pairs.map(|(p, q)| (p - q).abs()).fold(0.0, f32::max)
}

proptest! {
    #[test]
    fn a_softmax_sums_to_one_and_its_logarithms_fit(logits in vec(-1e4f32..1e4, 1..20)) {
        let p = Distribution::from_logits(&logits).unwrap();
        let sum: f64 = p.probabilities().iter().map(|p| f64::from(*p)).sum();
        prop_assert!((sum - 1.0).abs() < 1e-5);
        for (p, log_p) in p.probabilities().iter().zip(p.log_probabilities()) {
            prop_assert!(log_p.is_finite() && *log_p <= 0.0);
            prop_assert!((f64::from(*log_p).exp() - f64::from(*p)).abs() < 1e-5);
        }
        prop_assert_eq!(p.max_probability(), p.probabilities().iter().copied().fold(0.0, f32::max));
    }

    #[test]
    fn shifting_all_logits_changes_nothing(logits in vec(-8f32..8.0, 1..9), shift in -64i8..64) {
        // Eighths keep the shifted logits exact in f32.
        let eighths: Vec<_> = logits.iter().map(|z| (z * 8.0).round() / 8.0).collect();
        let shifted: Vec<_> = eighths.iter().map(|z| z + f32::from(shift)).collect();
        let p = Distribution::from_logits(&eighths).unwrap();
        let q = Distribution::from_logits(&shifted).unwrap();
        prop_assert_eq!(p.argmax(), q.argmax());
        prop_assert!(distance(&p, &q) < 1e-6);
    }

    #[test]
    fn entropy_lies_between_zero_and_its_greatest_value((p, _) in pair()) {
        let greatest = (p.classes() as f64).ln();
        prop_assert!(p.entropy() >= 0.0 && p.entropy() <= greatest + TOLERANCE);
        prop_assert!((0.0..=1.0).contains(&p.normalised_entropy()));
    }

    #[test]
    fn cross_entropy_with_itself_is_entropy((p, _) in pair()) {
        prop_assert_eq!(Divergence::CrossEntropy.between(&p, &p), p.entropy());
    }

    #[test]
    fn cross_entropy_with_the_uniform_is_ln_k((p, _) in pair()) {
        let uniform = Distribution::uniform(p.classes()).unwrap();
        let s = Divergence::CrossEntropy.between(&p, &uniform);
        prop_assert!(close(s, (p.classes() as f64).ln()), "{}", s);
    }

    #[test]
    fn cross_entropy_is_entropy_plus_kl((p, q) in pair()) {
        let s = Divergence::CrossEntropy.between(&p, &q);
        prop_assert!(close(s, p.entropy() + Divergence::Kl.between(&p, &q)), "{}", s);
    }

    #[test]
    fn consistency_measures_are_zero_for_equals_and_positive_otherwise((p, q) in pair()) {
        for divergence in [
            Divergence::Kl,
            Divergence::ReverseKl,
            Divergence::SymmetricKl,
            Divergence::JensenShannon,
            Divergence::LabelMismatch,
        ] {
            prop_assert_eq!(divergence.between(&p, &p), 0.0, "{}", divergence);
            prop_assert!(divergence.between(&p, &q) >= 0.0, "{}", divergence);
        }
        // Pinsker: KL ≥ 2 TV² and JS ≥ ½ TV² with TV at least the largest difference.
        let gap = f64::from(distance(&p, &q)).powi(2);
        prop_assert!(Divergence::Kl.between(&p, &q) >= 2.0 * gap - TOLERANCE);
        prop_assert!(Divergence::ReverseKl.between(&p, &q) >= 2.0 * gap - TOLERANCE);
        prop_assert!(Divergence::SymmetricKl.between(&p, &q) >= 4.0 * gap - TOLERANCE);
        prop_assert!(Divergence::JensenShannon.between(&p, &q) >= 0.5 * gap - TOLERANCE);
    }

    #[test]
    fn symmetric_measures_are_symmetric_and_reverse_kl_is_kl_reversed((p, q) in pair()) {
        for divergence in
            [Divergence::SymmetricKl, Divergence::JensenShannon, Divergence::LabelMismatch]
        {
            let (there, back) = (divergence.between(&p, &q), divergence.between(&q, &p));
            prop_assert!(close(there, back), "{}: {} and {}", divergence, there, back);
        }
        let (kl, rkl) = (Divergence::Kl.between(&p, &q), Divergence::ReverseKl.between(&q, &p));
        prop_assert_eq!(kl, rkl);
        let sum = kl + Divergence::ReverseKl.between(&p, &q);
        prop_assert_eq!(Divergence::SymmetricKl.between(&p, &q), sum);
    }

    #[test]
    fn jensen_shannon_is_bounded_by_ln_2_and_by_its_definition((p, q) in pair()) {
        let js = Divergence::JensenShannon.between(&p, &q);
        prop_assert!(js <= LN_2);
        let mean: Vec<_> =
            p.probabilities().iter().zip(q.probabilities()).map(|(p, q)| 0.5 * (p + q)).collect();
        let mean = Distribution::from_probabilities(&mean).unwrap();
        let kl = Divergence::Kl;
        let by_definition = 0.5 * kl.between(&p, &mean) + 0.5 * kl.between(&q, &mean);
        prop_assert!(close(js, by_definition), "{} for {}", js, by_definition);
    }

    #[test]
    fn cross_entropy_below_ln_2_means_the_same_class((p, q) in prop_oneof![pair(), close_pair()]) {
        // ln 2 itself is met by ties, which rounding may put on either side.
        if Divergence::CrossEntropy.between(&p, &q) < LN_2 - 1e-6 {
            prop_assert_eq!(p.argmax(), q.argmax());
        }
    }
}

#[test]
fn cross_entropy_just_above_ln_2_allows_different_classes() {
    let p = Distribution::from_probabilities(&[0.51, 0.49]).unwrap();
    let q = Distribution::from_probabilities(&[0.49, 0.51]).unwrap();
    assert_ne!(p.argmax(), q.argmax());
    let s = Divergence::CrossEntropy.between(&p, &q);
    assert!(s > LN_2 && s < LN_2 + 1e-3, "{s}");
}

#[test]
#[should_panic(expected = "different classes")]
fn distributions_over_different_classes_are_not_compared() {
    let p = Distribution::uniform(2).unwrap();
    Divergence::Kl.between(&p, &Distribution::uniform(3).unwrap());
}
