//! The text of policies: what is accepted, what it round-trips to, what is refused and why.

use badge_core::distribution::PredictionKind;
use badge_core::divergence::Divergence;
use badge_core::exit::ExitPlan;
use badge_core::policy::{DivergenceBased, FixedDepth, PolicySpec, Window};
use proptest::prelude::*;

const BINARY: PredictionKind = PredictionKind::SingleLabel { classes: 2 };

fn spec() -> impl Strategy<Value = PolicySpec> {
    let divergence = proptest::sample::select(Divergence::all().collect::<Vec<_>>());
    let window = prop_oneof![
        Just(Window::All),
        Just(Window::ADJACENT),
        (1usize..40).prop_map(|n| Window::Last(n.try_into().unwrap())),
    ];
    let dge = (f64::MIN_POSITIVE..1e9, 1usize..100, divergence, window).prop_map(
        |(tau, t, divergence, window)| {
            let policy = DivergenceBased::new(tau, t).unwrap();
            policy
                .with_divergence(divergence)
                .with_window(window)
                .into()
        },
    );
    prop_oneof![
        Just(PolicySpec::Full),
        (1usize..100).prop_map(|depth| FixedDepth::new(depth).unwrap().into()),
        dge,
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
    fn no_text_makes_the_parser_panic(text in "(dge|fixed|full)?[:=,.0-9a-z -]{0,24}") {
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
    ] {
        assert_eq!(
            text.parse::<PolicySpec>().unwrap().to_string(),
            canonical,
            "{text}"
        );
    }
}

#[test]
fn impossible_texts_are_refused_with_the_key_that_is_wrong() {
    for (text, parts) in [
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
    ] {
        let message = text.parse::<PolicySpec>().unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("policy `{text}`: ")),
            "{message}"
        );
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}

#[test]
fn policies_of_later_versions_are_refused_as_such() {
    for text in [
        "entropy:0.2",
        "entropy:0.2,normalised",
        "maxprob:0.9",
        "patience:3",
        "lte:0.1",
        "pcee:tau=0.2,t=2",
        "flexible-patience:tau=0.2,t=2",
        "vote:0.5",
    ] {
        let name = text.split(':').next().unwrap();
        let message = text.parse::<PolicySpec>().unwrap_err().to_string();
        assert!(
            message.contains("this version does not have the policy"),
            "{message}"
        );
        assert!(
            message.contains(&format!("`{name}`")) && message.contains("dge:"),
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
    assert!(
        FixedDepth::new(0)
            .unwrap_err()
            .to_string()
            .contains("`fixed:0`")
    );
}

#[test]
fn a_policy_is_not_built_for_answers_without_logits() {
    let plan = ExitPlan::every_block(3);
    let kind = PredictionKind::SingleLabel { classes: 0 };
    assert!(PolicySpec::Full.build(&plan, kind).is_err());
}

#[test]
fn a_policy_that_can_hardly_be_meant_has_a_caveat() {
    let multi_label = PredictionKind::MultiLabel { labels: 3 };
    for (text, kind, caveat) in [
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
    ] {
        let spec: PolicySpec = text.parse().unwrap();
        let caveats = spec
            .build(&ExitPlan::every_block(4), kind)
            .unwrap()
            .caveats();
        match caveat {
            None => assert!(caveats.is_empty(), "{text}: {caveats:?}"),
            Some(part) => {
                assert!(
                    caveats.len() == 1 && caveats[0].contains(part),
                    "{text}: {caveats:?}"
                );
            }
        }
    }
}
