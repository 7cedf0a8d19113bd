//! `exit_calibration.json`: what is written reads as the same value, and nonsense is refused.

use badge_core::Error;
use badge_core::calibration::{CALIBRATION_FILE, ExitCalibration, Goal};
use badge_core::distribution::PredictionKind;
use badge_core::exit::ExitPlan;
use serde_json::{Value, json};

const KIND: PredictionKind = PredictionKind::SingleLabel { classes: 2 };

/// The example of `docs/calibration.md`.
fn example() -> Value {
    json!({
        "version": 2,
        "policy": "dge:tau=0.1,t=2",
        "goal": {"max_drop": 0.02},
        "certificate": {
            "method": "ltt", "loss": "excess", "loss_scale": null, "epsilon": 0.02,
            "confidence": 0.95, "rows": 408, "chains": 11, "mean_loss": 0.0049
        },
        "points": [
            {"policy": "full", "score": 0.86, "mean_exit": 12.0, "layer_speedup": 1.0,
             "certified": true},
            {"policy": "dge:tau=0.1,t=2", "score": 0.855, "mean_exit": 8.0, "layer_speedup": 1.5,
             "certified": true},
            {"policy": "dge:tau=0.4,t=1", "score": 0.85, "mean_exit": 5.0, "layer_speedup": 2.4,
             "certified": false}
        ],
        "temperatures": [1.25, 1.5, 2.0],
        "data_set": "mrpc", "split": "dev", "split_sha256": "ab", "n": 408, "max_length": 128, "metric": "acc-f1",
        "full_score": 0.86, "model_sha256": "cd",
        "engine": "engine", "precision": "f32", "instruction_set": "avx2"
    })
}

fn read(value: &Value) -> Result<ExitCalibration, Error> {
    ExitCalibration::from_json(CALIBRATION_FILE, value.to_string().as_bytes())
}

#[test]
fn it_survives_its_text() {
    let calibration = read(&example()).unwrap();
    let again = ExitCalibration::from_json(CALIBRATION_FILE, &calibration.to_json()).unwrap();
    assert_eq!(again, calibration);
    assert_eq!(calibration.goal, Goal::MaxDrop(0.02));
    let written: Value = serde_json::from_slice(&calibration.to_json()).unwrap();
    assert_eq!(written, example());
}

#[test]
fn a_file_that_does_not_say_how_long_its_rows_were_is_read() {
    let mut silent = example();
    silent.as_object_mut().unwrap().remove("max_length");
    let calibration = read(&silent).unwrap();
    assert_eq!(calibration.max_length, None);
    let written: Value = serde_json::from_slice(&calibration.to_json()).unwrap();
    assert_eq!(written, silent);
}

#[test]
fn a_reader_finds_the_chosen_point_and_those_to_use_instead() {
    let calibration = read(&example()).unwrap();
    assert_eq!(calibration.chosen().layer_speedup, 1.5);
    let policies = |found: Option<&badge_core::calibration::OperatingPoint>| {
        found.map(|point| point.policy.to_string())
    };
    // What is not certified stands in nobody's place while others are.
    assert_eq!(calibration.usable().count(), 2);
    assert_eq!(
        policies(calibration.at_speedup(1.0)).as_deref(),
        Some("full")
    );
    assert_eq!(
        policies(calibration.at_speedup(1.2)).as_deref(),
        Some("dge:tau=0.1,t=2")
    );
    assert_eq!(policies(calibration.at_speedup(2.0)), None);
    let mut chosen_only = example();
    chosen_only["certificate"] = Value::Null;
    for point in chosen_only["points"].as_array_mut().unwrap() {
        point["certified"] = json!(false);
    }
    let calibration = read(&chosen_only).unwrap();
    assert_eq!(
        policies(calibration.at_speedup(2.0)).as_deref(),
        Some("dge:tau=0.4,t=1")
    );
}

#[test]
fn the_promise_says_how_sure_it_is_and_of_what() {
    let promise = |edit: &dyn Fn(&mut Value)| {
        let mut value = example();
        edit(&mut value["certificate"]);
        read(&value).unwrap().certificate.unwrap().promise()
    };
    assert_eq!(
        promise(&|_| {}),
        "With 95 % confidence the policy is wrong where the full model is right on at most 2 % of \
         new rows."
    );
    let in_expectation = |certificate: &mut Value| {
        certificate["method"] = json!("crc");
        certificate["confidence"] = Value::Null;
        certificate["loss"] = json!("disagreement");
        certificate["epsilon"] = json!(0.0125);
    };
    assert_eq!(
        promise(&in_expectation),
        "In expectation the policy answers otherwise than the full model on at most 1.25 % of new \
         rows."
    );
    assert_eq!(
        promise(&|certificate| certificate["loss_scale"] = json!(5.0)),
        "With 95 % confidence the policy is further from the truth than the full model by at most \
         0.1000 in the mean of new rows."
    );
}

#[test]
fn what_cannot_be_is_refused_by_its_key() {
    type Damage = fn(&mut Value);
    let cases: [(&str, Damage); 14] = [
        ("`version`: it is 1", |v| v["version"] = json!(1)),
        ("`version`: it is missing", |v| {
            *v = json!({"policy": "full"});
        }),
        ("`split`", |v| v["split"] = json!("test")),
        ("`n`", |v| v["n"] = json!(0)),
        ("`policy`: `fixed:3` is not among", |v| {
            v["policy"] = json!("fixed:3");
        }),
        ("`policy`: `dge:tau=0.4,t=1` is not certified", |v| {
            v["policy"] = json!("dge:tau=0.4,t=1");
        }),
        ("`points`: `full` is certified without", |v| {
            v["certificate"] = Value::Null;
        }),
        ("`points`: `full` has", |v| {
            v["points"][0]["mean_exit"] = json!(0.5);
        }),
        ("`temperatures`", |v| v["temperatures"][1] = json!(-1.0)),
        ("`certificate`: `epsilon`", |v| {
            v["certificate"]["epsilon"] = json!(1.5);
        }),
        ("`certificate`: ltt", |v| {
            v["certificate"]["confidence"] = Value::Null;
        }),
        ("`certificate`: ltt", |v| {
            v["certificate"]["confidence"] = json!(1.0);
        }),
        ("`psychic`", |v| v["policy"] = json!("psychic")),
        ("unknown field `extra`", |v| v["extra"] = json!(1)),
    ];
    for (words, damage) in cases {
        let mut value = example();
        damage(&mut value);
        let told = read(&value).unwrap_err().to_string();
        assert!(
            told.contains(words) && told.contains(CALIBRATION_FILE),
            "{words}: {told}"
        );
    }
    let told = ExitCalibration::from_json(CALIBRATION_FILE, b"tau").unwrap_err();
    assert!(told.to_string().contains("not valid JSON"), "{told}");
}

#[test]
fn it_belongs_to_a_model_with_these_exits() {
    let calibration = read(&example()).unwrap();
    let check = |exits| calibration.check(CALIBRATION_FILE, &ExitPlan::every_block(exits), KIND);
    assert!(check(3).is_ok());
    let told = check(4).unwrap_err().to_string();
    assert!(
        told.contains("there are 3, but the model has 4 exits"),
        "{told}"
    );
    let mut fixed = example();
    fixed["points"][2]["policy"] = json!("fixed:7");
    let calibration = read(&fixed).unwrap();
    let told = calibration.check(CALIBRATION_FILE, &ExitPlan::every_block(3), KIND);
    assert!(told.unwrap_err().to_string().contains("fixed:7"));
}
