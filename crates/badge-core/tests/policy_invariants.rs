//! What must hold of every policy, over random answers of all exits: the rules as they are
//! printed, monotony, extremes, and how the policies relate to each other.

mod policy_sample;
mod random_samples;

use badge_core::distribution::{Prediction, PredictionKind};
use badge_core::divergence::Divergence;
use badge_core::exit::{Depth, ExitPlan};
use badge_core::policy::{
    Decision, DivergenceBased, Entropy, FlexiblePatience, LearningToExit, MaxProbability,
    ModelExits, Outlook, Patience, PatientConfident, PolicySpec, Vote,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use policy_sample::{BINARY, Sample};
use random_samples::{kind, sample, sample_of, single_label};

fn divergence() -> impl Strategy<Value = Divergence> {
    select(Divergence::all().collect::<Vec<_>>())
}

/// Any policy that a model with this kind of answer and so many exits can run.
fn spec(kind: PredictionKind, exits: usize) -> impl Strategy<Value = PolicySpec> {
    let number = (0.001f64..2.5, 1usize..5, divergence());
    (0usize..10, number, 1..=exits).prop_map(move |(rule, (tau, t, divergence), depth)| {
        let has_distributions = kind != PredictionKind::Regression;
        let text = match rule {
            0 => "full".to_owned(),
            1 => format!("fixed:{depth}"),
            2 if has_distributions => format!("entropy:{tau}"),
            3 if has_distributions => format!("entropy:{tau},normalised"),
            4 if has_distributions => format!("maxprob:{}", 0.5 * tau),
            5 => format!("patience:{t},tolerance={tau}"),
            6 => format!("lte:{}", tau / 2.5),
            7 if has_distributions => format!("pcee:tau={tau},t={t}"),
            8 => format!("flexible-patience:tau={tau},t={t},divergence={divergence}"),
            9 if matches!(kind, PredictionKind::SingleLabel { .. }) => format!("vote:tau={tau}"),
            _ => format!("dge:tau={tau},t={t},divergence={divergence}"),
        };
        text.parse().unwrap()
    })
}

fn sample_and_spec() -> impl Strategy<Value = (Sample, PolicySpec)> {
    sample().prop_flat_map(|sample| {
        let spec = spec(sample.kind, sample.count());
        (Just(sample), spec)
    })
}

/// Samples of one model, and a policy for it.
fn samples_and_spec() -> impl Strategy<Value = (Vec<Sample>, PolicySpec)> {
    (kind(), 1usize..10).prop_flat_map(|(kind, exits)| {
        let logits = vec(vec(-3f32..3.0, kind.logits()), exits);
        let rows = vec((logits, vec(0f32..=1.0, exits)), 2..5);
        let samples = rows.prop_map(move |rows| {
            let sample = |(logits, doubts)| Sample {
                kind,
                logits,
                doubts,
            };
            rows.into_iter().map(sample).collect::<Vec<_>>()
        });
        (samples, spec(kind, exits))
    })
}

/// Softmax without any care, in f64: the oracle's logits are small.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|z| f64::from(*z).exp()).sum();
    logits.iter().map(|z| f64::from(*z).exp() / sum).collect()
}

fn entropy(p: &[f64]) -> f64 {
    -p.iter().map(|p| p * p.ln()).sum::<f64>()
}

fn greatest(p: &[f64]) -> f64 {
    p.iter().copied().fold(0.0, f64::max)
}

fn label(p: &[f64]) -> usize {
    p.iter().position(|value| *value == greatest(p)).unwrap()
}

fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let mean: Vec<f64> = p.iter().zip(q).map(|(p, q)| 0.5 * (p + q)).collect();
    entropy(&mean) - 0.5 * entropy(p) - 0.5 * entropy(q)
}

/// The first exit at which `condition` has held `t` times in a row, else the deepest; the first
/// exit that may count is `first`, from 1.
fn first_streak(exits: usize, first: usize, t: usize, condition: impl Fn(usize) -> bool) -> usize {
    let mut count = 0;
    for m in first..=exits {
        count = if condition(m - 1) { count + 1 } else { 0 };
        if count == t {
            return m;
        }
    }
    exits
}

/// Whether all of these lie away from a threshold, so that rounding does not decide.
fn clear_of(threshold: f64, mut scores: impl Iterator<Item = f64>) -> bool {
    scores.all(|score| (score - threshold).abs() > 1e-4)
}

proptest! {
    #[test]
    fn entropy_follows_its_formula(
        sample in single_label(), threshold in 0.01f64..1.5, share in 0.01f64..1.0,
    ) {
        let scores: Vec<_> = sample.logits.iter().map(|z| entropy(&softmax(z))).collect();
        let greatest = (sample.kind.logits() as f64).ln();
        let shares = scores.iter().map(|h| h / greatest);
        prop_assume!(clear_of(threshold, scores.iter().copied()));
        prop_assume!(clear_of(share, shares.clone()));
        let exits = sample.count();
        let expected = first_streak(exits, 1, 1, |m| scores[m] < threshold);
        prop_assert_eq!(sample.depth(Entropy::new(threshold).unwrap()), expected);
        let expected = first_streak(exits, 1, 1, |m| scores[m] / greatest <= share);
        prop_assert_eq!(sample.depth(Entropy::new(share).unwrap().normalised()), expected);
    }

    #[test]
    fn maxprob_follows_its_formula_with_a_temperature_per_exit(
        sample in single_label(), threshold in 0.2f64..1.0, seed in 0usize..97,
    ) {
        let exits = sample.count();
        let temperature = |m: usize| 0.4 + 0.2 * ((seed + 31 * m) % 11) as f64;
        let temperatures: Vec<f64> = (0..exits).map(temperature).collect();
        let scores: Vec<f64> = sample.logits.iter().zip(&temperatures).map(|(logits, t)| {
            let divided: Vec<f32> = logits.iter().map(|z| (f64::from(*z) / t) as f32).collect();
            greatest(&softmax(&divided))
        }).collect();
        prop_assume!(clear_of(threshold, scores.iter().copied()));
        let rule = MaxProbability::new(threshold).unwrap();
        let rule = rule.with_temperatures(&temperatures).unwrap();
        let expected = first_streak(exits, 1, 1, |m| scores[m] >= threshold);
        prop_assert_eq!(sample.depth(rule), expected);
    }

    #[test]
    fn patience_follows_its_formula(sample in single_label(), t in 1usize..5) {
        let labels: Vec<_> = sample.logits.iter().map(|z| label(&softmax(z))).collect();
        let same = |m: usize| labels[m] == labels[m - 1];
        let expected = first_streak(sample.count(), 2, t, same);
        prop_assert_eq!(sample.depth(Patience::new(t).unwrap()), expected);
    }

    #[test]
    fn patience_of_numbers_follows_its_formula(
        sample in sample_of(PredictionKind::Regression), t in 1usize..5, tolerance in 0.01f64..4.0,
    ) {
        let change = |m: usize| (f64::from(sample.logits[m][0]) - f64::from(sample.logits[m - 1][0])).abs();
        let expected = first_streak(sample.count(), 2, t, |m| change(m) < tolerance);
        let rule = Patience::new(t).unwrap().with_tolerance(tolerance).unwrap();
        prop_assert_eq!(sample.depth(rule), expected);
        // Whatever the divergence, flexible patience compares numbers in the same way.
        prop_assert_eq!(sample.depth(FlexiblePatience::new(tolerance, t).unwrap()), expected);
    }

    #[test]
    fn flexible_patience_follows_its_formula(
        sample in single_label(), t in 1usize..5, tau in 0.001f64..0.7,
    ) {
        let p: Vec<_> = sample.logits.iter().map(|z| softmax(z)).collect();
        let js = |m: usize| jensen_shannon(&p[m - 1], &p[m]);
        let kl = |m: usize| -> f64 {
            p[m - 1].iter().zip(&p[m]).map(|(p, q)| p * (p / q).ln()).sum()
        };
        prop_assume!(clear_of(tau, (1..p.len()).map(js)));
        prop_assume!(clear_of(tau, (1..p.len()).map(kl)));
        let rule = FlexiblePatience::new(tau, t).unwrap();
        prop_assert_eq!(sample.depth(rule), first_streak(p.len(), 2, t, |m| js(m) < tau));
        let rule = rule.with_divergence(Divergence::Kl);
        prop_assert_eq!(sample.depth(rule), first_streak(p.len(), 2, t, |m| kl(m) < tau));
    }

    #[test]
    fn pcee_follows_its_formula(sample in single_label(), t in 1usize..5, tau in 0.01f64..1.0) {
        let greatest = (sample.kind.logits() as f64).ln();
        let share = |m: usize| entropy(&softmax(&sample.logits[m])) / greatest;
        prop_assume!(clear_of(tau, (0..sample.count()).map(share)));
        let expected = first_streak(sample.count(), 1, t, |m| share(m) < tau);
        prop_assert_eq!(sample.depth(PatientConfident::new(tau, t).unwrap()), expected);
    }

    #[test]
    fn lte_follows_its_formula(sample in sample(), threshold in 0.01f64..1.0) {
        let expected = first_streak(sample.count(), 1, 1, |m| f64::from(sample.doubts[m]) < threshold);
        prop_assert_eq!(sample.depth(LearningToExit::new(threshold).unwrap()), expected);
    }

    #[test]
    fn vote_follows_its_formula(
        sample in single_label(), tau in 0.5f64..4.0, gamma in 0f64..=1.0,
    ) {
        let labels: Vec<_> = sample.logits.iter().map(|z| label(&softmax(z))).collect();
        let score = |m: usize| {
            let votes = |c: usize| labels[..=m].iter().filter(|label| **label == c).count();
            let most = (0..sample.kind.logits()).map(votes).max().unwrap();
            most as f64 / ((m + 1) as f64).powf(gamma)
        };
        let expected = first_streak(sample.count(), 1, 1, |m| score(m) >= tau);
        let rule = Vote::new(tau).unwrap().with_gamma(gamma).unwrap();
        prop_assert_eq!(sample.depth(rule), expected);
    }

    #[test]
    fn a_laxer_parameter_never_exits_later(
        sample in single_label(), (tau, more) in (0.01f64..1.0, 0f64..1.0),
        (t, extra) in (1usize..5, 0usize..4), divergence in divergence(),
    ) {
        let no_later = |lax: PolicySpec, strict: PolicySpec| {
            prop_assert!(sample.depth(lax.clone()) <= sample.depth(strict.clone()), "{lax}, {strict}");
            Ok(())
        };
        let entropy = |s: f64| Entropy::new(s).unwrap();
        no_later(entropy(tau + more).into(), entropy(tau).into())?;
        no_later(entropy(tau + more).normalised().into(), entropy(tau).normalised().into())?;
        let maxprob = |theta: f64| MaxProbability::new(theta).unwrap().into();
        no_later(maxprob(tau), maxprob(tau + more))?;
        let lte = |threshold: f64| LearningToExit::new(threshold).unwrap().into();
        no_later(lte((tau + more).min(1.0)), lte(tau))?;
        let vote = |tau: f64, gamma: f64| Vote::new(tau).unwrap().with_gamma(gamma).unwrap().into();
        no_later(vote(2.0 * tau, 0.5), vote(2.0 * tau + more, 0.5))?;
        no_later(vote(2.0 * tau, tau), vote(2.0 * tau, (tau + more).min(1.0)))?;
        let patience = |t: usize| Patience::new(t).unwrap().into();
        no_later(patience(t), patience(t + extra))?;
        let pcee = |tau: f64, t: usize| PatientConfident::new(tau, t).unwrap().into();
        no_later(pcee(tau + more, t), pcee(tau, t + extra))?;
        let flexible = |tau: f64, t: usize| {
            FlexiblePatience::new(tau, t).unwrap().with_divergence(divergence).into()
        };
        no_later(flexible(tau + more, t), flexible(tau, t + extra))?;
    }

    #[test]
    fn extreme_parameters_are_the_full_model(
        sample in single_label(), tau in 0.01f64..9.0, extra in 0usize..3, divergence in divergence(),
    ) {
        let exits = sample.count();
        let t = exits + extra;
        let strict: [PolicySpec; 8] = [
            Entropy::new(0.0).unwrap().into(),
            MaxProbability::new(1.0 + tau).unwrap().into(),
            Patience::new(t).unwrap().into(),
            FlexiblePatience::new(tau, t).unwrap().with_divergence(divergence).into(),
            PatientConfident::new(tau, t).unwrap().into(),
            DivergenceBased::new(tau, t).unwrap().with_divergence(divergence).into(),
            Vote::new(tau + (exits as f64).sqrt()).unwrap().into(),
            PolicySpec::Full,
        ];
        for spec in strict {
            prop_assert_eq!(sample.depth(spec.clone()), exits, "{}", spec);
        }
        let lax: [PolicySpec; 4] = [
            Entropy::new(1.0).unwrap().normalised().into(),
            Entropy::new(1.0 + (sample.kind.logits() as f64).ln()).unwrap().into(),
            PatientConfident::new(1.01, 1).unwrap().into(),
            Vote::new(1.0).unwrap().into(),
        ];
        for spec in lax {
            prop_assert_eq!(sample.depth(spec.clone()), 1, "{}", spec);
        }
    }

    #[test]
    fn patient_policies_have_a_floor(
        sample in sample(), tau in 0.01f64..1e6, t in 1usize..16, divergence in divergence(),
    ) {
        let exits = sample.count();
        let patience = Patience::new(t).unwrap().with_tolerance(tau).unwrap();
        prop_assert!(sample.depth(patience) >= (t + 1).min(exits));
        let flexible = FlexiblePatience::new(tau, t).unwrap().with_divergence(divergence);
        prop_assert!(sample.depth(flexible) >= (t + 1).min(exits));
        if sample.kind != PredictionKind::Regression {
            let pcee = PatientConfident::new(tau, t).unwrap();
            prop_assert!(sample.depth(pcee) >= t.min(exits));
        }
    }

    #[test]
    fn with_two_classes_entropy_and_maxprob_draw_the_same_curve(
        rows in vec(vec(-4f32..4.0, 5), 2..6),
    ) {
        let samples: Vec<_> = rows.iter().map(|row| {
            Sample::new(BINARY, row.iter().map(|z| vec![0.0, *z]).collect())
        }).collect();
        let mut surest: Vec<f64> = rows.iter().flatten().map(|z| {
            1.0 / (1.0 + (-f64::from(z.abs())).exp())
        }).collect();
        surest.sort_by(f64::total_cmp);
        let h = |p: f64| entropy(&[p, 1.0 - p]);
        // Between two neighbouring values, and beyond both ends, one threshold stands for all. Between
        // values that are nearly equal there is none: rounding may put them on either side of it.
        surest.insert(0, 0.5);
        surest.push(1.0);
        let neighbours = surest.windows(2).map(|pair| (pair[0], pair[1]));
        let apart = neighbours.filter(|(low, high)| h(*low) - h(*high) > 1e-5 && high - low > 1e-5);
        let thresholds: Vec<_> = apart.map(|(low, high)| 0.5 * (low + high)).collect();
        prop_assert!(!thresholds.is_empty());
        for theta in thresholds {
            let maxprob = MaxProbability::new(theta).unwrap();
            let entropy = Entropy::new(h(theta)).unwrap();
            let normalised = Entropy::new(h(theta) / 2f64.ln()).unwrap().normalised();
            for sample in &samples {
                let depth = sample.depth(maxprob.clone());
                prop_assert_eq!(sample.depth(entropy), depth);
                prop_assert_eq!(sample.depth(normalised), depth);
            }
        }
    }

    #[test]
    fn dge_by_label_mismatch_exits_no_later_than_patience(sample in sample(), t in 1usize..5) {
        prop_assume!(sample.kind != PredictionKind::Regression);
        let mismatch = DivergenceBased::new(1.0, t).unwrap();
        let mismatch = mismatch.with_divergence(Divergence::LabelMismatch);
        prop_assert!(sample.depth(mismatch) <= sample.depth(Patience::new(t).unwrap()));
    }

    #[test]
    fn patience_is_flexible_patience_by_label_mismatch(
        sample in sample(), t in 1usize..5, tau in 0.001f64..=1.0,
    ) {
        prop_assume!(sample.kind != PredictionKind::Regression);
        let flexible = FlexiblePatience::new(tau, t).unwrap();
        let flexible = flexible.with_divergence(Divergence::LabelMismatch);
        prop_assert_eq!(sample.depth(flexible), sample.depth(Patience::new(t).unwrap()));
    }

    #[test]
    fn pcee_with_patience_1_is_entropy(sample in single_label(), tau in 0.01f64..1.0) {
        let normalised = Entropy::new(tau).unwrap().normalised();
        // They differ in a tie only: one comparison is strict, the other is not.
        prop_assert_eq!(sample.depth(PatientConfident::new(tau, 1).unwrap()), sample.depth(normalised));
    }

    #[test]
    fn no_decision_contradicts_the_outlook((sample, spec) in sample_and_spec()) {
        let policy = spec.build_for(&sample.exits()).unwrap();
        let (mut state, outputs) = (policy.start(), sample.outputs());
        for (depth, output) in policy.plan().depths().iter().zip(outputs.observations()) {
            let decision = policy.observe(&mut state, *depth, output);
            match policy.outlook(*depth) {
                Outlook::Never => prop_assert_eq!(decision, Decision::Continue, "{} at {}", spec, depth),
                Outlook::Possible => {}
                Outlook::Certain => prop_assert_eq!(decision, Decision::Exit, "{} at {}", spec, depth),
            }
            if decision == Decision::Exit {
                break;
            }
        }
    }

    #[test]
    fn a_sample_does_not_depend_on_its_neighbours_or_on_the_state_before(
        (samples, spec) in samples_and_spec(),
    ) {
        let policy = spec.build_for(&samples[0].exits()).unwrap();
        let alone: Vec<_> = samples.iter().map(|sample| sample.depth(spec.clone())).collect();

        let mut reused = policy.start();
        for (sample, alone) in samples.iter().zip(&alone) {
            let point = policy.replay(&mut reused, sample.outputs().observations());
            prop_assert_eq!(point.depth.0, *alone);
        }

        // Block by block over the batch, as an engine does it.
        let outputs: Vec<_> = samples.iter().map(Sample::outputs).collect();
        let mut batched = vec![None; samples.len()];
        let mut states = vec![policy.start(); samples.len()];
        for depth in policy.plan().depths() {
            for (row, outputs) in outputs.iter().enumerate() {
                let output = outputs.observations().nth(depth.index().0).unwrap();
                if batched[row].is_none()
                    && policy.observe(&mut states[row], *depth, output) == Decision::Exit
                {
                    batched[row] = Some(depth.0);
                }
            }
        }
        prop_assert_eq!(batched.into_iter().map(Option::unwrap).collect::<Vec<_>>(), alone);
    }

    #[test]
    fn only_evaluated_exits_count(
        ((sample, spec), kept) in sample_and_spec().prop_flat_map(|(sample, spec)| {
            let inner: Vec<_> = (0..sample.count() - 1).collect();
            let count = inner.len();
            (Just((sample, spec)), subsequence(inner, 0..=count))
        }),
    ) {
        prop_assume!(spec.name() != "fixed");
        let mut kept = kept;
        kept.push(sample.count() - 1);
        let policy = spec.build_for(&sample.exits()).unwrap();
        let (mut state, outputs) = (policy.start(), sample.outputs());
        let evaluated = outputs.observations().enumerate().filter(|(i, _)| kept.contains(i));
        let left = evaluated
            .map(|(i, output)| (i, policy.observe(&mut state, Depth(i + 1), output)))
            .find(|(_, decision)| *decision == Decision::Exit)
            .map(|(i, _)| i);

        // A model that has only these blocks says the same, counted in its own depths.
        let small = Sample {
            kind: sample.kind,
            logits: kept.iter().map(|i| sample.logits[*i].clone()).collect(),
            doubts: kept.iter().map(|i| sample.doubts[*i]).collect(),
        };
        prop_assert_eq!(Some(kept[small.depth(spec) - 1]), left);
    }
}

#[test]
fn an_exit_that_the_rule_does_not_look_at_is_not_needed() {
    let exits = ModelExits::new(ExitPlan::new(vec![2, 4, 6], 6).unwrap(), BINARY);
    let exits = exits.with_learning_to_exit();
    for (text, needed) in [
        ("full", &[6][..]),
        ("fixed:4", &[4]),
        ("entropy:0.2", &[2, 4, 6]),
        ("patience:3", &[2, 4, 6]),
        ("lte:0.1", &[2, 4, 6]),
    ] {
        let policy = text.parse::<PolicySpec>().unwrap();
        let policy = policy.build_for(&exits).unwrap();
        let found: Vec<_> = (1..=7).filter(|d| policy.needs(Depth(*d))).collect();
        assert_eq!(found, needed, "{text}");
    }
}

#[test]
#[should_panic(expected = "probability to continue is observed")]
fn learning_to_exit_asks_for_the_heads_output() {
    let exits = ModelExits::new(ExitPlan::every_block(3), BINARY).with_learning_to_exit();
    let policy = PolicySpec::from(LearningToExit::new(0.1).unwrap());
    let policy = policy.build_for(&exits).unwrap();
    let answer = Prediction::blank(BINARY).unwrap();
    let _ = policy.observe(&mut policy.start(), Depth(1), &answer);
}
