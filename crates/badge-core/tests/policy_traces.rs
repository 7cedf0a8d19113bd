//! Policies on a few samples worked by hand: where they leave, what they say about it, and where
//! they might.

mod policy_sample;

use badge_core::distribution::PredictionKind;
use badge_core::exit::{Depth, ExitPlan};
use badge_core::policy::{Decision, ModelExits, Outlook, PolicySpec};

use policy_sample::{BINARY, Sample};

/// Logits whose softmax these are.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// A sample whose exits give class 1 these probabilities.
fn binary(probabilities: &[f32]) -> Sample {
    let exits = probabilities.iter().map(|p| logits(&[*p, 1.0 - p]));
    Sample::new(BINARY, exits.collect())
}

/// A sample whose exits name these classes: A, B or C.
fn labels(letters: &str) -> Sample {
    let exit = |letter: u8| {
        let class = |c| if letter == c { 3.0 } else { 0.0 };
        b"ABC".map(class).to_vec()
    };
    let kind = PredictionKind::SingleLabel { classes: 3 };
    Sample::new(kind, letters.bytes().map(exit).collect())
}

fn numbers(values: &[f32]) -> Sample {
    let exits = values.iter().map(|y| vec![*y]);
    Sample::new(PredictionKind::Regression, exits.collect())
}

/// Where a sample leaves under each policy.
fn check(sample: &Sample, expected: &[(&str, usize)]) {
    for (text, depth) in expected {
        let spec: PolicySpec = text.parse().unwrap();
        assert_eq!(sample.depth(spec), *depth, "{text}");
    }
}

/// What a policy says at each exit, up to where the sample leaves.
fn reasons(text: &str, sample: &Sample) -> Vec<String> {
    let spec: PolicySpec = text.parse().unwrap();
    let policy = spec.build_for(&sample.exits()).unwrap();
    let mut state = policy.start();
    let mut reasons = Vec::new();
    for (depth, output) in policy
        .plan()
        .depths()
        .iter()
        .zip(sample.outputs().observations())
    {
        let decision = policy.observe(&mut state, *depth, output);
        reasons.push(policy.reason(&state).to_string());
        if decision == Decision::Exit {
            break;
        }
    }
    reasons
}

#[test]
fn entropy_waits_for_a_sure_exit() {
    // H = 0.693, 0.611, 0.325, 0.168; over ln 2: 1, 0.881, 0.469, 0.242.
    let sample = binary(&[0.5, 0.7, 0.1, 0.96]);
    check(
        &sample,
        &[
            ("entropy:0.7", 1),
            ("entropy:0.69", 2),
            ("entropy:0.62", 2),
            ("entropy:0.6", 3),
            ("entropy:0.33", 3),
            ("entropy:0.3", 4),
            ("entropy:0", 4),
            ("entropy:1,normalised", 1),
            ("entropy:0.9,normalised", 2),
            ("entropy:0.5,normalised", 3),
            ("entropy:0.25,normalised", 4),
        ],
    );
    assert_eq!(
        reasons("entropy:0.5", &sample),
        [
            "entropy 0.69 is not below 0.5",
            "entropy 0.61 is not below 0.5",
            "entropy 0.33 is below 0.5",
        ]
    );
    assert_eq!(
        reasons("entropy:0.1,normalised", &sample)[2..],
        [
            "normalised entropy 0.47 is above 0.1",
            "the deepest exit; normalised entropy 0.24 is above 0.1",
        ]
    );
}

#[test]
fn plain_entropy_is_strict_and_the_normalised_form_is_not() {
    // Exactly uniform: entropy is ln 2 and its share is 1.
    let sample = Sample::new(BINARY, vec![vec![0.0, 0.0]; 3]);
    let ln_2 = f64::from(0.5f32.ln()).abs();
    check(&sample, &[(&format!("entropy:{ln_2}"), 3)]);
    check(&sample, &[(&format!("entropy:{}", ln_2.next_up()), 1)]);
    // An exit that is as sure as can be: entropy 0.
    let sure = Sample::new(BINARY, vec![vec![200.0, 0.0]; 3]);
    check(&sure, &[("entropy:0", 3), ("entropy:0,normalised", 1)]);
}

#[test]
fn maxprob_waits_for_a_probable_answer() {
    let sample = binary(&[0.5, 0.7, 0.1, 0.96]);
    check(
        &sample,
        &[
            ("maxprob:0.5", 1),
            ("maxprob:0.6", 2),
            ("maxprob:0.89", 3),
            ("maxprob:0.95", 4),
            ("maxprob:2", 4),
            // Odds of 9 to 1 become 3 to 1: probability 0.75.
            ("maxprob:0.74,temperatures=1/1/2/1", 3),
            ("maxprob:0.76,temperatures=1/1/2/1", 4),
            // Odds of 7 to 3 become 49 to 9: probability 0.845.
            ("maxprob:0.84,temperatures=1/0.5/1/1", 2),
            ("maxprob:0.85,temperatures=1/0.5/1/1", 3),
        ],
    );
    assert_eq!(
        reasons("maxprob:0.89", &sample),
        [
            "probability 0.50 is below 0.89",
            "probability 0.70 is below 0.89",
            "probability 0.90 reaches 0.89",
        ]
    );
}

#[test]
fn the_deepest_exit_answers_whatever_the_probability() {
    assert_eq!(
        reasons("maxprob:0.99", &binary(&[0.7]))[0],
        "the deepest exit; probability 0.70 is below 0.99"
    );
}

#[test]
fn patience_starts_anew_when_the_label_changes() {
    for (letters, depths) in [
        // Leaving with patience 1, 2, 3.
        ("AAAAAA", [2, 3, 4]),
        ("ABABAB", [6, 6, 6]),
        ("ABBCCC", [3, 6, 6]),
        ("AABBBB", [2, 5, 6]),
        ("ABCCCC", [4, 5, 6]),
        ("A", [1, 1, 1]),
    ] {
        for (t, depth) in (1..).zip(depths) {
            check(&labels(letters), &[(&format!("patience:{t}"), depth)]);
        }
    }
    assert_eq!(
        reasons("patience:2", &labels("AABBB")),
        [
            "0 of 2 agreements in a row",
            "1 of 2 agreements in a row",
            "0 of 2 agreements in a row",
            "1 of 2 agreements in a row",
            "2 agreements in a row",
        ]
    );
}

#[test]
fn patience_of_numbers_and_of_label_sets() {
    let sample = numbers(&[2.0, 3.0, 3.05, 3.5, 3.52, 3.53]);
    check(
        &sample,
        &[
            ("patience:1,tolerance=0.1", 3),
            ("patience:2,tolerance=0.1", 6),
            ("patience:2,tolerance=0.5", 4),
            ("patience:3,tolerance=0.5", 5),
            ("patience:1,tolerance=0.01", 6),
        ],
    );
    assert_eq!(
        reasons("patience:1,tolerance=0.1", &sample),
        [
            "0 of 1 agreements in a row",
            "0 of 1 agreements in a row; change 1.00 is not below 0.1",
            "1 agreements in a row; change 0.050 is below 0.1",
        ]
    );
    // One label of two changes at exit 2; at exit 3 none does, whatever the logits' size.
    let kind = PredictionKind::MultiLabel { labels: 2 };
    let sets = vec![
        vec![1.0, 1.0],
        vec![1.0, -1.0],
        vec![0.1, -9.0],
        vec![2.0, 2.0],
    ];
    check(
        &Sample::new(kind, sets),
        &[("patience:1", 3), ("patience:2", 4)],
    );
}

#[test]
fn learning_to_exit_goes_by_the_heads_doubt() {
    let mut sample = binary(&[0.99, 0.6, 0.5, 0.5]);
    sample.doubts = vec![0.4, 0.1, 0.04, 0.3];
    check(
        &sample,
        &[
            ("lte:0.5", 1),
            ("lte:0.4", 2), // 0.4 in f32 lies above 0.4
            ("lte:0.1", 3),
            ("lte:0.01", 4),
        ],
    );
    assert_eq!(
        reasons("lte:0.05", &sample)[1..],
        [
            "probability to continue 0.10 is not below 0.05",
            "probability to continue 0.040 is below 0.05",
        ]
    );
}

#[test]
fn pcee_counts_sure_exits_in_a_row_and_the_first_one_too() {
    // Normalised entropies 0.242, 0.881, 0.242, 0.469, 0.141.
    let sample = binary(&[0.96, 0.7, 0.04, 0.9, 0.98]);
    check(
        &sample,
        &[
            ("pcee:tau=0.25,t=1", 1),
            ("pcee:tau=0.2,t=1", 5),
            // Exits 3 and 4 are sure of different classes, which does not matter.
            ("pcee:tau=0.5,t=2", 4),
            ("pcee:tau=0.25,t=2", 5),
            ("pcee:tau=0.9,t=2", 2),
            ("pcee:tau=0.5,t=3", 5),
            ("pcee:tau=1.1,t=3", 3),
        ],
    );
    assert_eq!(
        reasons("pcee:tau=0.5,t=2", &sample),
        [
            "1 of 2 sure exits in a row; normalised entropy 0.24 is below 0.5",
            "0 of 2 sure exits in a row; normalised entropy 0.88 is not below 0.5",
            "1 of 2 sure exits in a row; normalised entropy 0.24 is below 0.5",
            "2 sure exits in a row; normalised entropy 0.47 is below 0.5",
        ]
    );
}

#[test]
fn flexible_patience_counts_close_exits_in_a_row() {
    // JS between neighbours: 0 at exits 2, 4 and 5; (0.9, 0.1) and (0.5, 0.5) are
    // H(0.7) - ½ H(0.9) - ½ H(0.5) = 0.6109 - 0.1625 - 0.3466 = 0.1018 apart.
    let sample = binary(&[0.5, 0.5, 0.9, 0.9, 0.9]);
    check(
        &sample,
        &[
            ("flexible-patience:tau=0.1,t=1", 2),
            ("flexible-patience:tau=0.1,t=2", 5),
            ("flexible-patience:tau=0.103,t=2", 3),
            ("flexible-patience:tau=0.103,t=3", 4),
            // KL(p_2 ‖ p_3) = ½ ln(0.5/0.9) + ½ ln(0.5/0.1) = 0.5108; the other way round 0.3681.
            ("flexible-patience:tau=0.5,t=2,divergence=kl", 5),
            ("flexible-patience:tau=0.52,t=2,divergence=kl", 3),
            ("flexible-patience:tau=0.36,t=2,divergence=rkl", 5),
            ("flexible-patience:tau=0.37,t=2,divergence=rkl", 3),
            // Cross-entropy of equals is their entropy: 0.693, then 0.325.
            ("flexible-patience:tau=0.4,t=1,divergence=ce", 4),
            ("flexible-patience:tau=0.7,t=1,divergence=ce", 2),
        ],
    );
    assert_eq!(
        reasons("flexible-patience:tau=0.1,t=2", &sample),
        [
            "0 of 2 agreements in a row",
            "1 of 2 agreements in a row; divergence 0.00 is below 0.1",
            "0 of 2 agreements in a row; divergence 0.10 is not below 0.1",
            "1 of 2 agreements in a row; divergence 0.00 is below 0.1",
            "2 agreements in a row; divergence 0.00 is below 0.1",
        ]
    );
    check(
        &numbers(&[1.0, 1.4, 1.2, 1.3]),
        &[("flexible-patience:tau=0.25,t=2", 4)],
    );
}

#[test]
fn votes_weigh_the_leader_against_the_number_of_voters() {
    // Leader's votes over √m: 1, 1.41, 1.15, 1.5, 1.79.
    let sample = labels("AABAA");
    check(
        &sample,
        &[
            ("vote:tau=1", 1),
            ("vote:tau=1.4", 2),
            ("vote:tau=1.45", 4),
            ("vote:tau=1.6", 5),
            ("vote:tau=3", 5),
            // The number of votes: 1, 2, 2, 3, 4.
            ("vote:tau=2,gamma=0", 2),
            ("vote:tau=3,gamma=0", 4),
            // Their share: the first exit has all.
            ("vote:tau=1,gamma=1", 1),
        ],
    );
    assert_eq!(
        reasons("vote:tau=1.45", &sample),
        [
            "1 of 1 exit agree; vote 1.00 is below 1.45",
            "2 of 2 exits agree; vote 1.41 is below 1.45",
            "2 of 3 exits agree; vote 1.15 is below 1.45",
            "3 of 4 exits agree; vote 1.50 reaches 1.45",
        ]
    );
    // Another class may catch up.
    check(
        &labels("ABBBB"),
        &[("vote:tau=1.7", 5), ("vote:tau=1.5", 4)],
    );
}

#[test]
fn the_outlook_is_as_sharp_as_the_rule_allows() {
    let plan = ExitPlan::new(vec![2, 3, 5, 6, 8], 8).unwrap();
    let exits = ModelExits::new(plan, BINARY).with_learning_to_exit();
    let outlook = |spec: &str| -> String {
        let spec: PolicySpec = spec.parse().unwrap();
        let policy = spec.build_for(&exits).unwrap();
        let letter = |depth| match policy.outlook(Depth(depth)) {
            Outlook::Never => '-',
            Outlook::Possible => '?',
            Outlook::Certain => '!',
        };
        (1..=8).map(letter).collect()
    };
    for (spec, expected) in [
        ("full", "-------!"),
        ("fixed:5", "----!--!"),
        ("dge:tau=0.3,t=1", "--?-??-!"),
        ("dge:tau=0.3,t=3", "-----?-!"),
        ("dge:tau=0.3,t=2,window=2", "----??-!"),
        ("dge:tau=0.3,t=2,window=adjacent", "-------!"),
        ("entropy:0.2", "-??-??-!"),
        ("entropy:0", "-------!"),
        ("entropy:0,normalised", "-??-??-!"),
        ("entropy:1,normalised", "-!!-!!-!"),
        ("maxprob:0.9", "-??-??-!"),
        ("maxprob:1.1", "-------!"),
        ("lte:0.1", "-??-??-!"),
        ("patience:1", "--?-??-!"),
        ("patience:3", "-----?-!"),
        ("flexible-patience:tau=0.1,t=2", "----??-!"),
        ("pcee:tau=0.1,t=1", "-??-??-!"),
        ("pcee:tau=0.1,t=3", "----??-!"),
        ("vote:tau=1", "-!!-!!-!"),
        ("vote:tau=1.5", "----??-!"), // 3 of 3 make 1.73, 2 of 2 only 1.41
        ("vote:tau=2.3", "-------!"),
    ] {
        assert_eq!(outlook(spec), expected, "{spec}");
    }
}
