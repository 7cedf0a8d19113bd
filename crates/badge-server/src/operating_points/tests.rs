use badge_core::controller::PerClass;
use badge_core::distribution::PredictionKind;
use badge_core::exit::ExitPlan;

use super::*;
use crate::calibrated::tests::{calibration, certified, point, served};
use crate::governor::Observed;

/// What was measured, of which nothing is certified.
fn measured() -> ExitCalibration {
    let points = [
        point("full", 0.9, 5.0, false),
        point("maxprob:0.9", 0.89, 2.5, false),
        point("maxprob:0.6", 0.8, 1.25, false),
    ];
    calibration("maxprob:0.9", &serde_json::Value::Null, &points)
}

fn points(calibration: Option<ExitCalibration>) -> OperatingPoints {
    let kind = PredictionKind::SingleLabel { classes: 2 };
    let plan = ExitPlan::new(vec![2, 3, 5], 5).unwrap();
    let exits = if calibration.is_some() {
        ModelExits::new(ExitPlan::every_block(5), kind)
    } else {
        ModelExits::new(plan, kind)
    };
    let calibrated = calibration.map(|c| Calibrated::new(c, &served()));
    OperatingPoints::new(exits, calibrated, None).unwrap()
}

fn chosen(points: &OperatingPoints, terms: &PolicyTerms) -> String {
    let choice = points.choose(terms, None).unwrap();
    points.resolve(&choice, Ask::default()).spec().to_string()
}

fn refused(points: &OperatingPoints, terms: &PolicyTerms) -> String {
    points.choose(terms, None).unwrap_err().to_string()
}

#[test]
fn terms_become_policies_of_the_calibrated_table() {
    let points = points(Some(measured()));
    let none = PolicyTerms::default();
    assert_eq!(chosen(&points, &none), "maxprob:0.9");
    let speedup = |speedup| PolicyTerms {
        speedup: Some(speedup),
        ..none.clone()
    };
    assert_eq!(chosen(&points, &speedup(1.0)), "full");
    assert_eq!(chosen(&points, &speedup(1.5)), "maxprob:0.9");
    assert_eq!(chosen(&points, &speedup(4.0)), "maxprob:0.6");
    assert!(refused(&points, &speedup(4.5)).contains("4.00"));
    assert!(refused(&points, &speedup(f64::NAN)).contains("no speed-up"));
    let least = |least| PolicyTerms {
        min_accuracy: Some(least),
        ..none.clone()
    };
    assert_eq!(chosen(&points, &least(0.9)), "full");
    assert_eq!(chosen(&points, &least(0.85)), "maxprob:0.9");
    assert_eq!(chosen(&points, &least(0.1)), "maxprob:0.6");
    assert!(refused(&points, &least(0.95)).contains("0.9000"));
}

#[test]
fn what_runs_now_never_overrides_what_a_request_needs() {
    let points = points(Some(measured()));
    let least = PolicyTerms {
        min_accuracy: Some(0.85),
        ..PolicyTerms::default()
    };
    let choice = points.choose(&least, None).unwrap();
    for (row, policy) in [(0, "full"), (1, "maxprob:0.9"), (2, "maxprob:0.9")] {
        points.set(Current::Row(row));
        assert_eq!(
            points.resolve(&choice, Ask::default()).spec().to_string(),
            policy
        );
    }
    assert_eq!(chosen(&points, &PolicyTerms::default()), "maxprob:0.6");
}

#[test]
fn a_greatest_depth_is_rounded_to_an_exit() {
    let points = points(None);
    let terms = |depth| PolicyTerms {
        max_depth: Some(depth),
        ..PolicyTerms::default()
    };
    let choice = points.choose(&terms(4), None).unwrap();
    assert_eq!(choice.steering.depth_max, Some(Depth(3)));
    let refused = refused(&points, &terms(1));
    assert!(refused.contains("depth 2"), "{refused}");
}

#[test]
fn terms_that_make_no_sense_are_refused() {
    let points = points(None);
    let both = PolicyTerms {
        spec: Some("full".to_owned()),
        speedup: Some(2.0),
        ..PolicyTerms::default()
    };
    assert!(refused(&points, &both).contains("one of"));
    for (spec, problem) in [("nonsense", "no policy"), ("fixed:9", "fixed:9")] {
        let terms = PolicyTerms {
            spec: Some(spec.to_owned()),
            ..PolicyTerms::default()
        };
        let message = refused(&points, &terms);
        assert!(message.contains(problem), "{message}");
    }
    let speedup = PolicyTerms {
        speedup: Some(2.0),
        ..PolicyTerms::default()
    };
    assert!(refused(&points, &speedup).contains("not calibrated"));
    let typo = serde_json::from_str::<PolicyTerms>(r#"{"speed_up": 2}"#);
    assert!(typo.unwrap_err().to_string().contains("speed_up"));
}

/// Points whose controller's floor the audit has raised from `fixed:1` to `fixed:3`.
fn distrusted() -> OperatingPoints {
    let points = points(Some(certified()));
    points.govern(Duration::from_millis(50), None).unwrap();
    let governor = points.governor().unwrap();
    while !governor.audit().alarm {
        governor.audited(false);
    }
    points
}

/// The shallowest policy that a controller still chooses.
fn shallowest(points: &OperatingPoints) -> String {
    let governor = points.governor().unwrap();
    let observed = Observed {
        begun: 0.0,
        queued: PerClass {
            normal: 20_000.0,
            ..PerClass::default()
        },
        ..Observed::default()
    };
    let mut now = std::time::Instant::now();
    governor.stepped(100, Duration::from_millis(4));
    for _ in 0..20 {
        now += Duration::from_millis(25);
        governor.tick(now, &observed, Vec::new);
    }
    points.current_policy().spec().to_string()
}

#[test]
fn what_the_audit_has_found_outlives_promises_and_reloads() {
    let points_at = distrusted();
    assert_eq!(shallowest(&points_at), "fixed:3");
    // The same floor and another time; another floor; and a policy in between.
    let slow = Duration::from_millis(60);
    points_at.govern(slow, None).unwrap();
    assert_eq!(points_at.governor().unwrap().slo(), slow);
    assert_eq!(shallowest(&points_at), "fixed:3");
    points_at.govern(slow, Some(0.65)).unwrap();
    assert_eq!(shallowest(&points_at), "fixed:3");
    points_at.set(Current::Row(0));
    points_at.govern(slow, None).unwrap();
    assert_eq!(shallowest(&points_at), "fixed:3");
    assert!(points_at.governor().unwrap().audit().alarm);
    // The same model loaded anew, with a promise already or without one yet.
    for is_early in [true, false] {
        let reloaded = points(Some(certified()));
        if is_early {
            reloaded.govern(slow, None).unwrap();
        }
        reloaded.succeed(&points_at);
        reloaded.govern(slow, None).unwrap();
        assert_eq!(shallowest(&reloaded), "fixed:3");
    }
}

#[test]
fn a_model_that_is_calibrated_anew_begins_anew() {
    let anew = ExitCalibration {
        n: 400,
        ..certified()
    };
    let reloaded = points(Some(anew));
    reloaded.govern(Duration::from_millis(50), None).unwrap();
    reloaded.succeed(&distrusted());
    assert_eq!(shallowest(&reloaded), "fixed:1");
}

#[test]
fn a_controller_answers_for_what_it_chose_alone() {
    let points = points(Some(certified()));
    let is_the_models = |terms: PolicyTerms| {
        let choice = points.choose(&terms, None).unwrap();
        choice.is_left_to_the_model()
    };
    let none = PolicyTerms::default();
    assert!(is_the_models(none.clone()));
    for terms in [
        PolicyTerms {
            spec: Some("fixed:1".to_owned()),
            ..none.clone()
        },
        PolicyTerms {
            speedup: Some(2.0),
            ..none.clone()
        },
        PolicyTerms {
            min_accuracy: Some(0.1),
            ..none.clone()
        },
        PolicyTerms {
            max_depth: Some(1),
            ..none
        },
    ] {
        assert!(!is_the_models(terms.clone()), "{terms:?}");
    }
}
