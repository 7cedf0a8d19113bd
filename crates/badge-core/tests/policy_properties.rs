//! What divergence-based exiting promises, over random answers of all exits and by traces worked
//! by hand; and what every policy does.

mod policy_sample;
mod random_samples;

use std::f64::consts::LN_2;

use badge_core::distribution::{Prediction, PredictionKind};
use badge_core::divergence::Divergence;
use badge_core::exit::{Depth, ExitPlan};
use badge_core::policy::{
    Decision, DivergenceBased, Evidence, ExitReason, FixedDepth, Policy, PolicySpec, PolicyState,
    Window, replay,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use policy_sample::{BINARY, Sample};
use random_samples::{sample, single_label};

fn divergence() -> impl Strategy<Value = Divergence> {
    select(Divergence::all().collect::<Vec<_>>())
}

fn window() -> impl Strategy<Value = Window> {
    (0usize..6).prop_map(|n| n.try_into().map_or(Window::All, Window::Last))
}

fn dge(tau: f64, t: usize) -> DivergenceBased {
    DivergenceBased::new(tau, t).unwrap()
}

/// Patience of Zhou et al. (2020): the label has stayed the same `t` times in a row.
fn pabee_depth(labels: &[usize], t: usize) -> usize {
    let mut counter = 0;
    for m in 1..labels.len() {
        counter = if labels[m] == labels[m - 1] {
            counter + 1
        } else {
            0
        };
        if counter == t {
            return m + 1;
        }
    }
    labels.len()
}

/// Softmax without any care, in f64: the oracle's logits are small.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|z| f64::from(*z).exp()).sum();
    logits.iter().map(|z| f64::from(*z).exp() / sum).collect()
}

/// Equation (4) as it is printed.
fn paper_score(p_m: &[f64], p_i: &[f64]) -> f64 {
    -p_m.iter().zip(p_i).map(|(p, q)| p * q.ln()).sum::<f64>()
}

/// Section 3.2 word for word; nothing when a score is too close to `tau` for rounding to decide.
fn paper_depth(logits: &[Vec<f32>], tau: f64, t: usize) -> Option<usize> {
    let p: Vec<_> = logits.iter().map(|z| softmax(z)).collect();
    let layers = p.len();
    for m in 1..=layers {
        let scores: Vec<_> = (1..m).map(|i| paper_score(&p[m - 1], &p[i - 1])).collect();
        if scores.iter().any(|s| (s - tau).abs() < 1e-4) {
            return None;
        }
        if scores.iter().filter(|s| **s < tau).count() >= t {
            return Some(m);
        }
    }
    Some(layers)
}

fn labels(outputs: &[Prediction]) -> Vec<usize> {
    let label = |output: &Prediction| match output {
        Prediction::SingleLabel(p) => p.argmax(),
        other => panic!("{} has no single label", other.kind()),
    };
    outputs.iter().map(label).collect()
}

/// Feeds one exit after another and says where the policy stops.
fn feed(policy: &Policy, state: &mut PolicyState, exits: &[(Depth, &Prediction)]) -> Depth {
    let exit = exits
        .iter()
        .find(|(d, p)| policy.observe(state, *d, *p) == Decision::Exit);
    exit.expect("the deepest exit is among those fed").0
}

proptest! {
    #[test]
    fn dge_follows_the_papers_text(sample in single_label(), tau in 0.01f64..2.0, t in 1usize..5) {
        let expected = paper_depth(&sample.logits, tau, t);
        prop_assume!(expected.is_some());
        prop_assert_eq!(Some(sample.depth(dge(tau, t))), expected);
    }

    #[test]
    fn dge_exits_at_exit_t_plus_1_at_the_earliest(
        sample in sample(),
        tau in 0.01f64..1e6,
        t in 1usize..16,
        divergence in divergence(),
        window in window(),
    ) {
        let policy = dge(tau, t).with_divergence(divergence).with_window(window);
        let depth = sample.depth(policy);
        prop_assert!(depth >= (t + 1).min(sample.count()));
        prop_assert!(depth <= sample.count());
    }

    #[test]
    fn dge_never_exits_later_with_a_larger_tau_or_a_smaller_t(
        sample in sample(),
        (tau, more) in (0.01f64..3.0, 0f64..2.0),
        (t, extra) in (1usize..6, 0usize..4),
        divergence in divergence(),
        window in window(),
    ) {
        let policy = |tau, t| dge(tau, t).with_divergence(divergence).with_window(window);
        let depth = sample.depth(policy(tau, t));
        prop_assert!(sample.depth(policy(tau + more, t)) <= depth);
        prop_assert!(sample.depth(policy(tau, t + extra)) >= depth);
    }

    #[test]
    fn dge_never_exits_later_with_a_wider_window(
        sample in sample(),
        tau in 0.01f64..3.0,
        t in 1usize..5,
        (narrow, wider) in (1usize..6, 0usize..4),
        divergence in divergence(),
    ) {
        let depth = |window| sample.depth(dge(tau, t).with_divergence(divergence).with_window(window));
        let last = |n: usize| depth(Window::Last(n.try_into().unwrap()));
        prop_assert!(last(narrow + wider) <= last(narrow));
        prop_assert!(depth(Window::All) <= last(narrow + wider));
        prop_assert_eq!(last(sample.count()), depth(Window::All));
    }

    #[test]
    fn dge_with_tau_up_to_ln_2_counts_exits_of_the_same_class_only(
        sample in single_label(),
        // A little less, since rounding may put a tie on either side of ln 2.
        tau in 0.1f64..LN_2 - 1e-6,
        t in 1usize..4,
    ) {
        let outputs = sample.outputs().predictions;
        let plan = ExitPlan::every_block(sample.count());
        let policy = PolicySpec::from(dge(tau, t)).build(&plan, sample.kind).unwrap();
        let (mut state, labels) = (policy.start(), labels(&outputs));
        for (depth, output) in plan.depths().iter().zip(&outputs) {
            let _ = policy.observe(&mut state, *depth, output);
            let agreeing = match policy.reason(&state) {
                ExitReason::Settled(Some(Evidence::Agreement(agreement)))
                | ExitReason::Undecided(Some(Evidence::Agreement(agreement)))
                | ExitReason::DeepestExit(Some(Evidence::Agreement(agreement))) => agreement.exits,
                reason => panic!("{reason} counts no exits"),
            };
            for (earlier, score) in agreeing {
                prop_assert!(score < tau && earlier < *depth);
                prop_assert_eq!(labels[earlier.index().0], labels[depth.index().0]);
            }
        }
    }

    #[test]
    fn dge_with_t_of_all_exits_is_the_full_model(
        sample in sample(),
        tau in 0.01f64..1e6,
        extra in 0usize..3,
        divergence in divergence(),
    ) {
        let policy = dge(tau, sample.count() + extra).with_divergence(divergence);
        prop_assert_eq!(sample.depth(policy), sample.count());
        prop_assert_eq!(sample.depth(PolicySpec::Full), sample.count());
    }

    #[test]
    fn dge_by_label_mismatch_exits_no_later_than_pabee(
        labels in vec(0usize..3, 1..14),
        t in 1usize..5,
        tau in 0.001f64..=1.0,
    ) {
        let logits = labels.iter().map(|label| {
            (0..3).map(|class| if class == *label { 1.0 } else { 0.0 }).collect()
        }).collect();
        let sample = Sample::new(PredictionKind::SingleLabel { classes: 3 }, logits);
        let depth = sample.depth(dge(tau, t).with_divergence(Divergence::LabelMismatch));
        prop_assert!(depth <= pabee_depth(&labels, t));
        // With patience 1 and adjacent exits only, the two are the same.
        let adjacent = dge(tau, 1)
            .with_divergence(Divergence::LabelMismatch)
            .with_window(Window::ADJACENT);
        prop_assert_eq!(sample.depth(adjacent), pabee_depth(&labels, 1));
    }

    #[test]
    fn only_evaluated_exits_count(
        (sample, kept) in single_label().prop_flat_map(|sample| {
            let inner: Vec<_> = (0..sample.count() - 1).collect();
            let count = inner.len();
            (Just(sample), subsequence(inner, 0..=count))
        }),
        tau in 0.1f64..2.0,
        t in 1usize..4,
        window in window(),
    ) {
        let blocks = sample.count();
        let mut kept = kept;
        kept.push(blocks - 1);
        let spec = PolicySpec::from(dge(tau, t).with_window(window));
        let outputs = sample.outputs().predictions;
        let evaluated: Vec<_> = kept.iter().map(|i| (Depth(i + 1), &outputs[*i])).collect();

        let all = spec.build(&ExitPlan::every_block(blocks), sample.kind).unwrap();
        let depth = feed(&all, &mut all.start(), &evaluated);

        let depths = kept.iter().map(|i| i + 1).collect();
        let plan = ExitPlan::new(depths, blocks).unwrap();
        let sparse = kept.iter().map(|i| outputs[*i].clone()).collect::<Vec<_>>();
        prop_assert_eq!(replay(&spec, &plan, &sparse).unwrap(), depth);

        // A model that has only these blocks says the same, counted in its own depths.
        let logits = kept.iter().map(|i| sample.logits[*i].clone());
        let small = Sample::new(sample.kind, logits.collect());
        prop_assert_eq!(kept[small.depth(spec) - 1] + 1, depth.0);
    }

    #[test]
    fn a_fixed_depth_exits_there_and_needs_no_other_exit(sample in sample(), wish in 1usize..14) {
        let depth = wish.min(sample.count());
        let spec = PolicySpec::from(FixedDepth::new(depth).unwrap());
        prop_assert_eq!(sample.depth(spec.clone()), depth);

        let plan = ExitPlan::every_block(sample.count());
        let policy = spec.build(&plan, sample.kind).unwrap();
        let needed: Vec<_> = plan.depths().iter().filter(|d| policy.needs(**d)).collect();
        prop_assert_eq!(needed, [&Depth(depth)]);
        let outputs = sample.outputs().predictions;
        let fed = [(Depth(depth), &outputs[depth - 1])];
        prop_assert_eq!(feed(&policy, &mut policy.start(), &fed), Depth(depth));
    }
}

/// A sure answer for each letter: A is class 0, B class 1.
fn trace(letters: &str) -> Sample {
    let logits = letters.bytes().map(|l| {
        if l == b'A' {
            vec![3.0, 0.0]
        } else {
            vec![0.0, 3.0]
        }
    });
    Sample::new(BINARY, logits.collect())
}

#[test]
fn dge_counts_all_earlier_exits_where_pabee_starts_anew() {
    let mismatch = |t| dge(1.0, t).with_divergence(Divergence::LabelMismatch);
    for (letters, t, dge_depth, pabee) in [
        // At exit 4 PABEE has counted 1, DGE 2.
        ("ABAAAA", 2, 4, 5),
        ("ABABAB", 1, 3, 6),
        ("ABABAB", 2, 5, 6),
        ("AAAAAA", 2, 3, 3),
        ("AAABBB", 3, 6, 6),
        ("ABAA", 2, 4, 4),
        ("ABAA", 3, 4, 4),
        ("A", 1, 1, 1),
    ] {
        let sample = trace(letters);
        assert_eq!(sample.depth(mismatch(t)), dge_depth, "{letters}, t={t}");
        assert_eq!(
            pabee_depth(&labels(&sample.outputs().predictions), t),
            pabee,
            "{letters}, t={t}"
        );
    }
}

#[test]
fn the_threshold_is_strict() {
    let logits = vec![vec![1.0], vec![1.5], vec![1.5]];
    let sample = Sample::new(PredictionKind::Regression, logits);
    assert_eq!(sample.depth(dge(0.5, 1)), 3);
    assert_eq!(sample.depth(dge(0.500_001, 1)), 2);
}

#[test]
fn regression_compares_with_all_earlier_numbers() {
    let values = [2.0, 3.0, 2.05, 3.02, 2.01];
    let logits = values.map(|y| vec![y]).to_vec();
    let sample = Sample::new(PredictionKind::Regression, logits);
    assert_eq!(sample.depth(dge(0.1, 1)), 3);
    assert_eq!(sample.depth(dge(0.03, 1)), 4);
    assert_eq!(sample.depth(dge(0.03, 1).with_window(Window::ADJACENT)), 5);
}

#[test]
fn an_unsure_exit_does_not_agree_with_itself_by_cross_entropy_but_does_by_kl() {
    let sample = Sample::new(BINARY, vec![vec![0.1, 0.0]; 4]);
    assert_eq!(sample.depth(dge(0.3, 1)), 4);
    assert_eq!(sample.depth(dge(0.3, 1).with_divergence(Divergence::Kl)), 2);
    assert_eq!(sample.depth(dge(0.7, 1)), 2);
}

#[test]
fn a_policy_says_why_it_exits() {
    // Logits whose softmax is (0.96, 0.04), (0.5, 0.5) and (0.9, 0.1).
    let exit = |p: f32| Prediction::from_logits(BINARY, &[p.ln(), (1.0 - p).ln()]).unwrap();
    let reasons = |text: &str, outputs: &[Prediction]| -> Vec<String> {
        let plan = ExitPlan::every_block(outputs.len());
        let policy = text
            .parse::<PolicySpec>()
            .unwrap()
            .build(&plan, BINARY)
            .unwrap();
        let mut state = policy.start();
        let mut reasons = vec![policy.reason(&state).to_string()];
        for (depth, output) in plan.depths().iter().zip(outputs) {
            let _ = policy.observe(&mut state, *depth, output);
            reasons.push(policy.reason(&state).to_string());
        }
        reasons
    };
    let outputs = [exit(0.5), exit(0.9), exit(0.96), exit(0.96), exit(0.5)];
    assert_eq!(
        reasons("dge:tau=0.3,t=2", &outputs),
        [
            "no exit has been observed",
            "0 of 2 earlier exits within 0.3",
            "0 of 2 earlier exits within 0.3",
            "1 of 2 earlier exits within 0.3: exit 2 (0.19)",
            "2 earlier exits within 0.3: exits 2, 3 (0.19, 0.17)",
            "the deepest exit; 0 of 2 earlier exits within 0.3",
        ]
    );
    assert_eq!(
        reasons("dge:tau=0.3,t=1,window=adjacent", &outputs[..3])[3],
        "1 earlier exit within 0.3: exit 2 (0.19)"
    );
    assert_eq!(
        reasons("fixed:2", &outputs)[1..3],
        [
            "the policy waits for a deeper exit",
            "the policy answers at exit 2"
        ]
    );
    assert_eq!(reasons("full", &outputs)[5], "the deepest exit");
}

#[test]
fn policies_can_be_shared_and_states_sent() {
    fn shared<T: Send + Sync>() {}
    shared::<Policy>();
    shared::<PolicyState>();
}

#[test]
#[should_panic(expected = "observed after exit")]
fn exits_are_observed_in_ascending_depth() {
    let policy = PolicySpec::Full
        .build(&ExitPlan::every_block(3), BINARY)
        .unwrap();
    let (mut state, output) = (policy.start(), Prediction::blank(BINARY).unwrap());
    let _ = policy.observe(&mut state, Depth(2), &output);
    let _ = policy.observe(&mut state, Depth(2), &output);
}

#[test]
#[should_panic(expected = "carries no exit")]
fn a_block_without_an_exit_is_not_observed() {
    let plan = ExitPlan::new(vec![2, 3], 3).unwrap();
    let policy = PolicySpec::Full.build(&plan, BINARY).unwrap();
    let _ = policy.observe(
        &mut policy.start(),
        Depth(1),
        &Prediction::blank(BINARY).unwrap(),
    );
}

#[test]
#[should_panic(expected = "another kind of answer")]
fn an_answer_of_another_kind_is_not_observed() {
    let policy = PolicySpec::Full
        .build(&ExitPlan::every_block(3), BINARY)
        .unwrap();
    let _ = policy.observe(&mut policy.start(), Depth(1), &Prediction::Regression(1.0));
}

#[test]
#[should_panic(expected = "answers NaN")]
fn a_number_that_is_none_is_not_observed() {
    let policy = PolicySpec::Full
        .build(&ExitPlan::every_block(3), PredictionKind::Regression)
        .unwrap();
    let _ = policy.observe(
        &mut policy.start(),
        Depth(1),
        &Prediction::Regression(f32::NAN),
    );
}

#[test]
#[should_panic(expected = "belongs to another policy than `entropy:0.2`")]
fn a_state_serves_the_policy_that_started_it() {
    let build = |text: &str| {
        let spec: PolicySpec = text.parse().unwrap();
        spec.build(&ExitPlan::every_block(3), BINARY).unwrap()
    };
    let mut state = build("maxprob:0.9").start();
    let output = Prediction::blank(BINARY).unwrap();
    let _ = build("entropy:0.2").observe(&mut state, Depth(1), &output);
}
