//! The text of policies: what is accepted, what it round-trips to, what is refused and why.

use badge_core::distribution::PredictionKind;
use badge_core::divergence::Divergence;
use badge_core::exit::ExitPlan;
use badge_core::policy::{
    DivergenceBased, Entropy, FixedDepth, FlexiblePatience, LearningToExit, MaxProbability,
    ModelExits, Patience, PatientConfident, PolicySpec, Temperatures, Vote, Window,
};
use proptest::collection::vec;
use proptest::prelude::*;

const BINARY: PredictionKind = PredictionKind::SingleLabel { classes: 2 };

fn divergence() -> impl Strategy<Value = Divergence> {
    proptest::sample::select(Divergence::all().collect::<Vec<_>>())
}

fn dge() -> impl Strategy<Value = PolicySpec> {
    let window = prop_oneof![
        Just(Window::All),
        Just(Window::ADJACENT),
        (1usize..40).prop_map(|n| Window::Last(n.try_into().unwrap())),
    ];
    (f64::MIN_POSITIVE..1e9, 1usize..100, divergence(), window).prop_map(
        |(tau, t, divergence, window)| {
            let policy = DivergenceBased::new(tau, t).unwrap();
            policy
                .with_divergence(divergence)
                .with_window(window)
                .into()
        },
    )
}

fn maxprob() -> impl Strategy<Value = PolicySpec> {
    let temperatures = vec(f64::MIN_POSITIVE..1e3, 0..14);
    (f64::MIN_POSITIVE..2.0, temperatures).prop_map(|(threshold, temperatures)| {
        let rule = MaxProbability::new(threshold).unwrap();
        if temperatures.is_empty() {
            return rule.into();
        }
        rule.with_temperatures(&temperatures).unwrap().into()
    })
}

fn spec() -> impl Strategy<Value = PolicySpec> {
    let number = || f64::MIN_POSITIVE..1e3;
    let entropy = (0f64..1e3, any::<bool>()).prop_map(|(threshold, normalised)| {
        let rule = Entropy::new(threshold).unwrap();
        if normalised { rule.normalised() } else { rule }.into()
    });
    let patience = (1usize..100, proptest::option::of(number())).prop_map(|(t, tolerance)| {
        let rule = Patience::new(t).unwrap();
        tolerance
            .map_or(rule, |tolerance| rule.with_tolerance(tolerance).unwrap())
            .into()
    });
    let flexible = (number(), 1usize..100, divergence()).prop_map(|(tau, t, divergence)| {
        FlexiblePatience::new(tau, t)
            .unwrap()
            .with_divergence(divergence)
            .into()
    });
    let vote = (number(), 0f64..=1.0)
        .prop_map(|(tau, gamma)| Vote::new(tau).unwrap().with_gamma(gamma).unwrap().into());
    prop_oneof![
        Just(PolicySpec::Full),
        (1usize..100).prop_map(|depth| FixedDepth::new(depth).unwrap().into()),
        entropy,
        maxprob(),
        patience,
        (f64::MIN_POSITIVE..=1.0).prop_map(|th| LearningToExit::new(th).unwrap().into()),
        dge(),
        (number(), 1usize..100).prop_map(|(tau, t)| PatientConfident::new(tau, t).unwrap().into()),
        flexible,
        vote,
    ]
}

proptest! {
    #[test]
    fn every_policy_round_trips_through_its_text(spec in spec()) {
        let text = spec.to_string();
        prop_assert_eq!(&text.parse::<PolicySpec>().unwrap(), &spec);
        let json = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(&json, &format!("\"{text}\""));
        prop_assert_eq!(serde_json::from_str::<PolicySpec>(&json).unwrap(), spec);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(dge|fixed|full|entropy|maxprob|patience|lte|pcee|flexible-patience|vote)?\
                 [:=,./0-9a-z -]{0,24}",) {
        if let Ok(spec) = text.parse::<PolicySpec>() {
            prop_assert_eq!(spec.to_string().parse::<PolicySpec>().unwrap(), spec);
        }
    }
}

#[test]
fn accepted_texts_have_one_canonical_form() {
    for (text, canonical) in [
        ("full", "full"),
        ("fixed:6", "fixed:6"),
        ("dge:tau=0.3,t=2", "dge:tau=0.3,t=2"),
        ("dge:t=2,tau=0.30", "dge:tau=0.3,t=2"),
        (
            "dge:tau=3e-1,t=2,divergence=ce,window=all",
            "dge:tau=0.3,t=2",
        ),
        (
            "dge:tau=0.3,t=2,window=1",
            "dge:tau=0.3,t=2,window=adjacent",
        ),
        (
            "dge:tau=0.3,t=2,window=adjacent",
            "dge:tau=0.3,t=2,window=adjacent",
        ),
        (
            "dge:window=3,divergence=js,t=2,tau=1",
            "dge:tau=1,t=2,divergence=js,window=3",
        ),
        (
            "dge:tau=1,t=1,divergence=mismatch",
            "dge:tau=1,t=1,divergence=mismatch",
        ),
        ("entropy:0.20", "entropy:0.2"),
        ("entropy:-0", "entropy:0"),
        ("entropy:0.2,normalised", "entropy:0.2,normalised"),
        ("maxprob:9e-1", "maxprob:0.9"),
        (
            "maxprob:0.9,temperatures=1.30/1/0.5",
            "maxprob:0.9,temperatures=1.3/1/0.5",
        ),
        (
            "maxprob:0.9,temperatures=calibrated",
            "maxprob:0.9,temperatures=calibrated",
        ),
        ("patience:3", "patience:3"),
        ("patience:3,tolerance=.1", "patience:3,tolerance=0.1"),
        ("lte:0.1", "lte:0.1"),
        ("pcee:t=2,tau=0.2", "pcee:tau=0.2,t=2"),
        (
            "flexible-patience:tau=0.1,t=2,divergence=js",
            "flexible-patience:tau=0.1,t=2",
        ),
        (
            "flexible-patience:divergence=kl,t=2,tau=0.1",
            "flexible-patience:tau=0.1,t=2,divergence=kl",
        ),
        ("vote:tau=1.5,gamma=0.5", "vote:tau=1.5"),
        ("vote:gamma=0,tau=2", "vote:tau=2,gamma=0"),
    ] {
        assert_eq!(
            text.parse::<PolicySpec>().unwrap().to_string(),
            canonical,
            "{text}"
        );
    }
}

/// Each text is refused, and the message says all that it must.
fn check_refused(cases: &[(&str, &[&str])]) {
    for (text, parts) in cases {
        let message = text.parse::<PolicySpec>().unwrap_err().to_string();
        let start = format!("policy `{text}`: ");
        assert!(message.starts_with(&start), "{message}");
        for part in *parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}

#[test]
fn impossible_texts_are_refused_with_the_key_that_is_wrong() {
    check_refused(&[
        ("", &["there is no policy", "dge:tau=TAU,t=COUNT"][..]),
        ("Full", &["there is no policy `Full`", "full"]),
        (" full", &["there is no policy"]),
        ("badge:tau=1", &["there is no policy `badge`"]),
        ("full:", &["nothing stands"]),
        ("full:3", &["no bare value", "`3`"]),
        ("full:depth=3", &["key `depth` is unknown", "no keys"]),
        ("fixed", &["`depth` is missing", "fixed:6"]),
        ("fixed:", &["nothing stands"]),
        ("fixed:0", &["key `depth`", "count from 1"]),
        ("fixed:-1", &["key `depth`", "`-1`"]),
        ("fixed:six", &["key `depth`", "`six`"]),
        ("fixed:6.0", &["key `depth`", "`6.0`"]),
        ("fixed:6,7", &["`7`", "key=value"]),
        ("fixed:6,t=2", &["key `t` is unknown"]),
        ("fixed:99999999999999999999", &["key `depth`"]),
        ("dge", &["key `tau` is missing"]),
        ("dge:tau=0.3", &["key `t` is missing"]),
        ("dge:t=2", &["key `tau` is missing"]),
        ("dge:0.3,t=2", &["key `tau` is missing"]),
        ("dge:0.3,tau=0.3,t=2", &["no bare value", "`0.3`"]),
        ("dge:tau=nan,t=2", &["key `tau`", "NaN", "finite"]),
        ("dge:tau=inf,t=2", &["key `tau`", "finite"]),
        ("dge:tau=1e999,t=2", &["key `tau`", "finite"]),
        ("dge:tau=0,t=2", &["key `tau`", "positive"]),
        ("dge:tau=-0.0,t=2", &["key `tau`", "positive"]),
        ("dge:tau=-0.3,t=2", &["key `tau`", "positive"]),
        ("dge:tau=,t=2", &["key `tau` has no value"]),
        ("dge:tau=low,t=2", &["key `tau`", "`low`"]),
        ("dge:tau=0.3,t=0", &["key `t`", "0"]),
        ("dge:tau=0.3,t=1.5", &["key `t`", "`1.5`"]),
        ("dge:tau=0.3,t=-2", &["key `t`", "`-2`"]),
        ("dge:tau=0.3,t=2,t=3", &["key `t` is given twice"]),
        (
            "dge:tau=0.3,t=2,patience=3",
            &["key `patience` is unknown", "tau, t, divergence, window"],
        ),
        (
            "dge:tau=0.3,t=2,divergence=cos",
            &["key `divergence`", "`cos`", "symkl"],
        ),
        ("dge:tau=0.3,t=2,window=0", &["key `window`", "`0`"]),
        (
            "dge:tau=0.3,t=2,window=none",
            &["key `window`", "`none`", "adjacent"],
        ),
        ("dge:tau=0.3,,t=2", &["nothing stands"]),
        ("dge:tau=0.3,t=2,", &["nothing stands"]),
        ("dge:tau=0.3, t=2", &["key `t` is missing"]),
    ]);
}

#[test]
fn impossible_confidences_are_refused_with_the_key_that_is_wrong() {
    check_refused(&[
        ("entropy", &["`threshold` is missing", "entropy:0.2"][..]),
        ("entropy:nan", &["key `threshold`", "NaN", "finite"]),
        ("entropy:-0.1", &["key `threshold`", "-0.1"]),
        ("entropy:inf", &["key `threshold`", "finite"]),
        ("entropy:0.2,normalized", &["`normalized`", "key=value"]),
        (
            "entropy:0.2,normalised,normalised",
            &["`normalised` is given twice"],
        ),
        (
            "entropy:0.2,normalised=yes",
            &["key `normalised` is unknown"],
        ),
        (
            "entropy:normalised",
            &["key `threshold`", "`normalised` is not a number"],
        ),
        ("maxprob", &["`threshold` is missing", "maxprob:0.9"]),
        ("maxprob:0", &["key `threshold`", "positive"]),
        ("maxprob:nan", &["key `threshold`", "NaN"]),
        (
            "maxprob:0.9,temperatures=",
            &["key `temperatures` has no value"],
        ),
        (
            "maxprob:0.9,temperatures=hot",
            &["key `temperatures`", "`hot`", "calibrated"],
        ),
        (
            "maxprob:0.9,temperatures=1/0/1",
            &["key `temperatures`", "0 is not a positive"],
        ),
        (
            "maxprob:0.9,temperatures=1//1",
            &["key `temperatures`", "``"],
        ),
        (
            "maxprob:0.9,temperatures=nan",
            &["key `temperatures`", "NaN"],
        ),
    ]);
}

#[test]
fn impossible_patiences_are_refused_with_the_key_that_is_wrong() {
    check_refused(&[
        ("patience", &["`t` is missing", "patience:3"][..]),
        ("patience:0", &["key `t`", "fixed:1"]),
        ("patience:1.5", &["key `t`", "`1.5`"]),
        ("patience:3,tolerance=0", &["key `tolerance`", "positive"]),
        (
            "patience:3,tolerance=nan",
            &["key `tolerance`", "NaN", "positive"],
        ),
        ("patience:3,tau=0.1", &["key `tau` is unknown", "tolerance"]),
        ("lte", &["`threshold` is missing", "lte:0.1"]),
        ("lte:0", &["key `threshold`", "positive"]),
        ("lte:1.01", &["key `threshold`", "above 1"]),
        ("lte:nan", &["key `threshold`", "NaN"]),
        ("lte:0.1,t=2", &["key `t` is unknown", "no keys"]),
        ("pcee:0.2", &["key `tau` is missing"]),
        ("pcee:tau=0.2", &["key `t` is missing"]),
        ("pcee:tau=0,t=2", &["key `tau`", "positive"]),
        ("pcee:tau=0.2,t=0", &["key `t`", "0"]),
        (
            "pcee:tau=0.2,t=2,ensemble=1",
            &["key `ensemble` is unknown", "tau, t"],
        ),
        ("flexible-patience", &["key `tau` is missing"]),
        ("flexible-patience:tau=nan,t=2", &["key `tau`", "NaN"]),
        ("flexible-patience:tau=0.1,t=0", &["key `t`", "0"]),
        (
            "flexible-patience:tau=0.1,t=2,divergence=l2",
            &["key `divergence`", "`l2`", "symkl"],
        ),
        (
            "flexible-patience:tau=0.1,t=2,window=all",
            &["key `window` is unknown", "tau, t, divergence"],
        ),
        ("vote:0.5", &["key `tau` is missing"]),
        ("vote:tau=-1", &["key `tau`", "positive"]),
        ("vote:tau=1.5,gamma=1.1", &["key `gamma`", "0..=1"]),
        ("vote:tau=1.5,gamma=nan", &["key `gamma`", "NaN"]),
    ]);
}

#[test]
fn a_model_that_cannot_run_a_policy_is_refused_when_it_is_built() {
    let plan = ExitPlan::every_block(3);
    let numbers = PredictionKind::Regression;
    let sets = PredictionKind::MultiLabel { labels: 3 };
    for (text, kind, parts) in [
        (
            "lte:0.1",
            BINARY,
            &["no learning-to-exit head", "--lte"][..],
        ),
        ("entropy:0.2", numbers, &["no probability", "patience"]),
        ("maxprob:0.9", numbers, &["no probability", "dge"]),
        ("pcee:tau=0.2,t=2", numbers, &["no probability"]),
        (
            "vote:tau=1.5",
            numbers,
            &["vote for one class", "regression"],
        ),
        ("vote:tau=1.5", sets, &["vote for one class", "multi-label"]),
        (
            "patience:2",
            numbers,
            &["key `tolerance` is missing", "patience:2,tolerance=0.1"],
        ),
        (
            "maxprob:0.9,temperatures=1/2",
            BINARY,
            &["key `temperatures`", "2 for 3 exits"],
        ),
        (
            "maxprob:0.9,temperatures=calibrated",
            BINARY,
            &[
                "key `temperatures`",
                "no calibrated temperatures",
                "1.3/1.1/0.9",
            ],
        ),
    ] {
        let spec: PolicySpec = text.parse().unwrap();
        let message = spec.build(&plan, kind).unwrap_err().to_string();
        let start = format!("policy `{text}`: ");
        assert!(message.starts_with(&start), "{message}");
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
    for (text, kind) in [
        ("entropy:0.2", sets),
        ("maxprob:0.9", sets),
        ("pcee:tau=0.2,t=2", sets),
        ("patience:2", sets),
        ("patience:2,tolerance=0.1", numbers),
        ("flexible-patience:tau=0.1,t=2", numbers),
        ("dge:tau=0.1,t=2", numbers),
    ] {
        let spec: PolicySpec = text.parse().unwrap();
        assert!(spec.build(&plan, kind).is_ok(), "{text}");
    }
}

#[test]
fn calibrated_temperatures_are_written_into_the_policy() {
    let exits = ModelExits::new(ExitPlan::every_block(3), BINARY);
    let exits = exits.with_temperatures(vec![1.5, 1.25, 1.0]).unwrap();
    let spec: PolicySpec = "maxprob:0.9,temperatures=calibrated".parse().unwrap();
    let policy = spec.build_for(&exits).unwrap();
    assert_eq!(
        policy.spec().to_string(),
        "maxprob:0.9,temperatures=1.5/1.25/1"
    );
    // What is given in numbers stays, and what is not asked for is not taken.
    for text in ["maxprob:0.9,temperatures=2/2/2", "maxprob:0.9"] {
        let spec: PolicySpec = text.parse().unwrap();
        assert_eq!(*spec.build_for(&exits).unwrap().spec(), spec);
    }
    for (bad, told) in [
        (vec![1.0, 1.0], "2 for 3 exits"),
        (vec![1.0, 0.0, 1.0], "0 is not a positive"),
        (vec![1.0, f64::NAN, 1.0], "NaN is not a positive"),
    ] {
        let exits = ModelExits::new(ExitPlan::every_block(3), BINARY);
        let message = exits.with_temperatures(bad).unwrap_err().to_string();
        assert!(
            message.contains("exit_calibration.json: key `temperatures`") && message.contains(told),
            "{message}"
        );
    }
}

#[test]
fn a_fixed_depth_must_be_an_exit_of_the_model() {
    let plan = ExitPlan::new(vec![2, 4, 8, 12], 12).unwrap();
    let build = |text: &str| text.parse::<PolicySpec>().unwrap().build(&plan, BINARY);
    assert!(build("fixed:8").is_ok() && build("fixed:12").is_ok());
    let message = build("fixed:6").unwrap_err().to_string();
    assert!(
        message.contains("`depth`") && message.contains("2, 4, 8, 12"),
        "{message}"
    );
    let message = build("fixed:13").unwrap_err().to_string();
    assert!(
        message.contains("`depth`") && message.contains("1..=12"),
        "{message}"
    );
}

#[test]
fn constructors_refuse_what_the_text_refuses() {
    for (tau, t) in [
        (f64::NAN, 1),
        (f64::INFINITY, 1),
        (0.0, 1),
        (-1.0, 1),
        (0.5, 0),
    ] {
        let message = DivergenceBased::new(tau, t).unwrap_err().to_string();
        assert!(
            message.contains(&format!("dge:tau={tau},t={t}")),
            "{message}"
        );
    }
    let told = |error: badge_core::Error| error.to_string();
    let maxprob = || MaxProbability::new(0.9).unwrap();
    for (message, spec) in [
        (FixedDepth::new(0).map_err(told).map(drop), "fixed:0"),
        (
            Entropy::new(f64::NAN).map_err(told).map(drop),
            "entropy:NaN",
        ),
        (
            MaxProbability::new(0.0).map_err(told).map(drop),
            "maxprob:0",
        ),
        (
            maxprob()
                .with_temperatures(&[1.0, -1.0])
                .map_err(told)
                .map(drop),
            "maxprob:0.9,temperatures=1/-1",
        ),
        (
            maxprob().with_temperatures(&[]).map_err(told).map(drop),
            "maxprob:0.9,temperatures=",
        ),
        (Patience::new(0).map_err(told).map(drop), "patience:0"),
        (
            Patience::new(2)
                .unwrap()
                .with_tolerance(0.0)
                .map_err(told)
                .map(drop),
            "patience:2,tolerance=0",
        ),
        (LearningToExit::new(1.5).map_err(told).map(drop), "lte:1.5"),
        (
            PatientConfident::new(0.2, 0).map_err(told).map(drop),
            "pcee:tau=0.2,t=0",
        ),
        (
            FlexiblePatience::new(0.0, 2).map_err(told).map(drop),
            "flexible-patience:tau=0,t=2",
        ),
        (Vote::new(0.0).map_err(told).map(drop), "vote:tau=0"),
        (
            Vote::new(1.5)
                .unwrap()
                .with_gamma(2.0)
                .map_err(told)
                .map(drop),
            "vote:tau=1.5,gamma=2",
        ),
    ] {
        let message = message.unwrap_err();
        assert!(message.contains(&format!("policy `{spec}`: ")), "{message}");
    }
    let kept = maxprob().with_temperatures(&[1.0, 2.0]).unwrap();
    assert_eq!(*kept.temperatures(), Temperatures::PerExit(vec![1.0, 2.0]));
}

#[test]
fn a_policy_is_not_built_for_answers_without_logits() {
    let plan = ExitPlan::every_block(3);
    let kind = PredictionKind::SingleLabel { classes: 0 };
    assert!(PolicySpec::Full.build(&plan, kind).is_err());
}

/// What is said about each policy on a model with four exits: nothing, or one sentence.
fn check_caveats(cases: &[(&str, PredictionKind, Option<&str>)]) {
    for (text, kind, caveat) in cases {
        let spec: PolicySpec = text.parse().unwrap();
        let policy = spec.build(&ExitPlan::every_block(4), *kind).unwrap();
        let caveats = policy.caveats();
        match caveat {
            None => assert!(caveats.is_empty(), "{text}: {caveats:?}"),
            Some(part) => assert!(
                caveats.len() == 1 && caveats[0].contains(part),
                "{text}: {caveats:?}"
            ),
        }
    }
}

#[test]
fn dge_that_can_hardly_be_meant_has_a_caveat() {
    let multi_label = PredictionKind::MultiLabel { labels: 3 };
    check_caveats(&[
        ("full", BINARY, None),
        ("fixed:2", BINARY, None),
        ("dge:tau=0.3,t=2", BINARY, None),
        ("dge:tau=0.3,t=3", BINARY, None),
        ("dge:tau=0.3,t=4", BINARY, Some("t=4 is never reached")),
        (
            "dge:tau=0.3,t=2,window=adjacent",
            BINARY,
            Some("compared with 1 earlier"),
        ),
        ("dge:tau=0.7,t=2", BINARY, Some("above 0.693")),
        (
            "dge:tau=0.7,t=2",
            PredictionKind::SingleLabel { classes: 3 },
            None,
        ),
        ("dge:tau=2,t=2", multi_label, None),
        ("dge:tau=2.1,t=2", multi_label, Some("above 2.079")),
        (
            "dge:tau=0.7,t=2,divergence=js",
            BINARY,
            Some("all exits agree"),
        ),
        ("dge:tau=9,t=2,divergence=kl", BINARY, None),
        ("dge:tau=9,t=2", PredictionKind::Regression, None),
        (
            "dge:tau=9,t=2,divergence=kl",
            PredictionKind::Regression,
            Some("does nothing"),
        ),
    ]);
}

#[test]
fn a_policy_that_can_hardly_be_meant_has_a_caveat() {
    let multi_label = PredictionKind::MultiLabel { labels: 3 };
    check_caveats(&[
        ("entropy:0.69", BINARY, None),
        ("entropy:0.7", BINARY, Some("leaves at the first exit")),
        ("entropy:2", multi_label, None),
        ("entropy:2.1", multi_label, Some("leaves at the first exit")),
        ("entropy:0", BINARY, Some("no entropy is below 0")),
        ("entropy:0,normalised", BINARY, None),
        ("entropy:1,normalised", BINARY, Some("than 1.000")),
        ("maxprob:1", BINARY, None),
        ("maxprob:1.1", BINARY, Some("no probability is above 1")),
        ("patience:3", BINARY, None),
        ("patience:4", BINARY, Some("t=4 is never reached")),
        (
            "patience:3,tolerance=0.1",
            BINARY,
            Some("tolerance=0.1 does nothing"),
        ),
        ("patience:3,tolerance=0.1", PredictionKind::Regression, None),
        ("pcee:tau=0.2,t=4", BINARY, None),
        ("pcee:tau=0.2,t=5", BINARY, Some("t=5 is never reached")),
        ("pcee:tau=1.1,t=2", BINARY, Some("every exit is sure")),
        ("flexible-patience:tau=0.6,t=3", BINARY, None),
        (
            "flexible-patience:tau=0.6,t=4",
            BINARY,
            Some("t=4 is never reached"),
        ),
        (
            "flexible-patience:tau=0.7,t=2",
            BINARY,
            Some("all exits agree"),
        ),
        ("flexible-patience:tau=0.7,t=2,divergence=ce", BINARY, None),
        (
            "flexible-patience:tau=0.7,t=2,divergence=kl",
            PredictionKind::Regression,
            Some("does nothing"),
        ),
        ("vote:tau=1.5", BINARY, None),
        ("vote:tau=1", BINARY, Some("reached by one vote")),
        ("vote:tau=2", BINARY, None),
        ("vote:tau=2.1", BINARY, Some("not reached by 4 exits")),
    ]);
}
